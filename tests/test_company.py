"""What a head says of an image is the same bits alone and in any company."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from headstart.heads.novelty import MEANS, METHODS, NEIGHBOURS, Novelty
from headstart.heads.probe import Probe
from headstart.heads.taps import Part
from headstart.trunk.features import finite

WIDTHS = {"one": 1280, "two": 97, "three": 40}
SIZES = (1, 2, 3, 4, 7, 8, 9, 16, 33, 128)  # images together
rng = np.random.default_rng(0)


def blocks_of(n: int) -> dict[str, Any]:
    return {name: rng.standard_normal((n, width)).astype(np.float16) for name, width in WIDTHS.items()}


def probe(n_outputs: int, link: Any) -> Probe:
    parts = tuple(Part(name, root=k == 0, unit=k != 2) for k, name in enumerate(WIDTHS))
    coef = rng.standard_normal((n_outputs, sum(WIDTHS.values())))
    return Probe(parts, coef, rng.standard_normal(n_outputs), (), np.empty((0, n_outputs)), link)


@pytest.mark.parametrize(("n_outputs", "link"), [(1, "none"), (2, "softmax"), (10, "softmax"), (300, "none")])
def test_a_linear_head(n_outputs: int, link: Any) -> None:
    head, blocks = probe(n_outputs, link), blocks_of(max(SIZES))
    with threadpool_limits(1):
        alone = [head.outputs({name: b[k : k + 1] for name, b in blocks.items()}) for k in range(max(SIZES))]
        for n in SIZES:
            found = head.outputs_alone({name: b[:n] for name, b in blocks.items()})
            assert np.array_equal(found, np.concatenate(alone[:n])), n
        np.testing.assert_allclose(head.outputs(blocks), found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", [MEANS, NEIGHBOURS])
def test_novelty(method: str) -> None:
    x, y = rng.standard_normal((90, 320)).astype(np.float32), np.arange(90) % 3
    distance = METHODS[method](x, y, np.arange(90)).rounded()
    kept = Novelty(method, distance, (0.0, 0.0), (1.0, 1.0), 0.0, 2.0, 0.05, 90, {})
    asked, answers = rng.standard_normal((128, 320)).astype(np.float32), rng.dirichlet(np.ones(3), 128)
    with threadpool_limits(1):
        alone = [kept.scores(asked[k : k + 1], answers[k : k + 1]) for k in range(len(asked))]
        for n in SIZES:
            assert np.array_equal(kept.scores(asked[:n], answers[:n]), np.concatenate(alone[:n])), n


def test_rows_that_are_finite_stay_and_others_are_mended() -> None:
    rows = np.array([[1, -2, 0.5], [np.nan, np.inf, -np.inf]], np.float16)
    assert np.array_equal(finite(rows[:1]), rows[:1])
    assert finite(rows).tolist() == [[1, -2, 0.5], [0, 65504, -65504]]
