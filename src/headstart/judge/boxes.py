"""Boxes answered against true ones: marks of each picture, and average precision.

Average precision is COCO's: of one class, over the answers of all pictures by score, precision as a function of recall,
made to fall, read at recalls 0, 0.01 .. 1 and averaged (Lin et al. 2014; `COCOeval.accumulate`). `map50` is its mean
over the classes that have true boxes at an overlap of 0.5, `map` also over the overlaps 0.5, 0.55 .. 0.95. Pictures are
weighted, so that a resample in which a picture is there twice is judged as if it were there twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.boxes import BoxTruth
from headstart.errors import DataError, OptionError
from headstart.judge.marks import Array, Marks
from headstart.judge.matching import LEFT_OUT, RIGHT, THRESHOLDS, Pair, best_first, matched

RECALLS = np.linspace(0.0, 1.0, 101)
_RECALLS_AND_END = np.append(RECALLS, np.inf)
CACHE = 400_000  # (answer, resample) at a time: 3 MB of float64 stay in the cache
NONE = -1  # the class of what only fills an array
MISSED = -np.inf  # the score at which a true box is found that no answer finds

Doubles = NDArray[np.float64]


# Marks


def box_marks(
    truth: BoxTruth,
    answers: Sequence[NDArray[Any]],
    scores: NDArray[np.floating[Any]] | None = None,
    means: NDArray[np.floating[Any]] | None = None,
) -> Marks:
    """What is judged of answers, of each picture (answer, 6): x1, y1, x2, y2 in px of the picture, score, class.

    scores (class,): from which on answers count; None: all. means (class,): boxes a picture in training; None: 0.
    Columns, with K answers and G true boxes at most: score, kind (image, K), `NONE` = none; matched (image, K,
    threshold), RIGHT, FALSE or LEFT_OUT; true_kind, true_side (px), true_score (image, G): of true boxes that are
    counted, the last the score of the answer that is it at an overlap of 0.5, MISSED = none. By (image, class): n_true,
    boxes that are counted; from_score; given, answers from there on without those left out, and found, those that are
    right; answered, as given, which a task that counts otherwise replaces; mean.
    Raises DataError without pictures, or with one of which nothing is known; OptionError for answers of another shape.
    """
    _check(truth, answers)
    n_classes = len(truth.names)
    least = np.zeros(n_classes) if scores is None else np.asarray(scores, np.float64)
    kept = [_kept(found) for found in answers]
    pairs, places = _pairs(truth, kept)
    flags = [np.zeros((len(found), len(THRESHOLDS)), np.int8) for found in kept]
    found_at = [np.full(len(boxes), MISSED) for boxes in truth.boxes]
    for (image, rows, boxes), (flag, which) in zip(places, matched(pairs), strict=True):
        flags[image][rows] = flag
        hit = which[:, 0] >= 0
        found_at[image][boxes[which[hit, 0]]] = kept[image][rows[hit], 4]
    columns = {
        "score": _padded([found[:, 4] for found in kept], 0.0),
        "kind": _padded([found[:, 5].astype(np.int64) for found in kept], NONE),
        "matched": _padded(flags, LEFT_OUT),
        "n_true": truth.matrix().astype(np.int64),
        **_true_columns(truth, found_at),
        "from_score": np.tile(least, (len(truth), 1)),
        "mean": np.tile(np.zeros(n_classes) if means is None else np.asarray(means, np.float64), (len(truth), 1)),
    }
    right, counts = (columns["matched"][:, :, 0] == RIGHT), (columns["matched"][:, :, 0] != LEFT_OUT)
    given = from_scores(columns, counts, least)
    return Marks({**columns, "given": given, "found": from_scores(columns, right, least), "answered": given})


def from_scores(
    columns: Mapping[str, NDArray[Any]] | Marks, which: NDArray[np.bool_], least: Doubles
) -> NDArray[np.int64]:
    """How many of these answers (image, K) have the score of their class or more: (image, class)."""
    enough = which & (columns["kind"] != NONE) & (columns["score"] >= least[np.maximum(columns["kind"], 0)])
    return np.stack([(enough & (columns["kind"] == k)).sum(axis=1) for k in range(len(least))], axis=1)


def _check(truth: BoxTruth, answers: Sequence[NDArray[Any]]) -> None:
    if not len(truth):
        raise DataError("no pictures to judge boxes by")
    if not truth.known.all():
        raise DataError("a picture of which nothing is known cannot judge: take those whose boxes are known")
    if len(answers) != len(truth):
        raise OptionError(f"{len(truth)} pictures but answers for {len(answers)}: give one array for each")
    for found in answers:
        if found.ndim != 2 or found.shape[1] != 6 or not np.isfinite(found).all():
            raise OptionError(
                f"answers of shape {found.shape}: needed are finite (box, 6): x1, y1, x2, y2, score, class"
            )
        if len(found) and not 0 <= found[:, 5].min() <= found[:, 5].max() < len(truth.names):
            raise OptionError(f"an answer has a class number outside 0 to {len(truth.names) - 1}")


def _kept(found: NDArray[Any]) -> Doubles:
    """The answers that are judged, best score first."""
    wide = found.astype(np.float64)
    return wide[best_first(wide[:, 4], wide[:, 5].astype(np.int64))]


def _pairs(
    truth: BoxTruth, kept: Sequence[Doubles]
) -> tuple[list[Pair], list[tuple[int, NDArray[np.intp], NDArray[np.intp]]]]:
    """Pairs of class and picture with answers, and (picture, rows of its answers, rows of its true boxes) of each."""
    pairs, places = [], []
    for image, found in enumerate(kept):
        kinds = found[:, 5].astype(np.int64)
        for kind in np.unique(kinds):
            rows, boxes = np.flatnonzero(kinds == kind), np.flatnonzero(truth.labels[image] == kind)
            true = truth.boxes[image][boxes].astype(np.float64)
            pairs.append(Pair(found[rows, :4], true, truth.hard[image][boxes]))
            places.append((image, rows, boxes))
    return pairs, places


def _padded(parts: Sequence[NDArray[Any]], fill: float) -> NDArray[Any]:
    """(image, most, ...)."""
    most = max(len(part) for part in parts)
    padded = np.full((len(parts), most, *parts[0].shape[1:]), fill, dtype=parts[0].dtype)
    for row, part in enumerate(parts):
        padded[row, : len(part)] = part
    return padded


def _true_columns(truth: BoxTruth, found_at: Sequence[Doubles]) -> dict[str, NDArray[Any]]:
    counted = [~hard for hard in truth.hard]
    boxes = [held[keep].astype(np.float64) for held, keep in zip(truth.boxes, counted, strict=True)]
    sides = [np.sqrt((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])) for b in boxes]
    return {
        "true_kind": _padded([held[keep] for held, keep in zip(truth.labels, counted, strict=True)], NONE),
        "true_side": _padded(sides, 0.0),
        "true_score": _padded([held[keep] for held, keep in zip(found_at, counted, strict=True)], MISSED),
    }


# One picture, as it is shown


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a picture's boxes at the chosen scores, at an overlap of 0.5.

    found: of its true boxes bool (box,). said: of its answers int8 (answer,), RIGHT, FALSE or LEFT_OUT; those below
    their class's score are LEFT_OUT, as are those beyond the best `MOST` of a class.
    """

    found: NDArray[np.bool_]
    said: NDArray[np.int8]


