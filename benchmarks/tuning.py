"""An epoch of fine-tuning against the plain loop of the tutorials, in turns, on all cores.

    python benchmarks/tuning.py [--n 256] [--rounds 3]

Both train the same modules and a linear top on the same images in batches of 32 with AdamW, the plain loop with torch's
default one, headstart with the one that it uses (one pass over the weights).

The last stage: the plain loop takes every image through the whole network in every epoch, in float32, everything below
the last stage frozen; its images lie decoded in memory, so decoding is not counted against it. headstart reads stored
activations at the cut, in the arithmetic that it measures to be the fastest; the pass of a view that made them is
reported beside it. "float32": the same from stored activations in float32, so that what the cache and what the
arithmetic gives can be told apart.

All: both take decoded images from memory, each loop in a process of its own; headstart in the arithmetic that it
measures to be the fastest. Its floor is three times the forward pass's multiply-adds at the rate of a large matrix
product on this machine.
"""

from __future__ import annotations

import itertools
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import measure
import numpy as np
import torch

from headstart import recipe
from headstart.finetune.arithmetic import CHANNELS_LAST, Arithmetic, candidates, fastest, memory_kept, rates
from headstart.finetune.loop import Loop
from headstart.finetune.objective import CROSS_ENTROPY
from headstart.finetune.tunable import Tail, tunable
from headstart.trunk.backbone import open_backbone
from headstart.trunk.engine import compile_trunk
from headstart.trunk.layers import Tap
from headstart.trunk.module import shapes
from headstart.trunk.network import Backbone, cut_at

CASES = (("hymenoptera", 224, 2), ("eurosat_3000", 160, 10))
NETWORKS = (("tf_efficientnet_lite0", "auto", 0.39), ("resnet18", "none", 1.81))  # 1e9 multiply-adds at 224 px
BATCH = 32


def ours(backbone: Backbone, what: str, x: torch.Tensor, y: torch.Tensor, n: int, how: Arithmetic) -> float:
    """Seconds of an epoch of headstart's own loop on x, activations at the cut."""
    tail = Tail(backbone, tunable(backbone, what), n)
    training = replace(recipe.tuning(len(y), 1, BATCH), optimizer="adamw")
    with memory_kept():
        groups, steps = tail.groups(0.8), len(y) // BATCH + 1
        loop = Loop(tail, training, steps, CROSS_ENTROPY, arithmetic=how, groups=groups)
        truths = torch.nn.functional.one_hot(y, n).float()
        start = time.perf_counter()
        for _ in loop.batches(np.arange(len(y)), lambda some: (x[some], truths[some])):
            pass
    return time.perf_counter() - start


def plain(name: str, weights: str, what: str, side: int, n: int, count: int) -> float:
    """Seconds of an epoch of the plain loop: every image through the whole network, float32. In a process of its own:
    memory that headstart's loop has kept would make the plain one twice as fast."""
    backbone = at_side(name, weights, side)
    pixels = torch.rand(count, 3, side, side)
    y = torch.arange(count) % n
    whole = replace(tunable(backbone, what), cut="input")  # the same modules learn, all the others run live
    network = Tail(backbone, whole, n).train()
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], 3e-4)
    start = time.perf_counter()
    for at in range(0, len(y), BATCH):
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(pixels[at : at + BATCH]), y[at : at + BATCH]).backward()
        optimizer.step()
    return time.perf_counter() - start


def at_side(name: str, weights: str, side: int) -> Backbone:
    backbone = open_backbone(name, weights)
    return backbone.resized(replace(backbone.preprocess, size=(side, side)))


def at_cut(backbone: Backbone, what: str, pixels: np.ndarray[Any, Any]) -> tuple[torch.Tensor, float]:
    """(activations, seconds of the pass that made them)."""
    cut = tunable(backbone, what).cut
    shape = shapes(backbone.module, (cut,), backbone.preprocess.size)[cut][1:]
    engine = compile_trunk(cut_at(backbone, Tap("cut", shape[0], 1, ("map",), cut, shape)))
    found: dict[int, Any] = {}
    start = time.perf_counter()
    runs = ((k, pixels[k : k + engine.batch]) for k in range(0, len(pixels), engine.batch))
    engine.run(runs, lambda at, out: found.update({at: out.astype(np.float16)}))
    seconds = time.perf_counter() - start
    values = np.concatenate([found[k] for k in sorted(found)]).astype(np.float32)
    return torch.from_numpy(values).view(-1, *shape), seconds


