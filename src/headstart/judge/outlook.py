"""What twice the images would bring: the learning curve continued, with its uncertainty.

Errors against training images follow a power law with a floor, a + b n^-c (Hestness et al. 2017, arXiv 1712.00409). Of
each c the best a and b follow from generalised least squares; how far each may be off, and how likely each c is, from
how much the curve's points vary together: they are of the same images. The law itself holds only nearly and training
images are a draw, so each point may stray by STRAY of its error besides. What is told is the middle and the 95 % of
what then remains possible. How often it holds: benchmarks/more_data.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from headstart.judge.intervals import paired_gain, units_of
from headstart.judge.marks import Array, Interval, Marks

POWERS = np.linspace(0.1, 1.2, 23)  # c: Hestness et al. find 0.07 to 0.35, small sets of good features up to 1
STRAY = 0.05  # of a point's error, of the law and of the draw of training images; chosen on CIFAR-100 and digits
POINTS = 6  # of the end of the curve: below them the law does not hold yet
LEAST_POINTS = 3
FARTHEST = 2.0  # times the curve's last point, up to which a curve of a part of the images is continued
DRAWS = 4000


class Gains(TypedDict):
    """A class, the images that it was found in, and how much more of it the last doubling of the images found."""

    name: str
    n: int
    gain: Interval


def twice(sizes: Sequence[int], points: Sequence[Marks], groups: NDArray[Any], n: int) -> Interval | None:
    """What 2 n training images would answer rightly more often than n, by the curve's points: marks of the same images
    (image,), one for each size. None where that cannot be told: not one class an image, too few points, or n too far
    beyond the curve."""
    if len(points) < LEAST_POINTS or "right" not in points[0].columns or n > FARTHEST * sizes[-1]:
        return None
    size = np.array(sizes[-POINTS:], dtype=np.float64)
    wrong = np.stack([1.0 - marks["right"] for marks in points[-POINTS:]])
    errors = wrong.mean(axis=1)
    spread = _covariance(wrong, units_of(wrong.shape[1], groups)) + np.diag((STRAY * np.maximum(errors, 1e-3)) ** 2)
    draws = _gains(size / n, errors, spread)
    low, middle, high = np.quantile(draws, [0.025, 0.5, 0.975])
    return {"value": float(middle), "low": float(low), "high": float(high)}


def _covariance(wrong: Array, units: NDArray[np.int64]) -> Array:
    """(point, point): of the means of (point, image), by how they vary between groups; half an image more on either
    side, so that no mistake is not taken for none to come."""
    n, m = wrong.shape[1], int(units.max()) + 1
    off = wrong - wrong.mean(axis=1, keepdims=True)
    sums = np.stack([np.bincount(units, weights=row, minlength=m) for row in off])
    return np.asarray(sums @ sums.T * m / max(m - 1, 1) / n**2 + np.eye(len(wrong)) * 0.25 / n**2)


def _gains(size: Array, errors: Array, spread: Array) -> Array:
    """Draws of what the law loses from 1 to 2 (in units of `size`), given errors with this covariance."""
    inverse = np.linalg.inv(spread)
    fits, weights = [], []
    for power in POWERS:
        design = np.stack([np.ones(len(size)), size**-power], axis=1)
        inner = np.linalg.inv(design.T @ inverse @ design)
        best = inner @ design.T @ inverse @ errors
        off = errors - design @ best
        weights.append(-0.5 * off @ inverse @ off)
        fits.append((best, inner, 1 - 2.0**-power))
    chance = np.exp(np.array(weights) - max(weights))
    rng = np.random.default_rng(0)
    counts = np.maximum(1, np.rint(DRAWS * chance / chance.sum()).astype(int))
    drawn = []
    for (best, inner, share), count in zip(fits, counts, strict=True):
        floor, slope = rng.multivariate_normal(best, inner, 4 * count, method="cholesky").T
        kept = (floor >= 0) & (slope >= 0)
        slope = slope[kept] if kept.any() else np.maximum(slope, 0.0)
        drawn.append(share * slope[:count])
    return np.concatenate(drawn)


def gains_most(before: Marks, after: Marks, names: Sequence[str], groups: NDArray[Any]) -> Gains | None:
    """The class whose recall the last step of the curve raised most, where that is above 0 beyond its interval. It is
    the largest of many, so the next step will mostly bring it less."""
    if "truth" not in after.columns or "right" not in after.columns or after["truth"].ndim > 1:  # several labels
        return None
    found: list[Gains] = []
    for c, name in enumerate(names):
        here = np.flatnonzero(after["truth"] == c)
        if len(here):
            gain = paired_gain(after["right"][here], before["right"][here], groups[here])["difference"]
            found.append({"name": str(name), "n": len(here), "gain": gain})
    best = max(found, key=lambda one: float(one["gain"]["value"] or 0.0), default=None)
    return best if best and (best["gain"]["low"] or 0.0) > 0 and len(names) > 1 else None
