"""Scores -> probabilities: one scale and one offset a class, by the log-loss of left-out predictions.

The scale is temperature scaling (Guo et al. 2017). The offsets correct what least squares does to rare classes, whose
scores it shrinks most; a standard normal prior keeps them at zero where the data do not ask for them. Targets are
smoothed by 1 / (n + 2) (Platt 1999): of 18 images all right, every later answer would otherwise be certain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]

RANGE = 7.0  # the scale is searched from e^-7 to e^7 times the natural one, 1 / standard deviation of the scores
ENOUGH = 1e-3  # relative change of the scale: the log-loss then changes by less than a millionth of itself
FLAT = 0.1  # of the natural scale: scores whose best one is smaller tell nothing
STEPS = 50  # Newton's take 4 to 8; halving the range, on a logarithmic scale, 14
SCALES = (float(np.exp(-3)), float(np.exp(3)))  # of the scale beside offsets, in units of the best one without
ENOUGH_LOSS = 1e-12  # relative fall of the loss that a last step would promise
LEAST_CURVATURE = 1e-9  # an image, in the scale: scores that carry nothing have none
CELLS = 2**16  # (image, class) at a time: each array of them is 512 KB of float64


def log_softmax(scores: Doubles) -> Doubles:
    """Log-probabilities (image, class)."""
    logs = _shifted(scores)
    for here in _chunks(logs):
        logs[here] -= np.log(np.exp(logs[here]).sum(axis=1, keepdims=True))
    return logs


def log_loss(scores: Doubles, y: Ints, smoothing: float = 0.0) -> float:
    """Mean log-loss of softmax(scores), with `smoothing` of each target spread evenly over all classes."""
    shifted = _shifted(scores)
    return _partition(shifted, 1.0) - _wanted(shifted, y, smoothing)


def best_scale(scores: Doubles, y: Ints) -> tuple[float, float]:
    """(scale, log-loss) that minimises the smoothed log-loss of scale * scores, which is convex in the scale."""
    return _best_scale(scores, y, _spread(scores), 1.0)


def scaled_losses(path: Iterable[Doubles], y: Ints) -> Doubles:
    """The log-loss (penalty,) of `best_scale` for the scores (image, class) of each penalty of a path, in which each
    search starts where the one before it ended. What tells nothing is searched as if it were alone: there the losses
    differ by less than the search leaves open, and the choice shall not depend on the neighbours."""
    losses, start = [], 1.0
    for scores in path:
        spread = _spread(scores)
        scale, loss = _best_scale(scores, y, spread, start)
        if scale * spread < FLAT and start != 1.0:
            scale, loss = _best_scale(scores, y, spread, 1.0)
        losses.append(loss)
        start = scale * spread if scale * spread >= FLAT else 1.0
    return np.array(losses)


def _best_scale(scores: Doubles, y: Ints, spread: float, start: float) -> tuple[float, float]:
    """Newton's method from `start`, in units of 1 / `spread`; where a step leaves the range that is known to hold the
    minimum, that range is halved instead."""
    smoothing = 1 / (len(y) + 2)
    shifted = _shifted(scores)
    wanted = _wanted(shifted, y, smoothing)
    low, scale, high = np.exp(-RANGE) / spread, start / spread, np.exp(RANGE) / spread
    for _ in range(STEPS):
        mean, curvature = _moments(shifted, scale)
        slope = mean - wanted
        low, high = (scale, high) if slope < 0 else (low, scale)
        found = scale - slope / curvature if curvature > 0 else high
        if not low < found < high:
            found = float(np.sqrt(low * high))
        done, scale = abs(found - scale) <= ENOUGH * scale, found
        if done:
            break
    return scale, _partition(shifted, scale) - scale * wanted


def _spread(scores: Doubles) -> float:
    return max(float(scores.std()), 1e-12)


def _shifted(scores: Doubles) -> Doubles:
    """The scores (image, class) minus the largest of each image: softmax stays as it is, and no exponential is too
    large."""
    return np.asarray(scores - scores.max(axis=1, keepdims=True))


def _chunks(scores: Doubles) -> Iterator[slice]:
    """Rows of scores (image, class), so few at a time that what is made of them stays in a core's cache."""
    size = max(1, CELLS // scores.shape[1])
    return (slice(start, start + size) for start in range(0, len(scores), size))


def _wanted(scores: Doubles, y: Ints, smoothing: float) -> float:
    """The mean score of the truth, with `smoothing` of each target spread evenly over all classes."""
    return float((1 - smoothing) * scores[np.arange(len(y)), y].mean() + smoothing * scores.mean())


def _partition(shifted: Doubles, scale: float) -> float:
    """Mean over the images of log(sum over the classes of exp(scale * shifted))."""
    sums = [float(np.log(np.exp(scale * shifted[here]).sum(axis=1)).sum()) for here in _chunks(shifted)]
    return sum(sums) / len(shifted)


def _moments(shifted: Doubles, scale: float) -> tuple[float, float]:
    """(mean, variance) of the scores by the probabilities softmax(scale * shifted), averaged over the images."""
    mean = variance = 0.0
    ones = np.ones(shifted.shape[1])
    for here in _chunks(shifted):
        some = shifted[here]
        p = scale * some
        np.exp(p, out=p)
        p /= (p @ ones)[:, None]
        p *= some
        first = p @ ones
        mean += float(first.sum())
        variance += float(np.vdot(p, some) - first @ first)
    return mean / len(shifted), variance / len(shifted)


def calibrate(scores: Doubles, y: Ints) -> tuple[float, Doubles]:
    """(scale, offsets (class,)) for probabilities softmax(scale * scores + offsets).

    Newton's method with halved steps: the loss is convex in both. The scale stays between e^-3 and e^3 times the best
    one without offsets.
    """
    unit, _ = best_scale(scores, y)
    n, n_classes = scores.shape
    smoothing = 1 / (n + 2)
    wanted = np.empty(n_classes + 1)
    wanted[0] = unit * n * _wanted(scores, y, smoothing)
    wanted[1:] = (1 - smoothing) * np.bincount(y, minlength=n_classes) + smoothing * n / n_classes
    at = np.zeros(n_classes + 1)  # the scale in that unit, then the offsets
    at[0] = 1.0
    here = _Loss.of(scores, unit, at, wanted)
    for _ in range(STEPS):
        step, fall = here.step(at)
        if fall <= ENOUGH_LOSS * here.value:
            break
        at, here = _shortened(lambda there: _Loss.of(scores, unit, there, wanted), here, at, step)
    return unit * float(at[0]), at[1:] - at[1:].mean()


def _shortened(loss_at: Callable[[Doubles], _Loss], here: _Loss, at: Doubles, step: Doubles) -> tuple[Doubles, _Loss]:
    """(place, loss) after the step, or after the first of its halves that does not raise the loss."""
    for _ in range(STEPS):
        there = at + step
        there[0] = np.clip(there[0], *SCALES)
        found = loss_at(there)
        if found.value <= here.value:
            return there, found
        step = step / 2
    return at, here


@dataclass(frozen=True)
class _Loss:
    """The log-loss and the offsets' prior, summed over the images, with slope (1 + class,) and curvature (1 + class,
    1 + class) in the scale and the offsets."""

    value: float
    slope: Doubles
    curvature: Doubles

    @classmethod
    def of(cls, scores: Doubles, unit: float, at: Doubles, wanted: Doubles) -> _Loss:
        """At the scale unit * at[0] and the offsets at[1:]. wanted: the targets' sums of unit * scores and of ones."""
        scale, offsets = float(at[0]), at[1:]
        value = float(offsets @ offsets) / 2 - float(at @ wanted)
        slope = np.concatenate([[0.0], offsets]) - wanted
        curvature = np.eye(len(at))
        curvature[0, 0] = LEAST_CURVATURE * len(scores)
        for rows in _chunks(scores):
            x = unit * scores[rows]
            p = scale * x + offsets
            largest = p.max(axis=1, keepdims=True)
            np.exp(np.subtract(p, largest, out=p), out=p)
            total = p.sum(axis=1, keepdims=True)
            p /= total
            mean = np.einsum("ic,ic->i", p, x)
            x -= mean[:, None]
            change = p * x  # of the probabilities with the scale
            value += float((np.log(total) + largest).sum())
            slope[0] += mean.sum()
            slope[1:] += p.sum(axis=0)
            curvature[0, 0] += float(np.vdot(change, x))
            curvature[0, 1:] += change.sum(axis=0)
            curvature[1:, 1:] -= p.T @ p
        np.fill_diagonal(curvature[1:, 1:], curvature.diagonal()[1:] + slope[1:] + wanted[1:] - offsets)
        curvature[1:, 0] = curvature[0, 1:]
        return cls(value, slope, curvature)

    def step(self, at: Doubles) -> tuple[Doubles, float]:
        """(Newton's step, twice what it promises to lower the loss by); a scale at its end does not go beyond."""
        ended = (at[0] <= SCALES[0] and self.slope[0] > 0) or (at[0] >= SCALES[1] and self.slope[0] < 0)
        first = 1 if ended else 0
        step = np.zeros(len(at))
        step[first:] = -np.linalg.solve(self.curvature[first:, first:], self.slope[first:])
        return step, -float(step @ self.slope)


def log_odds_loss(log_odds: Doubles, targets: Doubles) -> Doubles:
    """Mean log-loss over the last axis of log-odds (..., image) for targets (..., image) in 0..1."""
    return np.asarray((np.logaddexp(0, log_odds) - targets * log_odds).mean(axis=-1))


def sigmoid(log_odds: Doubles) -> Doubles:
    """Probabilities of log-odds; no number is too large."""
    return np.exp(-np.logaddexp(0, -log_odds))


def platt(scores: Doubles, positive: npt.NDArray[np.bool_]) -> tuple[Doubles, Doubles, Doubles]:
    """(scale, offset, log-loss), each (candidate,), for log-odds scale * scores + offset of one label.

    scores (candidate, image); positive (image,). Targets are smoothed to (P + 1) / (P + 2) and 1 / (N + 2) for P
    positive and N other images (Platt 1999), which keeps the scale finite where scores separate them. The scale is
    never negative: left-out scores that carry nothing lie slightly on the wrong side, since a left-out image takes its
    own label out of the mean. Newton's method with halved steps (Lin, Lin and Weng 2007).
    """
    n_positive = int(positive.sum())
    targets = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (len(positive) - n_positive + 2))
    mean, spread = scores.mean(axis=1), np.maximum(scores.std(axis=1), 1e-12)
    z = (scores - mean[:, None]) / spread[:, None]
    share = float(targets.mean())
    start = np.log(share / (1 - share))
    a, b = np.zeros(len(z)), np.full(len(z), start)
    loss = log_odds_loss(np.tile(b[:, None], z.shape[1]), targets)
    alone = loss.copy()
    for _ in range(STEPS):
        p = sigmoid(a[:, None] * z + b[:, None])
        error, weight = p - targets, p * (1 - p)
        slope_a, slope_b = (error * z).mean(axis=1), error.mean(axis=1)
        aa, ab, bb = (weight * z * z).mean(axis=1) + 1e-12, (weight * z).mean(axis=1), weight.mean(axis=1) + 1e-12
        step_a = (bb * slope_a - ab * slope_b) / (aa * bb - ab * ab)
        step_b = (aa * slope_b - ab * slope_a) / (aa * bb - ab * ab)
        before, size = loss, np.ones(len(z))
        for _ in range(STEPS):
            loss = log_odds_loss((a - size * step_a)[:, None] * z + (b - size * step_b)[:, None], targets)
            if (loss <= before + 1e-12).all():
                break
            size = np.where(loss <= before + 1e-12, size, size / 2)
        a, b = a - size * step_a, b - size * step_b
        if (before - loss <= ENOUGH**2 * before).all():
            break
    a, b, loss = np.where(a > 0, a, 0.0), np.where(a > 0, b, start), np.where(a > 0, loss, alone)
    return a / spread, b - a * mean / spread, loss
