"""Scores -> probabilities: one scale and one offset a class, by the log-loss of left-out predictions.

The scale is temperature scaling (Guo et al. 2017). The offsets correct what least squares does to rare classes, whose
scores it shrinks most; a standard normal prior keeps them at zero where the data do not ask for them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


def log_softmax(scores: Doubles) -> Doubles:
    """Log-probabilities (image, class)."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def log_loss(scores: Doubles, y: Ints) -> float:
    return float(-log_softmax(scores)[np.arange(len(y)), y].mean())


def best_scale(scores: Doubles, y: Ints) -> tuple[float, float]:
    """(scale, log-loss) that minimises the log-loss of scale * scores.

    The log-loss is convex in the scale, so a bounded search between e^-7 and e^7 times the natural scale finds it.
    """
    from scipy.optimize import minimize_scalar

    natural = 1 / max(float(scores.std()), 1e-12)
    found = minimize_scalar(
        lambda t: log_loss(scores * (natural * np.exp(t)), y), bounds=(-7, 7), method="bounded", options={"xatol": 0.02}
    )
    return natural * float(np.exp(found.x)), float(found.fun)


def calibrate(scores: Doubles, y: Ints) -> tuple[float, Doubles]:
    """(scale, offsets (class,)) for probabilities softmax(scale * scores + offsets)."""
    from scipy.optimize import minimize

    start, _ = best_scale(scores, y)
    n, n_classes = scores.shape
    rows = np.arange(n)

    def loss(x: Doubles) -> tuple[float, Doubles]:
        scale = start * np.exp(x[0])
        logs = log_softmax(scale * scores + x[1:])
        error = np.exp(logs)
        error[rows, y] -= 1  # (image, class)
        gradient = np.concatenate([[scale * (error * scores).sum()], error.sum(axis=0) + x[1:]])
        return float(-logs[rows, y].sum() + (x[1:] ** 2).sum() / 2) / n, gradient / n

    found = minimize(
        loss, np.zeros(n_classes + 1), jac=True, method="L-BFGS-B", bounds=[(-3, 3)] + [(None, None)] * n_classes
    )
    offsets = found.x[1:]
    return start * float(np.exp(found.x[0])), offsets - offsets.mean()
