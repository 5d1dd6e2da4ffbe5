"""How many things of a class a picture shows, from the scores of its boxes.

Either the boxes from a score on, or the sum of their scores times a factor: what is half hidden, or what people mark in
one picture and not in the next, is a part of a thing. Which of the two is chosen on pictures that taught nothing, each
judged by what is chosen without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

NUMBERED = np.arange(0.02, 1.0, 0.02)  # scores from which boxes are counted that are tried
SUMMED = np.array([0.05, 0.1, 0.15, 0.2, 0.3])  # scores from which they are summed: below lies what is nothing
WORTH = 0.95  # of the error of numbers, that a sum must be below: a number of boxes is what a person would check


@dataclass(frozen=True)
class Counting:
    """Boxes from the score `least` on count: each one, or with a `factor` its score times that."""

    least: float
    factor: float | None = None

    def of(self, scores: npt.NDArray[np.floating]) -> Doubles:
        """(image,): how many things there are, by scores (image, box)."""
        kept = np.where(scores >= self.least, scores, 0).astype(np.float64)
        found = (kept > 0).sum(axis=1) if self.factor is None else kept.sum(axis=1) * self.factor
        return np.asarray(found, np.float64)


def counting_of(scores: npt.NDArray[np.floating], things: npt.NDArray[np.integer]) -> Counting:
    """What errs least, in the mean over pictures that taught nothing: scores (image, box) of one class, 0 where there
    is no box, and how many `things` (image,) there are."""
    n, true = len(things), things.astype(np.float64)
    if n < 3 or not true.any() or not scores.any():
        return Counting(0.5)
    numbers = np.stack([Counting(least).of(scores) for least in NUMBERED])
    sums = np.stack([Counting(least, 1.0).of(scores) for least in SUMMED])
    number, summed = np.zeros(n), np.zeros(n)
    for i in range(n):
        others = np.arange(n) != i
        number[i] = numbers[_least(np.abs(numbers[:, others] - true[others])), i]
        factors, best = _factors(sums[:, others], true[others])
        summed[i] = sums[best, i] * factors[best]
    if np.abs(summed - true).mean() < WORTH * np.abs(number - true).mean():
        factors, best = _factors(sums, true)
        return Counting(float(SUMMED[best]), float(factors[best]))
    return Counting(float(NUMBERED[_least(np.abs(numbers - true))]))


def _least(errors: Doubles) -> int:
    """The row (row, image) that errs least, of equal ones the middle one."""
    mean = errors.mean(axis=1)
    best = np.flatnonzero(mean <= mean.min() + 1e-9)
    return int(best[len(best) // 2])


def _factors(sums: Doubles, true: Doubles) -> tuple[Doubles, int]:
    """What each of the sums (row, image) is multiplied by, so that all pictures together have as many as there are, and
    the row that errs least then."""
    factors = true.sum() / np.maximum(sums.sum(axis=1), 1e-9)
    return factors, _least(np.abs(sums * factors[:, None] - true))
