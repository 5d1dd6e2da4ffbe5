"""Intervals of shares, and paired differences of two answers for the same images.

Shares have Wilson's score interval (Wilson 1927). Where images come in groups (duplicates, patients) it counts the
effective number of images of survey sampling: the variance between groups says how many independent images these are
worth (Korn and Graubard 1998; Dean and Pagano 2015). Means of several shares combine the intervals of their parts
(MOVER, Zou and Donner 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError
from headstart.judge.marks import Array, Interval

NEW_IMAGES = 2.0**0.5  # two samples of one size differ by sqrt(2) times the chance of one
AT_ONCE = 250  # resamples drawn at a time
Z = 1.959963984540054  # standard normal, two-sided 95 %


class Gain(TypedDict):
    """One answer's worth minus another's on the same `n` images; of right answers also who alone is right, and p."""

    n: int
    difference: Interval
    only_first_right: NotRequired[int]
    only_second_right: NotRequired[int]
    p: NotRequired[float]


def mean_of_groups(values: Array, groups: NDArray[np.integer]) -> tuple[float, float]:
    """The mean of values (image,) and its standard error, where images of one group (image,) vary together."""
    mean = float(values.mean())
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], values - mean)
    few = len(sums) / max(1, len(sums) - 1)
    return mean, float(np.sqrt(few * (sums**2).sum()) / len(values))


def wilson(share: float, n: float, z: float = Z) -> tuple[float, float]:
    """Interval of a share observed in n (effective) independent images (Wilson 1927); (0, 1) for n = 0."""
    if n <= 0:
        return 0.0, 1.0
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def accuracy_interval(hit: NDArray[np.bool_], groups: NDArray[Any] | None) -> Interval:
    """Share of hits (image,) with its Wilson interval, by the effective number of images where they come in groups."""
    share, n = float(hit.mean()), float(len(hit))
    if groups is not None:
        n = float(
            effective_numbers(np.zeros(len(hit), np.int64), hit.astype(np.float64), units_of(len(hit), groups), 1)[0]
        )
    return interval(share, *wilson(share, n))


def balanced_interval(
    truth: NDArray[np.integer[Any]], hit: NDArray[np.bool_], groups: NDArray[Any] | None = None
) -> Interval:
    """Mean over the classes of their share of hits (image,), from the classes' own intervals (Zou and Donner 2008)."""
    parts = [truth == c for c in np.unique(truth)]
    found = [accuracy_interval(hit[here], None if groups is None else groups[here]) for here in parts]
    value, low, high = (np.array([cell[end] for cell in found], dtype=np.float64) for end in ("value", "low", "high"))
    mean = float(value.mean())
    return interval(mean, *mover(mean, (value, low, high), np.ones(len(found), dtype=bool)))


def paired_gain(first: NDArray[Any], second: NDArray[Any], groups: NDArray[np.integer[Any]] | None = None) -> Gain:
    """The share of right answers of `first` minus that of `second` on the same images, with interval and exact p.

    first, second (image,): which answers are right; for several answers an image, the share of them. Interval: Wald
    with one image added to either kind of disagreement (Bonett and Price 2012), its variance taken between groups. p:
    McNemar's exact test of "equally good"; with groups the sign test over groups.
    """
    n = len(first)
    gain = first.astype(np.float64) - second
    unit = units_of(n, groups)
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
        "p": _sign_test(better, worse),
    }


def _sign_test(better: int, worse: int) -> float:
    """Two-sided p of so many of either kind where both are equally likely: twice the smaller tail of the binomial
    distribution, as an incomplete beta function (scipy.stats would take half a second to import)."""
    from scipy.special import betainc

    fewer, n = min(better, worse), better + worse
    return min(1.0, 2 * float(betainc(n - fewer, fewer + 1, 0.5))) if n else 1.0


def paired_balanced_gain(
    truth: NDArray[np.integer[Any]],
    first: NDArray[Any],
    second: NDArray[Any],
    groups: NDArray[np.integer[Any]] | None = None,
) -> Gain:
    """`paired_gain` of the balanced accuracy: the mean over the classes of their paired differences, whose intervals
    are combined as those of independent images (MOVER, Zou and Donner 2008)."""
    found = []
    for c in np.unique(truth):
        here = truth == c
        found.append(paired_gain(first[here], second[here], None if groups is None else groups[here])["difference"])
    value, low, high = (np.array([d[end] for d in found]) for end in ("value", "low", "high"))
    mean = float(value.mean())
    ends = mover(mean, (value, low, high), np.ones(len(found), dtype=bool))
    return {"n": len(truth), "difference": {"value": mean, "low": max(-1.0, ends[0]), "high": min(1.0, ends[1])}}


