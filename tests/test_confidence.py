"""Temperature scaling: changes how sure, never which class, and never for the worse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headstart.errors import DataError, OptionError
from headstart.judge.confidence import apply_temperature, fit_temperature


def loss(logits: NDArray[np.float64], labels: NDArray[np.int64], temperature: float) -> float:
    p = apply_temperature(logits, temperature)
    return float(-np.log(np.maximum(p[np.arange(len(labels)), labels], 1e-300)).mean())


def drawn(n: int, n_classes: int, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits, and labels drawn from their softmax: the right temperature is 1."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes)) * 2
    return logits, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


@pytest.mark.parametrize("true", [0.1, 0.5, 1.0, 3.0, 20.0])
def test_a_known_temperature_is_recovered(true: float) -> None:
    logits, labels = drawn(20_000, 5)
    assert fit_temperature(logits * true, labels) == pytest.approx(true, rel=0.05)


def test_log_probabilities_serve_as_logits() -> None:
    logits, labels = drawn(2000, 4)
    log_p = np.log(apply_temperature(logits, 1.0))
    assert fit_temperature(2 * log_p, labels) == pytest.approx(fit_temperature(2 * logits, labels), rel=1e-3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 40), st.integers(2, 5), st.floats(0.01, 100), st.booleans())
def test_never_worse_and_never_another_class(seed: int, n: int, n_classes: int, scale: float, random: bool) -> None:
    logits, labels = drawn(n, n_classes, seed)
    if random:
        labels = np.random.default_rng(seed).integers(0, n_classes, n)
    logits = logits * scale
    temperature = fit_temperature(logits, labels)
    assert temperature > 0
    p = apply_temperature(logits, temperature)
    assert np.allclose(p.sum(axis=1), 1)
    assert loss(logits, labels, temperature) <= loss(logits, labels, 1.0) + 1e-9
    best = logits.argmax(axis=1)
    assert (p[np.arange(n), best] >= p.max(axis=1) - 1e-12).all()


def test_eighteen_of_eighteen_is_not_certainty() -> None:
    """All right: the likeliest temperature is 0. The answer stays about as sure as 18 images can make it, 19/20."""
    labels = np.arange(18) % 2
    logits = np.eye(2)[labels] * 2.0
    sure = apply_temperature(logits, fit_temperature(logits, labels)).max(axis=1).mean()
    assert 0.93 < sure < 0.99


def test_zero_probabilities_do_no_harm() -> None:
    logits = np.log(np.array([[1.0, 1e-300], [1e-300, 1.0], [0.5, 0.5]]))
    logits[0, 1] = -np.inf
    temperature = fit_temperature(logits, np.array([0, 1, 1]))
    p = apply_temperature(logits, temperature)
    assert np.isfinite(p).all()
    assert p[0, 0] > 0.5


def test_nonsense_is_refused() -> None:
    with pytest.raises(DataError, match="no images"):
        fit_temperature(np.zeros((0, 2)), np.zeros(0, int))
    with pytest.raises(OptionError, match="expected"):
        fit_temperature(np.zeros((3, 2)), np.zeros(2, int))
    for temperature in (0.0, -1.0, float("nan")):
        with pytest.raises(OptionError, match="temperature"):
            apply_temperature(np.zeros((1, 2)), temperature)
