"""The engine: what a row says depends on its image alone, and agrees with float32 torch."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from headstart.data import images
from headstart.errors import OptionError
from headstart.trunk import engine as engines
from headstart.trunk.asked import Asked, asked
from headstart.trunk.backbone import open_backbone
from headstart.trunk.engine import Engine, OpenVinoEngine, TorchEngine, compile_trunk, cpu_has_bf16
from headstart.trunk.module import Trunk
from headstart.trunk.network import Backbone, block_names, block_widths

Bytes = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]
PRECISIONS = ["f32", pytest.param("bf16", marks=pytest.mark.skipif(not cpu_has_bf16(), reason="no bfloat16 here"))]


def at(backbone: Backbone, side: int) -> Backbone:
    return backbone.resized(replace(backbone.preprocess, size=(side, side)))


@pytest.fixture(scope="module")
def default() -> Backbone:
    return at(open_backbone(), 96)


@pytest.fixture(scope="module")
def photographs(shared: Path, default: Backbone) -> Bytes:
    """Sixteen real ones (image, height, width, 3)."""
    files = sorted((shared / "data" / "imagenet_100").glob("*.JPEG"))[:16]
    return np.stack([images.load(f.read_bytes(), default.preprocess).array for f in files])


def run(engine: Engine, batches: list[Bytes]) -> list[Rows]:
    """The rows of each batch, in the batches' order."""
    found: dict[int, Rows] = {}
    engine.run(list(enumerate(batches)), lambda tag, rows: found.update({tag: rows.copy()}))
    return [found[k] for k in range(len(batches))]


def eager(backbone: Backbone, pixels: Bytes) -> Rows:
    with torch.inference_mode():
        return torch.cat(Trunk(backbone)(torch.from_numpy(pixels)), dim=1).numpy()


