"""Extraction against its own bound, and the engine against eager torch.

    python benchmarks/extraction.py [--n 10000] [--rounds 5]

1. For hymenoptera and CIFAR-10, in turns: decoding alone (the product's decoder, a thread for each core), the engine
   alone (on decoded batches, all cores), and the real `extract` into an empty store. If nothing else cost anything and
   nothing could overlap, extraction would run at 1 / (decode + engine) images/s; reported is the share of that bound.
2. At 224 px, in turns: the engine in the CPU's best precision, eager float32 torch with the same module in batches of
   32, and the same with the bare network, which makes the last layer's features only.
3. The engine with 1, 2, 4, 8 and 16 images a batch, in turns.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import inprocess
import measure
import numpy as np
import torch
from numpy.typing import NDArray

from headstart.data import images
from headstart.data.table import Table, read_table
from headstart.errors import ImageError
from headstart.trunk.backbone import DEFAULT, Backbone, Trunk, open_backbone
from headstart.trunk.engine import OpenVinoEngine, cpu_has_bf16, n_cores

Bytes = NDArray[np.uint8]
RUN = 16  # images a decoding task, as in extraction
KEPT = 1024  # decoded images that the engine alone works on: at 288 px 255 MB
BATCHES = (1, 2, 4, 8, 16)
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
            found = inprocess.fresh_features(table, backbone, engine, Path(cache))
            assert found.n_forward >= 0.99 * len(table)

    taken = in_turns(
        {
            "decode": (lambda: decode(table, backbone), len(table)),
            "engine": (lambda: engine.run(batches, lambda tag, blocks: None), engine.batch * len(batches)),
            "extract": (extract_afresh, len(table)),
        },
        rounds,
    )
    share = [(d + e) / x for d, e, x in zip(*taken.values(), strict=True)]
    middle = {name: statistics.median(values) for name, values in taken.items()}
    return {"n": len(table), "side": backbone.preprocess.size[0], "share of bound": statistics.median(share), **middle, "rounds": taken}


def against_eager(name: str, weights: str, n: int, rounds: int) -> dict[str, Any]:
    """Images/s of the engine and of eager float32 torch at 224 px."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, 224, 224, 3), np.uint8)
    at_224 = inprocess.backbone_for(inprocess.PHOTOGRAPH, n, name, weights, side=224)
    engine = OpenVinoEngine(at_224, PRECISION)
    backbone = open_backbone(name, weights)  # again, since the one above carries the hooks of its own trunk
    bare = backbone.module

    def plain(x: torch.Tensor) -> torch.Tensor:
        images = x.permute(0, 3, 1, 2).float() / 255
        return bare.forward_head(bare.forward_features(images), pre_logits=True)

    def eager(module: Callable[[torch.Tensor], object], images: Bytes) -> None:
        with torch.inference_mode():
            for at in range(0, len(images), 32):
                module(torch.from_numpy(images[at : at + 32]))

    batches = [(None, pixels[at : at + engine.batch]) for at in range(0, n - engine.batch + 1, engine.batch)]
    ways = {
        "engine": (lambda: engine.run(batches, lambda tag, blocks: None), engine.batch * len(batches)),
        "eager, network alone": (lambda: eager(plain, pixels[:64]), min(n, 64)),
    }
    alone = in_turns(ways, rounds)  # before the trunk hangs its hooks on the same network
    trunk = Trunk(backbone).eval()
    both = in_turns({"engine": ways["engine"], "eager, same outputs": (lambda: eager(trunk, pixels[:64]), min(n, 64))}, rounds)
    ratios = [statistics.median(e / o for o, e in zip(*taken.values(), strict=True)) for taken in (both, alone)]
    rates = {key: 1 / statistics.median(values) for key, values in (alone | both).items()}
    return {"images/s": rates, "over same outputs": ratios[0], "over network alone": ratios[1]}


def batch_sizes(n: int, rounds: int) -> dict[int, float]:
    """Images/s of the default network at 224 px by images a batch."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, 224, 224, 3), np.uint8)
    ways = {}
    for batch in BATCHES:
        engine = OpenVinoEngine(inprocess.backbone_for(inprocess.PHOTOGRAPH, n, side=224), PRECISION, batch)
        batches = [(None, pixels[at : at + batch]) for at in range(0, n - batch + 1, batch)]
        ways[str(batch)] = (lambda e=engine, b=batches: e.run(b, lambda tag, blocks: None), batch * len(batches))
    return {int(batch): 1 / statistics.median(taken) for batch, taken in in_turns(ways, rounds).items()}


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--n", type=int, default=10_000, help="images of a set at most (default 10000 of CIFAR-10, all of hymenoptera)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    values: dict[str, Any] = {"precision": PRECISION}
    for name, short_side in (("hymenoptera", inprocess.PHOTOGRAPH), ("cifar10", 32)):
        table = read_table(options.data / name)
        table = table.take(np.arange(min(options.n, len(table))))
        values[name] = against_bound(table, inprocess.backbone_for(short_side, len(table)), options.rounds)
    n = min(options.n, 256)
    values[DEFAULT] = against_eager(DEFAULT, "auto", n, options.rounds)
    values["resnet18"] = against_eager("resnet18", "none", n, options.rounds)
    values["batch"] = batch_sizes(n, options.rounds)
    report(options, values)


def report(options: argparse.Namespace, values: dict[str, Any]) -> None:
    bound, eager, targets = [], [], []
    for name in ("hymenoptera", "cifar10"):
        v = values[name]
        rate = f"{1 / (v['decode'] + v['engine']):.0f}"
        milli = [f"{1000 * v[k]:.3f}" for k in ("decode", "engine")]
        bound.append([name, str(v["n"]), str(v["side"]), *milli, rate, f"{1 / v['extract']:.0f}", f"{v['share of bound']:.3f}"])
        targets.append(measure.Target(f"{name}: extraction / bound", v["share of bound"], floor=0.85))
    for name, floor in ((DEFAULT, 8), ("resnet18", 3)):
        v = values[name]
        ratios = [f"{v[k]:.1f}" for k in ("over same outputs", "over network alone")]
        rates = [f"{v['images/s'][k]:.0f}" for k in ("engine", "eager, same outputs", "eager, network alone")]
        eager.append([name, *rates, *ratios])
        targets.append(measure.Target(f"{name}: engine / eager float32, same outputs", v["over same outputs"], floor=floor))
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
            f"{DEFAULT} at 224 px by images a batch",
            ("images a batch", "images/s"),
            [[str(batch), f"{rate:.0f}"] for batch, rate in values["batch"].items()],
        ),
    ]
    measure.publish(options, __doc__ or "", tables, targets, values)


if __name__ == "__main__":
    main()