def chosen(backbone: Backbone, what: str, x: torch.Tensor, n: int) -> tuple[Arithmetic, str]:
    """(the arithmetic that is the fastest, what was measured in words)."""
    make = (Tail(backbone, tunable(backbone, what), n) for _ in itertools.count())
    with memory_kept():
        found = rates(make, x[:BATCH], candidates(next(make), "auto", "cpu"), "cpu")
    return fastest(found)[0], ", ".join(f"{way.name} {rate:.0f}" for way, rate in found)


def matrix_rate() -> tuple[float, float]:
    """1e9 multiply-adds a second of a product of 2048 x 2048 matrices: (float32, bfloat16)."""
    best = []
    for kind in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(2048, 2048).to(kind) for _ in range(2))
        taken = []
        for _ in range(6):
            start = time.perf_counter()
            a @ b
            taken.append(time.perf_counter() - start)
        best.append(2048**3 / min(taken) / 1e9)
    return best[0], best[1]


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--n", type=int, default=256, help="images")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    options.n -= options.n % BATCH
    rng = np.random.default_rng(0)
    rows, whole, targets, values = [], [], [], {}
    f32, bf16 = matrix_rate()
    for data, side, n in CASES:
        raw = rng.integers(0, 256, (options.n, side, side, 3), np.uint8)  # what is in a picture takes no time
        pixels = torch.from_numpy(raw).permute(0, 3, 1, 2).float() / 255
        y = torch.from_numpy(rng.integers(0, n, options.n))
        for name, weights, cost in NETWORKS:
            backbone = at_side(name, weights, side)
            stored, passed = at_cut(backbone, "last", raw)
            way, tried = chosen(backbone, "last", stored, n)
            deep, deep_tried = chosen(backbone, "all", pixels, n)
            taken: dict[str, list[float]] = {key: [] for key in ("cached", "float32", "live", "all", "plain all")}
            apart = ProcessPoolExecutor(1, get_context("spawn"))
            for _ in range(options.rounds):
                taken["cached"].append(ours(backbone, "last", stored, y, n, way))
                taken["float32"].append(ours(backbone, "last", stored, y, n, CHANNELS_LAST))
                taken["live"].append(apart.submit(plain, name, weights, "last", side, n, options.n).result())
                taken["all"].append(ours(backbone, "all", pixels, y, n, deep))
                taken["plain all"].append(apart.submit(plain, name, weights, "all", side, n, options.n).result())
            apart.shutdown()
            middle = {key: statistics.median(seconds) for key, seconds in taken.items()}
            ratio, more = middle["live"] / middle["cached"], middle["plain all"] / middle["all"]
            at = f"{data}, {side} px"
            cells = [f"{middle[key]:.2f}" for key in ("cached", "float32", "live")]
            rows.append([at, name, *cells, f"{ratio:.1f}", f"{passed:.2f}", way.name])
            floor = 3 * cost * (side / 224) ** 2 * options.n / (bf16 if deep.bf16 else f32)
            whole.append(
                [
                    at,
                    name,
                    f"{middle['all']:.2f}",
                    f"{middle['plain all']:.2f}",
                    f"{more:.1f}",
                    f"{floor:.2f}",
                    deep.name,
                ]
            )
            targets.append(measure.Target(f"{name} at {side} px, last stage: times faster an epoch", ratio, floor=3))
            targets.append(measure.Target(f"{name} at {side} px, all: times faster an epoch", more, floor=1.3))
            values[f"{data} {name}"] = taken | {"pass": passed, "last": tried, "deep": deep_tried}
    header = ("images", "network", "cached, s", "float32, s", "live, s", "ratio", "pass of a view, s", "arithmetic")
    title = ("images", "network", "headstart, s", "plain, s", "ratio", "floor, s", "arithmetic")
    tables = [measure.Table("An epoch of the last stage", header, rows), measure.Table("An epoch of all", title, whole)]
    values["matrix rate, 1e9 multiply-adds/s"] = {"float32": f32, "bfloat16": bf16}
    measure.publish(options, __doc__ or "", tables, targets, values)


if __name__ == "__main__":
    main()
