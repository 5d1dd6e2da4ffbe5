"""A head in closed form for the rows of a fold, everything chosen anew, as cross-validation and the curve ask for it.

What the folds share is made once: preparation looks at one image at a time, and products of features hold nothing of
the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from headstart import recipe
from headstart.files.cores import n_cores
from headstart.heads.closed import tied_places
from headstart.heads.folds import ALL_TRIED, HELD, nearest, on_held
from headstart.heads.material import Ints, Material
from headstart.heads.probe import Candidate, Probe
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import TapSet
from headstart.heads.without import Asked, Shared, Taught
from headstart.judge.crossing import Fit
from headstart.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Fitter:
    """A `fit` for cross-validation of this material: answers for rows of it that did not teach. `shared`: what is known
    of the features of all of it; `near`: what a fit of all of it chose, where penalties are looked for first."""

    task: Task
    material: Material
    sets: tuple[TapSet, ...]
    quick: bool
    shared: Shared
    near: tuple[Candidate, ...] = ()

    def __call__(self, rows: Ints) -> Callable[[Ints], Doubles]:
        task, held = self.task, np.setdiff1d(np.arange(len(self.material)), rows)
        mine = replace(self.material, blocks={}).part(rows)
        blocks, sets = {HELD: np.empty((0, len(held)))}, on_held(self.sets)
        by_name = {tap_set.name: tap_set for tap_set in self.sets}
        probe = task.solve(
            replace(mine, blocks=blocks), sets, quick=self.quick, known=lambda s: self._taught(by_name[s.name], held)
        )
        if not isinstance(probe, Probe):
            raise TypeError(f"the head of {task.name} is no linear one, and its task does not say that it `refits`")
        found = task.answers(probe.held_outputs(), task.rule(mine.targets, probe.left_out, mine.groups))
        return lambda other: found[np.searchsorted(held, other)]

    def prepare(self, parts: Sequence[Ints]) -> None:
        """What the folds with these training rows will ask for the penalties that are near."""
        targets, groups = self.material.targets.matrix(), self.material.groups
        for tap_set in self.sets:
            chosen = {nearest(recipe.PENALTIES, c.l2) for c in self.near if c.taps == tap_set.name and c.head in CLOSED}
            numbers = {n for k in chosen for n in (k - 1, k, k + 1) if 0 <= n < len(recipe.PENALTIES)}
            asked = []
            for rows in parts if numbers and min(map(len, parts)) > ALL_TRIED else ():
                taught = self._taught(tap_set, np.setdiff1d(np.arange(len(groups)), rows))
                asked.append(Asked(taught, targets[rows], tied_places(groups[rows])))
            if len({one.taught.scale for one in asked}) < len(asked):  # folds share a unit
                self.shared.of(tap_set).prepare(asked, [recipe.PENALTIES[n] for n in sorted(numbers)], n_cores())

    def _taught(self, tap_set: TapSet, held: Ints) -> Taught:
        starts = {candidate.head: candidate.l2 for candidate in self.near if candidate.taps == tap_set.name}
        return self.shared.of(tap_set).without(held, starts)


CLOSED = ("ridge", "lda")  # heads whose folds have a formula


def fitter(
    task: Task,
    material: Material,
    sets: tuple[TapSet, ...],
    quick: bool = False,
    shared: Shared | None = None,
    near: Sequence[Candidate] = (),
) -> Fit:
    """A `Fitter`, or the `refitter` of a task that asks for that."""
    if task.refits:
        return refitter(task, material, sets, quick)
    return Fitter(task, material, sets, quick, shared or Shared(material.blocks), tuple(near))


def refitter(task: Task, material: Material, sets: tuple[TapSet, ...], quick: bool = False) -> Fit:
    """The same from the features of the rows alone."""

    def fit(rows: Ints) -> Callable[[Ints], Doubles]:
        mine = material.part(rows)
        head = task.solve(mine, sets, quick=quick)
        rule = task.rule(mine.targets, head.left_out, mine.groups)
        return lambda other: task.answers(head.outputs(material.at(other)), rule)

    return fit
