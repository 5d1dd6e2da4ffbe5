"""Which layers suffer most from 8-bit integers, found in the network itself, for every runtime alike.

A layer's weights and what goes into it are rounded as a runtime would round them; what that changes in its output is
carried to the answer by its gradient. That is the change of the answer to first order, of all layers from one pass
forth and back, where running the network once with each layer would take as many runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.func import functional_call

from headstart.export.layers import TRUNK, Pixels

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
LEVELS, WEIGHT_LEVELS = 255, 127  # uint8 of what goes in; int8 on both sides of 0 of weights


@dataclass(frozen=True)
class Layer:
    """name: as the network calls it; noise: the mean square of what its rounding alone changes in the score that
    `scored` gives; values: of its weights."""

    name: str
    noise: float
    values: int


def layers(
    module: nn.Module, pixels: Sequence[Pixels], scored: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[Layer, ...]:
    """Each layer of a graph (uint8 pixels -> answers), in the order of its modules. pixels: images a few at a
    time. scored: answers (image, output) -> (image,), what must not change."""
    found: dict[str, list[npt.NDArray[np.float64]]] = {}
    for some in pixels:
        for name, change in _changes(module, torch.from_numpy(some), scored).items():
            found.setdefault(name, []).append(change)
    known = dict(module.named_modules())
    return tuple(
        Layer(name.removeprefix(TRUNK), float((np.concatenate(parts) ** 2).mean()), known[name].weight.numel())
        for name, parts in found.items()
    )


def _changes(
    module: nn.Module, pixels: torch.Tensor, scored: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, npt.NDArray[np.float64]]:
    """Layer -> (image,), the first-order change of the score."""
    errors: dict[str, torch.Tensor] = {}
    probes: dict[str, torch.Tensor] = {}

    def watched(name: str) -> Callable[[Any, Any, Any], torch.Tensor | None]:
        def hook(layer: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
            if name in errors:  # the call below; a layer that is used twice counts by its first use
                return None
            errors[name] = output
            with torch.no_grad():
                rough = functional_call(layer, {"weight": _rounded_weights(layer.weight)}, (_rounded(inputs[0]),))
                errors[name] = rough - output
            probes[name] = torch.zeros_like(output, requires_grad=True)
            return output + probes[name]

        return hook

    named = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, LAYERS)]
    handles = [layer.register_forward_hook(watched(name)) for name, layer in named]
    try:
        with torch.enable_grad():
            scored(module(pixels)).sum().backward()  # type: ignore[no-untyped-call]
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for name, error in errors.items():
        gradient = probes[name].grad
        if gradient is not None:
            found[name] = (gradient * error).flatten(1).sum(dim=1).double().numpy()
    return found


def _rounded(x: torch.Tensor) -> torch.Tensor:
    """To 256 steps between the least and the largest value of the batch, 0 among them."""
    low, high = x.min().clamp(max=0.0), x.max().clamp(min=0.0)
    step = ((high - low) / LEVELS).clamp(min=torch.finfo(x.dtype).tiny)
    return (x / step).round() * step


def _rounded_weights(weight: torch.Tensor) -> torch.Tensor:
    """(output channel, ...), each channel to 255 steps around 0."""
    step = weight.abs().flatten(1).amax(dim=1) / WEIGHT_LEVELS
    step = step.clamp(min=torch.finfo(weight.dtype).tiny).reshape(-1, *[1] * (weight.ndim - 1))
    return (weight / step).round() * step
