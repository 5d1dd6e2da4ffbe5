"""Several labels an image: marks of answers, and the scores that they give, each with a 95 % interval.

Average precision is the step sum over the probabilities, each label's own: how much recall each adds, times the
precision there; equal probabilities are one threshold. Means over labels are over those with a known positive. Labels
that nobody has looked for in an image (UNKNOWN) count nowhere.

Intervals are those of `judge/summaries.py`, and at least as wide as follows from Wilson's of each label: of the mean
precision at its positives (average precision), of right among present or given (Jaccard's J, F1 = 2J / (1 + J)). They
are combined over labels (MOVER, Zou and Donner 2008) as independent, but labels of which no mistake was seen as failing
together on the images that they share: nothing shows that they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from headstart.data.targets import UNKNOWN
from headstart.errors import DataError, OptionError
from headstart.judge.intervals import interval, units_of, wider
from headstart.judge.marks import Array, Interval, Marks, Score, Summary, ends
from headstart.judge.summaries import (
    UNDEFINED,
    averaged,
    averaged_scores,
    blind_ends,
    estimate,
    groups_in,
    least_of_share,
    percentile_ends,
    resampled,
    share_ends,
)

SMALLEST_PROBABILITY = 1e-7  # log-loss clips here, as that of classes does
CACHE = 800_000  # (image, resample) at a time: 6 MB of float64 stay in the cache; four times as many take twice as long

Units = NDArray[np.int64]
Ends = tuple[float, float]
Cells = Callable[[Marks], tuple[NDArray[np.bool_], Array]]


class TagTables(TypedDict):
    """`per_label`: a row a label; `co_occurrence` and `answered_together`: how many images have both labels, and were
    given both (label, label)."""

    per_label: list[LabelRow]
    co_occurrence: Sequence[Sequence[float]]
    answered_together: Sequence[Sequence[float]]


class LabelRow(TypedDict):
    """What is said of one label: `n` images have it of `known` in which it was looked for."""

    label: str
    n: int
    known: int
    threshold: float
    average_precision: Interval
    precision: Interval
    recall: Interval
    f1: Interval


def tag_marks(
    present: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]], thresholds: NDArray[np.floating[Any]]
) -> Marks:
    """What is judged of present (image, label), 1, 0 or UNKNOWN, against probabilities (image, label).

    thresholds (label,) or (image, label): the probability from which a label is given. Columns: truth, given (image,
    label) int8, UNKNOWN where the truth is; probability (image, label), 0 there; threshold (image, label); and by
    image, nan where nothing is known of it: loss, mean binary log-loss of its known labels in nats; right, the share of
    them answered rightly; exact, 1 where all are. Raises DataError without images, OptionError where the shapes do not
    fit, a truth is none of the three, or known labels have no probability.
    """
    _check(present, probabilities, thresholds)
    truth = present.astype(np.int8)
    known = truth != UNKNOWN
    p = np.where(known, probabilities, 0.0).astype(np.float64)
    least = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), truth.shape)
    given = np.where(known, p >= least, UNKNOWN).astype(np.int8)
    loss = -np.log(np.clip(np.where(truth == 1, p, 1 - p), SMALLEST_PROBABILITY, 1.0))
    right = _mean_known(given == truth, known)
    return Marks(
        {
            "truth": truth,
            "probability": p,
            "given": given,
            "threshold": least,
            "loss": _mean_known(loss, known),
            "right": right,
            "exact": np.where(np.isnan(right), np.nan, right == 1),
        }
    )


def _mean_known(cells: NDArray[Any], known: NDArray[np.bool_]) -> Array:
    """Mean over the known labels (image,); nan where none is."""
    n = known.sum(axis=1)
    return np.divide((cells * known).sum(axis=1), n, out=np.full(len(n), np.nan), where=n > 0)


def average_precisions(marks: Marks, weights: Array) -> Array:
    """(resample, label); nan where a label has no positive."""
    columns = _transposed(weights)
    found = [_average_precision(marks["truth"][:, k], marks["probability"][:, k], columns) for k in _labels(marks)]
    return np.stack(found, axis=1)


def _transposed(weights: Array) -> list[Array]:
    """(image, resample), a part of the resamples each."""
    at_once = max(1, CACHE // weights.shape[1])
    return [np.ascontiguousarray(weights[i : i + at_once].T) for i in range(0, len(weights), at_once)]


def _labels(marks: Marks) -> range:
    return range(marks["truth"].shape[1])


def _average_precision(truth: NDArray[Any], scores: Array, columns: Sequence[Array]) -> Array:
    """Of one label (resample,). Images are summed by the thresholds at which there are positives: the others add no
    recall."""
    from scipy.sparse import csr_matrix

    step, positive = _steps(truth, scores), truth == 1
    n, counted = len(truth), step >= 0
    if not positive.any():
        return np.full(sum(w.shape[1] for w in columns), np.nan)
    k = int(step.max()) + 1

    def by_step(rows: NDArray[np.bool_]) -> Any:
        return csr_matrix((np.ones(int(rows.sum())), (step[rows], np.flatnonzero(rows))), shape=(k, n))

    answered, hits = by_step(counted), by_step(positive)
    found = []
    for w in columns:
        gained = hits @ w
        right, all_answered = np.cumsum(gained, axis=0), np.cumsum(answered @ w, axis=0)
        gained *= right
        gained /= np.maximum(all_answered, np.finfo(np.float64).tiny, out=all_answered)
        total = right[-1]
        found.append(np.divide(gained.sum(axis=0), total, out=np.full(len(total), np.nan), where=total > 0))
    return np.concatenate(found)


def _steps(truth: NDArray[Any], scores: Array) -> NDArray[np.int64]:
    """The number (image,) of the threshold with positives at which each image is first answered, from the highest on;
    -1 for those that come after the last, and unknown ones."""
    known = np.flatnonzero(truth != UNKNOWN)
    order = known[np.argsort(-scores[known], kind="stable")]
    positive, score = truth[order] == 1, scores[order]
    first = np.append(True, score[1:] != score[:-1]) if len(score) else np.zeros(0, dtype=bool)
    place = np.cumsum(first) - 1  # number of the threshold
    has = np.bincount(place[positive], minlength=int(first.sum())) > 0
    before = np.cumsum(has) - has
    step = np.full(len(truth), -1, dtype=np.int64)
    step[order] = np.where(before[place] < has.sum(), before[place], -1)
    return step


def mean_over_labels(values: Array) -> Array:
    """Mean over the last axis of those that are not nan; nan where all are."""
    known = np.isfinite(values)
    n = known.sum(axis=-1)
    return np.divide(np.where(known, values, 0.0).sum(axis=-1), n, out=np.full(n.shape, np.nan), where=n > 0)


def _mean_average_precision(marks: Marks, weights: Array) -> Array:
    return mean_over_labels(average_precisions(marks, weights))


def _counts(marks: Marks, weights: Array) -> tuple[Array, Array]:
    """Weighted counts (resample, label): right answers of labels that are there; those there plus those answered."""
    truth, given = marks["truth"] == 1, marks["given"] == 1
    return weights @ (truth & given).astype(np.float64), weights @ (truth.astype(np.float64) + given)


def _macro_f1(marks: Marks, weights: Array) -> Array:
    right, both = _counts(marks, weights)
    there = weights @ (marks["truth"] == 1).astype(np.float64) > 0
    return mean_over_labels(np.divide(2 * right, both, out=np.full(both.shape, np.nan), where=there))


def _micro_f1(marks: Marks, weights: Array) -> Array:
    truth, given = marks["truth"] == 1, marks["given"] == 1
    right = weights @ (truth & given).sum(axis=1).astype(np.float64)
    both = weights @ (truth.sum(axis=1) + given.sum(axis=1)).astype(np.float64)
    return np.divide(2 * right, both, out=np.full(both.shape, np.nan), where=both > 0)


def _mean_of(column: str) -> Callable[[Marks, Array], Array]:
    """Mean of a column (image,) over the images of which anything is known."""

    def of(marks: Marks, weights: Array) -> Array:
        known = np.isfinite(marks[column])
        total = weights @ known.astype(np.float64)
        summed = weights @ np.where(known, marks[column], 0.0)
        return np.divide(summed, total, out=np.full(len(weights), np.nan), where=total > 0)

    return of


def _precision_at_positives(marks: Marks) -> tuple[NDArray[np.bool_], Array]:
    """Which cells (image, label) are positives, and the precision at the threshold of each: its mean is the average
    precision."""
    positive = marks["truth"] == 1
    precision = np.zeros(positive.shape)
    for k in _labels(marks):
        step, here = _steps(marks["truth"][:, k], marks["probability"][:, k]), positive[:, k]
        counted = step >= 0
        if here.any():
            right, answered = np.cumsum(np.bincount(step[here])), np.cumsum(np.bincount(step[counted]))
            precision[here, k] = (right / answered)[step[here]]
    return positive, precision


def _right_of_either(marks: Marks) -> tuple[NDArray[np.bool_], Array]:
    """Which cells (image, label) are there or answered, and whether they are both."""
    truth, given = marks["truth"] == 1, marks["given"] == 1
    return truth | given, (truth & given).astype(np.float64)


def _f1(jaccard: float) -> float:
    return 2 * jaccard / (1 + jaccard)


def _as_it_is(share: float) -> float:
    return share


def _mean_share_ends(cells: Cells, carry: Callable[[float], float], marks: Marks, units: Units) -> Ends:
    """`Summary.least` of a mean over labels of shares of cells, each carried over to the label's value."""
    counted, shares = cells(marks)
    there = np.flatnonzero((marks["truth"] == 1).any(axis=0))
    found = [share_ends(shares[counted[:, k], k], units[counted[:, k]]) for k in there]
    middle, low, high = (np.array([carry(one[i]) for one in found]) for i in range(3))
    blind = np.array([one[3] for one in found])
    together = np.where(np.outer(blind, blind), _shared(counted[:, there], units), np.eye(len(there)))
    down, up = (float(np.sqrt(d @ together @ d)) / len(there) for d in (middle - low, high - middle))
    return float(middle.mean()) - down, float(middle.mean()) + up


