"""Truth x probabilities -> scores, each with a 95 % interval.

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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, OptionError

Z = 1.959963984540054  # standard normal, two-sided 95 %
RESAMPLES = 2000  # bootstrap resamples: the ends of a 95 % interval then vary by about 1.5 % of its width
BLOCKS = 4000  # units resampled at most; more groups are merged at random into so many: the variance stays as it is
CHUNK = 250  # resamples at a time: (250, 3 x 1000 classes) float64 is 6 MB
ECE_BINS = 15  # of equal mass (Guo et al. 2017 use 15; equal mass: Nixon et al. 2019)
SMALLEST_PROBABILITY = 1e-7  # log-loss clips here, about the resolution of float32: one image costs 16.1 at most

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

Array = NDArray[np.float64]
Interval = dict[str, float | None]


def score(
    truth: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    classes: Sequence[str],
    groups: NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """All scores of truth (image,) against probabilities (image, class), JSON-ready: plain numbers, None, no NaN.

    groups (image,): images of one group are not independent; None = all are. The prediction is the most probable class
    (the first of equals). `ece_plain` is the usual expected calibration error: the gap between confidence and accuracy
    of the predicted class in 15 bins of equal mass. Chance differences alone make it larger than 0; `ece` is the same
    moved down by the bias that the bootstrap shows (Kumar, Liang and Ma 2019), not below 0. Raises DataError without
    images, OptionError where the shapes or values are no probabilities of these classes.
    """
    _check(truth, probabilities, len(classes))
    predicted = probabilities.argmax(axis=1).astype(np.int64)
    units = _units(len(truth), groups)
    tally = _tally(truth, predicted, units, len(classes))
    result: dict[str, Any] = {"n": len(truth), "accuracy": accuracy_interval(truth == predicted, groups)}
    draws = _bootstrap(truth, predicted, probabilities, units, len(classes), seed)
    macro = _macro_values(tally.right, tally.true, tally.guessed)
    for index, name in enumerate(_MACRO):
        part = {"macro_precision": "precision", "macro_f1": "f1"}.get(name, "recall")
        combined = _mover(float(macro[index]), tally.interval(part), tally.true > 0)
        result[name] = wider(float(macro[index]), _percentiles(draws.macro[:, index]), combined)
    log_loss = float(draws.loss_total / len(truth))
    result["log_loss"] = _interval(log_loss, *_percentiles(draws.loss), top=np.inf)
    result["ece"], result["ece_plain"] = _ece(draws)
    result["per_class"] = tally.per_class(classes)
    result["confusion"] = confusion(truth, predicted, len(classes)).tolist()
    return {key: result[key] for key in ("n", *METRICS, "per_class", "confusion")}


def point_scores(
    truth: NDArray[np.integer[Any]], probabilities: NDArray[np.floating[Any]], n_classes: int
) -> dict[str, float]:
    """The values of METRICS without intervals (both ECEs with their bias), for one fold or one draw."""
    _check(truth, probabilities, n_classes)
    predicted = probabilities.argmax(axis=1).astype(np.int64)
    right, true, guessed = (np.bincount(v, minlength=n_classes) for v in (truth[truth == predicted], truth, predicted))
    values = dict(zip(_MACRO, _macro_values(right, true, guessed).tolist(), strict=True))
    edges = _calibration_bins(probabilities.max(axis=1))
    gap = np.bincount(edges, weights=probabilities.max(axis=1) - (truth == predicted), minlength=ECE_BINS)
    values["accuracy"] = float((truth == predicted).mean())
    values["log_loss"] = float(_losses(truth, probabilities).mean())
    values["ece"] = values["ece_plain"] = float(np.abs(gap).sum() / len(truth))
    return {name: values[name] for name in METRICS}


def confusion(
    truth: NDArray[np.integer[Any]], predicted: NDArray[np.integer[Any]], n_classes: int
) -> NDArray[np.int64]:
    """Counts (true class, predicted class)."""
    cells = truth.astype(np.int64) * n_classes + predicted
    return np.bincount(cells, minlength=n_classes * n_classes).reshape(n_classes, n_classes)


def wilson(share: float, n: float, z: float = Z) -> tuple[float, float]:
    """Interval of a share observed in n (effective) independent images (Wilson 1927); (0, 1) for n = 0."""
    if n <= 0:
        return 0.0, 1.0
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def paired_difference(
    truth: NDArray[np.integer[Any]],
    first: NDArray[np.floating[Any]],
    second: NDArray[np.floating[Any]],
    groups: NDArray[np.integer[Any]] | None = None,
) -> dict[str, Any]:
    """Accuracy of `first` minus that of `second` (image, class) on the same images, as shares, with interval and exact
    p.

    Interval: Wald with one image added to either kind of disagreement (Bonett and Price 2012), its variance taken
    between groups. p: McNemar's exact test of "equally good"; with groups the sign test over groups. Raises as `score`
    does.
    """
    for probabilities in (first, second):
        _check(truth, probabilities, first.shape[1])
    return paired_gain(first.argmax(axis=1) == truth, second.argmax(axis=1) == truth, groups)


def paired_gain(
    first: NDArray[Any], second: NDArray[Any], groups: NDArray[np.integer[Any]] | None = None
) -> dict[str, Any]:
    """`paired_difference` from which answers are right, (image,) each; for several answers an image, the share of
    them."""
    from scipy.stats import binomtest

    n = len(first)
    gain = first.astype(np.float64) - second
    unit = _units(n, groups)
    net = np.bincount(unit, weights=gain)
    better, worse = int((net > 0).sum()), int((net < 0).sum())
    middle = float(gain.sum() / (n + 2))
    deviations = net - np.bincount(unit) * middle
    variance = (float((deviations**2).sum()) + (1 - middle) ** 2 + (1 + middle) ** 2) / (n + 2) ** 2
    half = Z * float(np.sqrt(variance))
    difference = float(gain.mean())
    low, high = min(difference, middle - half), max(difference, middle + half)
    return {
        "n": n,
        "difference": {"value": difference, "low": max(-1.0, low), "high": min(1.0, high)},
        "only_first_right": int((gain > 0).sum()),
        "only_second_right": int((gain < 0).sum()),
        "p": float(binomtest(better, better + worse, 0.5).pvalue) if better + worse else 1.0,
    }


def paired_balanced_gain(
    truth: NDArray[np.integer[Any]],
    first: NDArray[Any],
    second: NDArray[Any],
    groups: NDArray[np.integer[Any]] | None = None,
) -> dict[str, Any]:
    """`paired_gain` of the balanced accuracy: the mean over the classes of their paired differences, whose intervals
    are combined as those of independent images (MOVER, Zou and Donner 2008)."""
    found = []
    for c in np.unique(truth):
        here = truth == c
        found.append(paired_gain(first[here], second[here], None if groups is None else groups[here])["difference"])
    value, low, high = (np.array([d[end] for d in found]) for end in ("value", "low", "high"))
    mean = float(value.mean())
    ends = _mover(mean, (value, low, high), np.ones(len(found), dtype=bool))
    return {"n": len(truth), "difference": {"value": mean, "low": max(-1.0, ends[0]), "high": min(1.0, ends[1])}}


def paired_losses(
    truth: NDArray[np.integer[Any]],
    first: NDArray[np.floating[Any]],
    second: NDArray[np.floating[Any]],
    groups: NDArray[np.integer[Any]] | None = None,
) -> Interval:
    """Mean log-loss of `first` minus that of `second` (image, class) on the same images, with its interval.

    Student's t over the groups. It tells more than `paired_difference`, to which only images count that one gets right
    and the other does not. No ends where all images are one group. Raises as `score` does.
    """
    from scipy.stats import t

    for probabilities in (first, second):
        _check(truth, probabilities, first.shape[1])
    change = _losses(truth, first) - _losses(truth, second)
    value, n = float(change.mean()), len(change)
    deviations = np.bincount(_units(n, groups), weights=change - value)
    m = len(deviations)
    if m < 2:
        return {"value": value, "low": None, "high": None}
    half = float(t.ppf(0.975, m - 1) * np.sqrt((deviations**2).sum() * m / (m - 1))) / n
    return {"value": value, "low": value - half, "high": value + half}


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

    def per_class(self, classes: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of `per_class`."""
        defined = {"precision": self.guessed > 0, "recall": self.true > 0, "f1": self.true > 0}
        columns = {part: self.interval(part) for part in defined}
        rows: list[dict[str, Any]] = []
        for c, name in enumerate(classes):
            row: dict[str, Any] = {"class": str(name), "n": int(self.true[c])}
            for part, known in defined.items():
                row[part] = (
                    _interval(*(float(v[c]) for v in columns[part])) if known[c] else _interval(None, None, None)
                )
            rows.append(row)
        return rows


