"""Any summary of marks with its 95 % interval, alone, as a paired difference, or of repeated cross-validation.

Percentile bootstrap over groups: a resample is how often each image counts, so that one summary is written once, for
all images, for a resample and for a fold. Three things are mended that make such intervals miss the truth too often:

- The percentiles are those that give Student's t-interval its width where a mean is resampled (the expanded
  percentile interval of Hesterberg 2015, The American Statistician 69): with few groups the plain ones are too narrow.
- They are moved by the bias that the resamples show.
- A bootstrap sees only mistakes that were made. A summary says how far its interval must reach at least
  (`Summary.least`), so that perfect answers are not certain of perfection.

How often they hold the truth: docs/measurements.md#intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.judge.crossing import Measure
from headstart.judge.intervals import Gain, Z, corrected_half_width, drawn, interval, mean_ends, units_of, wider, wilson
from headstart.judge.marks import Array, Interval, Marks, Summary

RESAMPLES = 2000  # the ends of a 95 % interval then vary by about 1.5 % of its width,
FEWEST = 200  # by 5 %: where many images and outputs would take minutes
WORK = 4e8  # image x output x resample that are affordable: about 5 s on a core (average precision)
BLOCKS = 4000  # groups resampled at most; more are merged at random into so many: the variance stays as it is
CELLS = 8_000_000  # (resample, image) at a time: 64 MB
BLIND = 1e-12  # relative: groups that differ by less than rounding are the same

UNDEFINED: Interval = {"value": None, "low": None, "high": None}

Units = NDArray[np.int64]
Statistic = Callable[..., Array]  # (one or several marks, weights (resample, image)) -> (resample, ...)


def summarise(
    marks: Marks, summaries: Sequence[Summary], groups: NDArray[Any] | None = None, seed: int = 0
) -> dict[str, Interval]:
    """Each summary's value and interval. groups (image,): images of one group are not independent; None = all are.

    All None where a summary is not defined for these images.
    """
    units = units_of(len(marks), groups)
    drawn = resampled([marks], {s.name: s.of for s in summaries}, units, seed)
    return {s.name: estimate(s, marks, drawn[s.name], units) for s in summaries}


def estimate(summary: Summary, marks: Marks, draws: Array, units: Units) -> Interval:
    """The interval of a summary from its draws (resample,); units (image,) are numbers of groups."""
    found = value(summary, marks)
    if found is None:
        return UNDEFINED
    least = (found, found) if summary.least is None else summary.least(marks, units)
    low, high = percentile_ends(draws, found, groups_in(units))
    moved = 0.0 if summary.optimism is None else summary.optimism(marks, units)
    return wider(found, (low - moved, high - moved), least, summary.highest, summary.lowest)


def value(summary: Summary, marks: Marks) -> float | None:
    """What the summary is for these images, each counted once; None where it is not defined."""
    if len(marks) == 0:
        return None
    found = float(summary.of(marks, np.ones((1, len(marks))))[0])
    return found if np.isfinite(found) else None


def paired(summary: Summary, first: Marks, second: Marks, groups: NDArray[Any] | None = None, seed: int = 0) -> Gain:
    """The summary of `first` minus that of `second`, answers for the same images, by the same resamples.

    The sign is as it stands: above 0 `first` has more, which is better only where `summary.higher_is_better`. Where the
    summary is bounded, the interval allows for one more image on either side, as `paired_gain` does for right answers
    (Bonett and Price 2012): one image changes a mean over m groups by 1/m of the summary's range. None where either
    is not defined.
    """
    n, units = len(first), units_of(len(first), groups)
    one, other = value(summary, first), value(summary, second)
    if one is None or other is None:
        return {"n": n, "difference": UNDEFINED}

    def difference(a: Marks, b: Marks, weights: Array) -> Array:
        return summary.of(a, weights) - summary.of(b, weights)

    draws = resampled([first, second], {"difference": difference}, units, seed)["difference"]
    found, m, span = one - other, groups_in(units), summary.highest - summary.lowest
    more = Z * 2**0.5 * span / (m + 2) if np.isfinite(span) else 0.0
    low, high = percentile_ends(draws, found, m)
    low, high = found - float(np.hypot(found - low, more)), found + float(np.hypot(high - found, more))
    return {"n": n, "difference": interval(found, low, high, span, -span)}


def measure_of(summary: Summary, percent: bool = True) -> Measure:
    """A summary as what comparisons, curves and gates are made in."""
    return Measure(
        summary.name,
        partial(_number, summary),
        partial(_summarised, summary),
        partial(paired, summary),
        summary.lowest,
        summary.highest,
        summary.higher_is_better,
        percent,
    )


def _number(summary: Summary, marks: Marks) -> float:
    found = value(summary, marks)
    return float("nan") if found is None else found


def _summarised(summary: Summary, marks: Marks, groups: NDArray[np.integer[Any]] | None) -> Interval:
    return summarise(marks, (summary,), groups)[summary.name]


def crossed(
    repeats: Sequence[Marks],
    folds: Sequence[NDArray[np.integer[Any]]],
    summaries: Sequence[Summary],
    groups: NDArray[Any] | None = None,
    seed: int = 0,
) -> dict[str, Interval]:
    """The summaries of repeated cross-validation: one entry a repeat, out-of-fold marks and fold numbers (image,).

    Each repeat is summarised as one set, then averaged. Each end is the farther of the mean of the repeats' own ends,
    sqrt(2) times as far from the value, and the corrected resampled t-interval of the folds (Nadeau and Bengio 2003):
    see `crossed_class_score`. Folds in which a summary is not defined do not count.
    """
    return averaged_scores(summaries, repeats, folds, [summarise(marks, summaries, groups, seed) for marks in repeats])


def averaged_scores(
    summaries: Sequence[Summary],
    repeats: Sequence[Marks],
    folds: Sequence[NDArray[np.integer[Any]]],
    found: Sequence[Mapping[str, Interval]],
) -> dict[str, Interval]:
    """`crossed` of estimates that are known: `found` is one entry a repeat."""
    parts = [m.take(fold == f) for m, fold in zip(repeats, folds, strict=True) for f in np.unique(fold)]
    test_share = float(np.mean([1 / len(np.unique(fold)) for fold in folds]))
    of_all: dict[str, Interval] = {}
    for s in summaries:
        known = [one[s.name] for one in found if one[s.name]["value"] is not None]
        if not known:
            of_all[s.name] = UNDEFINED
            continue
        middle, low, high = mean_ends(known)
        of_folds = [v for v in (value(s, part) for part in parts) if v is not None]
        half = corrected_half_width(of_folds, test_share / (1 - test_share)) if test_share < 1 else 0.0
        of_all[s.name] = wider(middle, (low, high), (middle - half, middle + half), s.highest, s.lowest)
    return of_all


def averaged(cells: Sequence[Interval], top: float = 1.0, bottom: float = 0.0) -> Interval:
    """The mean over repeats of a row's intervals, where they are defined, for as many new images."""
    known = [cell for cell in cells if cell["value"] is not None]
    return interval(*mean_ends(known), top, bottom) if known else UNDEFINED