def _shared(counted: NDArray[np.bool_], units: Units) -> Array:
    """(label, label): how much labels (image, label) stand in the same groups, 0 to 1, as a correlation."""
    seen = np.zeros((groups_in(units), counted.shape[1]))
    np.maximum.at(seen, units, counted)
    both = seen.T @ seen
    size = np.sqrt(np.diag(both))
    return np.asarray(both / np.maximum(np.outer(size, size), 1))


def _micro_ends(marks: Marks, units: Units) -> Ends:
    counted, shares = _right_of_either(marks)
    _, low, high, _ = share_ends(shares[counted], np.broadcast_to(units[:, None], counted.shape)[counted])
    return _f1(low), _f1(high)


def _loss_ends(marks: Marks, units: Units) -> Ends:
    known = np.isfinite(marks["loss"])
    loss = marks["loss"][known]
    return blind_ends(float(loss.mean()), 0.0, float(np.log(2)), loss, units_of(len(loss), units[known]))


MEAN_AVERAGE_PRECISION = Summary(
    "mean_average_precision",
    _mean_average_precision,
    least=partial(_mean_share_ends, _precision_at_positives, _as_it_is),
)
MACRO_F1 = Summary("macro_f1", _macro_f1, least=partial(_mean_share_ends, _right_of_either, _f1))
MICRO_F1 = Summary("micro_f1", _micro_f1, least=_micro_ends)
LOG_LOSS = Summary("log_loss", _mean_of("loss"), highest=np.inf, higher_is_better=False, least=_loss_ends)
EXACT_MATCH = Summary("exact_match", _mean_of("exact"), least=least_of_share(lambda marks: marks["exact"]))
LABEL_ACCURACY = Summary("label_accuracy", _mean_of("right"), least=least_of_share(lambda marks: marks["right"]))
SUMMARIES = (MEAN_AVERAGE_PRECISION, MACRO_F1, MICRO_F1, LOG_LOSS, EXACT_MATCH, LABEL_ACCURACY)


