"""Any summary of marks with its interval, and the paired difference of two, by a bootstrap over groups.

A resample draws groups with replacement: each image counts as often as its group was drawn, and a summary is a function
of marks and such weights. An interval is never narrower than Wilson's for a share of as many images (groups, where
images come in groups): a bootstrap without a single mistake would be certain of perfection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.judge.crossing import Measure
from headstart.judge.intervals import (
    Gain,
    corrected_half_width,
    interval,
    mean_ends,
    percentiles,
    units_of,
    wider,
    wilson,
)
from headstart.judge.marks import Array, Interval, Marks, Summary, ends

RESAMPLES = 2000  # the ends of a 95 % interval then vary by about 1.5 % of its width,
FEWEST = 200  # by 5 %: where many images and outputs would take minutes
WORK = 4e8  # image x output x resample that are affordable: about 10 s on a core
CHUNK = 4e6  # weights made at a time: 32 MB

UNDEFINED: Interval = {"value": None, "low": None, "high": None}


def summarise(
    marks: Marks, summaries: Sequence[Summary], groups: NDArray[np.integer[Any]] | None = None, seed: int = 0
) -> dict[str, Interval]:
    """Each summary with its 95 % interval; undefined where the marks do not determine it (no positive, one value)."""
    n_groups = len(marks) if groups is None else len(np.unique(groups))
    whole = [_value(s, marks) for s in summaries]
    draws = np.concatenate([_of_all(marks, summaries, w) for w in _resamples(marks, groups, seed)])
    return {s.name: _around(s, v, draws[:, k], n_groups) for k, (s, v) in enumerate(zip(summaries, whole, strict=True))}


def paired(
    summary: Summary,
    first: Marks,
    second: Marks,
    groups: NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
) -> Gain:
    """`summary` of the first minus that of the second, on the same images, by the same resamples.

    Never narrower than that of one image more that only one of the two gets right (as Bonett and Price 2012 add one),
    where the summary is a share.
    """
    value = _value(summary, first) - _value(summary, second)
    draws = np.concatenate([summary.of(first, w) - summary.of(second, w) for w in _resamples(first, groups, seed)])
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(draws):
        return {"n": len(first), "difference": UNDEFINED}
    least = 1 / len(first) if summary.share else 0.0
    low, high = percentiles(draws)
    widest = summary.highest - summary.lowest
    found = wider(value, (low, high), (value - least, value + least), widest, -widest)
    return {"n": len(first), "difference": found}


def crossed(
    repeats: Sequence[Marks],
    folds: Sequence[NDArray[np.integer[Any]]],
    summaries: Sequence[Summary],
    groups: NDArray[np.integer[Any]] | None = None,
    seed: int = 0,
) -> dict[str, Interval]:
    """Of repeated cross-validation, as `class_marks.crossed_class_score` does it: the mean over repeats; each end the
    farther of the corrected resampled t-interval of the folds and sqrt(2) times the bootstrap's own. A fold in which a
    summary is undefined is passed over."""
    whole = [summarise(marks, summaries, groups, seed) for marks in repeats]
    test_share = float(np.mean([1 / len(np.unique(fold)) for fold in folds]))
    found = {}
    for s in summaries:
        known = [w[s.name] for w in whole if w[s.name]["value"] is not None]
        if not known:
            found[s.name] = UNDEFINED
            continue
        parts = [m.take(fold == f) for m, fold in zip(repeats, folds, strict=True) for f in np.unique(fold)]
        of_folds = [_value(s, part) for part in parts]
        half = corrected_half_width([v for v in of_folds if np.isfinite(v)], test_share / (1 - test_share))
        value, low, high = mean_ends(known)
        found[s.name] = wider(value, (low, high), (value - half, value + half), s.highest, s.lowest)
    return found


def measure_of(summary: Summary, percent: bool = True) -> Measure:
    """A summary as what answers are compared in."""
    return Measure(
        summary.name,
        partial(_value, summary),
        partial(_estimate, summary),
        partial(paired, summary),
        summary.lowest,
        summary.highest,
        summary.higher_is_better,
        percent,
    )


def _value(summary: Summary, marks: Marks) -> float:
    return float(summary.of(marks, np.ones((1, len(marks))))[0])


def _estimate(summary: Summary, marks: Marks, groups: NDArray[np.integer[Any]] | None) -> Interval:
    return summarise(marks, (summary,), groups)[summary.name]


def _of_all(marks: Marks, summaries: Sequence[Summary], weights: Array) -> Array:
    return np.stack([s.of(marks, weights) for s in summaries], axis=1)


def _around(summary: Summary, value: float, draws: Array, n_groups: int) -> Interval:
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(draws):
        return UNDEFINED
    found = interval(value, *percentiles(draws), summary.highest, summary.lowest)
    if summary.share:
        value, *own = ends(found)
        found = wider(value, (own[0], own[1]), wilson(value, n_groups), summary.highest, summary.lowest)
    return found


def _resamples(marks: Marks, groups: NDArray[np.integer[Any]] | None, seed: int) -> Iterator[Array]:
    """Weights (resample, image), a chunk at a time."""
    n = len(marks)
    units = units_of(n, groups)
    n_units = int(units.max()) + 1
    outputs = max(int(np.prod(column.shape[1:])) for column in marks.columns.values())
    left = int(np.clip(WORK / (n * outputs), FEWEST, RESAMPLES))
    rng, at_once = np.random.default_rng(seed), max(1, int(CHUNK / n))
    while left > 0:
        some = min(left, at_once)
        drawn = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=some)
        yield drawn[:, units].astype(np.float64)
        left -= some