def resampled(marks: Sequence[Marks], statistics: Mapping[str, Statistic], units: Units, seed: int) -> dict[str, Array]:
    """Draws (resample, ...) of each statistic of the same images' marks; nan where it is not defined for a resample."""
    outputs = max(int(np.prod(column.shape[1:])) for column in marks[0].columns.values())
    n_draws = int(np.clip(WORK / (len(units) * outputs), min(FEWEST, RESAMPLES), RESAMPLES))
    drawn: dict[str, list[Array]] = {name: [] for name in statistics}
    for weights in _resamples(units, n_draws, seed):
        for name, of in statistics.items():
            drawn[name].append(of(*marks, weights))
    return {name: np.concatenate(found) for name, found in drawn.items()}


def _resamples(units: Units, n_draws: int, seed: int) -> Iterator[Array]:
    """How often each image counts, (resample, image) a part at a time: groups drawn as often as there are groups."""
    merged, drawings = drawn(seed, groups_in(units), BLOCKS, n_draws)
    units = units if merged is None else merged[units]
    at_once = max(1, CELLS // len(units))
    for start in range(0, n_draws, at_once):
        yield drawings[start : start + at_once, units].astype(np.float64)


def percentile_ends(draws: Array, found: float, m: int) -> tuple[float, float]:
    """The ends of the 95 % interval from draws (resample,) over m groups, those that are defined.

    They are moved by the bias that the draws show: a resample shows the bias of chance once more than what was found.
    """
    from scipy.special import ndtr, stdtrit

    draws = draws[np.isfinite(draws)]
    if len(draws) == 0 or m < 2:
        return found, found
    tail = float(ndtr(-stdtrit(m - 1, 0.975) * (m / (m - 1)) ** 0.5))
    low, high = np.quantile(draws, [tail, 1 - tail]) - (draws.mean() - found)
    return float(low), float(high)


def groups_in(units: Units) -> int:
    return int(units.max()) + 1


def share_ends(share: Array, units: Units) -> tuple[float, float, float, bool]:
    """(mean, low, high, blind) of shares (event,) between 0 and 1: Wilson's interval for their effective number.

    units (event,): groups. As many independent yes-or-no events as would vary like the mean does between groups, fewer
    where few groups tell how it varies, but at least as many as there are groups (Korn and Graubard 1998). `blind`: all
    groups have the same share, so that nothing is known of how it varies.
    """
    from scipy.special import stdtrit

    _, units = np.unique(units, return_inverse=True)
    m, mean = groups_in(units), float(share.mean())
    residual = np.bincount(units, weights=share - mean)
    variance = float((residual**2).sum()) * m / max(m - 1, 1) / len(share) ** 2
    blind = m < 2 or variance <= BLIND**2
    worth = m if blind else max(m, mean * (1 - mean) / variance * (Z / stdtrit(m - 1, 0.975)) ** 2)
    return mean, *wilson(mean, float(worth)), blind


def least_of_share(share: Callable[[Marks], Array]) -> Callable[[Marks, Units], tuple[float, float]]:
    """`Summary.least` of a mean of shares (image,), nan where an image has none."""

    def ends(marks: Marks, units: Units) -> tuple[float, float]:
        shares = share(marks)
        known = np.isfinite(shares)
        return share_ends(shares[known], units[known])[1:3]

    return ends


def blind_ends(found: float, best: float, ignorant: float, per_image: Array, units: Units) -> tuple[float, float]:
    """Ends of a mean that has no range, where the bootstrap is blind: all groups have the same `per_image` (image,).

    Then the images of a kind not seen yet, at most Wilson's share of 0 in so many groups, may be answered as by one who
    knows nothing: towards `ignorant`, or towards `best`. Elsewhere the interval is a point.
    """
    m = groups_in(units)
    means = np.bincount(units, weights=per_image) / np.bincount(units)
    if float(np.ptp(means)) > BLIND * max(abs(ignorant - best), float(np.abs(means).max())):
        return found, found
    unseen = wilson(0.0, m)[1]
    better = found + unseen * (best - found)
    worse = found + unseen * max(abs(found - best), abs(ignorant - best)) * (1 if ignorant > best else -1)
    return min(better, worse), max(better, worse)
