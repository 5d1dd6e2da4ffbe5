"""Extraction against its own bound, and the engine against eager torch.

    python benchmarks/extraction.py [--n 10000] [--rounds 5]

1. For hymenoptera and CIFAR-10, in turns: decoding alone (the product's decoder, a thread for each core), the engine
   alone (on decoded batches, all cores), and the real `extract` into an empty store. A pipeline that keeps every core
   busy and adds nothing of its own runs at 1 / (decode + engine) images/s; reported is the share of that bound.
2. At 224 px, in turns: the engine in the CPU's best precision, eager float32 torch with the same module in batches of
   32, and the same with the bare network, which makes the last layer's features only.
3. The engine with 1, 2, 4, 8, 16 and 32 images a batch, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import measure
import numpy as np
import torch
from numpy.typing import NDArray

from headstart.data import images
from headstart.data.table import Table, read_table
from headstart.errors import ImageError
from headstart.files.cores import n_cores
from headstart.story.opening import Options, sized
from headstart.trunk.backbone import DEFAULT, open_backbone
from headstart.trunk.engine import OpenVinoEngine, cpu_has_bf16
from headstart.trunk.features import extract, store_key
from headstart.trunk.module import Trunk
from headstart.trunk.network import Backbone
from headstart.trunk.store import Store

Bytes = NDArray[np.uint8]
RUN = 16  # images a decoding task, as in extraction
KEPT = 1024  # decoded images that the engine alone works on: at 288 px 255 MB
EAGER = 64  # images that eager torch works on a round: two batches of 32
BATCHES = (1, 2, 4, 8, 16, 32)
BATCHED = ((DEFAULT, "auto", 224), (DEFAULT, "auto", 160), ("vgg16", "none", 32))  # network, weights, px
PRECISION = "bf16" if cpu_has_bf16() else "f32"


def decode(table: Table, backbone: Backbone) -> None:
    """Read and decode every image with a thread for each core; the pixels are dropped."""

    def some(start: int) -> None:
        for row in range(start, min(start + RUN, len(table))):
            with contextlib.suppress(ImageError):
                images.load(table.read(row), backbone.preprocess)

    with ThreadPoolExecutor(n_cores()) as pool:
        list(pool.map(some, range(0, len(table), RUN)))


def decoded_batches(table: Table, backbone: Backbone, batch: int) -> list[tuple[None, Bytes]]:
    """Batches (batch, height, width, 3) of the first images that can be read."""
    arrays: list[Bytes] = []
    for row in range(min(KEPT, len(table))):
        with contextlib.suppress(ImageError):
            arrays.append(images.load(table.read(row), backbone.preprocess).array)
    return [(None, np.stack(arrays[at : at + batch])) for at in range(0, len(arrays) - batch + 1, batch)]


def in_turns(ways: Mapping[str, tuple[Callable[[], object], int]], rounds: int) -> dict[str, list[float]]:
    """Seconds per image of each (work, number of images), in every round, after one round that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for counted in range(-1, rounds):
        for name, (work, n) in ways.items():
            start = time.perf_counter()
            work()
            if counted >= 0:
                taken[name].append((time.perf_counter() - start) / n)
    return taken


def against_bound(table: Table, backbone: Backbone, rounds: int) -> dict[str, Any]:
    """Seconds per image of decoding, engine and extraction, and extraction's share of the bound."""
    engine = OpenVinoEngine(backbone, PRECISION)
    batches = decoded_batches(table, backbone, engine.batch)

    def extract_afresh() -> None:
        with tempfile.TemporaryDirectory() as cache:
            found = extract(table, backbone, engine, Store(Path(cache), store_key(backbone, engine)))
            assert found.n_forward >= 0.99 * len(table)

    taken = in_turns(
        {
            "decode": (lambda: decode(table, backbone), len(table)),
            "engine": (lambda: engine.run(batches, drop), engine.batch * len(batches)),
            "extract": (extract_afresh, len(table)),
        },
        rounds,
    )
    share = [(d + e) / x for d, e, x in zip(*taken.values(), strict=True)]
    middle = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "n": len(table),
        "side": backbone.preprocess.size[0],
        "share of bound": statistics.median(share),
        **middle,
        "rounds": taken,
    }


def against_eager(name: str, weights: str, n: int, rounds: int) -> dict[str, Any]:
    """Images/s of the engine and of eager float32 torch at 224 px, and the engine's ratio to either."""
    pixels = random_pixels(n, 224)
    engine, batches = engine_with(name, weights, 224, pixels)
    trunk = Trunk(open_backbone(name, weights)).eval()
    network: Any = open_backbone(name, weights).module  # opened again: a trunk hangs its hooks on its network

    def bare(x: torch.Tensor) -> torch.Tensor:
        pictures = x.permute(0, 3, 1, 2).float() / 255
        return network.forward_head(network.forward_features(pictures), pre_logits=True)  # type: ignore[no-any-return]

    def eager(module: Callable[[torch.Tensor], object]) -> None:
        with torch.inference_mode():
            for at in range(0, min(n, EAGER), 32):
                module(torch.from_numpy(pixels[at : min(at + 32, EAGER)]))

    ways = {
        "engine": (lambda: engine.run(batches, drop), engine.batch * len(batches)),
        "same outputs": (lambda: eager(trunk), min(n, EAGER)),
        "network alone": (lambda: eager(bare), min(n, EAGER)),
    }
    taken = in_turns(ways, rounds)
    rates = {way: 1 / statistics.median(seconds) for way, seconds in taken.items()}
    ratios = {
        way: statistics.median(theirs / ours for theirs, ours in zip(taken[way], taken["engine"], strict=True))
        for way in ("same outputs", "network alone")
    }
    return {"images/s": rates, "ratio": ratios}


