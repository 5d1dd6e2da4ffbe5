"""Several labels an image: marks of answers, and the scores that they give.

Unknown cells, of labels that nobody looked for in an image, count nowhere.

Average precision is the step-wise area under precision against recall (as scikit-learn's `average_precision_score`):
sum over the distinct scores of (recall gained) x (precision there). Its mean is over the labels that occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from headstart.judge.intervals import interval, wilson
from headstart.judge.marks import Array, Interval, Marks, Score, Summary
from headstart.judge.summaries import crossed, summarise

SMALLEST_PROBABILITY = 1e-7  # log-loss clips here, as that of classes does


class LabelRow(TypedDict):
    """What is said of one label: `n` images that have it, of `known` in which it was looked for."""

    label: str
    n: int
    known: int
    average_precision: Interval
    precision: Interval
    recall: Interval
    f1: Interval
    threshold: float


def tag_marks(present: NDArray[np.int8], probabilities: NDArray[Any], thresholds: NDArray[Any]) -> Marks:
    """Of truth (image, label) 1, 0 or -1 (unknown), probabilities and the thresholds from which a label is given, both
    (image, label).

    Columns: truth, probability, threshold (image, label); right (image,): the share of its known labels that is right;
    exact (image,): whether all are; loss (image,): mean binary log-loss of its known labels, nan where none is.
    """
    known, p = present >= 0, np.clip(probabilities.astype(np.float64), SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    hit = ((probabilities >= thresholds) == (present == 1)) & known
    n = known.sum(axis=1)
    losses = np.where(known, -np.where(present == 1, np.log(p), np.log1p(-p)), 0.0)
    share = np.divide(hit.sum(axis=1), n, out=np.full(len(n), np.nan), where=n > 0)
    loss = np.divide(losses.sum(axis=1), n, out=np.full(len(n), np.nan), where=n > 0)
    return Marks(
        {
            "truth": present,
            "probability": probabilities.astype(np.float64),
            "threshold": thresholds.astype(np.float64),
            "right": share,
            "exact": np.where(n > 0, share == 1, np.nan),
            "loss": loss,
        }
    )


def average_precisions(marks: Marks, weights: Array) -> Array:
    """(resample, label); nan where no image with the label counts."""
    truth, scores = marks["truth"], marks["probability"]
    found = np.full((len(weights), truth.shape[1]), np.nan)
    for k in range(truth.shape[1]):
        rows = np.flatnonzero(truth[:, k] >= 0)
        rows = rows[np.argsort(-scores[rows, k], kind="stable")]
        if not (truth[rows, k] == 1).any():
            continue
        last = np.append(np.flatnonzero(np.diff(scores[rows, k])), len(rows) - 1)  # of each run of equal scores
        w = weights[:, rows]
        taken = w.cumsum(axis=1)[:, last]
        hits = (w * (truth[rows, k] == 1)).cumsum(axis=1)[:, last]
        gained = np.diff(hits, axis=1, prepend=0.0)
        precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
        total = hits[:, -1]
        found[:, k] = np.divide((gained * precision).sum(axis=1), total, out=np.full(len(w), np.nan), where=total > 0)
    return found


def _mean_over_labels(values: Array) -> Array:
    known = np.isfinite(values)
    n = known.sum(axis=1)
    return np.divide(np.where(known, values, 0).sum(axis=1), n, out=np.full(len(n), np.nan), where=n > 0)


def _mean_average_precision(marks: Marks, weights: Array) -> Array:
    return _mean_over_labels(average_precisions(marks, weights))


def _counts(marks: Marks, weights: Array) -> tuple[Array, Array, Array]:
    """Right, true and given labels (resample, label)."""
    truth, given = marks["truth"], marks["probability"] >= marks["threshold"]
    known = truth >= 0
    there = truth == 1
    return tuple(weights @ x.astype(np.float64) for x in (there & given, there, given & known))  # type: ignore[return-value]


def _f1(right: Array, true: Array, given: Array) -> Array:
    total = true + given
    return np.divide(2 * right, total, out=np.full(total.shape, np.nan), where=total > 0)


def _macro_f1(marks: Marks, weights: Array) -> Array:
    return _mean_over_labels(_f1(*_counts(marks, weights)))


def _micro_f1(marks: Marks, weights: Array) -> Array:
    right, true, given = (c.sum(axis=1) for c in _counts(marks, weights))
    return _f1(right, true, given)


def _mean_of(column: str, marks: Marks, weights: Array) -> Array:
    """Of the images where it is known."""
    known = np.isfinite(marks[column])
    total = weights @ known.astype(np.float64)
    sums = weights @ np.where(known, marks[column], 0.0)
    return np.divide(sums, total, out=np.full(len(total), np.nan), where=total > 0)


SUMMARIES = (
    Summary("mean_average_precision", _mean_average_precision, share=True),
    Summary("macro_f1", _macro_f1, share=True),
    Summary("micro_f1", _micro_f1, share=True),
    Summary("exact_match", partial(_mean_of, "exact"), share=True),
    Summary("label_accuracy", partial(_mean_of, "right"), share=True),
    Summary("log_loss", partial(_mean_of, "loss"), highest=np.inf, higher_is_better=False),
)


def tag_score(
    marks: Marks, names: Sequence[str], groups: NDArray[np.integer[Any]] | None = None, seed: int = 0
) -> Score:
    """All scores, each with its 95 % interval; `tables` has `per_label` and `co_occurrence`."""
    return Score(len(marks), summarise(marks, SUMMARIES, groups, seed), _tables(marks, names))


def crossed_tag_score(
    repeats: Sequence[Marks],
    folds: Sequence[NDArray[np.integer[Any]]],
    names: Sequence[str],
    groups: NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
) -> Score:
    """All scores of repeated cross-validation; the tables are of the first repeat."""
    found = crossed(repeats, folds, SUMMARIES, groups, seed)
    return Score(len(repeats[0]), found, _tables(repeats[0], names), len(np.unique(folds[0])), len(repeats))


def weakest_label(marks: Marks) -> float:
    """The average precision of the label that fares worst; 1 where none occurs."""
    found = average_precisions(marks, np.ones((1, len(marks))))[0]
    return float(np.nanmin(found)) if np.isfinite(found).any() else 1.0


def _tables(marks: Marks, names: Sequence[str]) -> dict[str, Any]:
    ones = np.ones((1, len(marks)))
    right, true, given = (c[0] for c in _counts(marks, ones))
    precisions = average_precisions(marks, ones)[0]
    f1, threshold = _f1(right, true, given), marks["threshold"].mean(axis=0)
    known = (marks["truth"] >= 0).sum(axis=0)

    def share(hits: float, of: float) -> Interval:
        return interval(hits / of, *wilson(hits / of, of)) if of else interval(None, None, None)

    rows: list[LabelRow] = [
        {
            "label": str(name),
            "n": int(true[k]),
            "known": int(known[k]),
            "average_precision": _rough(float(precisions[k]), float(true[k])),
            "precision": share(float(right[k]), float(given[k])),
            "recall": share(float(right[k]), float(true[k])),
            "f1": _rough(float(f1[k]), float(true[k] + given[k] - right[k])),
            "threshold": float(threshold[k]),
        }
        for k, name in enumerate(names)
    ]
    there = (marks["truth"] == 1).astype(np.int64)
    said = (marks["probability"] >= marks["threshold"]).astype(np.int64)
    return {
        "per_label": rows,
        "co_occurrence": (there.T @ there).tolist(),
        "answered_together": (said.T @ said).tolist(),
    }


def _rough(value: float, n: float) -> Interval:
    """A row's value with Wilson's interval for so many images: its own bootstrap for each label would cost the most of
    a fit."""
    return interval(value, *wilson(value, n)) if np.isfinite(value) else interval(None, None, None)
