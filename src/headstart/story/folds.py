"""A head in closed form for the rows of a fold, everything chosen anew, as cross-validation and the curve ask for it.

What the folds share is made once: preparation looks at one image at a time, and products of features hold nothing of
the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from headstart.heads.folds import HELD, on_held
from headstart.heads.material import Ints, Material
from headstart.heads.probe import Candidate, Probe
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import TapSet
from headstart.heads.without import Shared, Taught
from headstart.judge.crossing import Fit
from headstart.tasks.task import Task


def fitter(
    task: Task,
    material: Material,
    sets: tuple[TapSet, ...],
    quick: bool = False,
    shared: Shared | None = None,
    near: Sequence[Candidate] = (),
) -> Fit:
    """A `fit` for cross-validation of this material: answers for rows of it that did not teach. `shared`: what is known
    of the features of all of it; `near`: what a fit of all of it chose, where penalties are looked for first."""
    if task.refits:
        return refitter(task, material, sets, quick)
    everything, bare = np.arange(len(material)), replace(material, blocks={})
    by_name, known = {tap_set.name: tap_set for tap_set in sets}, shared or Shared(material.blocks)

    def fit(rows: Ints) -> Callable[[Ints], Doubles]:
        held = np.setdiff1d(everything, rows)

        def taught(tap_set: TapSet) -> Taught:
            starts = {candidate.head: candidate.l2 for candidate in near if candidate.taps == tap_set.name}
            return known.of(by_name[tap_set.name]).without(held, starts)

        mine = bare.part(rows)
        blocks = {HELD: np.empty((0, len(held)))}
        probe = task.solve(replace(mine, blocks=blocks), on_held(sets), quick=quick, known=taught)
        if not isinstance(probe, Probe):
            raise TypeError(f"the head of {task.name} is no linear one, and its task does not say that it `refits`")
        found = task.answers(probe.held_outputs(), task.rule(mine.targets, probe.left_out, mine.groups))
        return lambda other: found[np.searchsorted(held, other)]

    return fit


def refitter(task: Task, material: Material, sets: tuple[TapSet, ...], quick: bool = False) -> Fit:
    """The same of a task that learns from features alone."""

    def fit(rows: Ints) -> Callable[[Ints], Doubles]:
        mine = material.part(rows)
        head = task.solve(mine, sets, quick=quick)
        rule = task.rule(mine.targets, head.left_out, mine.groups)
        return lambda other: task.answers(head.outputs(material.at(other)), rule)

    return fit