def paired_losses(
    first: NDArray[Any], second: NDArray[Any], groups: NDArray[np.integer[Any]] | None = None
) -> Interval:
    """Mean loss of `first` minus that of `second`, (image,) each, on the same images, with its interval.

    Student's t over the groups. It tells more than `paired_gain`, to which only images count that one gets right and
    the other does not. No ends where all images are one group.
    """
    from scipy.special import stdtrit

    change = np.asarray(first, dtype=np.float64) - second
    value, n = float(change.mean()), len(change)
    deviations = np.bincount(units_of(n, groups), weights=change - value)
    m = len(deviations)
    if m < 2:
        return {"value": value, "low": None, "high": None}
    half = float(stdtrit(m - 1, 0.975) * np.sqrt((deviations**2).sum() * m / (m - 1))) / n
    return {"value": value, "low": value - half, "high": value + half}


def effective_numbers(of: NDArray[Any], hit: Array, units: NDArray[np.int64], n_classes: int) -> Array:
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


def mover(value: float, parts: tuple[Array, Array, Array], occurs: NDArray[np.bool_]) -> tuple[float, float]:
    """Interval of the mean of the occurring classes' values from their own intervals (Zou and Donner 2008)."""
    share, low, high = (v[occurs] for v in parts)
    down, up = np.sqrt(((share - low) ** 2).sum()), np.sqrt(((high - share) ** 2).sum())
    return value - float(down) / len(share), value + float(up) / len(share)


def wider(
    value: float, one: tuple[float, float], other: tuple[float, float], top: float = 1.0, bottom: float = 0.0
) -> Interval:
    """The wider of two intervals of one value."""
    return interval(value, min(one[0], other[0]), max(one[1], other[1]), top, bottom)


def interval(
    value: float | None, low: float | None, high: float | None, top: float = 1.0, bottom: float = 0.0
) -> Interval:
    """The ends are kept within `bottom` and `top`, and hold the value."""
    if value is None or low is None or high is None:
        return {"value": None, "low": None, "high": None}
    return {"value": value, "low": min(value, max(bottom, low)), "high": max(value, min(top, high))}


def percentiles(draws: Array) -> tuple[float, float]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def units_of(n: int, groups: NDArray[Any] | None) -> NDArray[np.int64]:
    """Group numbers (image,), 0, 1, ... by first appearance."""
    if groups is None:
        return np.arange(n)
    if len(groups) != n:
        raise OptionError(f"score: {len(groups)} groups for {n} images")
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse], dtype=np.int64)


@lru_cache(maxsize=2)
def drawn(seed: int, units: int, most: int, resamples: int) -> tuple[NDArray[np.intp] | None, NDArray[np.uint16]]:
    """(block (unit,), how often each block is drawn (resample, block)) of a bootstrap over so many units. More units
    than `most` are merged at random into so many blocks; block is None where each unit is one.

    The last two are kept, 16 MB each: a fit judges the same images many times, and drawing takes longer than judging.
    """
    rng, merged = np.random.default_rng(seed), None
    if units > most:
        merged, units = rng.permutation(units) % most, most
    counts = np.empty((resamples, units), np.uint16)
    for start in range(0, resamples, AT_ONCE):
        here = counts[start : start + AT_ONCE]
        here[:] = rng.multinomial(units, np.full(units, 1 / units), size=len(here))
    counts.flags.writeable = False
    return merged, counts


def corrected_half_width(values: Sequence[float], test_to_train: float) -> float:
    """Half the corrected resampled 95 % t-interval of the mean of J scores (Nadeau and Bengio 2003, section 3)."""
    from scipy.special import stdtrit

    j = len(values)
    if j < 2:
        return 0.0
    return float(stdtrit(j - 1, 0.975) * np.sqrt(np.var(values, ddof=1) * (1 / j + test_to_train)))


def mean_ends(repeats: Sequence[Interval]) -> tuple[float, float, float]:
    """Mean value, low and high, the ends moved out to allow for the chance of as many new images."""
    value, low, high = (float(np.mean(np.array([r[end] for r in repeats]))) for end in ("value", "low", "high"))
    return value, value - NEW_IMAGES * (value - low), value + NEW_IMAGES * (high - value)
