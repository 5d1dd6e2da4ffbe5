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
from headstart.data.table import list_images
from headstart.data.targets import class_numbers
from headstart.errors import DataError, OptionError
from headstart.heads.aligned import Aligned, aligned
from headstart.heads.apart import LEAST, Apart, apart
from headstart.heads.material import Blocks, Ints, Material
from headstart.heads.probe import Probe
from headstart.heads.taps import LAST
from headstart.story.opening import Options, Watcher, features_of
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.task import Head, Task
from headstart.trunk.engine import Engine
from headstart.trunk.network import Backbone

COMPARED = 2000  # images that teach among which those are drawn that are told from the others
TAPS = "late"  # what heads read where pictures are of another kind


@dataclass(frozen=True)
class Target:
    """Unlabelled pictures: block -> (image, feature), and how well they are told from the images that teach. `found`:
    what aligning the head says; None where nothing was aligned."""

    blocks: Blocks
    n: int
    apart: Apart
    found: Aligned | None = None

    @property
    def differs(self) -> bool:
        return self.apart.clear

    def to_json(self) -> dict[str, Any]:
        """As metrics.json has it."""
        how = self.found
        numbers = None if how is None else {k: getattr(how, k) for k in ("before", "after", "between", "kept")}
        return {"n": self.n, "apart": self.apart.to_json(), "aligned": numbers}

    def said(self) -> str:
        """In one line."""
        told = f"told from those that teach with an AUROC of {self.apart.auroc:.2f}"
        if not self.differs:
            return f"pictures of --target look like those that teach ({told}): nothing is done otherwise"
        if self.found is None:
            return f"pictures of --target are {told}: the early stages are left out, as by --taps {TAPS}"
        if self.found.kept:
            return (
                f"the head is moved to {counted(self.n, 'picture')} of --target: the scores here are of the images "
                "with labels, before that"
            )
        return (
            "the head is not moved to --target, whose pictures seem to hold the classes in other shares than those "
            "that teach; the early stages are left out"
        )

    def setting(self) -> recipe.Setting:
        """A line of the report's recipe."""
        return recipe.Setting("place of use", f"{counted(self.n, 'picture')} without labels", self.said())


def refuse_target(task: Task, options: Options) -> None:
    """Raises OptionError where pictures of the place of use cannot be used."""
    if options.target is not None and task.name != CLASSIFICATION.name:
        raise OptionError(f"--target is of classes, and the task is {task.name}: leave it out")


def target_of(
    material: Material, rows: Ints, backbone: Backbone, engine: Engine, options: Options, watch: Watcher
) -> Target | None:
    """The pictures of --target, beside the images `rows` that teach. Raises DataError where there are too few."""
    if options.target is None:
        return None
    table = list_images([options.target])
    found = features_of(table, backbone, engine, options, watch.bar("place of use", len(table)), watch.say)
    target = told(material, rows, found.blocks)
    watch.say(f"note: {target.said()}")
    return target


def told(material: Material, rows: Ints, blocks: Blocks) -> Target:
    """How well pictures of these features are told from the images `rows` that teach. Raises DataError."""
    rng = np.random.default_rng(material.seed)
    rows = np.sort(rng.permutation(rows)[:COMPARED])
    n, ours = len(blocks[LAST]), len(rows)
    joined = np.concatenate([material.blocks[LAST][rows], blocks[LAST]])
    every, none = np.arange(ours + n), np.zeros(ours + n, np.int64)
    groups = np.concatenate([material.groups[rows], material.groups.max() + 1 + np.arange(n)])
    how = apart(lambda some: {LAST: joined[some]}, every[:ours], every[ours:], none, groups, material.seed)
    if how is None:
        independent = len(np.unique(material.groups[rows]))
        raise DataError(
            f"--target needs {LEAST} pictures and as many that teach, where copies and those of one group count once: "
            f"there are {n} that can be read, and {independent}"
        )
    return Target(blocks, n, how)


def moved(target: Target | None, head: Head, material: Material, rows: Ints) -> tuple[Head, Target | None]:
    """The head for the place of use, where it differs and the classes are mixed alike; else the same."""
    if target is None or not target.differs or not isinstance(head, Probe):
        return head, target
    found = aligned(head, material.at(rows), class_numbers(material.targets)[rows], target.blocks)
    return (found.head if found.kept else head), replace(target, found=found)
