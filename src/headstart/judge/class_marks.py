"""One class an image: marks of answers, and the scores that they give, each with a 95 % interval.

- Accuracy, and recall, precision and F1 of a class: Wilson's score interval (Wilson 1927). Where images come in groups
  (duplicates, patients), with the effective number of images of survey sampling: the variance between groups says how
  many independent images these are worth (Korn and Graubard 1998; Dean and Pagano 2015).
- Balanced accuracy and macro scores: percentile bootstrap over groups, never narrower than the classes' Wilson
  intervals combined (MOVER, Zou and Donner 2008): a bootstrap without mistakes would be certain of perfection.
- Log-loss and ECE: percentile bootstrap over groups.

Macro scores are means over the classes that occur in the truth (scikit-learn also counts classes that are only
predicted, as 0). The recall of a class that does not occur and the precision of a class that is never predicted are
None; in macro precision the latter counts as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, OptionError
from headstart.judge.intervals import (
    NEW_IMAGES,
    accuracy_interval,
    corrected_half_width,
    drawn,
    effective_numbers,
    interval,
    mean_ends,
    mover,
    paired_losses,
    percentiles,
    units_of,
    wider,
    wilson,
)
from headstart.judge.marks import Array, Interval, Marks, Score

RESAMPLES = 2000  # bootstrap resamples: the ends of a 95 % interval then vary by about 1.5 % of its width
BLOCKS = 4000  # units resampled at most; more groups are merged at random into so many: the variance stays as it is
CHUNK = 250  # resamples at a time: (250, 3 x 1000 classes) float64 is 6 MB
ECE_BINS = 15  # of equal mass (Guo et al. 2017 use 15; equal mass: Nixon et al. 2019)
SMALLEST_PROBABILITY = 1e-7  # log-loss clips here, about the resolution of float32: one image costs 16.1 at most

COSTS = ("cost", "cost_by_probability")  # marks of a model that was told what mistakes cost
_MACRO = ("balanced_accuracy", "macro_precision", "macro_recall", "macro_f1")
METRICS = (
    "accuracy",
    "balanced_accuracy",
    "log_loss",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "ece",
    "ece_plain",
)


# What is said of one class; `n` images of it, or their mean over repetitions.
ClassRow = TypedDict("ClassRow", {"class": str, "n": float, "precision": Interval, "recall": Interval, "f1": Interval})


def class_marks(truth: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]]) -> Marks:
    """What is judged of truth (image,) against probabilities (image, class), or (image, class, 2): probability, worth.

    Columns (image,): truth; answer: the most probable class, or that of most worth (the first of equals); right: 1 or
    0; sure: the answer's probability; loss: -log of the truth's probability, clipped; and
    probability (image, class). Raises DataError without images,
    OptionError where the shapes or values are no probabilities of these classes.
    """
    answer = decision_of(probabilities)
    probabilities = probabilities_of(probabilities)
    _check(truth, probabilities)
    return Marks(
        {
            "truth": truth.astype(np.int64),
            "answer": answer,
            "right": (answer == truth).astype(np.float64),
            "sure": probabilities[np.arange(len(truth)), answer].astype(np.float64),
            "loss": _losses(truth, probabilities),
            "probability": probabilities,
        }
    )


def probabilities_of(answers: NDArray[Any]) -> NDArray[Any]:
    """(image, class) of answers (image, class), or (image, class, 2): probability, worth."""
    return answers[..., 0] if answers.ndim == 3 else answers


def decision_of(answers: NDArray[Any]) -> NDArray[np.int64]:
    """(image,): the class answered, the most probable one, or that of most worth."""
    return np.asarray((answers[..., -1] if answers.ndim == 3 else answers).argmax(axis=1), dtype=np.int64)


def mean_marks(repeats: Sequence[Marks], probabilities: NDArray[np.floating[Any]]) -> Marks:
    """The marks of several answers an image, of which probabilities (image, class) are the mean: `right` is the share
    of the answers that were right."""
    first = class_marks(repeats[0]["truth"], probabilities)
    means = ("right", *(name for name in repeats[0].columns if name in COSTS))
    return Marks({**first.columns, **{name: np.mean([m[name] for m in repeats], axis=0) for name in means}})


def class_score(
    marks: Marks, classes: Sequence[str], groups: NDArray[np.integer[Any]] | None = None, seed: int = 0
) -> Score:
    """All scores, each with its 95 % interval; `tables` has `per_class` and `confusion` (truth, answer).

    groups (image,): images of one group are not independent; None = all are. `ece_plain` is the usual expected
    calibration error: the gap between confidence and accuracy of the predicted class in 15 bins of equal mass. Chance
    differences alone make it larger than 0; `ece` is the same moved down by the bias that the bootstrap shows (Kumar,
    Liang and Ma 2019), not below 0.
    """
    truth, answer = marks["truth"], marks["answer"]
    units = units_of(len(truth), groups)
    tally = _tally(truth, answer, units, len(classes))
    found = {"accuracy": accuracy_interval(truth == answer, groups)}
    draws = _bootstrap(marks, units, len(classes), seed)
    macro = _macro_values(tally.right, tally.true, tally.guessed)
    for index, name in enumerate(_MACRO):
        part = {"macro_precision": "precision", "macro_f1": "f1"}.get(name, "recall")
        combined = mover(float(macro[index]), tally.interval(part), tally.true > 0)
        found[name] = wider(float(macro[index]), percentiles(draws.macro[:, index]), combined)
    log_loss = float(draws.loss_total / len(truth))
    found["log_loss"] = interval(log_loss, *percentiles(draws.loss), top=np.inf)
    found["ece"], found["ece_plain"] = _ece(draws)
    tables = {
        "per_class": tally.per_class(classes),
        "confusion": confusion(truth, answer, len(classes)).tolist(),
        **_costs([marks], units, 1.0),
    }
    return Score(len(truth), {name: found[name] for name in METRICS}, tables)


def point_scores(marks: Marks, n_classes: int) -> dict[str, float]:
    """The values of METRICS without intervals (both ECEs with their bias), for one fold or one draw."""
    truth, answer, sure = marks["truth"], marks["answer"], marks["sure"]
    right, true, guessed = (np.bincount(v, minlength=n_classes) for v in (truth[truth == answer], truth, answer))
    values = dict(zip(_MACRO, _macro_values(right, true, guessed).tolist(), strict=True))
    gap = np.bincount(calibration_bins(sure), weights=sure - (truth == answer), minlength=ECE_BINS)
    values["accuracy"] = float((truth == answer).mean())
    values["log_loss"] = float(marks["loss"].mean())
    values["ece"] = values["ece_plain"] = float(np.abs(gap).sum() / len(truth))
    return {name: values[name] for name in METRICS}


def crossed_class_score(
    repeats: Sequence[Marks],
    folds: Sequence[NDArray[np.integer[Any]]],
    classes: Sequence[str],
    groups: NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
) -> Score:
    """All scores of repeated cross-validation, in the form of `class_score`.

    One entry per repeat: out-of-fold marks and fold numbers (image,). Values: each repeat's out-of-fold predictions are
    scored as one set (so macro scores do not suffer from small folds: Forman and Scholz 2010), then averaged over
    repeats, as is `confusion` (floats where repeats differ).

    The interval is for the value that as many new images of the same kind would show. Each end is the farther of
    (a) the corrected resampled t-interval of the folds' scores, variance x (1/J + n_test/n_train), J = folds x repeats
    (Nadeau and Bengio 2003), and (b) the mean over repeats of each one's own end, sqrt(2) times as far from the value:
    the chance of these images and of the new ones. (a) alone is certain of perfection where all folds agree and grows
    too narrow with many repeats; (b) alone leaves out that training sets vary. ECE and the classes take (b) alone.
    How often it covers what another half shows: docs/measurements.md, cross-validation.
    """
    scores = [class_score(marks, classes, groups, seed) for marks in repeats]
    per_fold = [
        point_scores(marks.take(fold == f), len(classes))
        for marks, fold in zip(repeats, folds, strict=True)
        for f in np.unique(fold)
    ]
    found = {}
    test_share = float(np.mean([1 / len(np.unique(fold)) for fold in folds]))
    for name in METRICS:
        value, low, high = mean_ends([s[name] for s in scores])
        half = (
            0.0
            if name in ("ece", "ece_plain")
            else corrected_half_width([f[name] for f in per_fold], test_share / (1 - test_share))
        )
        top = np.inf if name == "log_loss" else 1.0
        found[name] = wider(value, (low, high), (value - half, value + half), top)
    tables = {
        "per_class": [_mean_row([s.tables["per_class"][c] for s in scores]) for c in range(len(classes))],
        "confusion": _mean_confusion([np.array(s.tables["confusion"]) for s in scores]),
        **_costs(repeats, groups, NEW_IMAGES),
    }
    n_folds = len(np.unique(folds[0]))
    return Score(len(folds[0]), found, tables, n_folds, len(repeats))


def _costs(repeats: Sequence[Marks], groups: NDArray[Any] | None, times: float) -> dict[str, Any]:
    """What an image cost, what it would have cost by probability alone, and what was saved, paired: Student's t over
    the groups, its width `times` over. Nothing where there are no costs."""
    if COSTS[0] not in repeats[0].columns:
        return {}
    mine, plain = (np.mean([marks[name] for marks in repeats], axis=0) for name in COSTS)
    none = np.zeros(len(mine))

    def of(first: Array, second: Array) -> Interval:
        found = paired_losses(first, second, groups)
        if found["value"] is None or found["low"] is None:
            return found
        half = times * (found["value"] - found["low"])
        return {"value": found["value"], "low": found["value"] - half, "high": found["value"] + half}

    return {"cost": {"mean": of(mine, none), "by_probability": of(plain, none), "saved": of(plain, mine)}}


def _mean_row(rows: Sequence[ClassRow]) -> ClassRow:
    """One class's row, averaged over the repeats in which it is defined."""

    def mean(cells: list[Interval]) -> Interval:
        known = [cell for cell in cells if cell["value"] is not None]
        if not known:
            return interval(None, None, None)
        value, low, high = mean_ends(known)
        return wider(value, (low, high), (low, high))

    return {
        "class": rows[0]["class"],
        "n": rows[0]["n"],
        "precision": mean([row["precision"] for row in rows]),
        "recall": mean([row["recall"] for row in rows]),
        "f1": mean([row["f1"] for row in rows]),
    }


