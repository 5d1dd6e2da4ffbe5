"""Probabilities that mean what they say: temperature scaling (Guo et al. 2017, section 4.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, OptionError

TEMPERATURES = (
    0.02,
    50.0,
)  # the range searched: ridge outputs read as logits need about 0.1, over-fitted networks 2 to 5
ROWS = 2**16  # images scaled at a time, to bound memory


def fit_temperature(logits: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]) -> float:
    """The temperature T that makes softmax(logits / T) fit best by log-loss, never worse than T = 1.

    logits (image, class): logits or log-probabilities of images that the model did not learn from (-inf is a
    probability of 0); labels (image,) int. Targets are smoothed by 1 / (n + 2) (Platt 1999): of 18 images all right, T
    would otherwise go to 0 and every later answer be certain. Raises DataError without images, OptionError where the
    shapes do not fit.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) == 0:
        raise DataError("temperature: no images to fit it to")
    if logits.ndim != 2 or len(logits) != len(labels):
        raise OptionError(f"temperature: logits {logits.shape} for {len(labels)} labels, expected (image, class)")
    smoothing = 1.0 / (len(labels) + 2)
    ends = np.log(TEMPERATURES)
    found = minimize_scalar(
        lambda log_t: _log_loss(logits, labels, float(np.exp(log_t)), smoothing),
        bounds=(float(ends[0]), float(ends[1])),
        method="bounded",
        options={"xatol": 1e-4},
    )
    temperature = float(np.exp(found.x))
    better = _log_loss(logits, labels, temperature, 0.0) <= _log_loss(logits, labels, 1.0, 0.0)
    return temperature if better else 1.0


def apply_temperature(logits: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
    """softmax(logits / temperature), (image, class) float64. Raises OptionError for T not above 0."""
    if not temperature > 0:
        raise OptionError(f"temperature {temperature}: must be above 0")
    return np.asarray(np.exp(_log_softmax(logits, temperature)), dtype=np.float64)


def _log_softmax(logits: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    scaled = np.maximum(logits.astype(np.float64), np.finfo(np.float32).min) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)))


def _log_loss(logits: NDArray[Any], labels: NDArray[Any], temperature: float, smoothing: float) -> float:
    """Mean log-loss, with `smoothing` of each target spread evenly over all classes."""
    total = 0.0
    for start in range(0, len(labels), ROWS):
        log_p = _log_softmax(logits[start : start + ROWS], temperature)
        chosen = labels[start : start + ROWS]
        total -= (1 - smoothing) * float(log_p[np.arange(len(chosen)), chosen].sum())
        if smoothing:
            total -= smoothing * float(log_p.mean(axis=1).sum())
    return total / len(labels)
