"""Many classes and many images: what is made a part at a time equals what is made at once."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from headstart.heads import calibrate as calibration
from headstart.heads.calibrate import best_scale, calibrate, log_softmax, scaled_losses

Doubles = NDArray[np.float64]


def scored(n: int, n_classes: int, signal: float, seed: int = 0) -> tuple[Doubles, NDArray[np.int64]]:
    """Scores (image, class) that tell this much, and classes of unequal size."""
    rng = np.random.default_rng(seed)
    y = np.minimum(rng.geometric(2 / n_classes, n) - 1, n_classes - 1)
    return 0.1 * rng.normal(size=(n, n_classes)) + signal * np.eye(n_classes)[y], y


def plainly_calibrated(scores: Doubles, y: NDArray[np.int64]) -> tuple[float, Doubles]:
    """The same minimum by a general method, from the definition."""
    (n, n_classes), (start, _) = scores.shape, best_scale(scores, y)
    targets = np.full((n, n_classes), 1 / (n + 2) / n_classes)
    targets[np.arange(n), y] += 1 - 1 / (n + 2)

    def loss(x: Doubles) -> tuple[float, Doubles]:
        logs = log_softmax(start * x[0] * scores + x[1:])
        error = np.exp(logs) - targets
        slope = np.concatenate([[start * (error * scores).sum()], error.sum(axis=0) + x[1:]])
        return float((x[1:] ** 2).sum() / 2 - (targets * logs).sum()) / n, slope / n

    bounds = [(np.exp(-3), np.exp(3))] + [(None, None)] * n_classes
    options = {"ftol": 0.0, "gtol": 1e-10, "maxiter": 5000, "maxcor": 30}
    found = minimize(loss, np.eye(n_classes + 1)[0], jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return start * found.x[0], found.x[1:] - found.x[1:].mean()


@pytest.mark.parametrize(
    ("n", "n_classes", "signal"), [(60, 2, 0.2), (500, 12, 0.15), (300, 40, 0.2), (200, 3, -0.3), (200, 5, 9.0)]
)
def test_calibration_finds_the_minimum_that_a_general_method_finds(n: int, n_classes: int, signal: float) -> None:
    """Scores that tell the opposite end at the smallest scale."""
    scores, y = scored(n, n_classes, signal)
    (scale, offsets), (wanted, others) = calibrate(scores, y), plainly_calibrated(scores, y)
    ours, theirs = (np.exp(log_softmax(s * scores + o)) for s, o in ((scale, offsets), (wanted, others)))
    assert np.abs(ours - theirs).max() < 1e-6


def test_the_losses_of_a_path_are_those_of_each_alone() -> None:
    scores, y = scored(200, 6, 0.15)
    noise = np.random.default_rng(1).normal(size=scores.shape)
    path = np.stack([size * (scores + share * noise) for size, share in ((1e3, 0), (1, 0.2), (1e-3, 9), (1, 0.01))])
    assert scaled_losses(path, y) == pytest.approx([best_scale(one, y)[1] for one in path], abs=1e-7)


def test_the_size_of_the_parts_changes_no_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, y = scored(203, 6, 0.15)
    whole = calibrate(scores, y), best_scale(scores, y), log_softmax(scores)
    monkeypatch.setattr(calibration, "CELLS", 60)
    (scale, offsets), best, logs = calibrate(scores, y), best_scale(scores, y), log_softmax(scores)
    assert scale == pytest.approx(whole[0][0], rel=1e-10)
    assert offsets == pytest.approx(whole[0][1], abs=1e-10)
    assert best == pytest.approx(whole[1], rel=1e-10)
    assert np.array_equal(logs, whole[2])
