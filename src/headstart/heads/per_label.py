"""Several labels an image: one against the rest for each label, calibrated, with exact leave-one-out.

Ridge alone: with two classes the direction of shrunk LDA at the same penalty is that of ridge, since the total scatter
is the within-class scatter and one rank-one term along the difference of the means, and calibration does the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from headstart.data.targets import UNKNOWN
from headstart.errors import OptionError
from headstart.heads.calibrate import log_odds_loss, platt, sigmoid
from headstart.heads.closed import ridge_left_out_of
from headstart.heads.outputs import Member, Outputs, Rows, average, candidates, choice_rows, fit_outputs, fit_whole
from headstart.heads.probe import Blocks, Known, Probe, source_of
from headstart.heads.spectrum import Doubles, decompose
from headstart.heads.taps import TapSet
from headstart.heads.without import Taught

Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]
Present = npt.NDArray[np.int8]

SHOWN = 100  # images with a label, and without, among those on which penalties are compared, where there are so many
AIMS = ("f1", "accuracy")


def fit_per_label(
    blocks: Blocks,
    present: Present,
    groups: Ints,
    tap_sets: tuple[TapSet, ...],
    seed: int = 0,
    quick: bool = False,
    known: Known | None = None,
    workers: int = 1,
) -> Probe:
    """A head whose answers are log-odds (image, label).

    blocks: block -> (image, feature); present (image, label) 1, 0 or UNKNOWN; groups (image,) are left out together. A
    label learns from the images where it is known. It takes the penalty with the least left-out log-loss after
    calibration (Platt 1999), and the average of the tap sets whose loss is within a tenth of the best; with `quick` the
    best alone. Scale and offset of the calibration are folded into the head. `left_out` holds log-odds for every image,
    also where the label is unknown. A label that cannot be learned (`learnable`) gets the log-odds of its share,
    (P + 1) / (P + N + 2), whatever the image. `known`, `workers`: as in `fit_probe`. A candidate's `log_loss` and
    `accuracy` are means over the labels that can be learned.
    """
    able = learnable(present, groups)

    def on(tap_set: TapSet) -> Member:
        source = _Source(tap_set, blocks, known)
        return _fit_member(tap_set, source, present, able, groups, seed)

    with ThreadPoolExecutor(workers) as pool:
        members = list(pool.map(on, tap_sets))
    probe, shares = average(members, quick, blocks)
    right = [_share_right(member.outputs.left_out, present) for member in members]
    probe = replace(probe, candidates=candidates(members, shares, right))
    return _constant(_sharpened(probe, present, able & ((shares > 0).sum(axis=0) > 1)), present, ~able, groups)


def learnable(present: Present, groups: Ints) -> Bools:
    """(label,): whether two groups or more have the label, and two or more are known to lack it (present 0)."""
    return np.array([all(len(np.unique(groups[column == k])) > 1 for k in (0, 1)) for column in present.T], bool)


@dataclass(frozen=True)
class _Source:
    """The features of one tap set, and what is known of them."""

    tap_set: TapSet
    blocks: Blocks
    known: Known | None

    @property
    def width(self) -> int:
        """What coefficients are of: features, or in a fold held images."""
        return sum(self.blocks[part.block].shape[1] for part in self.tap_set.parts)

    def fit_known(self, targets: Doubles, known: Rows, groups: Ints, choice: Rows) -> Outputs:
        """As `fit_outputs`, of all images, for targets (known, label) of the `known` ones."""
        source = source_of(self.tap_set, self.blocks, self.known)
        if len(known) == len(groups):
            return fit_outputs(source, targets, groups, _calibrated_loss, choice)
        features = source.taught
        spectrum = decompose(features[known])
        found = fit_whole(spectrum, targets, groups[known], _calibrated_loss, choice)
        left_out = np.empty((len(features), targets.shape[1]))
        left_out[known] = found.left_out
        rest = np.setdiff1d(np.arange(len(features)), known)
        l2 = spectrum.scale * found.l2
        left_out[rest] = ridge_left_out_of(spectrum, targets, l2, groups[known], features[rest], groups[rest])
        if isinstance(source, Taught):
            answers = source.answers(found.coef, found.intercept)
            return Outputs(answers.T, np.zeros(len(found.l2)), left_out, found.l2)
        return replace(found, left_out=left_out)


def _fit_member(tap_set: TapSet, source: _Source, present: Present, able: Bools, groups: Ints, seed: int) -> Member:
    """The labels that can be learned, calibrated; the others are 0."""
    n, n_labels = present.shape
    coef, intercept, l2 = np.zeros((n_labels, source.width)), np.zeros(n_labels), np.ones(n_labels)
    left_out, losses = np.zeros((n, n_labels)), np.zeros(n_labels)
    for known, labels in _patterns(present, able):
        part = present[np.ix_(known, labels)] == 1
        found = source.fit_known(part.astype(np.float64), known, groups, _choice_rows(part, seed))
        for k, label in enumerate(labels):
            scale, offset, _ = (float(v[0]) for v in platt(found.left_out[known, k][None], part[:, k]))
            coef[label], intercept[label] = scale * found.coef[k], scale * found.intercept[k] + offset
            left_out[:, label], l2[label] = scale * found.left_out[:, k] + offset, found.l2[k]
            losses[label] = log_odds_loss(left_out[known, label], part[:, k].astype(np.float64))
    return Member(tap_set, Outputs(coef, intercept, left_out, l2), losses, able)


def _patterns(present: Present, able: Bools) -> Iterator[tuple[Rows, Rows]]:
    """(images, labels) for labels that are known in the same images: they share one decomposition."""
    labels = np.flatnonzero(able)
    if len(labels):
        known = present[:, labels] != UNKNOWN
        kinds, kind_of = np.unique(known, axis=1, return_inverse=True)
        for k, rows in enumerate(kinds.T):
            yield np.flatnonzero(rows), labels[kind_of.ravel() == k]


def _calibrated_loss(answers: Doubles, targets: Doubles) -> Doubles:
    """(penalty, label) of scores (penalty, image, label)."""
    return np.stack([platt(answers[:, :, k], targets[:, k] == 1)[2] for k in range(targets.shape[1])], axis=1)


def _choice_rows(part: Bools, seed: int) -> Rows:
    """As `choice_rows`, with SHOWN images of each label and without it: a random sample may hold none of a rare one."""
    rows = choice_rows(len(part), seed)
    if len(rows) == len(part):
        return rows
    order = np.random.default_rng(seed).permutation(len(part))
    shown = [order[part[order, k] == side][:SHOWN] for k in range(part.shape[1]) for side in (True, False)]
    return np.unique(np.concatenate([rows, *shown]))


def _sharpened(probe: Probe, present: Present, mixed: Bools) -> Probe:
    """The head with its mixed labels calibrated again: an average of several is less sure than it could be."""
    scale, offset = np.ones(len(mixed)), np.zeros(len(mixed))
    for label in np.flatnonzero(mixed):
        known = present[:, label] != UNKNOWN
        found = platt(probe.left_out[known, label][None], present[known, label] == 1)
        scale[label], offset[label] = found[0][0], found[1][0]
    left_out = scale * probe.left_out + offset
    return replace(
        probe, coef=scale[:, None] * probe.coef, intercept=scale * probe.intercept + offset, left_out=left_out
    )


def _constant(probe: Probe, present: Present, labels: Bools, groups: Ints) -> Probe:
    """The head with the log-odds of their share for these labels, left out by group too."""
    intercept, left_out = probe.intercept.copy(), probe.left_out.copy()
    _, group = np.unique(groups, return_inverse=True)
    for label in np.flatnonzero(labels):
        counts = [np.bincount(group, present[:, label] == k) for k in (0, 1)]  # (group,) without the label, with it
        without, having = (count.sum() - count[group] + 1 for count in counts)
        left_out[:, label] = np.log(having / without)
        intercept[label] = np.log((counts[1].sum() + 1) / (counts[0].sum() + 1))
    return replace(probe, intercept=intercept, left_out=left_out)


def _share_right(log_odds: Doubles, present: Present) -> float:
    known = present != UNKNOWN
    return float(((log_odds > 0) == (present == 1))[known].mean()) if known.any() else 0.0


def best_thresholds(log_odds: Doubles, present: Present, aim: str = "f1") -> Doubles:
    """The probability (label,) from which on each label is said to be there, by left-out calibrated log-odds
    (image, label) and present (image, label); UNKNOWN is passed over. Raises OptionError for an unknown aim.

    "accuracy": .5, the fewest errors. "f1": half of the best F1 that the probabilities themselves let expect, which is
    where F1 is highest for true probabilities (Lipton, Elkan and Naryanaswamy 2014). It asks the labels only through
    the calibration, so that a few positives do not drag it about: on other images F1 is .727 where 80 images of
    eurosat_3000's four tiles teach, .694 at .5, .719 at what is best for the left-out answers; .795, .781, .790 where
    200 do (benchmarks/new_heads.py). Where images with the label score no higher than those without, nothing was
    learned: .5, so that such a label is not said of every image.

    Thresholds are part of what is learned. An F1 is honest where they come from the images that taught: in each fold
    `best_thresholds(probe.left_out, present[train])`, applied to the fold's own images.
    """
    if aim not in AIMS:
        raise OptionError(f"thresholds for {aim!r} are not known: one of {', '.join(AIMS)}")
    found = np.full(present.shape[1], 0.5)
    for label in range(present.shape[1]) if aim == "f1" else ():
        scores, positive = (a[present[:, label] != UNKNOWN, label] for a in (log_odds, present == 1))
        if positive.any() and not positive.all() and scores[positive].mean() > scores[~positive].mean():
            found[label] = _expected_f1(sigmoid(scores)) / 2
    return found


def _expected_f1(probabilities: Doubles) -> float:
    """The best F1 of a label over all thresholds, as probabilities (image,) of it let expect."""
    falling = np.sort(probabilities)[::-1]
    hits, named = np.cumsum(falling), np.arange(1, len(falling) + 1)
    return float((2 * hits / (named + hits[-1])).max())