def tag_score(
    marks: Marks, names: Sequence[str], groups: NDArray[np.integer[Any]] | None = None, seed: int = 0
) -> Score:
    """SUMMARIES with their intervals; `tables` as `tag_tables` has them.

    groups (image,): images of one group are not independent; None = all are.
    """
    units = units_of(len(marks), groups)
    drawn = _tag_draws(marks, units, seed)
    found = {s.name: estimate(s, marks, drawn[s.name], units) for s in SUMMARIES}
    return Score(len(marks), found, _tables(marks, names, units, drawn["labels"]))


def tag_tables(
    marks: Marks, names: Sequence[str], groups: NDArray[np.integer[Any]] | None = None, seed: int = 0
) -> TagTables:
    """JSON-ready: `per_label`, a LabelRow a label; `co_occurrence` and `answered_together`: how many images
    have both labels, and were given both (label, label), where they are known."""
    units = units_of(len(marks), groups)
    drawn = resampled([marks], {"labels": average_precisions}, units, seed)["labels"]
    return _tables(marks, names, units, drawn)


def crossed_tag_score(
    repeats: Sequence[Marks],
    folds: Sequence[NDArray[np.integer[Any]]],
    names: Sequence[str],
    groups: NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
) -> Score:
    """`tag_score` of repeated cross-validation: out-of-fold marks and fold numbers (image,) of each repeat.

    Estimates as `crossed` makes them; rows and counts are means over repeats.
    """
    scores = [tag_score(marks, names, groups, seed) for marks in repeats]
    rows = [[score.tables["per_label"][k] for score in scores] for k in range(len(names))]
    together = [score.tables["answered_together"] for score in scores]
    tables = {
        "per_label": [_mean_row(of_label) for of_label in rows],
        "co_occurrence": scores[0].tables["co_occurrence"],
        "answered_together": together[0] if len(together) == 1 else np.mean(together, axis=0).tolist(),
    }
    found = averaged_scores(SUMMARIES, repeats, folds, [score.estimates for score in scores])
    return Score(len(repeats[0]), found, tables, len(np.unique(folds[0])), len(repeats))


