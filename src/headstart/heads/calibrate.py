"""Scores -> probabilities: one scale and one offset a class, by the log-loss of left-out predictions.

The scale is temperature scaling (Guo et al. 2017). The offsets correct what least squares does to rare classes, whose
scores it shrinks most; a standard normal prior keeps them at zero where the data do not ask for them. Targets are
smoothed by 1 / (n + 2) (Platt 1999): of 18 images all right, every later answer would otherwise be certain.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]

RANGE = 7.0  # the scale is searched from e^-7 to e^7 times the natural one, 1 / standard deviation of the scores
ENOUGH = 1e-3  # relative change of the scale: the log-loss then changes by less than a millionth of itself
STEPS = 50  # Newton's take 4 to 8; halving the range, on a logarithmic scale, 14


def log_softmax(scores: Doubles) -> Doubles:
    """Log-probabilities (image, class)."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def log_loss(scores: Doubles, y: Ints, smoothing: float = 0.0) -> float:
    """Mean log-loss of softmax(scores), with `smoothing` of each target spread evenly over all classes."""
    logs = log_softmax(scores)
    return float(-(1 - smoothing) * logs[np.arange(len(y)), y].mean() - smoothing * logs.mean())


def best_scale(scores: Doubles, y: Ints) -> tuple[float, float]:
    """(scale, log-loss) that minimises the smoothed log-loss of scale * scores, which is convex in the scale.

    Newton's method; where a step leaves the range that is known to hold the minimum, that range is halved instead.
    """
    smoothing = 1 / (len(y) + 2)
    wanted = float((1 - smoothing) * scores[np.arange(len(y)), y].mean() + smoothing * scores.mean())
    scale = 1 / max(float(scores.std()), 1e-12)
    low, high = scale * np.exp(-RANGE), scale * np.exp(RANGE)
    for _ in range(STEPS):
        p = np.exp(log_softmax(scale * scores))
        mean = (p * scores).sum(axis=1)  # of the scores, by the probabilities
        slope = float(mean.mean()) - wanted
        low, high = (scale, high) if slope < 0 else (low, scale)
        curvature = float(((p * scores**2).sum(axis=1) - mean**2).mean())
        found = scale - slope / curvature if curvature > 0 else high
        if not low < found < high:
            found = float(np.sqrt(low * high))
        done, scale = abs(found - scale) <= ENOUGH * scale, found
        if done:
            break
    return scale, log_loss(scale * scores, y, smoothing)


def calibrate(scores: Doubles, y: Ints) -> tuple[float, Doubles]:
    """(scale, offsets (class,)) for probabilities softmax(scale * scores + offsets)."""
    from scipy.optimize import minimize

    start, _ = best_scale(scores, y)
    n, n_classes = scores.shape
    targets = np.full((n, n_classes), 1 / (n + 2) / n_classes)
    targets[np.arange(n), y] += 1 - 1 / (n + 2)

    def loss(x: Doubles) -> tuple[float, Doubles]:
        scale = start * np.exp(x[0])
        logs = log_softmax(scale * scores + x[1:])
        error = np.exp(logs) - targets  # (image, class)
        gradient = np.concatenate([[scale * (error * scores).sum()], error.sum(axis=0) + x[1:]])
        return float(-(targets * logs).sum() + (x[1:] ** 2).sum() / 2) / n, gradient / n

    bounds = [(-3, 3)] + [(None, None)] * n_classes
    found = minimize(loss, np.zeros(n_classes + 1), jac=True, method="L-BFGS-B", bounds=bounds)
    offsets = found.x[1:]
    return start * float(np.exp(found.x[0])), offsets - offsets.mean()