def _tally(truth: NDArray[Any], predicted: NDArray[np.int64], units: NDArray[np.int64], n_classes: int) -> _Tally:
    wrong = truth != predicted
    right, true, guessed = (np.bincount(v, minlength=n_classes) for v in (truth[~wrong], truth, predicted))
    either = true + guessed - right
    of_either = np.concatenate([truth, predicted[wrong]])
    hit = (~wrong).astype(np.float64)
    hit_either = np.concatenate([hit, np.zeros(int(wrong.sum()))])
    worth = {
        "recall": _worth(truth, hit, units, n_classes),
        "precision": _worth(predicted, hit, units, n_classes),
        "f1": _worth(of_either, hit_either, np.concatenate([units, units[wrong]]), n_classes),
    }
    return _Tally(right, true, guessed, either, worth)


def _worth(of: NDArray[Any], hit: Array, units: NDArray[np.int64], n_classes: int) -> Array:
    """Effective number of independent images (class,) behind each class's share of hits.

    of (event,): class of each event, hit (event,): 0 or 1, units (event,): its group. From the variance of the share
    between groups, kept between the number of groups and the number of images; where there is no variance, the number
    of groups.
    """
    n = np.bincount(of, minlength=n_classes).astype(np.float64)
    share = np.divide(np.bincount(of, weights=hit, minlength=n_classes), n, out=np.zeros(n_classes), where=n > 0)
    span = int(units.max()) + 1 if len(units) else 1
    cells, inverse = np.unique(of.astype(np.int64) * span + units, return_inverse=True)
    cell_class = cells // span
    groups = np.bincount(cell_class, minlength=n_classes).astype(np.float64)
    residual = np.bincount(inverse, weights=hit - share[of])
    variance = np.bincount(cell_class, weights=residual**2, minlength=n_classes)
    variance *= np.divide(groups, groups - 1, out=np.ones(n_classes), where=groups > 1) / np.maximum(n, 1) ** 2
    estimate = np.divide(share * (1 - share), variance, out=groups.copy(), where=variance > 0)
    return np.where(groups == n, n, np.clip(estimate, groups, n))