def _mean_confusion(counts: Sequence[NDArray[np.int64]]) -> list[list[float]]:
    """Counts averaged over repeats; whole numbers stay whole where all repeats agree."""
    if all(np.array_equal(c, counts[0]) for c in counts):
        return [[int(v) for v in row] for row in counts[0]]
    return [[float(v) for v in row] for row in np.mean(counts, axis=0)]


def confusion(
    truth: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], n_classes: int
) -> NDArray[np.int64]:
    """Counts (true class, predicted class)."""
    cells = truth.astype(np.int64) * n_classes + predicted
    return np.bincount(cells, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


@dataclass(frozen=True)
class _Tally:
    """Counts by class (class,): right, true, guessed (predicted), either (true or predicted), and the effective
    numbers of images behind recall (of true), precision (of guessed) and F1 (of either)."""

    right: NDArray[np.int64]
    true: NDArray[np.int64]
    guessed: NDArray[np.int64]
    either: NDArray[np.int64]
    worth: dict[str, Array]

    def interval(self, part: str) -> tuple[Array, Array, Array]:
        """(value, low, high) by class (class,); 0 to 1 where undefined.

        F1 = 2J / (1 + J) for J = right / either (Jaccard), a share of independent images: the ends of J's Wilson
        interval are carried over.
        """
        below = {"recall": self.true, "precision": self.guessed, "f1": self.either}[part]
        share = np.divide(self.right, below, out=np.zeros(len(below)), where=below > 0)
        ends = [wilson(float(s), float(w)) for s, w in zip(share, self.worth[part], strict=True)]
        low, high = np.array(ends, dtype=np.float64).reshape(-1, 2).T
        if part == "f1":
            share, low, high = (2 * v / (1 + v) for v in (share, low, high))
        return share, low, high

    def per_class(self, classes: Sequence[str]) -> list[ClassRow]:
        """A row a class."""
        recall, precision, f1 = (self.interval(part) for part in ("recall", "precision", "f1"))

        def cell(columns: tuple[Array, Array, Array], c: int, known: bool) -> Interval:
            return interval(*(float(v[c]) for v in columns)) if known else interval(None, None, None)

        return [
            {
                "class": str(name),
                "n": int(self.true[c]),
                "precision": cell(precision, c, bool(self.guessed[c])),
                "recall": cell(recall, c, bool(self.true[c])),
                "f1": cell(f1, c, bool(self.true[c])),
            }
            for c, name in enumerate(classes)
        ]


def _tally(truth: NDArray[Any], predicted: NDArray[np.int64], units: NDArray[np.int64], n_classes: int) -> _Tally:
    wrong = truth != predicted
    right, true, guessed = (np.bincount(v, minlength=n_classes) for v in (truth[~wrong], truth, predicted))
    either = true + guessed - right
    of_either = np.concatenate([truth, predicted[wrong]])
    hit = (~wrong).astype(np.float64)
    hit_either = np.concatenate([hit, np.zeros(int(wrong.sum()))])
    worth = {
        "recall": effective_numbers(truth, hit, units, n_classes),
        "precision": effective_numbers(predicted, hit, units, n_classes),
        "f1": effective_numbers(of_either, hit_either, np.concatenate([units, units[wrong]]), n_classes),
    }
    return _Tally(right, true, guessed, either, worth)


@dataclass(frozen=True)
class _Draws:
    """Bootstrap: macro scores (resample, 4), mean log-loss (resample,), ECE (resample,), and what was observed."""

    macro: Array
    loss: Array
    ece: Array
    loss_total: float
    ece_observed: float


def _bootstrap(marks: Marks, units: NDArray[np.int64], n_classes: int, seed: int) -> _Draws:
    """Resample groups 2,000 times, as weights on sums by group, so that cost and memory depend on BLOCKS and classes,
    not on images.

    Calibration bins stay as observed.
    """
    merged, drawings = drawn(seed, int(units.max()) + 1, BLOCKS, RESAMPLES)
    units, blocks = units if merged is None else merged[units], drawings.shape[1]
    truth, predicted, losses, confidence = (marks[name] for name in ("truth", "answer", "loss", "sure"))
    hit = truth == predicted
    gap = _sums(units, calibration_bins(confidence), confidence - hit, blocks, ECE_BINS)
    ones = np.ones(len(truth))
    counts = [
        _sums(units[m], v[m], ones[m], blocks, n_classes)
        for v, m in ((truth, hit), (truth, hit | True), (predicted, hit | True))
    ]
    loss, size = np.bincount(units, weights=losses, minlength=blocks), np.bincount(units, minlength=blocks)
    macro, means, eces = [], [], []
    for start in range(0, RESAMPLES, CHUNK):
        weights = drawings[start : start + CHUNK].astype(np.float64)
        total = weights @ size
        macro.append(_macro_values(*(_weighted(weights, s) for s in counts)).T)
        means.append(weights @ loss / total)
        eces.append(np.abs(_weighted(weights, gap)).sum(axis=1) / total)
    observed = float(np.abs(np.asarray(gap.sum(axis=0))).sum() / len(truth))
    return _Draws(np.concatenate(macro), np.concatenate(means), np.concatenate(eces), float(losses.sum()), observed)


def _sums(units: NDArray[np.int64], column: NDArray[Any], values: Array, blocks: int, width: int) -> Any:
    """Sums of values by (block, column), as a sparse matrix: with 1,000 classes most are 0."""
    from scipy.sparse import csr_matrix

    return csr_matrix((values, (units, column)), shape=(blocks, width))


def _weighted(weights: Array, sums: Any) -> Array:
    """(resample, block) x (block, column) -> (resample, column)."""
    return np.asarray((sums.T @ weights.T).T)


def _macro_values(right: NDArray[Any], true: NDArray[Any], guessed: NDArray[Any]) -> Array:
    """Values of _MACRO (4, ...) from counts (..., class), over the classes that occur."""
    occurs = true > 0
    n = np.maximum(occurs.sum(axis=-1), 1)
    recall, precision, half_f1 = (
        np.divide(right, below, out=np.zeros(right.shape), where=(below > 0) & occurs).sum(axis=-1) / n
        for below in (true, guessed, true + guessed)
    )
    return np.stack([recall, precision, recall, 2 * half_f1])


def _ece(draws: _Draws) -> tuple[Interval, Interval]:
    """Corrected and plain: a resample shows the bias of chance once more than what was observed."""
    bias = float(draws.ece.mean()) - draws.ece_observed
    low, high = percentiles(draws.ece - bias)
    corrected = interval(max(0.0, draws.ece_observed - bias), low - bias, high - bias)
    return corrected, interval(draws.ece_observed, low, high)


def calibration_bins(confidence: NDArray[Any]) -> NDArray[np.int64]:
    """Bin (image,) of equal mass, by rank; equal confidences share a bin."""
    ordered = np.sort(confidence)
    twice_rank = np.searchsorted(ordered, confidence, "left") + np.searchsorted(ordered, confidence, "right") - 1
    return np.asarray(twice_rank * ECE_BINS // (2 * len(confidence)), dtype=np.int64)


def _losses(truth: NDArray[Any], probabilities: NDArray[Any]) -> Array:
    """-log of the true class's probability (image,), clipped."""
    chosen = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return np.asarray(-np.log(np.clip(chosen, SMALLEST_PROBABILITY, 1.0)))


def _check(truth: NDArray[Any], probabilities: NDArray[Any]) -> None:
    if len(truth) == 0:
        raise DataError("score: no images to judge")
    if probabilities.ndim != 2 or len(probabilities) != len(truth):
        raise OptionError(f"score: probabilities {probabilities.shape}, expected ({len(truth)}, classes)")
    n_classes = probabilities.shape[1]
    if truth.min() < 0 or truth.max() >= n_classes:
        raise OptionError(f"score: class numbers {truth.min()} to {truth.max()}, allowed are 0 to {n_classes - 1}")
    total = probabilities.sum(axis=1, dtype=np.float64)
    if not (np.isfinite(total).all() and np.abs(total - 1).max() < 1e-2 and probabilities.min() >= -1e-6):
        raise OptionError("score: probabilities must be at least 0 and sum to 1 for each image")
