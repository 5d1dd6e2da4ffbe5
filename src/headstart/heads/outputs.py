"""Ridge for each output with a penalty of its own, from one decomposition: what labels and measured values share.

An output is fitted, and its tap sets are averaged, as if it were alone: what else is asked of the same images changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart import recipe
from headstart.heads.closed import ridge_path, ridge_weights, tied_places
from headstart.heads.folds import chosen, ridge_without
from headstart.heads.probe import CHOICE_ROWS, WORTH, Blocks, Candidate, Probe, Source
from headstart.heads.spectrum import Doubles, Spectrum
from headstart.heads.taps import Part, TapSet
from headstart.heads.without import Whole

Ints = npt.NDArray[np.integer]
Rows = npt.NDArray[np.intp]
Loss = Callable[
    [Doubles, Doubles], Doubles
]  # answers (penalty, row, output), targets (row, output) -> (penalty, output)


@dataclass(frozen=True)
class Outputs:
    """coef (output, feature), of a fold (output, held image); intercept (output,); left_out (image, output): the
    answers by fits without the image and its group; l2 (output,): the penalties, in units of the mean squared length of
    a centred row."""

    coef: Doubles
    intercept: Doubles
    left_out: Doubles
    l2: Doubles


@dataclass(frozen=True)
class Member:
    """One tap set with its fitted outputs; losses (output,) of its left-out answers, by which members are averaged;
    learned (output,): the outputs that count."""

    tap_set: TapSet
    outputs: Outputs
    losses: Doubles
    learned: npt.NDArray[np.bool_]


def fit_outputs(source: Source, targets: Doubles, groups: Ints, loss: Loss, rows: Rows) -> Outputs:
    """Each output of targets (image, output) with the penalty whose left-out answers for `rows` lose least."""
    if isinstance(source, Whole):
        return fit_whole(source.spectrum, targets, groups, loss, rows)
    tied = tied_places(groups)

    def fit(l2: float) -> tuple[Doubles, Doubles]:
        return ridge_without(source.kept(source.scale * l2, targets, tied), targets, tied)

    def lost(left: Doubles) -> Doubles:
        return np.asarray(loss(left[None, rows], targets[rows])[0])

    found = chosen(fit, lost, recipe.PENALTIES, source, "ridge")
    none = np.zeros(targets.shape[1])
    return Outputs(found.held.T, none, found.left, np.array(recipe.PENALTIES)[found.numbers])


def fit_whole(spectrum: Spectrum, targets: Doubles, groups: Ints, loss: Loss, rows: Rows) -> Outputs:
    """As `fit_outputs`, of images whose decomposition is at hand."""
    penalties = [spectrum.scale * p for p in recipe.PENALTIES]
    path = ridge_path(spectrum, targets, penalties, groups, rows)
    best = loss(path, targets[rows]).argmin(axis=0)
    if len(rows) == spectrum.n_images:
        left_out = path[best, :, np.arange(len(best))].T
    else:
        left_out = np.empty(targets.shape)
        for k in np.unique(best):
            left_out[:, best == k] = ridge_path(spectrum, targets[:, best == k], [penalties[k]], groups)[0]
    coef, intercept = ridge_weights(spectrum, targets, np.array(penalties)[best])
    return Outputs(coef, intercept, left_out, np.array(recipe.PENALTIES)[best])


def choice_rows(n_images: int, seed: int) -> Rows:
    """The images on which penalties are compared, at most CHOICE_ROWS."""
    if n_images <= CHOICE_ROWS:
        return np.arange(n_images)
    return np.sort(np.random.default_rng(seed).choice(n_images, CHOICE_ROWS, replace=False))


def average(members: Sequence[Member], quick: bool, blocks: Blocks) -> tuple[Probe, Doubles]:
    """(one head over the parts of all members, the share (member, output) that each has in it).

    For each output equal shares of the members whose loss is within WORTH of the best; with `quick` the best alone.
    A part that several members read is read once. Candidates are not filled in.
    """
    losses = np.stack([member.losses for member in members])
    best = losses.min(axis=0)
    near = np.arange(len(members))[:, None] == losses.argmin(axis=0) if quick else losses <= best * (1 + WORTH)
    shares = near / near.sum(axis=0)
    used = [k for k in range(len(members)) if shares[k].any()] or [0]
    coef: dict[Part, Doubles] = {}
    for k in used:
        start = 0
        for part in members[k].tap_set.parts:
            width = blocks[part.block].shape[1]
            mine = shares[k][:, None] * members[k].outputs.coef[:, start : start + width]
            coef[part] = coef[part] + mine if part in coef else mine
            start += width
    intercept = sum_of([shares[k] * members[k].outputs.intercept for k in used])
    left_out = sum_of([shares[k] * members[k].outputs.left_out for k in used])
    return Probe(tuple(coef), np.concatenate(list(coef.values()), axis=1), intercept, (), left_out, "none"), shares


def sum_of(arrays: Sequence[Doubles]) -> Doubles:
    return np.asarray(np.sum(np.stack(arrays), axis=0))


def candidates(members: Sequence[Member], shares: Doubles, right: Sequence[float]) -> tuple[Candidate, ...]:
    """A line for each member, best first; l2 is the median penalty of its outputs, its weight the mean share."""
    found = []
    for member, share, r in zip(members, shares, right, strict=True):
        ours = member.learned if member.learned.any() else np.ones_like(member.learned)
        l2, loss, weight = np.median(member.outputs.l2[ours]), member.losses[ours].mean(), share[ours].mean()
        found.append(Candidate(member.tap_set.name, "ridge", float(l2), float(loss), r, float(weight)))
    return tuple(sorted(found, key=lambda candidate: candidate.log_loss))