def accuracy_interval(hit: NDArray[np.bool_], groups: NDArray[Any] | None) -> Interval:
    """Share of hits (image,) with its Wilson interval, by the effective number of images where they come in groups."""
    share, n = float(hit.mean()), float(len(hit))
    if groups is not None:
        n = float(_worth(np.zeros(len(hit), np.int64), hit.astype(np.float64), _units(len(hit), groups), 1)[0])
    return _interval(share, *wilson(share, n))


def balanced_interval(
    truth: NDArray[np.integer[Any]], hit: NDArray[np.bool_], groups: NDArray[Any] | None = None
) -> Interval:
    """Mean over the classes of their share of hits (image,), from the classes' own intervals (Zou and Donner 2008)."""
    parts = [truth == c for c in np.unique(truth)]
    found = [accuracy_interval(hit[here], None if groups is None else groups[here]) for here in parts]
    value, low, high = (np.array([cell[end] for cell in found], dtype=np.float64) for end in ("value", "low", "high"))
    mean = float(value.mean())
    return _interval(mean, *_mover(mean, (value, low, high), np.ones(len(found), dtype=bool)))


@dataclass(frozen=True)
class _Draws:
    """Bootstrap: macro scores (resample, 4), mean log-loss (resample,), ECE (resample,), and what was observed."""

    macro: Array
    loss: Array
    ece: Array
    loss_total: float
    ece_observed: float