def outcome_of(truth: BoxTruth, image: int, answers: NDArray[Any], scores: NDArray[np.floating[Any]]) -> Outcome:
    """answers (answer, 6) of that image, scores (class,) from which on they count."""
    wide = answers.astype(np.float64)
    kinds = wide[:, 5].astype(np.int64)
    found, said = np.zeros(len(truth.boxes[image]), dtype=bool), np.full(len(wide), LEFT_OUT, np.int8)
    best = best_first(wide[:, 4], kinds)
    best = best[wide[best, 4] >= np.asarray(scores)[kinds[best]]]
    for kind in np.unique(kinds[best]):
        rows, boxes = best[kinds[best] == kind], np.flatnonzero(truth.labels[image] == kind)
        true = truth.boxes[image][boxes].astype(np.float64)
        (flags, which), *_ = matched([Pair(wide[rows, :4], true, truth.hard[image][boxes])])
        said[rows] = flags[:, 0]
        found[boxes[which[which[:, 0] >= 0, 0]]] = True
    return Outcome(found, said)


# Average precision


def average_precisions(marks: Marks, weights: Array, thresholds: slice = slice(None)) -> Array:
    """(resample, class, threshold); nan where a class has no true box in a resample."""
    columns = [np.ascontiguousarray(part.T) for part in _parts(weights, marks["kind"].size)]
    per_class = [
        np.concatenate([_of_class(marks, k, part, thresholds) for part in columns])
        for k in range(marks["n_true"].shape[1])
    ]
    return np.stack(per_class, axis=1)


