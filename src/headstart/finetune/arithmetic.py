"""In which numbers, and in which order of memory, a network learns fastest on this machine: measured, not assumed.

In bfloat16 a step is about 2 times faster where the processor has instructions for it, slower elsewhere
(docs/measurements.md, arithmetic).
"""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from headstart.finetune.depthwise import FastGradients
from headstart.finetune.design import PLAIN, Arithmetic

VERSION = 3  # raised when a step is made in another way: its speed and last bits are others then
WORTH = 1.15  # times faster than float32 before another way is taken: less is within the noise of three steps
STEPS = 3  # timed, the first one apart


CHANNELS_LAST = Arithmetic("float32, channels-last", channels_last=True)
BF16 = Arithmetic("bfloat16, channels-last", bf16=True, channels_last=True)
ALL = (PLAIN, CHANNELS_LAST, BF16)


def prepare(module: nn.Module, way: Arithmetic) -> nn.Module:
    """The module as it works in these numbers; its parameters stay the ones that they are."""
    return module.to(memory_format=torch.channels_last) if way.channels_last else module


def ordered(x: torch.Tensor, way: Arithmetic) -> torch.Tensor:
    """x (image, ...) in the order of memory that it is read in."""
    return x.contiguous(memory_format=torch.channels_last) if way.channels_last and x.ndim == 4 else x


@contextmanager
def numbers(way: Arithmetic, device: str) -> Iterator[None]:
    """What is computed here is computed in these numbers."""
    with FastGradients(), torch.autocast(device.split(":")[0], torch.bfloat16, enabled=way.bf16):
        yield


def candidates(module: nn.Module, precision: str, device: str) -> tuple[Arithmetic, ...]:
    """The ways worth timing, float32 first: channels-last where there are convolutions, never slower with them.
    `precision` "f32" leaves float32 alone."""
    found = [CHANNELS_LAST if any(isinstance(layer, nn.Conv2d) for layer in module.modules()) else PLAIN]
    if precision != "f32" and (device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        found.append(BF16)
    return tuple(found)


def rates(
    make: Iterator[nn.Module], x: torch.Tensor, ways: tuple[Arithmetic, ...], device: str
) -> list[tuple[Arithmetic, float]]:
    """Images a second of a training step on `x` (image, ...) in each of these ways, a fresh module for each."""
    return [(way, len(x) / _step_seconds(prepare(next(make).to(device), way), x.to(device), way)) for way in ways]


def fastest(measured: list[tuple[Arithmetic, float]]) -> tuple[Arithmetic, float]:
    """The way to take and its images a second: the first, unless another is faster by more than noise."""
    best = max(measured, key=lambda pair: pair[1])
    return best if best[1] > WORTH * measured[0][1] else measured[0]


def _step_seconds(module: nn.Module, x: torch.Tensor, way: Arithmetic) -> float:
    """The fastest of some steps of forward, backward and update."""
    module.train()
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 1e-6, fused=True)
    best = math.inf
    for _ in range(1 + STEPS):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with numbers(way, x.device.type):
            loss = module(ordered(x, way)).float().logsumexp(1).mean()
        loss.backward()
        optimizer.step()
        if x.device.type != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return best


@contextmanager
def memory_kept() -> Iterator[None]:
    """glibc keeps freed memory while a network learns: each step asks for the same large blocks again, and fresh pages
    from the kernel cost (docs/measurements.md, memory-kept). Elsewhere nothing happens."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    adjust = getattr(library, "mallopt", None)
    if adjust is None:
        yield
        return
    adjust(_MMAP_THRESHOLD, 1 << 30)
    adjust(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:  # glibc's own first values; what it kept goes back
        adjust(_MMAP_THRESHOLD, 128 << 10)
        adjust(_TRIM_THRESHOLD, 128 << 10)
        getattr(library, "malloc_trim", lambda pad: 0)(0)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
