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
