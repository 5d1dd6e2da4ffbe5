"""What is said of answered boxes: scores with 95 % intervals, rows for each class and for each size, chosen scores.

Precision, recall and counts are of the answers from a score on, each class's own, that is handed in: it was chosen on
other pictures than these (`best_scores`). An answer is right at an overlap of 0.5.

Intervals are those of `judge/summaries.py`, and at least as wide as follows from Wilson's of each class (`_least`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from headstart.judge.boxes import NONE, average_precisions, by_score, mean_known
from headstart.judge.intervals import mover, units_of
from headstart.judge.marks import Array, Interval, Marks, Score, Summary
from headstart.judge.matching import LEFT_OUT, RIGHT
from headstart.judge.summaries import (
    blind_ends,
    estimate,
    groups_in,
    percentile_ends,
    resampled,
    share_ends,
)

SIDES = (0.0, 16.0, 32.0, 64.0, 96.0, 128.0, 256.0, np.inf)  # px, square root of the area; COCO parts at 32 and 96
HALVINGS = 25  # of the pictures, for `_optimism`
FEWEST_HALVED = 8  # groups: halves of fewer hold too little of each class

Units = NDArray[np.int64]
Cells = Callable[[Marks, int], tuple[Array, Units]]  # of a class: (shares (cell,), rows of their pictures (cell,))


class ClassRow(TypedDict):
    """What is said of one class: `n` true boxes that are counted, in `images` pictures; precision and recall of the
    answers from `score` on; `count_error`: the mean distance of their number from the true one, a picture;
    `count_error_of_mean`: that of always saying the training pictures' mean; `count_gain`: how much less it errs."""

    label: str
    n: int
    images: int
    score: float
    average_precision_50: Interval
    average_precision: Interval
    precision: Interval
    recall: Interval
    count_error: Interval
    count_error_of_mean: Interval
    count_gain: Interval


class SizeRow(TypedDict):
    """Recall of the `n` true boxes whose side (square root of the area, px of the picture) is in `low` to `high`; None:
    no end."""

    low: float
    high: float | None
    n: int
    recall: Interval


def _map50(marks: Marks, weights: Array) -> Array:
    return mean_known(average_precisions(marks, weights, slice(0, 1))[:, :, 0])


def _map(marks: Marks, weights: Array) -> Array:
    return mean_known(average_precisions(marks, weights).mean(axis=-1))


# At the chosen scores


def recalls(marks: Marks, weights: Array) -> Array:
    """(resample, class)."""
    return _ratio(weights @ marks["found"], weights @ marks["n_true"])


def precisions(marks: Marks, weights: Array) -> Array:
    """(resample, class); nan where nothing is answered."""
    return _ratio(weights @ marks["found"], weights @ marks["given"])


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def count_errors(marks: Marks, weights: Array) -> Array:
    """(resample, class): mean distance of the number of answers from the true number, a picture."""
    return _mean(np.abs(marks["answered"] - marks["n_true"]), weights)


def count_errors_of_mean(marks: Marks, weights: Array) -> Array:
    return _mean(np.abs(marks["mean"] - marks["n_true"]), weights)


def _mean(values: NDArray[Any], weights: Array) -> Array:
    return np.asarray((weights @ values) / weights.sum(axis=1, keepdims=True))


# How far intervals reach at least


def _precision_cells(thresholds: slice) -> Cells:
    """A cell a true box and threshold: the precision at which it is found, 0 where it is not; their mean is about the
    average precision."""

    def of(marks: Marks, k: int) -> tuple[Array, Units]:
        image, flags = by_score(marks, k)
        shares, rows = [], []
        for flag in flags[:, thresholds].T:
            right = flag == RIGHT
            precision = (np.cumsum(right) / np.maximum(np.cumsum(flag != LEFT_OUT), 1))[right]
            missed = marks["n_true"][:, k] - np.bincount(image[right], minlength=len(marks))
            shares += [np.maximum.accumulate(precision[::-1])[::-1], np.zeros(int(missed.sum()))]
            rows += [image[right], np.repeat(np.arange(len(marks)), missed)]
        return np.concatenate(shares), np.concatenate(rows).astype(np.int64)

    return of


def _counted_cells(part: NDArray[np.int64], whole: NDArray[np.int64]) -> tuple[Array, Units]:
    """A cell for each of `whole` (image,), 1 for those that are in `part` (image,)."""
    rows = np.arange(len(whole))
    shares = np.repeat((1.0, 0.0), (part.sum(), (whole - part).sum()))
    return shares, np.concatenate([np.repeat(rows, part), np.repeat(rows, whole - part)])


