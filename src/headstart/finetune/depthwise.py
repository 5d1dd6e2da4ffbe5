"""Depthwise convolutions that learn, in pieces that oneDNN, torch's library on x86 processors, has fast gradients for.

Its kernel for the weight gradient of depthwise filters takes up to three columns. Wider filters (5 x 5, 7 x 7) go to a
general one, which takes many times as long as the forward pass (docs/measurements.md, depthwise-gradients). Three
columns of a filter have the gradient of a filter of three columns that begins so much further on: those of wide filters
are put together from narrow ones. In bfloat16, filters that move by more than one pixel lack a fast gradient of the
picture as well: that is made in float32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn import functional as F  # noqa: N812, its usual name
from torch.overrides import TorchFunctionMode

COLUMNS = 3  # of the widest filter whose weight gradient is fast
X86 = torch.backends.cpu.get_cpu_capability().startswith("AVX")


class FastGradients(TorchFunctionMode):
    """While it is entered, depthwise convolutions on an x86 CPU get fast gradients: torch's own, but for rounding.

    A mode, since networks have classes of their own for convolutions (timm's pad like TensorFlow): all call `conv2d`.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_convolved if func is F.conv2d else func)(*args, **(kwargs or {}))


class Geometry(NamedTuple):
    """How a filter (height, width) moves over a picture, and at which of its columns a part of three begins; none:
    it is in one piece."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    starts: tuple[int, ...]


def _convolved(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    how = None
    if X86 and x.device.type == "cpu" and x.ndim == 4 and 1 < groups == len(weight) == x.shape[1]:
        how = _geometry(weight.shape[3], stride, padding, dilation)
    if how is None:
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    number = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    found: torch.Tensor = _Depthwise.apply(x.to(number), weight.to(number), how)
    return found if bias is None else found + bias.to(number)[:, None, None]


def _geometry(width: int, stride: Any, padding: Any, dilation: Any) -> Geometry | None:
    """None where there is nothing to gain, or no way to."""
    if isinstance(padding, str):
        return None
    moves, edges, gaps = ((n, n) if isinstance(n, int) else tuple(n) for n in (stride, padding, dilation))
    last, step = width - COLUMNS, COLUMNS // moves[1] * moves[1]
    if gaps != (1, 1) or (last <= 0 and moves == (1, 1)) or (last > 0 and (not step or last % moves[1])):
        return None  # the last: a part begins where the filter moves to
    return Geometry(moves, edges, (*range(0, last, step), last) if last > 0 else ())


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution without bias."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, how: Geometry) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = how
        return F.conv2d(x, weight, None, how.stride, how.padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        (x, weight), how, g = ctx.saved_tensors, ctx.how, given[0]
        of_x, of_weight = None, None
        if ctx.needs_input_grad[0]:
            number = torch.float32 if how.stride != (1, 1) and x.dtype == torch.bfloat16 else x.dtype
            like = torch.empty_like(x, dtype=number)  # its values do not count
            of_x = _gradient(0, g.to(number), like, weight.to(number), how).to(x.dtype)
        if ctx.needs_input_grad[1]:
            of_weight = _by_columns(g, x, weight, how) if how.starts else _gradient(1, g, x, weight, how)
        return of_x, of_weight, None


def _gradient(which: int, g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, how: Geometry) -> torch.Tensor:
    """Of x (0) or of the weights (1), where that of the outcome is g."""
    of, wanted = torch.ops.aten.convolution_backward, [which == 0, which == 1, False]
    found = of(g, x, weight, None, how.stride, how.padding, (1, 1), False, (0, 0), len(weight), wanted)
    return found[which]  # type: ignore[no-any-return]


def _by_columns(g: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, how: Geometry) -> torch.Tensor:
    """The gradient of `weight` (channel, 1, height, width), three columns at a time: to a part of the filter that
    begins some columns later, g looks moved by as many to the right."""
    height, width = weight.shape[2:]
    (down, right), (top, side) = how.stride, how.padding
    above = top if x.shape[2] < height + top % down else 0  # the kernel wants pictures as high as the filter
    x, whole = F.pad(x, (side, side, above, above)), how._replace(padding=(top - above, 0))
    found, part = torch.empty_like(weight), weight[..., :COLUMNS]
    for start in how.starts:
        moved = F.pad(g, (start // right, (width - COLUMNS - start) // right))
        found[..., start : start + COLUMNS] = _gradient(1, moved, x, part, whole)
    return found
