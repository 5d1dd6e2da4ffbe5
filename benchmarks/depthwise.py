"""Gradients of depthwise convolutions: torch's own, and headstart's, which are the same but for rounding.

    python benchmarks/depthwise.py [--batch 32] [--rounds 5]

The layers are those of EfficientNet-Lite0 at 128 px and 192 px, and 7 x 7 ones. On one core, channels-last, in turns:
the forward pass, the backward pass as torch makes it and as headstart does. The floor of a backward pass is two forward
ones. Then a whole step of EfficientNet-Lite0 above its second stage at 128 px.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any
from unittest import mock

import measure
import torch
from torch import nn

from headstart.finetune import arithmetic, depthwise
from headstart.finetune.arithmetic import BF16, CHANNELS_LAST, memory_kept
from headstart.finetune.depthwise import FastGradients
from headstart.finetune.tunable import Tail, depths, tunable
from headstart.trunk.backbone import open_backbone
from headstart.trunk.module import shapes

# channels, side of the picture, filter, stride
LAYERS = (
    (144, 32, 3, 1),
    (144, 32, 5, 2),
    (240, 16, 5, 1),
    (240, 24, 5, 1),
    (480, 8, 3, 1),
    (480, 8, 5, 1),
    (672, 12, 5, 1),
    (672, 12, 5, 2),
    (1152, 4, 5, 1),
    (1152, 6, 5, 1),
    (96, 32, 7, 1),
    (192, 16, 7, 1),
)
Context = Callable[[], AbstractContextManager[Any]]


def layer(case: tuple[int, ...], kind: torch.dtype, context: Context, batch: int) -> tuple[float, float]:
    """Seconds of (a forward pass, a backward pass)."""
    channels, side, size, stride = case
    torch.manual_seed(0)
    module = nn.Conv2d(channels, channels, size, stride, size // 2, groups=channels, bias=False)
    module = module.to(memory_format=torch.channels_last, dtype=kind)
    x = torch.randn(batch, channels, side, side).to(kind).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    with context():
        start = time.perf_counter()
        y = module(x)
        forward = time.perf_counter() - start
    given = torch.ones_like(y)
    start = time.perf_counter()
    y.backward(given)
    return forward, time.perf_counter() - start


def layers(options: Any) -> list[list[str]]:
    rows = []
    for case in LAYERS:
        cells = [f"{case[0]} x {case[1]} x {case[1]}", f"{case[2]} x {case[2]}", str(case[3])]
        for kind in (torch.float32, torch.bfloat16):
            best = [[1e9, 1e9], [1e9, 1e9]]
            for _ in range(1 + options.rounds):
                for which, context in enumerate((nullcontext, FastGradients)):
                    found = layer(case, kind, context, options.batch)
                    best[which] = [min(pair) for pair in zip(best[which], found, strict=True)]
            forward, usual, fast = best[1][0], best[0][1], best[1][1]
            cells += [f"{1e3 * s:.1f}" for s in (forward, usual, fast)] + [f"{usual / fast:.1f}"]
        rows.append(cells)
    return rows


def steps(options: Any) -> list[list[str]]:
    """Images a second of a training step, torch's gradients and headstart's in turns."""
    network = open_backbone("tf_efficientnet_lite0", "none")
    network = network.resized(replace(network.preprocess, size=(128, 128)))
    what = tunable(network, depths(network)[-1])
    x = torch.randn(options.batch, *shapes(network.module, (what.cut,), (128, 128))[what.cut][1:])
    rows = []
    for way in (CHANNELS_LAST, BF16):
        best = [1e9, 1e9]
        for _ in range(options.rounds):
            for which, fast in enumerate((False, True)):
                with mock.patch.object(depthwise, "X86", fast and depthwise.X86):
                    seconds = arithmetic._step_seconds(arithmetic.prepare(Tail(network, what, 10), way), x, way)
                best[which] = min(best[which], seconds)
        usual, fast_one = (options.batch / seconds for seconds in best)
        rows.append([way.name, f"{usual:.1f}", f"{fast_one:.1f}", f"{fast_one / usual:.2f}"])
    return rows


def main() -> None:
    parser = measure.arguments(__doc__ or "")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with memory_kept():
        one, whole = layers(options), steps(options)
    kinds = [
        f"{kind}: {what}"
        for kind in ("float32", "bfloat16")
        for what in ("forward, ms", "torch, ms", "ours, ms", "ratio")
    ]
    tables = [
        measure.Table("A layer: backward pass", ("picture", "filter", "stride", *kinds), one),
        measure.Table("A step of EfficientNet-Lite0", ("numbers", "torch, images/s", "ours, images/s", "ratio"), whole),
    ]
    measure.publish(options, __doc__ or "", tables, [], {"layers": one, "steps": whole})


if __name__ == "__main__":
    main()
