"""Whether a second network beside the first earns its cost: `--backbone A+B`.

Some of the images that teach go through A alone and through both, and left-out answers decide: A alone is the model,
unless the loss of both is lower by more than one standard error of the paired difference. All that went through the
network stays in the store, where the fit of whichever is kept finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from headstart.counted import count, counted
from headstart.data.table import Table
from headstart.heads.material import Ints, Material
from headstart.judge.intervals import Z, mean_of_groups
from headstart.judge.marks import Marks, ends
from headstart.story.candidates import entry_for
from headstart.story.opening import Options, Watcher, open_network
from headstart.story.rank import part_of
from headstart.story.view import Look, looked
from headstart.tasks.task import Task
from headstart.trunk.backbone import resolve
from headstart.trunk.catalog import asked_side_by_side, side_by_side

Clock = Callable[[str], AbstractContextManager[None]]  # measures a stage of this name
LOSS = "loss"  # a column of marks, (image,): of classes the log-loss


@dataclass(frozen=True)
class Pairing:
    """What a second network adds. `measure`: what was compared; `gain`: by how much both are better in it than the
    first alone, with its standard error; `alone`, `both`: millions of parameters, and billion multiplications an image
    where the catalog has them. hashes: content hashes of the images that chose, which judge nothing afterwards.
    n_forward: passes of an image that this took, of one network or of both."""

    first: str
    second: str
    measure: str
    gain: float
    error: float
    parameters: tuple[int, int]  # of the first, of both
    gmacs: tuple[float, float] | None
    hashes: frozenset[str]
    n_forward: int

    @property
    def kept(self) -> bool:
        """Whether both are better than the first alone by more than one standard error."""
        return self.gain > self.error

    @property
    def cost(self) -> str:
        """What running both takes, beside the first alone."""
        one, both = (f"{n / 1e6:.1f}" for n in self.parameters)
        said = f"{both} million parameters instead of {one}"
        if self.gmacs:
            said += ", {1:.2f} billion multiplications an image instead of {0:.2f}".format(*self.gmacs)
        return said

    @property
    def why(self) -> str:
        """Which is kept, by what, in one line."""
        change = f"{'better' if self.gain > 0 else 'worse'} by {abs(self.gain):.2g}"
        found = (
            f"in the {self.measure} of left-out answers for {counted(len(self.hashes), 'image')} that teach, both are "
            f"{change} than {self.first} alone (standard error {self.error:.2g})"
        )
        if self.n_forward:
            found += f"; this took {count(self.n_forward)} passes of an image"
        if self.kept:
            return f"networks {self.first} and {self.second}, both run on each image ({self.cost}): {found}"
        return f"network {self.first} alone, {self.second} is left out: {found}"

    def to_json(self) -> dict[str, Any]:
        """As metrics.json has it."""
        left_out = ("hashes", "n_forward")
        plain = {key: value for key, value in asdict(self).items() if key not in left_out}
        return {"kept": self.kept, "images": len(self.hashes), "passes": self.n_forward, **plain}


def weighed(task: Task, table: Table, options: Options, watch: Watcher, clock: Clock) -> tuple[Options, Pairing | None]:
    """The options with both of `--backbone A+B` or with A alone, and why; as they are where one network is named.
    Raises HeadstartError."""
    if not asked_side_by_side(options.backbone):
        return options, None
    with clock("weigh two networks"):
        options = replace(options, backbone=resolve(options.backbone))
        found = compared(task, table, options, watch)
    watch.say(found.why)
    return (options if found.kept else replace(options, backbone=found.first)), found


def compared(task: Task, table: Table, options: Options, watch: Watcher) -> Pairing:
    """The first alone and both, on the same images that teach."""
    first, second = side_by_side(options.backbone)
    teaching = table.take(table.teaching)
    some = teaching.take(np.sort(part_of(task, teaching, options.seed).rows))

    def through(some: Table, options: Options, groups: Ints | None = None) -> Look:
        network = open_network(some, options, say=watch.say, whole=task.whole)
        return looked(task, some, network, options, watch.bar(network[0].name, len(some)), groups)

    alone = through(some, replace(options, backbone=first))
    both = through(alone.table, options, alone.material.groups)
    measure, gain, error = gained(task, alone.material, alone.marks, both.marks)
    side = both.backbone.preprocess.size[0]
    macs = [entry.gmacs * (side / entry.input_size) ** 2 for n in (first, second) if (entry := entry_for(n))]
    return Pairing(
        first,
        second,
        measure,
        gain,
        error,
        (alone.backbone.n_parameters, both.backbone.n_parameters),
        (round(macs[0], 3), round(sum(macs), 3)) if len(macs) == 2 else None,
        frozenset(alone.material.keys),
        alone.n_forward + both.n_forward,
    )


def gained(task: Task, material: Material, alone: Marks, both: Marks) -> tuple[str, float, float]:
    """(what is compared, by how much both are better in it, standard error): the loss, where answers have one."""
    if LOSS in alone.columns:
        lower = alone[LOSS] - both[LOSS]
        known = np.isfinite(lower)
        return "log-loss" if task.name == "classify" else "loss", *mean_of_groups(lower[known], material.groups[known])
    measure = task.judging.compared_in(material.targets)
    groups = material.groups if len(alone) == len(material) else None
    value, low, high = ends(measure.gain(both, alone, groups)["difference"])
    sign = 1 if measure.higher_is_better else -1
    return measure.name.replace("_", " "), sign * value, (high - low) / (2 * Z)