def cosines(backbone: Backbone, ours: Rows, theirs: Rows) -> dict[str, float]:
    """The worst image's cosine by block."""
    ends = np.cumsum(block_widths(backbone))[:-1]
    pairs = zip(block_names(backbone), np.split(ours, ends, 1), np.split(theirs, ends, 1), strict=True)
    return {
        name: float(((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())
        for name, a, b in pairs
    }


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_depends_on_neither_batch_mates_nor_position(
    default: Backbone, photographs: Bytes, precision: str
) -> None:
    engine = OpenVinoEngine(default, precision)
    size = engine.batch
    batches = [np.stack([photographs[(k + j) % 16] for j in range(size)]) for k in range(16)]
    batches += [np.stack([photographs[k], *[photographs[15]] * (size - 1)]) for k in range(16)]  # padded
    rows = run(engine, batches)
    for k in range(16):
        places = [rows[(k - j) % 16][j] for j in range(size)] + [rows[16 + k][0]]
        assert all(np.array_equal(places[0], other) for other in places)


def test_float32_agrees_with_eager_torch(default: Backbone, photographs: Bytes) -> None:
    [rows] = run(OpenVinoEngine(default, "f32", batch=16), [photographs])
    found = cosines(default, rows, eager(default, photographs))
    assert min(found.values()) >= 0.99999, found


@pytest.mark.skipif(not cpu_has_bf16(), reason="no bfloat16 here")
def test_bfloat16_agrees_with_eager_torch(default: Backbone, photographs: Bytes) -> None:
    """Rounding the weights to bfloat16 moves each channel's mean by a constant. A mean block lies near zero, so its own
    cosine is lower (0.995 at 224 px, in torch's autocast too); against the spread of the channel over images the error
    is small in every block. With AMX the last layer has 0.9978 (torch's autocast 0.9989), with AVX512 more than 0.998.
    """
    about = Path("/proc/cpuinfo")
    least = 0.997 if about.exists() and "amx_bf16" in about.read_text() else 0.998
    [rows] = run(OpenVinoEngine(default, "bf16", batch=16), [photographs])
    theirs = eager(default, photographs)
    found = cosines(default, rows, theirs)
    assert all(value >= (0.98 if name.endswith("mean") else least) for name, value in found.items()), found
    error, spread = rows - theirs, theirs.std(0)
    relative = np.sqrt((error.std(0) ** 2).mean()) / np.sqrt((spread**2).mean())
    assert relative <= 0.05, relative


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_100"])
def test_other_networks_agree_in_float32(name: str) -> None:
    backbone = at(open_backbone(name, "none"), 64)
    engine = compile_trunk(backbone, "f32")
    pixels = np.random.default_rng(0).integers(0, 256, (engine.batch, 64, 64, 3), np.uint8)
    [rows] = run(engine, [pixels])
    assert min(cosines(backbone, rows, eager(backbone, pixels)).values()) >= 0.99999


def test_the_torch_engine_gives_one_row_whatever_its_batch_and_leaves_the_network(
    default: Backbone, photographs: Bytes
) -> None:
    before = {name: (t.clone(), t.stride()) for name, t in default.module.state_dict().items()}
    ones = np.concatenate(run(TorchEngine(default, "cpu", "f32", batch=1), list(photographs[:8, None])))
    [eight] = run(TorchEngine(default, "cpu", "f32", batch=8), [photographs[:8]])
    assert np.abs(ones - eight).max() <= 1e-5 * np.abs(eight).max()
    assert min(cosines(default, eight, eager(default, photographs[:8])).values()) >= 0.99999
    after = default.module.state_dict()
    assert all(torch.equal(after[n], t) and after[n].stride() == stride for n, (t, stride) in before.items())


def test_where_openvino_cannot_take_a_network_torch_does_with_one_warning(
    default: Backbone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(backbone: Backbone, batch: int) -> Any:
        raise RuntimeError("No conversion rule for aten::strange\nand a long trace")

    monkeypatch.setattr(engines, "to_openvino", refuse)
    with caplog.at_level(logging.WARNING):
        engine = compile_trunk(default.around(default.module), "f32")  # nothing is known of it from before
    assert isinstance(engine, TorchEngine)
    [record] = caplog.records
    assert "aten::strange" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_an_unknown_precision_is_refused(default: Backbone) -> None:
    with pytest.raises(OptionError, match="bf16"):
        compile_trunk(default, "int4")


@pytest.fixture(scope="module")
def quick() -> Engine:
    return OpenVinoEngine(at(open_backbone("test_efficientnet", "none"), 32), "f32")


def batches_of(engine: Engine, n: int) -> list[Bytes]:
    return [np.full((engine.batch, 32, 32, 3), k, np.uint8) for k in range(n)]


def test_results_come_in_the_order_of_the_batches_in_the_calling_thread(quick: Engine) -> None:
    seen: list[tuple[object, int]] = []
    quick.run(list(enumerate(batches_of(quick, 60))), lambda tag, rows: seen.append((tag, threading.get_ident())))
    assert seen == [(k, threading.get_ident()) for k in range(60)]


def test_an_error_of_the_receiver_is_raised_by_run(quick: Engine) -> None:
    def deliver(tag: object, rows: Rows) -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        quick.run([(k, b) for k, b in enumerate(batches_of(quick, 50))], deliver)


def test_after_an_interrupt_the_engine_works_on(quick: Engine) -> None:
    seen: list[int] = []

    def batches() -> Any:
        yield from enumerate(batches_of(quick, 30))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick.run(batches(), lambda tag, rows: seen.append(tag))
    assert seen == list(range(len(seen)))
    assert len(seen) >= 20  # the rest was in flight
    expected = run(quick, batches_of(quick, 3))
    assert all(np.array_equal(a, b) for a, b in zip(run(quick, batches_of(quick, 3)), expected, strict=True))


def by_many(found: Asked, pixels: Bytes, together: int = 1) -> Rows:
    """Rows of pictures that so many callers bring, some at a time."""
    parts = [pixels[k : k + together] for k in range(0, len(pixels), together)]
    with ThreadPoolExecutor(found.threads) as threads:
        return np.concatenate(list(threads.map(found.ask, parts)))


def test_pictures_from_many_threads_get_the_rows_of_a_batch(quick: Engine) -> None:
    """Alone and in whole batches; also in torch, which fills each batch up."""
    found, n = asked(quick), quick.batch
    pixels = np.random.default_rng(1).integers(0, 256, (6 * n, 32, 32, 3), np.uint8)
    expected = np.concatenate(run(quick, list(pixels.reshape(6, n, 32, 32, 3))))
    assert np.array_equal(by_many(found, pixels), expected)
    assert np.array_equal(by_many(found, pixels, n), expected)
    assert [found.takes(waiting) for waiting in (0, 1, n, 2 * n - 1, 2 * n, 9 * n)] == [0, 1, 1, 1, n, n]
    found.close()
    in_torch = TorchEngine(at(open_backbone("test_efficientnet", "none"), 32), "cpu", "f32")
    [first] = run(in_torch, [pixels[: in_torch.batch]])
    found = asked(in_torch)
    assert [found.takes(waiting) for waiting in (0, 1, 99)] == [0, 1, 1]
    for together in (1, 2):
        rows = by_many(found, pixels[: in_torch.batch], together)
        assert np.abs(rows - first).max() <= 1e-5 * np.abs(first).max()
    found.close()


def test_where_single_rows_would_differ_pictures_go_in_batches(quick: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a single bit, or since the graph cannot change its shape."""
    assert isinstance(quick, OpenVinoEngine)
    whole, pixels = OpenVinoEngine.run, np.concatenate(batches_of(quick, 3))
    expected = np.concatenate(run(quick, batches_of(quick, 3)))

    def off(self: OpenVinoEngine, batches: Any, deliver: Any) -> None:
        whole(self, batches, lambda tag, rows: deliver(tag, np.nextafter(rows, 9) if self.batch == 1 else rows))

    def refuse(*given: Any) -> None:
        raise RuntimeError("Check 'batch' failed\nand a long trace")

    assert quick.single() is not None
    for name, change in (("run", off), ("_compile", refuse)):
        with monkeypatch.context() as patch:
            patch.setattr(OpenVinoEngine, name, change)
            assert quick.single() is None
            found = asked(quick)
        assert np.array_equal(by_many(found, pixels, 3), expected)
        assert [found.takes(waiting) for waiting in (0, 3, 99)] == [0, 3, quick.batch]


@pytest.mark.parametrize("in_torch", [False, True])
def test_who_waits_for_a_batch_that_fails_learns_of_it_and_the_next_is_answered(
    quick: Engine, monkeypatch: pytest.MonkeyPatch, in_torch: bool
) -> None:
    if in_torch:
        quick = TorchEngine(at(open_backbone("test_efficientnet", "none"), 32), "cpu", "f32")
    pixels, fails = np.zeros((1, 32, 32, 3), np.uint8), [True]
    name = "run" if in_torch else "ready"
    right: Any = getattr(type(quick), name)

    def may_fail(self: Any, *given: Any) -> Any:
        if fails:
            raise RuntimeError("the driver is gone")
        return right(self, *given)

    found = asked(quick)
    monkeypatch.setattr(type(quick), name, may_fail)
    with pytest.raises(RuntimeError, match="driver"):
        found.ask(pixels)
    fails.clear()
    assert found.ask(pixels).shape[0] == 1
    found.close()
