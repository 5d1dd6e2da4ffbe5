"""What doctors and inspectors ask of a classifier: AUROC, average precision, kappa, MCC, sensitivity at a specificity.

Of two classes one is `positive`, the one that is looked for. Of more classes: kappa, MCC (R_K, Gorodkin 2004) and the
mean AUROC of each class against the rest.

- AUROC: the variance of DeLong et al. (1988) between groups (Obuchowski 1997), as the number of independent images that
  vary so, for which Wilson's interval is taken. That number is at least the smaller number of groups of the two sides,
  since the variance is at most A (1 - A) over it (Birnbaum and Klose 1957): a perfect order is not certain of itself.
- Average precision: linearised (what an image adds to each precision), Student's t, and at least as wide as Wilson's
  interval likewise. The share of the positive class is what chance gives.
- Kappa (Cohen 1960) and MCC: linearised (delta method), Student's t over groups; at least as wide as Wilson's interval
  of the accuracy makes them where the classes are answered as often as they are.
- Sensitivity and specificity at a threshold: Wilson's for the effective number of images. The threshold is chosen on
  other images where there are some; on the judged images themselves its own chance is added (Zou and Donner 2008).
  Where fewer than BEYOND of these are expected beyond it, nothing is known of the other share but that it is above 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.judge.class_marks import confusion
from headstart.judge.intervals import (
    Z,
    accuracy_interval,
    corrected_half_width,
    interval,
    mean_ends,
    mover,
    units_of,
    wider,
    wilson,
)
from headstart.judge.marks import Array, Interval, Marks, Score, ends
from headstart.judge.summaries import UNDEFINED, averaged, share_ends

# Names of classes that say that nothing was found; what is looked for is then the other one.
ABSENT = frozenset(
    [
        "no",
        "none",
        "not",
        "false",
        "negative",
        "neg",
        "0",
        "absent",
        "normal",
        "healthy",
        "benign",
        "background",
        "clean",
        "empty",
        "good",
        "ok",
        "other",
    ]
)
ASKED = (("specificity", 0.9), ("specificity", 0.95), ("sensitivity", 0.9), ("sensitivity", 0.95))
JUDGED, OTHERS, LEFT_OUT = "the judged images", "the other folds", "training images, left out"
MOST_CLASSES = 200  # for the mean AUROC: it sorts the images once a class
NORMAL = 3.0  # kurtosis of the normal distribution
BEYOND = 2.0  # images: with fewer, intervals at thresholds of the judged images held as few as 34 % of made draws
CURVE = 100  # points of a ROC curve that are kept

Units = NDArray[np.int64]
Table = dict[str, Any]


def auroc(positive: NDArray[np.bool_], scores: Array, units: Units) -> tuple[Interval, Array]:
    """(AUROC, influence of each image (image,) on it) of scores (image,); both sides must occur. Equal scores count
    half. units (image,): groups."""
    one, other = np.sort(scores[positive]), np.sort(scores[~positive])
    of = np.empty(len(scores))
    of[positive] = _placed(other, scores[positive])
    of[~positive] = 1 - _placed(one, scores[~positive])
    found = float(of[positive].mean())
    influence = (of - found) / np.where(positive, len(one), len(other))
    least = min(len(np.unique(units[side])) for side in (positive, ~positive))
    return interval(found, *_wilson_of(found, influence, units, least)), influence


def _placed(others: Array, mine: Array) -> Array:
    """(image,): the share of sorted `others` below each of mine, equals half."""
    return np.asarray((np.searchsorted(others, mine, "left") + np.searchsorted(others, mine, "right")) / 2) / len(
        others
    )


def _variance(influence: Array, units: Units) -> float:
    """Of an estimate, from the influence of each image (image,), between groups."""
    sums = np.bincount(units, weights=influence)
    m = len(sums)
    return float((sums**2).sum()) * m / max(m - 1, 1)


def _wilson_of(found: float, influence: Array, units: Units, least: int) -> tuple[float, float]:
    """Wilson's interval for as many images as vary so, but at least `least`. Fewer where few groups tell how it varies:
    as many as their sums' fourth moment shows, in the manner of Satterthwaite (1946); near a perfect order these are
    the few that are out of it."""
    from scipy.special import stdtrit

    variance, fourth = _variance(influence, units), float((np.bincount(units, weights=influence) ** 4).sum())
    if variance <= 0 or fourth <= 0:
        return wilson(found, float(least))
    telling = min(float(least), NORMAL * variance**2 / fourth)
    few = (Z / stdtrit(max(telling - 1, 1), 0.975)) ** 2
    return wilson(found, float(max(least, found * (1 - found) / variance * few)))


def average_precision(positive: NDArray[np.bool_], scores: Array, units: Units) -> Interval:
    """Linearised: what an image more adds to its own precision and to that of the positives at lower scores."""
    from scipy.special import stdtrit

    levels, place = np.unique(-scores, return_inverse=True)
    gained = np.bincount(place, weights=positive, minlength=len(levels))
    n, answered = float(gained.sum()), np.cumsum(np.bincount(place, minlength=len(levels)))
    precision = np.cumsum(gained) / answered
    found = float(gained @ precision) / n
    more, less = (np.cumsum((gained / n * part / answered)[::-1])[::-1] for part in (1 - precision, precision))
    influence = np.where(positive, (precision[place] - found) / n + more[place], -less[place])
    least = min(len(np.unique(units[side])) for side in (positive, ~positive))
    half = float(stdtrit(max(least - 1, 1), 0.975)) * _variance(influence, units) ** 0.5
    return wider(found, (found - half, found + half), _wilson_of(found, influence, units, least))


def mean_auroc(truth: NDArray[np.int64], probabilities: Array, units: Units) -> Interval:
    """The mean over the classes of the AUROC of each against the rest; every class must occur."""
    cells, total = [], np.zeros(len(truth))
    classes = range(probabilities.shape[1])
    for k in classes:
        cell, influence = auroc(truth == k, probabilities[:, k], units)
        cells.append(ends(cell))
        total += influence / len(classes)
    value, low, high = np.array(cells).T
    mean, least = float(value.mean()), int(units.max()) + 1
    together = mover(mean, (value, low, high), np.ones(len(value), dtype=bool))
    return wider(mean, together, _wilson_of(mean, total, units, least))


def agreement(truth: NDArray[np.int64], answer: NDArray[np.int64], n_classes: int, units: Units) -> dict[str, Interval]:
    """`kappa` and `mcc` of answers (image,); not defined where truth or, for MCC, the answers are of one class."""
    p = confusion(truth, answer, n_classes) / len(truth)
    rows, columns, right = p.sum(axis=1), p.sum(axis=0), float(np.trace(p))
    chance = float(rows @ columns)
    hit, by_chance = (truth == answer).astype(np.float64), columns[truth] + rows[answer]
    spread = [1 - float(part @ part) for part in (rows, columns)]
    found = {"kappa": UNDEFINED, "mcc": UNDEFINED}
    _, low, high = ends(accuracy_interval(truth == answer, units))
    if chance < 1:
        slope = (hit * (1 - chance) - by_chance * (1 - right)) / (1 - chance) ** 2
        found["kappa"] = _linear((right - chance) / (1 - chance), slope, units, (low, high), chance, 1 - chance)
    if min(spread) > 0:
        under = float(np.sqrt(spread[0] * spread[1]))
        value = (right - chance) / under
        slope = (hit - by_chance) / under + value * (rows[truth] / spread[0] + columns[answer] / spread[1])
        found["mcc"] = _linear(value, slope, units, (low, high), chance, under)
    return found


def _linear(
    value: float, slope: Array, units: Units, of_accuracy: tuple[float, float], chance: float, under: float
) -> Interval:
    """An estimate (right - chance) / under with its interval, from its slope by image (image,)."""
    from scipy.special import stdtrit

    m = int(units.max()) + 1
    half = float(stdtrit(max(m - 1, 1), 0.975)) * _variance((slope - slope.mean()) / len(slope), units) ** 0.5
    least = [(end - chance) / under for end in of_accuracy]
    least = [value + (end - value) for end in least]
    return wider(value, (value - half, value + half), (least[0], least[1]), bottom=-1.0)


def threshold_at(positive: NDArray[np.bool_], scores: Array, asked: str, share: float) -> float:
    """The probability from which an image is called positive, so that these images (image,) have at least the asked
    specificity or sensitivity, and no more than is needed."""
    if asked == "sensitivity":
        ordered = np.sort(scores[positive])[::-1]
        return float(ordered[max(0, int(np.ceil(share * len(ordered) - 1e-9)) - 1)])
    ordered = np.sort(scores[~positive])[::-1]
    allowed = int((1 - share) * len(ordered) + 1e-9)
    return float(np.nextafter(ordered[allowed], np.inf)) if allowed < len(ordered) else 0.0


def thresholds_of(positive: NDArray[np.bool_], scores: Array) -> tuple[float, ...]:
    """`threshold_at` for each of ASKED; () where one side is missing."""
    if positive.all() or not positive.any():
        return ()
    return tuple(threshold_at(positive, scores, asked, share) for asked, share in ASKED)


def operating(
    positive: NDArray[np.bool_], scores: Array, units: Units, thresholds: Sequence[Any] | None, chosen_on: str
) -> list[Table]:
    """A row for each of ASKED: what is asked, the threshold, and `sensitivity` and `specificity` at it. thresholds: of
    each row a number or (image,); None = chosen on these images."""
    rows = []
    for k, (asked, share) in enumerate(ASKED):
        least = threshold_at(positive, scores, asked, share) if thresholds is None else thresholds[k]
        called = scores >= least
        row: Table = {"asked": asked, "share": share, "threshold": float(np.mean(least)), "chosen_on": chosen_on}
        row["sensitivity"] = _share(called[positive], units[positive])
        row["specificity"] = _share(~called[~positive], units[~positive])
        if thresholds is None:
            other = "sensitivity" if asked == "specificity" else "specificity"
            value, low, high = ends(_with_chance(row[other], row[asked], positive, scores, asked))
            side = positive if asked == "sensitivity" else ~positive
            beyond = (1 - share) * len(np.unique(units[side]))
            row[other] = interval(value, low if beyond >= BEYOND - 1e-9 else 0.0, high)
        rows.append(row)
    return rows


def _share(right: NDArray[np.bool_], units: Units) -> Interval:
    return interval(*share_ends(right.astype(np.float64), units)[:3])


def _with_chance(cell: Interval, fixed: Interval, positive: NDArray[np.bool_], scores: Array, asked: str) -> Interval:
    """A share at a threshold that these images chose: its own chance, and what it is where the threshold is that of
    either end of what was asked."""
    value, low, high = ends(cell)
    _, least, most = ends(fixed)

    def at(share: float) -> float:
        called = scores >= threshold_at(positive, scores, asked, share)
        return float((called[positive] if asked == "specificity" else ~called[~positive]).mean())

    down, up = min(0.0, at(most) - value), max(0.0, at(least) - value)
    return interval(value, value - float(np.hypot(value - low, down)), value + float(np.hypot(high - value, up)))


def roc(positive: NDArray[np.bool_], scores: Array) -> list[tuple[float, float]]:
    """(1 - specificity, sensitivity) from (0, 0) to (1, 1), at most CURVE points or so."""
    levels = np.unique(scores)[::-1]
    levels = levels[np.unique(np.linspace(0, len(levels) - 1, CURVE).astype(int))]
    one, other = np.sort(scores[positive]), np.sort(scores[~positive])
    x, y = (1 - np.searchsorted(side, levels, "left") / len(side) for side in (other, one))
    return [(0.0, 0.0), *zip(x.tolist(), y.tolist(), strict=True)]


def looked_for(classes: Sequence[str], counts: Sequence[int]) -> int:
    """Which of two classes is positive where nobody says: the other one of a name that says that there is nothing;
    else the rarer one, of equals the later."""
    absent = [name.strip().casefold() in ABSENT for name in classes]
    if absent[0] != absent[1]:
        return int(absent[0])
    return int(counts[1] <= counts[0])


def diagnostic(
    marks: Marks,
    classes: Sequence[str],
    groups: NDArray[Any] | None = None,
    seed: int = 0,
    positive: int | None = None,
    thresholds: Sequence[Any] | None = None,
    chosen_on: str = LEFT_OUT,
) -> Table:
    """JSON-ready: `kappa`, `mcc`, `auroc` (of more than two classes the mean), each with its interval, and `missing`:
    why something is not there, or None. With two classes also `positive`, its `share`, `average_precision`, `operating`
    (see there) and `roc`. `positive`: None = `looked_for` by these images."""
    truth, p, n = marks["truth"], marks["probability"], len(classes)
    units = units_of(len(marks), groups)
    counts = np.bincount(truth, minlength=n)
    found: Table = {"missing": None, "auroc": UNDEFINED, **agreement(truth, marks["answer"], n, units)}
    gone = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if gone:
        more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
        found["missing"] = f"no judged image is of the class {gone[0]!r}{more}"
    if n != 2:
        if not gone and n > MOST_CLASSES:
            found["missing"] = f"the mean AUROC is computed for at most {MOST_CLASSES} classes"
        elif not gone:
            found["auroc"] = mean_auroc(truth, p.astype(np.float64), units)
        return found
    k = looked_for(classes, counts.tolist()) if positive is None else positive
    found |= {"positive": classes[k], "share": float(counts[k] / len(truth))}
    found |= {"average_precision": UNDEFINED, "operating": [], "roc": []}
    if gone:
        return found
    scores, there = p[:, k].astype(np.float64), truth == k
    found["auroc"] = auroc(there, scores, units)[0]
    found["average_precision"] = average_precision(there, scores, units)
    found["operating"] = operating(there, scores, units, thresholds, JUDGED if thresholds is None else chosen_on)
    found["roc"] = roc(there, scores)
    return found


def crossed_diagnostic(
    repeats: Sequence[Marks],
    folds: Sequence[NDArray[np.integer[Any]]],
    classes: Sequence[str],
    groups: NDArray[Any] | None = None,
    seed: int = 0,
    positive: int | None = None,
) -> Table:
    """`diagnostic` of repeated cross-validation: means over repeats, the ends as in `crossed_class_score`; thresholds
    and average precision take its (b) alone. The threshold of a fold is chosen on the answers for the other folds."""
    if positive is None and len(classes) == 2:
        positive = looked_for(classes, np.bincount(repeats[0]["truth"], minlength=2).tolist())
    found = []
    for marks, fold in zip(repeats, folds, strict=True):
        least = None if positive is None else _of_other_folds(marks, fold, positive)
        found.append(diagnostic(marks, classes, groups, seed, positive, least, OTHERS))
    told = dict(found[0])
    parts = [m.take(fold == f) for m, fold in zip(repeats, folds, strict=True) for f in np.unique(fold)]
    test_share = float(np.mean([1 / len(np.unique(fold)) for fold in folds]))
    for name, values in _of_folds(parts, len(classes), positive).items():
        known = [one[name] for one in found if one[name]["value"] is not None]
        if known:
            value, low, high = mean_ends(known)
            half = corrected_half_width(values, test_share / (1 - test_share)) if test_share < 1 else 0.0
            bottom = 0.0 if name == "auroc" else -1.0
            told[name] = wider(value, (low, high), (value - half, value + half), bottom=bottom)
    if "operating" in told:
        told["average_precision"] = averaged([one["average_precision"] for one in found])
        told["operating"] = [_mean_row(rows) for rows in zip(*(one["operating"] for one in found), strict=True)]
    return told


def _of_other_folds(marks: Marks, fold: NDArray[Any], positive: int) -> list[Array] | None:
    """For each of ASKED the threshold (image,), chosen on the images of the other folds; None where a class is missing
    there."""
    scores, there = marks["probability"][:, positive].astype(np.float64), marks["truth"] == positive
    least = np.full((len(ASKED), len(marks)), np.nan)
    for f in np.unique(fold):
        chosen = thresholds_of(there[fold != f], scores[fold != f])
        if not chosen:
            return None
        least[:, fold == f] = np.array(chosen)[:, None]
    return list(least)


def _of_folds(parts: Sequence[Marks], n: int, positive: int | None) -> dict[str, list[float]]:
    """`auroc`, `kappa` and `mcc` of each fold in which they are defined."""
    found: dict[str, list[float]] = {"auroc": [], "kappa": [], "mcc": []}
    for part in parts:
        truth, units = part["truth"], np.arange(len(part))
        for name, cell in agreement(truth, part["answer"], n, units).items():
            found[name] += [] if cell["value"] is None else [cell["value"]]
        if len(np.unique(truth)) < n or n > MOST_CLASSES:
            continue
        p = part["probability"].astype(np.float64)
        one = mean_auroc(truth, p, units) if positive is None else auroc(truth == positive, p[:, positive], units)[0]
        found["auroc"].append(ends(one)[0])
    return found


def _mean_row(rows: Sequence[Table]) -> Table:
    cells = {name: averaged([row[name] for row in rows]) for name in ("sensitivity", "specificity")}
    return {**rows[0], "threshold": float(np.mean([row["threshold"] for row in rows])), **cells}


def with_diagnostic(
    score: Callable[..., Score], told: Callable[..., Table], positive: int | None = None, **known: Any
) -> Callable[..., Score]:
    """A score function whose tables also have `diagnostic`, by `told` of the same marks."""

    def scored(*given: Any, **named: Any) -> Score:
        found = score(*given, **named)
        more = told(*given, **named, positive=positive, **known)
        return replace(found, tables={**found.tables, "diagnostic": more})

    return scored