def _bootstrap(
    truth: NDArray[Any],
    predicted: NDArray[np.int64],
    probabilities: NDArray[Any],
    units: NDArray[np.int64],
    n_classes: int,
    seed: int,
) -> _Draws:
    """Resample groups 2,000 times, as weights on sums by group, so that cost and memory depend on BLOCKS and classes,
    not on images.

    Calibration bins stay as observed.
    """
    rng = np.random.default_rng(seed)
    blocks = int(units.max()) + 1
    if blocks > BLOCKS:
        units, blocks = (rng.permutation(blocks) % BLOCKS)[units], BLOCKS
    confidence = probabilities.max(axis=1).astype(np.float64)
    hit = truth == predicted
    losses = _losses(truth, probabilities)
    gap = _sums(units, _calibration_bins(confidence), confidence - hit, blocks, ECE_BINS)
    ones = np.ones(len(truth))
    counts = [
        _sums(units[m], v[m], ones[m], blocks, n_classes)
        for v, m in ((truth, hit), (truth, hit | True), (predicted, hit | True))
    ]
    loss, size = np.bincount(units, weights=losses, minlength=blocks), np.bincount(units, minlength=blocks)
    macro, means, eces = [], [], []
    for _ in range(0, RESAMPLES, CHUNK):
        weights = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=CHUNK).astype(np.float64)
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


def _mover(value: float, parts: tuple[Array, Array, Array], occurs: NDArray[np.bool_]) -> tuple[float, float]:
    """Interval of the mean of the occurring classes' values from their own intervals (Zou and Donner 2008)."""
    share, low, high = (v[occurs] for v in parts)
    down, up = np.sqrt(((share - low) ** 2).sum()), np.sqrt(((high - share) ** 2).sum())
    return value - float(down) / len(share), value + float(up) / len(share)


def _ece(draws: _Draws) -> tuple[Interval, Interval]:
    """Corrected and plain: a resample shows the bias of chance once more than what was observed."""
    bias = float(draws.ece.mean()) - draws.ece_observed
    low, high = _percentiles(draws.ece - bias)
    corrected = _interval(max(0.0, draws.ece_observed - bias), low - bias, high - bias)
    return corrected, _interval(draws.ece_observed, low, high)


def _calibration_bins(confidence: NDArray[Any]) -> NDArray[np.int64]:
    """Bin (image,) of equal mass, by rank; equal confidences share a bin."""
    ordered = np.sort(confidence)
    twice_rank = np.searchsorted(ordered, confidence, "left") + np.searchsorted(ordered, confidence, "right") - 1
    return np.asarray(twice_rank * ECE_BINS // (2 * len(confidence)), dtype=np.int64)


def _losses(truth: NDArray[Any], probabilities: NDArray[Any]) -> Array:
    """-log of the true class's probability (image,), clipped."""
    chosen = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return np.asarray(-np.log(np.clip(chosen, SMALLEST_PROBABILITY, 1.0)))


def _units(n: int, groups: NDArray[Any] | None) -> NDArray[np.int64]:
    """Group numbers (image,), 0, 1, ... by first appearance."""
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise OptionError(f"score: {len(groups)} groups for {n} images")
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse], dtype=np.int64)


def _check(truth: NDArray[Any], probabilities: NDArray[Any], n_classes: int) -> None:
    if len(truth) == 0:
        raise DataError("score: no images to judge")
    if probabilities.shape != (len(truth), n_classes):
        raise OptionError(
            f"score: probabilities {probabilities.shape}, expected ({len(truth)}, {n_classes}) (image, class)"
        )
    if truth.min() < 0 or truth.max() >= n_classes:
        raise OptionError(f"score: class numbers {truth.min()} to {truth.max()}, allowed are 0 to {n_classes - 1}")
    total = probabilities.sum(axis=1, dtype=np.float64)
    if not (np.isfinite(total).all() and np.abs(total - 1).max() < 1e-2 and probabilities.min() >= -1e-6):
        raise OptionError("score: probabilities must be at least 0 and sum to 1 for each image")


def _percentiles(draws: Array) -> tuple[float, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def wider(value: float, one: tuple[float, float], other: tuple[float, float], top: float = 1.0) -> Interval:
    return _interval(value, min(one[0], other[0]), max(one[1], other[1]), top)


def _interval(value: float | None, low: float | None, high: float | None, top: float = 1.0) -> Interval:
    """JSON form; the ends are kept within 0 and `top`, and hold the value."""
    if value is None or low is None or high is None:
        return {"value": None, "low": None, "high": None}
    return {"value": value, "low": min(value, max(0.0, low)), "high": max(value, min(top, high))}
