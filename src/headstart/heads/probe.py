"""The frozen model: heads on tap sets, chosen or averaged by leave-one-out log-loss, calibrated.

Every member is linear in its prepared features, and the average of log-probabilities equals, up to a constant per
image, the average of the scores: so the result, whatever it averages, is one linear head.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from headstart import recipe
from headstart.data.splits import folds
from headstart.heads.calibrate import best_scale, calibrate, log_loss, log_softmax, scaled_losses
from headstart.heads.closed import (
    Logistic,
    Ridge,
    ShrunkLDA,
    lda_left_out,
    one_hot,
    ridge_left_out,
    row_by_row,
    tied_places,
)
from headstart.heads.folds import chosen, lda_without, ridge_without
from headstart.heads.spectrum import Doubles, Spectrum, decompose
from headstart.heads.taps import Part, TapSet
from headstart.heads.without import Taught, Whole
from headstart.judge.intervals import mean_of_groups

Ints = npt.NDArray[np.integer]
Blocks = Mapping[str, npt.NDArray[np.floating]]

CHOICE_ROWS = 5000  # images on which penalties are compared: a log-loss is then known to within 1 %
# Heads whose left-out log-loss is within a tenth of the best are averaged with it. With few images the winner among
# near equals is decided by noise, and an average of near equals is better than any of them (Caruana et al. 2004).
WORTH = 0.1


Source = Whole | Taught  # what a head learns from: all images, or some of them
Known = Callable[[TapSet], Source]  # what is known of a tap set's features already

Link = Literal["softmax", "none"]  # log-probabilities of classes that exclude each other; scores as they are


@dataclass(frozen=True)
class Candidate:
    """A head on a tap set with its best penalty, and what its left-out predictions are worth."""

    taps: str
    head: str
    l2: float  # in units of the mean squared length of a centred row
    log_loss: float
    accuracy: float
    weight: float = 0.0  # share in the final average


@dataclass(frozen=True)
class Probe:
    """A linear head on prepared features: outputs = link(prepared @ coef' + intercept)."""

    parts: tuple[Part, ...]
    coef: Doubles  # (output, feature), over the parts side by side
    intercept: Doubles  # (output,)
    candidates: tuple[Candidate, ...]
    left_out: Doubles  # (image, output): what fits without them say of the training images
    link: Link = "softmax"

    def outputs(self, blocks: Blocks) -> Doubles:
        """(image, output)."""
        return self._through(blocks, np.matmul)

    def outputs_alone(self, blocks: Blocks) -> Doubles:
        """The same; of an image it is the same bits whatever images are beside it, on one thread of BLAS."""
        return self._through(blocks, row_by_row)

    def _through(self, blocks: Blocks, times: Callable[[Doubles, Doubles], Doubles]) -> Doubles:
        n = len(blocks[self.parts[0].block])
        scores = np.tile(self.intercept, (n, 1))
        start = 0
        for part in self.parts:
            width = blocks[part.block].shape[1]
            weights = self.coef[:, start : start + width]
            for at in range(0, n, recipe.SMALL):
                here = slice(at, at + recipe.SMALL)
                scores[here] += times(part.of(blocks[part.block][here]).astype(np.float64), weights.T)
            start += width
        return self._linked(scores)

    def held_outputs(self) -> Doubles:
        """(held image, output) of the head of a fold (`folds.on_held`)."""
        return self._linked(self.coef.T + self.intercept)

    def _linked(self, scores: Doubles) -> Doubles:
        return log_softmax(scores) if self.link == "softmax" else scores


@dataclass(frozen=True)
class _Member:
    candidate: Candidate
    tap_set: TapSet
    coef: Doubles
    intercept: Doubles
    left_out: Doubles  # calibrated scores (image, class)


def source_of(tap_set: TapSet, blocks: Blocks, known: Known | None) -> Source:
    """What is known of the set's features."""
    return known(tap_set) if known else Whole(tap_set.of(blocks))


def fit_probe(
    blocks: Blocks,
    y: Ints,
    groups: Ints,
    tap_sets: tuple[TapSet, ...],
    heads: tuple[str, ...],
    seed: int = 0,
    known: Known | None = None,
    workers: int = 1,
) -> Probe:
    """Fit every head on every tap set and average those that help.

    blocks: block -> (image, feature); y (image,) class numbers, each class present; groups (image,) are left out
    together. `known`: what is known of a tap set's features already. `workers`: tap sets at once, on threads.
    """

    def on(tap_set: TapSet) -> list[_Member]:
        source = source_of(tap_set, blocks, known)
        # logistic regression on the first set only: on several taps ridge and LDA were as good on every set tried
        tried = [head for head in heads if head != "logistic" or tap_set == tap_sets[0]]
        if isinstance(source, Whole):
            return [_fit_member(head, tap_set, source.spectrum, y, groups, seed) for head in tried]
        return _fit_without(tried, tap_set, source, y, groups, seed)

    with ThreadPoolExecutor(workers) as pool:
        members = [member for found in pool.map(on, tap_sets) for member in found]
    order = sorted(range(len(members)), key=lambda k: members[k].candidate.log_loss)
    weights = _average([members[k] for k in order], y, groups)
    shares = [(members[k], w) for k, w in zip(order, weights, strict=True)]
    widths = {name: block.shape[1] for name, block in blocks.items()}
    candidates = tuple(replace(m.candidate, weight=w) for m, w in shares)
    return _merge([(m, w) for m, w in shares if w], y, candidates, widths)


def _fit_member(head: str, tap_set: TapSet, spectrum: Spectrum, y: Ints, groups: Ints, seed: int) -> _Member:
    if head == "logistic":
        l2, scores, coef, intercept = _fit_logistic(spectrum, y, groups, seed)
    else:
        left_out, kind = (ridge_left_out, Ridge) if head == "ridge" else (lda_left_out, ShrunkLDA)
        penalties = [spectrum.scale * p for p in recipe.PENALTIES]
        rows = _choice_rows(y, groups, seed)
        path = left_out(spectrum, y, penalties, groups, rows)
        best = int(scaled_losses(path, y[rows]).argmin())
        l2 = recipe.PENALTIES[best]
        fitted = kind(penalties[best]).fit(spectrum.features, y, groups, spectrum)
        scores, coef, intercept = fitted.leave_one_out_, fitted.coef_, fitted.intercept_
    return _calibrated(head, tap_set, l2, (scores, coef, intercept), y, groups)


def _calibrated(
    head: str, tap_set: TapSet, l2: float, fitted: tuple[Doubles, Doubles, Doubles], y: Ints, groups: Ints
) -> _Member:
    """Of (left-out scores, coef, intercept)."""
    scores, coef, intercept = fitted
    known = _knowable(y, groups)
    scale, offsets = calibrate(scores[known], y[known])
    calibrated = scale * scores + offsets
    accuracy = float((scores.argmax(axis=1) == y).mean())
    candidate = Candidate(tap_set.name, head, l2, log_loss(calibrated[known], y[known]), accuracy)
    return _Member(candidate, tap_set, scale * coef, scale * intercept + offsets, calibrated)


def _fit_without(
    heads: Sequence[str], tap_set: TapSet, taught: Taught, y: Ints, groups: Ints, seed: int
) -> list[_Member]:
    """These heads of a fold; `coef` (class, held image) are what they answer."""
    rows, tied, targets = _choice_rows(y, groups, seed), tied_places(groups), one_hot(y, int(y.max()) + 1)
    of = cache(lambda l2: taught.kept(taught.scale * l2, targets, tied))

    def ridge(l2: float) -> tuple[Doubles, Doubles]:
        left, held = ridge_without(of(l2), targets, tied)
        return left - left.mean(axis=1, keepdims=True), held - held.mean(axis=1, keepdims=True)

    def lda(l2: float) -> tuple[Doubles, Doubles]:
        return lda_without(of(l2), y, targets.shape[1], tied)

    def loss(left: Doubles) -> Doubles:
        return np.array([best_scale(left[rows], y[rows])[1]])

    members, none = [], np.zeros(targets.shape[1])
    for head in heads:
        if head == "logistic":
            l2, scores, coef, intercept = _fit_logistic(decompose(taught.taught), y, groups, seed)
            coef, intercept = taught.answers(coef, intercept).T, none
        else:
            found = chosen(ridge if head == "ridge" else lda, loss, recipe.PENALTIES, taught, head)
            l2, scores, coef, intercept = recipe.PENALTIES[found.numbers[0]], found.left, found.held.T, none
        members.append(_calibrated(head, tap_set, l2, (scores, coef, intercept), y, groups))
    return members


def _fit_logistic(spectrum: Spectrum, y: Ints, groups: Ints, seed: int) -> tuple[float, Doubles, Doubles, Doubles]:
    """(penalty, out-of-fold scores, coef, intercept) of the best logistic regression, in singular coordinates."""
    z = spectrum.rows(slice(None)) * np.sqrt(spectrum.values)  # (image, component)
    n_classes = int(y.max()) + 1
    n_folds = min(5, len(np.unique(groups)))  # a whole set may come from two sites
    fold = folds(y, groups, n_folds, seed, [f"{i:09d}" for i in range(len(y))])
    paths = [_logistic_path(z[fold != k], y[fold != k], n_classes, spectrum.scale) for k in np.unique(fold)]
    scores = np.zeros((len(recipe.LOGISTIC_PENALTIES), len(y), n_classes))
    for k, path in zip(np.unique(fold), paths, strict=True):
        for p, head in enumerate(path):
            scores[p, fold == k] = head.decision_function(z[fold == k])
    best = int(scaled_losses(scores, y).argmin())
    final = _logistic_path(z, y, n_classes, spectrum.scale, best + 1)[-1]
    coef = spectrum.coefficients(final.coef_.T).T
    return recipe.LOGISTIC_PENALTIES[best], scores[best], coef, final.intercept_ - coef @ spectrum.mean


def _logistic_path(z: Doubles, y: Ints, n_classes: int, scale: float, n: int | None = None) -> list[Logistic]:
    """Strong to weak penalty, the first n of all, each fit started from the last."""
    path: list[Logistic] = []
    for penalty in recipe.LOGISTIC_PENALTIES[:n]:
        start = (path[-1].coef_, path[-1].intercept_) if path else None
        path.append(Logistic(penalty * scale, start=start).fit(z, y, n_classes))
    return path


def _average(members: list[_Member], y: Ints, groups: Ints) -> list[float]:
    """Equal shares for the members (best first) whose left-out log-loss is within WORTH of the best that counts."""
    losses = np.where(_counted(members, y, groups), [m.candidate.log_loss for m in members], np.inf)
    near = losses <= losses.min() * (1 + WORTH)
    return [float(share) for share in near / near.sum()]


def _counted(members: list[_Member], y: Ints, groups: Ints) -> list[bool]:
    """Which members may be averaged: those on all stages, where late ones alone are tried too, if they are better on
    groups left out by more than one standard error. Early stages tell places apart, and what they say of one need not
    hold at another (docs/measurements.md, places)."""
    early = [m.tap_set.name == "all" for m in members]
    if not any(early) or not any(m.tap_set.name == "late" for m in members):
        return [True] * len(members)
    known = _knowable(y, groups)
    best, rest = members[early.index(True)], members[early.index(False)]
    losses = [-log_softmax(m.left_out[known])[np.arange(known.sum()), y[known]] for m in (rest, best)]
    gain, error = mean_of_groups(losses[0] - losses[1], groups[known])
    return [gain > error or not is_early for is_early in early]


def _merge(
    members: list[tuple[_Member, float]], y: Ints, candidates: tuple[Candidate, ...], widths: Mapping[str, int]
) -> Probe:
    """One linear head over the parts of all members, each part once, whichever of their sets hold it."""
    left_out = sum(w * m.left_out for m, w in members)
    assert not isinstance(left_out, int)
    scale = best_scale(left_out, y)[0] if len(members) > 1 else 1.0
    intercept = sum(w * m.intercept for m, w in members)
    of: dict[Part, Doubles] = {}
    for m, w in members:
        ends = np.cumsum([widths[part.block] for part in m.tap_set.parts])
        for part, coef in zip(m.tap_set.parts, np.split(w * m.coef, ends[:-1], axis=1), strict=True):
            of[part] = of[part] + coef if part in of else coef
    coef, parts = np.concatenate(list(of.values()), axis=1), tuple(of)
    return Probe(parts, scale * coef, np.asarray(scale * intercept), candidates, log_softmax(scale * left_out))


def _choice_rows(y: Ints, groups: Ints, seed: int) -> npt.NDArray[np.intp]:
    """The images on which penalties are compared: all that a fit without them can know, at most CHOICE_ROWS."""
    rows = np.flatnonzero(_knowable(y, groups))
    return (
        rows
        if len(rows) <= CHOICE_ROWS
        else np.sort(np.random.default_rng(seed).choice(rows, CHOICE_ROWS, replace=False))
    )


def _knowable(y: Ints, groups: Ints) -> npt.NDArray[np.bool_]:
    """Images whose class keeps another image when their group is left out; all, if there are none."""
    span = int(np.ptp(groups)) + 1
    pairs = np.unique(y.astype(np.int64) * span + (groups - groups.min()))
    known = np.bincount(pairs // span, minlength=int(y.max()) + 1)[y] > 1
    return known if known.any() else np.ones_like(known)
