"""`fit --target`: unlabelled pictures of the place of use, for a head that travels to them.

Where a linear head tells them from the images that teach, the early stages are left out, which know light and colour
better than things, and the mean of theirs takes the place of ours (heads/aligned.py). The scores stay those of the
images with labels, before that: what is right at the place of use nobody can say without labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart import recipe
from headstart.counted import counted
from headstart.data.table import Table, list_images
from headstart.data.targets import class_numbers
from headstart.errors import DataError, OptionError
from headstart.heads.aligned import aligned
from headstart.heads.apart import LEAST, Apart, apart
from headstart.heads.material import Blocks, Ints, Material
from headstart.heads.probe import Probe
from headstart.heads.taps import LAST
from headstart.story.opening import Options, Watcher, features_of
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.task import Head, Task
from headstart.trunk.engine import Engine
from headstart.trunk.network import Backbone

TAPS = "late"  # what heads read where pictures are of another kind


@dataclass(frozen=True)
class Target:
    """Unlabelled pictures: block -> (image, feature), and how well they are told from the images that teach. `off`: how
    far the shares of the answers were off before and after alignment, `kept` or not; None where nothing was aligned."""

    blocks: Blocks
    n: int
    apart: Apart
    off: tuple[float, float] | None = None
    kept: bool = False

    @property
    def differs(self) -> bool:
        return self.apart.clear

    def to_json(self) -> dict[str, Any]:
        """As metrics.json has it."""
        before, after = self.off or (None, None)
        return {"n": self.n, "apart": self.apart.to_json(), "off_before": before, "off_after": after, "kept": self.kept}

    def said(self) -> str:
        """In one line."""
        told = f"told from those that teach with an AUROC of {self.apart.auroc:.2f}"
        if not self.differs:
            return f"pictures of --target look like those that teach ({told}): nothing is done otherwise"
        if self.off is None:
            return f"pictures of --target are {told}: the early stages are left out, as by --taps {TAPS}"
        if self.kept:
            return (
                f"the head is moved to {counted(self.n, 'picture')} of --target: the scores here are of the images "
                "with labels, before that"
            )
        return (
            f"the head is not moved to --target: its answers there would have other shares of the classes than the "
            f"images that teach ({self.off[1]:.0%} off); the early stages are left out"
        )

    def setting(self) -> recipe.Setting:
        """A line of the report's recipe."""
        return recipe.Setting("place of use", f"{counted(self.n, 'picture')} without labels", self.said())


def refuse_target(task: Task, options: Options) -> None:
    """Raises OptionError where pictures of the place of use cannot be used."""
    if options.target is None:
        return
    if task.name != CLASSIFICATION.name:
        raise OptionError(f"--target is of classes, and the task is {task.name}: leave it out")
    for name, given in (
        ("tune", options.tune != "none"),
        ("head", options.head != "auto"),
        ("layer", options.layer is not None),
        ("taps", options.taps != "auto"),
    ):
        if given:
            raise OptionError(f"--target decides what the heads read, and so does --{name}: leave one of them out")


def target_of(
    material: Material, rows: Ints, backbone: Backbone, engine: Engine, options: Options, watch: Watcher
) -> Target | None:
    """The pictures of --target, beside the images `rows` that teach. Raises DataError where there are too few."""
    if options.target is None:
        return None
    table: Table = list_images([options.target])
    if len(rows) < LEAST:
        raise DataError(f"--target needs {LEAST} images that teach to compare with, and there are {len(rows)}")
    found = features_of(table, backbone, engine, options, watch.bar("place of use", len(table)), watch.say)
    n, ours = len(found), len(rows)
    joined = {LAST: np.concatenate([material.blocks[LAST][rows], found.blocks[LAST]])}
    every, none = np.arange(ours + n), np.zeros(ours + n, np.int64)
    groups = np.concatenate([material.groups[rows], material.groups.max() + 1 + np.arange(n)])
    how = apart(lambda some: {LAST: joined[LAST][some]}, every[:ours], every[ours:], none, groups, material.seed)
    if how is None:
        raise DataError(f"--target holds {counted(n, 'readable picture')}: at least {LEAST} are needed")
    target = Target(found.blocks, n, how)
    watch.say(f"note: {target.said()}")
    return target


def moved(target: Target | None, head: Head, material: Material, rows: Ints) -> tuple[Head, Target | None]:
    """The head for the place of use, where it differs and the classes are mixed alike; else the same."""
    if target is None or not target.differs or not isinstance(head, Probe):
        return head, target
    found = aligned(head, material.at(rows), class_numbers(material.targets)[rows], target.blocks)
    target = replace(target, off=(found.before, found.after), kept=found.kept)
    return (found.head if found.kept else head), target