def batch_sizes(name: str, weights: str, side: int, n: int, rounds: int) -> dict[int, float]:
    """Images/s by images a batch."""
    pixels = random_pixels(n, side)
    ways: dict[str, tuple[Callable[[], object], int]] = {}
    for batch in BATCHES:
        engine, batches = engine_with(name, weights, side, pixels, batch)
        ways[str(batch)] = (functools.partial(engine.run, batches, drop), batch * len(batches))
    return {int(batch): 1 / statistics.median(taken) for batch, taken in in_turns(ways, rounds).items()}


def random_pixels(n: int, side: int) -> Bytes:
    """(image, height, width, 3): what is in a picture does not change the time that a network takes."""
    return np.random.default_rng(0).integers(0, 256, (n, side, side, 3), np.uint8)


def engine_with(
    name: str, weights: str, side: int, pixels: Bytes, batch: int | None = None
) -> tuple[OpenVinoEngine, list[tuple[None, Bytes]]]:
    """A compiled engine and the pixels in batches for it."""
    backbone = open_backbone(name, weights)
    backbone = backbone.resized(replace(backbone.preprocess, size=(side, side)))
    engine = OpenVinoEngine(backbone, PRECISION, batch)
    size = engine.batch
    return engine, [(None, pixels[at : at + size]) for at in range(0, len(pixels) - size + 1, size)]


def drop(tag: object, blocks: object) -> None:
    """Where results go that are only timed."""


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument(
        "--n", type=int, default=10_000, help="images of a set at most (default 10000 of CIFAR-10, all of hymenoptera)"
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    values: dict[str, Any] = {"precision": PRECISION}
    for name in ("hymenoptera", "cifar10"):
        table = read_table(options.data / name)
        backbone = sized(open_backbone(), table, Options())  # the size that a fit on the whole set gives it
        table = table.take(np.arange(min(options.n, len(table))))
        values[name] = against_bound(table, backbone, options.rounds)
    n = min(options.n, 256)
    values[DEFAULT] = against_eager(DEFAULT, "auto", n, options.rounds)
    values["resnet18"] = against_eager("resnet18", "none", n, options.rounds)
    values["batch"] = {f"{b[0]}, {b[2]} px": batch_sizes(*b, n, options.rounds) for b in BATCHED}
    report(options, values)


def report(options: argparse.Namespace, values: dict[str, Any]) -> None:
    bound, eager, targets = [], [], []
    for name in ("hymenoptera", "cifar10"):
        v = values[name]
        rate = f"{1 / (v['decode'] + v['engine']):.0f}"
        milli = [f"{1000 * v[k]:.3f}" for k in ("decode", "engine")]
        bound.append(
            [name, str(v["n"]), str(v["side"]), *milli, rate, f"{1 / v['extract']:.0f}", f"{v['share of bound']:.3f}"]
        )
        targets.append(measure.Target(f"{name}: extraction / bound", v["share of bound"], floor=0.85))
    for name, floor in ((DEFAULT, 8), ("resnet18", 3)):
        v = values[name]
        rates = [f"{v['images/s'][k]:.0f}" for k in ("engine", "same outputs", "network alone")]
        eager.append([name, *rates, *(f"{v['ratio'][k]:.1f}" for k in ("same outputs", "network alone"))])
        what = f"{name}: engine / eager float32, "
        targets.append(measure.Target(what + "same outputs", v["ratio"]["same outputs"], floor=floor))
    tables = [
        measure.Table(
            "Extraction and its bound, medians of the rounds",
            ("set", "images", "px", "decode ms", "engine ms", "bound images/s", "extract images/s", "share of bound"),
            bound,
        ),
        measure.Table(
            f"Engine ({values['precision']}) and eager float32 torch at 224 px, images/s",
            ("network", "engine", "eager, same outputs", "eager, network alone", "ratio", "ratio to the network alone"),
            eager,
        ),
        measure.Table(
            f"Engine ({values['precision']}) by images a batch, images/s",
            ("network", *(str(batch) for batch in BATCHES)),
            [[what, *(f"{rate:.0f}" for rate in rates.values())] for what, rates in values["batch"].items()],
        ),
    ]
    measure.publish(options, __doc__ or "", tables, targets, values)


if __name__ == "__main__":
    main()
