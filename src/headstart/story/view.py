"""What is seen of a picture: its middle, or all of it. Tried where pictures are so long that the middle is little.

Some hundred of the images that teach go through the network in each view, and left-out answers decide: the middle
stays, unless another view's log-loss is lower by more than one standard error of the paired difference.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from headstart import recipe
from headstart.counted import count, counted
from headstart.data.duplicates import find_duplicates, tie_groups
from headstart.data.table import Table
from headstart.heads.material import Ints, Material
from headstart.heads.taps import LAST
from headstart.judge.intervals import mean_of_groups
from headstart.judge.marks import Marks
from headstart.story.opening import Options, Watcher, features_of, open_network, stretched
from headstart.story.options import SIGHTS
from headstart.story.rank import marks_of, part_of
from headstart.tasks.task import Task
from headstart.trunk.engine import Engine
from headstart.trunk.network import Backbone, block_names

Clock = Callable[[str], AbstractContextManager[None]]  # measures a stage of this name
MIDDLE = "crop"
SEEN = {"crop": "the middle of each", "whole": "all of each, in its own shape", "pad": "all of each, with borders"}


@dataclass(frozen=True)
class Tried:
    """A view. `size`: (height, width) px of the input; `log_loss`: mean of left-out answers; `gain`: by how much that
    is below the middle's, with the standard error of the paired difference."""

    view: str
    size: tuple[int, int]
    log_loss: float
    gain: float
    error: float


@dataclass(frozen=True)
class Sight:
    """Which view was chosen. rows: those tried, the middle first. hashes: content hashes of the images that chose,
    which judge nothing afterwards. n_forward: passes of an image through the network that this took."""

    rows: tuple[Tried, ...]
    hashes: frozenset[str]
    n_forward: int

    @property
    def chosen(self) -> str:
        """The best view where it is better than the middle by more than one standard error, else the middle."""
        best = min(self.rows, key=lambda row: row.log_loss)
        return best.view if best.gain > best.error else MIDDLE

    @property
    def why(self) -> str:
        """Which one, by what, in one line."""
        tried = ", ".join(
            f"{row.view} {row.log_loss:.3f}"
            + (f" (gain {row.gain:+.3f}, standard error {row.error:.3f})" if row.view != MIDDLE else "")
            for row in self.rows
        )
        return (
            f"view {self.chosen}, {SEEN[self.chosen]}: the pictures are long, and the left-out log-loss of "
            f"{counted(len(self.hashes), 'image')} that teach is {tried}; {count(self.n_forward)} passes of an image"
        )

    def to_json(self) -> dict[str, Any]:
        """As metrics.json has it."""
        tried = [asdict(row) for row in self.rows]
        return {"chosen": self.chosen, "images": len(self.hashes), "passes": self.n_forward, "tried": tried}


def sighted(task: Task, table: Table, options: Options, watch: Watcher, clock: Clock) -> tuple[Options, Sight | None]:
    """The options with the view that left-out answers choose, and how; as they are where one is named, or where the
    pictures are not long. Raises HeadstartError."""
    if options.view != "auto" or task.name != "classify" or not elongated(table):
        return options, None
    with clock("choose the view"):
        found = compared(task, table, options, watch)
    watch.say(found.why)
    return replace(options, view=found.chosen), found


def elongated(table: Table) -> bool:
    """Whether so many of the pictures that teach are so long that their middle is half of them or less."""
    return recipe.elongated(stretched(table))


def compared(task: Task, table: Table, options: Options, watch: Watcher) -> Sight:
    """Each view on the same images."""
    plain = replace(options, head="auto", layer=None, tune="none")
    teaching = table.take(table.teaching)
    most = max(recipe.VIEW_IMAGES, recipe.VIEW_EACH * len(table.classes))
    some = teaching.take(np.sort(part_of(task, teaching, options.seed, most).rows))
    rows: list[Tried] = []
    looks: list[Look] = []
    for view in SIGHTS[1:]:
        network = open_network(table, replace(plain, view=view), say=watch.say)
        # copies are those that the first view shows: all must leave out the same images
        groups = looks[0].material.groups if looks else None
        looks.append(looked(task, some, network, plain, watch.bar(f"view {view}", len(some)), groups))
        some, losses = looks[0].table, [look.marks["loss"] for look in (looks[0], looks[-1])]
        gain, error = mean_of_groups(losses[0] - losses[1], looks[0].material.groups)
        rows.append(Tried(view, network[0].preprocess.size, float(losses[1].mean()), gain, error))
    return Sight(tuple(rows), frozenset(looks[0].material.keys), sum(look.n_forward for look in looks))


@dataclass(frozen=True, eq=False)
class Look:
    """What a network, or two, say of some images: those that could be read, the marks of left-out answers, and how many
    went through it."""

    table: Table
    backbone: Backbone
    material: Material
    marks: Marks
    n_forward: int


def looked(
    task: Task,
    table: Table,
    network: tuple[Backbone, Engine],
    options: Options,
    done: Callable[[int], None],
    groups: Ints | None = None,
) -> Look:
    """`groups`: copies, which are left out together; None: those that its features show."""
    backbone, engine = network
    features = features_of(table, backbone, engine, options, done)
    table = table.take(features.kept)
    if groups is None:
        same = find_duplicates(features.hashes, features.blocks[LAST], features.thumbnails)
        groups = tie_groups(len(table), same, table.groups)
    targets = task.targets(table, table.classes)
    material = Material(features.blocks, targets, groups, features.hashes, options.seed)
    marks = marks_of(task, material, task.sets(options.taps, block_names(backbone)))
    return Look(table, backbone, material, marks, features.n_forward)
