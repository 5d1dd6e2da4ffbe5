"""Many classes and many images: what is made a part at a time equals what is made at once."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from headstart.heads import calibrate as calibration
from headstart.heads import closed, probe, spectrum, sums, taps
from headstart.heads.calibrate import best_scale, calibrate, log_softmax, scaled_losses
from headstart.heads.probe import fit_probe
from headstart.heads.shards import Shards
from headstart.heads.sums import added, sums_of
from headstart.heads.taps import Prepared, Taken, last, tap_sets

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


def test_what_tells_nothing_has_the_loss_that_it_has_alone() -> None:
    """Left-out scores of twenty images lie on the wrong side: their losses differ in the ninth digit, if at all."""
    scores, y = scored(20, 10, -0.1)
    told, _ = scored(20, 10, 0.3)
    path = [told, scores, 3 * scores + 0.01 * told, told, -told]
    found = scaled_losses(path, y)
    assert [found[k] for k in (1, 2, 4)] == [best_scale(path[k], y)[1] for k in (1, 2, 4)]


def test_the_size_of_the_parts_changes_no_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, y = scored(203, 6, 0.15)
    whole = calibrate(scores, y), best_scale(scores, y), log_softmax(scores)
    monkeypatch.setattr(calibration, "CELLS", 60)
    (scale, offsets), best, logs = calibrate(scores, y), best_scale(scores, y), log_softmax(scores)
    assert scale == pytest.approx(whole[0][0], rel=1e-10)
    assert offsets == pytest.approx(whole[0][1], abs=1e-10)
    assert best == pytest.approx(whole[1], rel=1e-10)
    assert np.array_equal(logs, whole[2])


WIDTHS = {"a/mean": 6, "pre_logits": 10}


def features(n: int, seed: int = 0) -> tuple[dict[str, NDArray[np.float16]], NDArray[np.int64]]:
    """Blocks (image, feature) and classes (image,) that can partly be told from them."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    made = {
        name: (0.5 * rng.normal(size=(3, width))[y] + np.abs(rng.normal(size=(n, width)))).astype(np.float16)
        for name, width in WIDTHS.items()
    }
    return made, y


def test_sums_of_chunks_are_the_sums_of_all() -> None:
    blocks, y = features(300)
    x, targets = blocks["pre_logits"].astype(np.float64), np.eye(3)[y]
    cuts = (slice(0, 1), slice(1, 180), slice(180, 300))
    parts = [sums_of(x[cut], targets[cut]) for cut in cuts]
    for found in (added((x[cut], targets[cut]) for cut in cuts), parts[2] + parts[0] + parts[1]):
        centred = x - x.mean(axis=0)
        assert found.n == 300
        assert found.mean == pytest.approx(x.mean(axis=0))
        assert found.centred_scatter == pytest.approx(centred.T @ centred)
        assert found.centred_products == pytest.approx(centred.T @ targets)
    with pytest.raises(ValueError, match="at least one chunk"):
        added([])


def test_features_prepared_when_they_are_read_are_those_prepared_before(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, _ = features(100)
    for tap_set in tap_sets("auto", tuple(WIDTHS)):
        monkeypatch.setattr(taps, "MANY", 100)
        before = tap_set.of(blocks)
        monkeypatch.setattr(taps, "MANY", 99)
        later = tap_set.of(blocks)
        assert isinstance(later, Prepared)
        assert later.shape == before.shape
        for index in (slice(None), slice(90, 120), np.array([5, 3, 3]), np.arange(7, 11)):
            assert np.array_equal(later[index], before[index])
        rows = np.arange(20, 60)[::2]
        taken = tap_set.of({name: cast(Any, Taken(block, rows)) for name, block in blocks.items()})
        assert np.array_equal(taken[3:9], before[rows][3:9])


@pytest.mark.parametrize("tied", [False, True])
def test_heads_of_many_images_equal_those_in_double_precision(monkeypatch: pytest.MonkeyPatch, tied: bool) -> None:
    """Rows made anew, leverages kept, groups at once: choices, left-out answers and the head."""
    blocks, y = features(200)
    groups = np.arange(200) // 3 if tied else np.arange(200)
    sets = tap_sets("auto", tuple(WIDTHS))
    want = fit_probe(blocks, y, groups, sets, ("ridge", "lda"))
    for module, name, value in (
        (taps, "MANY", 100),
        (spectrum, "DOUBLE_ROWS", 100),
        (spectrum, "CHUNK", 64),
        (sums, "CHUNK", 64),
    ):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(closed, "CHUNK", 64)
    found = fit_probe(blocks, y, groups, sets, ("ridge", "lda"))
    assert [(c.taps, c.head, c.l2, c.weight) for c in found.candidates] == [
        (c.taps, c.head, c.l2, c.weight) for c in want.candidates
    ]
    assert np.abs(np.exp(found.left_out) - np.exp(want.left_out)).max() < 1e-4
    assert np.abs(np.exp(found.outputs(blocks)) - np.exp(want.outputs(blocks))).max() < 1e-4


def test_what_many_images_cost_beside_their_features_does_not_grow_with_their_width(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Peak memory of heads for 12,000 images of 400 values: less than half of what the prepared features would take."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 12_000)
    block = rng.random((12_000, 400), np.float32).astype(np.float16)
    block[np.arange(12_000), y] += 1
    monkeypatch.setattr(taps, "MANY", 11_999)
    monkeypatch.setattr(spectrum, "CHUNK", 256)
    monkeypatch.setattr(sums, "CHUNK", 256)
    monkeypatch.setattr(sums, "AT_ONCE", 1)
    monkeypatch.setattr(probe, "CHOICE_ROWS", 100)
    tracemalloc.start()
    try:
        fit_probe({"pre_logits": block}, y, np.arange(12_000), (last(),), ("ridge",))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < block.size * 4 / 2


def test_shards_are_one_array(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).random((23, 4)).astype(np.float16)
    for k, part in enumerate(np.split(whole, [7, 9, 20])):
        np.save(tmp_path / f"{k}.npy", part)
    found = Shards.of(tuple(sorted(tmp_path.glob("*.npy"))))
    assert (len(found), found.shape, found.dtype) == (23, (23, 4), np.float16)
    for index in (slice(None), slice(5, 21), slice(22, 40), np.array([22, 0, 7, 7, 19]), np.array([], np.int64)):
        assert np.array_equal(found[index], whole[index])
    with pytest.raises(IndexError, match=r"23, there are 23"):
        found[np.array([23])]
    np.save(tmp_path / "9.npy", np.zeros((2, 5), np.float16))
    with pytest.raises(ValueError, match=r"9.npy \(2, 5\) float16; expected .* of one width"):
        Shards.of(tuple(sorted(tmp_path.glob("*.npy"))))


def test_heads_of_shards_are_those_of_the_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks, y = features(150)
    monkeypatch.setattr(taps, "MANY", 100)
    monkeypatch.setattr(spectrum, "DOUBLE_ROWS", 100)
    for k, part in enumerate(np.split(blocks["pre_logits"], [40, 90])):
        np.save(tmp_path / f"{k}.npy", part)
    shards = Shards.of(tuple(sorted(tmp_path.glob("*.npy"))))
    one, other = (
        fit_probe(cast(Any, {"pre_logits": block}), y, np.arange(150), (last(),), ("ridge", "lda"))
        for block in (blocks["pre_logits"], shards)
    )
    assert np.array_equal(one.coef, other.coef)
    assert np.array_equal(one.left_out, other.left_out)