def _mean_row(rows: Sequence[LabelRow]) -> LabelRow:
    first = rows[0]
    return {
        "label": first["label"],
        "n": first["n"],
        "known": first["known"],
        "threshold": float(np.mean([row["threshold"] for row in rows])),
        "average_precision": averaged([row["average_precision"] for row in rows]),
        "precision": averaged([row["precision"] for row in rows]),
        "recall": averaged([row["recall"] for row in rows]),
        "f1": averaged([row["f1"] for row in rows]),
    }


def weakest_label(marks: Marks) -> float:
    """The average precision of the label that fares worst; 1 where no label occurs."""
    found = average_precisions(marks, np.ones((1, len(marks))))[0]
    return float(np.nanmin(found)) if np.isfinite(found).any() else 1.0


def _tag_draws(marks: Marks, units: Units, seed: int) -> dict[str, Array]:
    """Draws of each summary, and of each label's average precision under `labels`."""
    others = {s.name: s.of for s in SUMMARIES if s is not MEAN_AVERAGE_PRECISION}
    drawn = resampled([marks], {"labels": average_precisions, **others}, units, seed)
    return {MEAN_AVERAGE_PRECISION.name: mean_over_labels(drawn["labels"]), **drawn}


def _tables(marks: Marks, names: Sequence[str], units: Units, drawn: Array) -> TagTables:
    """drawn (resample, label): average precisions."""
    truth, given = marks["truth"] == 1, marks["given"] == 1
    cells = {
        "average_precision": _precision_at_positives(marks),
        "precision": (given, truth.astype(np.float64)),
        "recall": (truth, given.astype(np.float64)),
        "f1": _right_of_either(marks),
    }
    rows = [_label_row(marks, str(name), k, cells, units, drawn[:, k]) for k, name in enumerate(names)]
    return {"per_label": rows, "co_occurrence": _together(truth), "answered_together": _together(given)}


def _together(cells: NDArray[np.bool_]) -> list[list[int]]:
    """How many images have both labels (label, label), from (image, label)."""
    found: list[list[int]] = (cells.T.astype(np.float64) @ cells).astype(int).tolist()
    return found


def _label_row(
    marks: Marks, name: str, k: int, cells: dict[str, tuple[NDArray[np.bool_], Array]], units: Units, drawn: Array
) -> LabelRow:
    """The row of label number k; precision is not defined where it is never given, the rest where no image has it."""
    known = marks["truth"][:, k] != UNKNOWN
    there = marks["truth"][:, k] == 1

    def share(part: str, carry: Callable[[float], float] = float) -> Interval:
        counted, shares = cells[part][0][:, k], cells[part][1][:, k]
        if not (counted if part == "precision" else there).any():
            return UNDEFINED
        value, low, high, _ = share_ends(shares[counted], units[counted])
        return interval(carry(value), carry(low), carry(high))

    average = share("average_precision")
    if average["value"] is not None:
        found, low, high = ends(average)
        average = wider(found, percentile_ends(drawn, found, len(np.unique(units[there]))), (low, high))
    return {
        "label": name,
        "n": int(there.sum()),
        "known": int(known.sum()),
        "threshold": float(marks["threshold"][known, k].mean()) if known.any() else 0.5,
        "average_precision": average,
        "precision": share("precision"),
        "recall": share("recall"),
        "f1": share("f1", _f1),
    }


def _check(present: NDArray[Any], scores: NDArray[Any], thresholds: NDArray[Any]) -> None:
    if present.ndim != 2 or scores.shape != present.shape:
        raise OptionError(
            f"score: probabilities {scores.shape} for labels {present.shape}, both must be (image, label)"
        )
    if len(present) == 0:
        raise DataError("score: no images to judge")
    if np.shape(thresholds) not in (present.shape, present.shape[1:]):
        raise OptionError(
            f"score: thresholds {np.shape(thresholds)}, expected {present.shape[1:]} (label) or {present.shape} "
            "(image, label)"
        )
    if not np.isin(present, (0, 1, UNKNOWN)).all():
        raise OptionError(f"score: labels {present.min()} to {present.max()}, allowed are 1, 0 and {UNKNOWN} (unknown)")
    if not ((thresholds >= 0) & (thresholds <= 1)).all():
        raise OptionError("score: thresholds are probabilities, each must be between 0 and 1")
    known = scores[present != UNKNOWN]
    if not ((known >= 0) & (known <= 1)).all():
        raise OptionError("score: known labels without a probability between 0 and 1")