def _parts(weights: Array, n: int) -> list[Array]:
    at_once = max(1, CACHE // max(1, n))
    return [weights[i : i + at_once] for i in range(0, len(weights), at_once)]


def by_score(marks: Marks, k: int) -> tuple[NDArray[np.intp], NDArray[np.int8]]:
    """Of the answers of a class, best score first, of equal ones the earlier picture's: their pictures (answer,) and
    flags (answer, threshold)."""
    image, place = np.nonzero(marks["kind"] == k)
    order = np.argsort(-marks["score"][image, place], kind="stable")
    return image[order], marks["matched"][image[order], place[order]]


def _of_class(marks: Marks, k: int, weights: Array, thresholds: slice) -> Array:
    """weights (image, resample) -> (resample, threshold)."""
    image, flags = by_score(marks, k)
    flags = flags[:, thresholds]
    n_true = marks["n_true"][:, k].astype(np.float64) @ weights
    counts = weights[image]
    answered = np.cumsum(counts, axis=0)
    found = np.full((weights.shape[1], flags.shape[1]), np.nan)
    for t in range(flags.shape[1]):
        left_out = flags[:, t] == LEFT_OUT
        up_to = np.cumsum(counts * ~left_out[:, None], axis=0) if left_out.any() else answered
        right = np.flatnonzero(flags[:, t] == RIGHT)
        found[:, t] = _interpolated(np.cumsum(counts[right], axis=0), up_to[right], n_true)
    return np.where(n_true[:, None] > 0, found, np.nan)


def _interpolated(right: Array, answered: Array, n_true: Array) -> Array:
    """The mean precision (resample,) at RECALLS, from what was right and answered (right answer, resample) up to each
    right answer. Recall rises, and precision is highest, at right answers alone: the others need not be looked at."""
    if not len(right):
        return np.zeros(len(n_true))
    precision = right / (answered + np.spacing(1))
    falling = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = right / np.maximum(n_true, 1.0)
    place = (recall * 100).astype(np.int32)
    reached = place + 1  # recalls of RECALLS that are at most this one; floating point may miss by one
    reached -= RECALLS.take(place) > recall
    reached += _RECALLS_AND_END.take(place + 1) <= recall
    return np.asarray((falling * np.diff(reached, axis=0, prepend=0)).sum(axis=0) / len(RECALLS))


def mean_known(values: Array) -> Array:
    """Mean over the last axis of what is not nan; nan where all is."""
    known = np.isfinite(values)
    n = known.sum(axis=-1)
    return np.divide(np.where(known, values, 0.0).sum(axis=-1), n, out=np.full(n.shape, np.nan), where=n > 0)