def _recall_cells(marks: Marks, k: int) -> tuple[Array, Units]:
    return _counted_cells(marks["found"][:, k], marks["n_true"][:, k])


def _precision_of_answers(marks: Marks, k: int) -> tuple[Array, Units]:
    return _counted_cells(marks["found"][:, k], marks["given"][:, k])


def _least(cells: Cells) -> Callable[[Marks, Units], tuple[float, float]]:
    """`Summary.least` of a mean over classes: Wilson's interval of each class's cells, combined (MOVER, Zou and Donner
    2008) as independent; where no class shows how it varies, as failing together."""

    def ends(marks: Marks, units: Units) -> tuple[float, float]:
        found = []
        for k in range(marks["n_true"].shape[1]):
            shares, rows = cells(marks, k)
            if len(shares):
                found.append(share_ends(shares, units[rows]))
        middle, low, high = (np.array([one[i] for one in found]) for i in range(3))
        if all(one[3] for one in found):
            return float(low.mean()), float(high.mean())
        return mover(float(middle.mean()), (middle, low, high), np.ones(len(found), dtype=bool))

    return ends


def _optimism(of: Callable[[Marks, Array], Array]) -> Callable[[Marks, Units], float]:
    """`Summary.optimism` of average precision: precision is made to fall by maxima, which chance raises the more the
    fewer pictures there are.

    With 20, 72 and 300 pictures `map50` of a poor made detector was too high by 0.040, 0.019 and 0.006, of which
    resamples show half: it falls about as n^(-2/3), as the distance between a curve and the same made to fall does
    (Kiefer and Wolfowitz 1976, for concave majorants). So random halves of the pictures are too high by 2^(2/3) times
    as much, and tell it: 0.040, 0.020 and 0.009 (`benchmarks/boxes.py`).
    """

    def told(marks: Marks, units: Units) -> float:
        n, rng = groups_in(units), np.random.default_rng(0)
        if n < FEWEST_HALVED:
            return 0.0
        first = np.stack([rng.permutation(n) < n // 2 for _ in range(HALVINGS)])[:, units]
        halves = of(marks, np.concatenate([first, ~first]).astype(np.float64))
        whole = float(of(marks, np.ones((1, len(marks))))[0])
        known = halves[np.isfinite(halves)]
        return max(0.0, float(known.mean() - whole)) / (2 ** (2 / 3) - 1) if len(known) else 0.0

    return told


def _count_ends(marks: Marks, units: Units) -> tuple[float, float]:
    error = np.abs(marks["answered"] - marks["n_true"]).mean(axis=1)
    ignorant = float(np.abs(marks["mean"] - marks["n_true"]).mean())
    return blind_ends(float(error.mean()), 0.0, ignorant, error, units)


MAP50 = Summary("map50", _map50, least=_least(_precision_cells(slice(0, 1))), optimism=_optimism(_map50))
MAP = Summary("map", _map, least=_least(_precision_cells(slice(None))), optimism=_optimism(_map))
PRECISION = Summary("precision", lambda m, w: mean_known(precisions(m, w)), least=_least(_precision_of_answers))
RECALL = Summary("recall", lambda m, w: mean_known(recalls(m, w)), least=_least(_recall_cells))
COUNT_ERROR = Summary(
    "count_error",
    lambda m, w: count_errors(m, w).mean(axis=1),
    highest=np.inf,
    higher_is_better=False,
    least=_count_ends,
)
SUMMARIES = (MAP50, MAP, PRECISION, RECALL, COUNT_ERROR)


# All that is said


def box_score(
    marks: Marks, names: Sequence[str], groups: NDArray[np.integer[Any]] | None = None, seed: int = 0
) -> Score:
    """SUMMARIES with their intervals; tables `per_class`, a ClassRow each, and `by_size`, a SizeRow each.

    groups (image,): pictures of one group are not independent; None = all are.
    """
    units = units_of(len(marks), groups)
    drawn = resampled([marks], STATISTICS, units, seed)
    every = {
        "map50": mean_known(drawn["precision_curve"][:, :, 0]),
        "map": mean_known(drawn["precision_curve"].mean(axis=-1)),
        **{name: mean_known(drawn[name]) for name in ("precision", "recall", "count_error")},
    }
    found = {s.name: estimate(s, marks, every[s.name], units) for s in SUMMARIES}
    rows = [_class_row(marks, k, name, drawn, units) for k, name in enumerate(names)]
    return Score(len(marks), found, {"per_class": rows, "by_size": size_rows(marks, units)})


STATISTICS = {
    "precision_curve": average_precisions,
    "precision": precisions,
    "recall": recalls,
    "count_error": count_errors,
    "count_error_of_mean": count_errors_of_mean,
}


def _class_row(marks: Marks, k: int, name: str, drawn: dict[str, Array], units: Units) -> ClassRow:
    n_true = marks["n_true"][:, k]

    def of(
        statistic: Callable[[Marks, Array], Array], draws: Array, cells: Cells | None, highest: float = 1.0
    ) -> Interval:
        def alone(m: Marks, weights: Array) -> Array:
            return np.asarray(statistic(m, weights)[:, k])

        least = None if cells is None else _least_of_one(cells, k)
        rising = _optimism(alone) if statistic in (_at_50, _over_all) else None
        return estimate(Summary(name, alone, highest=highest, least=least, optimism=rising), marks, draws, units)

    curve = drawn["precision_curve"][:, k]
    return {
        "label": name,
        "n": int(n_true.sum()),
        "images": int((n_true > 0).sum()),
        "score": float(marks["from_score"][0, k]),
        "average_precision_50": of(_at_50, curve[:, 0], _precision_cells(slice(0, 1))),
        "average_precision": of(_over_all, curve.mean(axis=-1), _precision_cells(slice(None))),
        "precision": of(precisions, drawn["precision"][:, k], _precision_of_answers),
        "recall": of(recalls, drawn["recall"][:, k], _recall_cells),
        "count_error": of(count_errors, drawn["count_error"][:, k], None, np.inf),
        "count_error_of_mean": of(count_errors_of_mean, drawn["count_error_of_mean"][:, k], None, np.inf),
        "count_gain": _gain(marks, k, drawn, units),
    }


def _at_50(marks: Marks, weights: Array) -> Array:
    return average_precisions(marks, weights, slice(0, 1))[:, :, 0]


def _over_all(marks: Marks, weights: Array) -> Array:
    return np.asarray(average_precisions(marks, weights).mean(axis=-1))


def _least_of_one(cells: Cells, k: int) -> Callable[[Marks, Units], tuple[float, float]]:
    def ends(marks: Marks, units: Units) -> tuple[float, float]:
        shares, rows = cells(marks, k)
        return share_ends(shares, units[rows])[1:3]

    return ends


def _gain(marks: Marks, k: int, drawn: dict[str, Array], units: Units) -> Interval:
    """By how much the counts of a class err less than always saying the training pictures' mean, paired."""
    error, other = (np.abs(marks[column][:, k] - marks["n_true"][:, k]).mean() for column in ("answered", "mean"))
    draws = drawn["count_error_of_mean"][:, k] - drawn["count_error"][:, k]
    low, high = percentile_ends(draws, float(other - error), groups_in(units))
    return {"value": float(other - error), "low": low, "high": high}


def size_rows(marks: Marks, units: Units) -> list[SizeRow]:
    """Recall at the chosen scores by the size of true boxes, over all classes; sizes without any are left out."""
    image, place = np.nonzero(marks["true_kind"] != NONE)
    kind, side = marks["true_kind"][image, place], marks["true_side"][image, place]
    hit = marks["true_score"][image, place] >= marks["from_score"][image, kind]
    rows: list[SizeRow] = []
    for low, high in pairwise(SIDES):
        here = (side >= low) & (side < high)
        if here.any():
            value, least, most, _ = share_ends(hit[here].astype(np.float64), units[image[here]])
            end = None if np.isinf(high) else high
            recall: Interval = {"value": value, "low": least, "high": most}
            rows.append({"low": low, "high": end, "n": int(here.sum()), "recall": recall})
    return rows


# Chosen scores, on pictures that judge nothing


def best_scores(marks: Marks) -> NDArray[np.float64]:
    """The score (class,) from which on answers have the best F1 at an overlap of 0.5; half-way to the next lower one.

    1 for a class that nothing is right of: then nothing is answered.
    """
    found = np.ones(marks["n_true"].shape[1])
    for k in range(len(found)):
        image, place = np.nonzero(marks["kind"] == k)
        scores, flags = marks["score"][image, place], marks["matched"][image, place, 0]
        order = np.argsort(-scores, kind="stable")
        right, answered = np.cumsum(flags[order] == RIGHT), np.cumsum(flags[order] != LEFT_OUT)
        if len(right) and right[-1]:
            falling = scores[order]
            whole = np.append(falling[1:] < falling[:-1], True)  # equal scores are answered together
            f1 = np.where(whole, right / (answered + marks["n_true"][:, k].sum()), 0.0)
            found[k] = _between(falling, int(f1.argmax()))
    return found


def _between(falling: Array, place: int) -> float:
    """Half-way from a score to the next that is lower, so that what was just taken is taken again after rounding."""
    lower = falling[falling < falling[place]]
    return float((falling[place] + (lower[0] if len(lower) else 0.0)) / 2)
