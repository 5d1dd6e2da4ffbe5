"""A saved model as one torch module: uint8 RGB pixels in, what the model answers out.

Normalisation, every layer that the head reads, its preparations, the head, calibration and the last non-linearity are
inside, so that no runtime has to be told of them. `predict` rounds features to float16; the graph does so too, which
brings the two ten times nearer to each other than float32 alone (Lite0, 153 photographs: 4e-6 instead of 3.5e-5).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from headstart.export.answers import OUTPUTS, PROBABILITIES
from headstart.export.heads import head_of
from headstart.ship.package import Loaded
from headstart.trunk.module import Trunk
from headstart.trunk.network import block_names

MAX_FLOAT16 = 65504.0
SPLITTER = 2.0**13 + 1  # leaves 11 of float32's 24 bits
LEAST_NORMAL, PER_LEAST = 2.0**-14, 2.0**24  # of float16: its least normal value; how many of its least value make 1


class Graph(nn.Module):
    """uint8 (image, height, width, 3) of the model's size -> float32 (image, output): the probability of each class or
    label, calibrated, or what else the task answers (`answers.OUTPUTS`); of a head that compares two tensors, that and
    what stands behind it (`answers.FURTHER`)."""

    def __init__(self, model: Loaded) -> None:
        super().__init__()
        self.trunk = Trunk(model.backbone)
        self.blocks = block_names(model.backbone)
        self.head = head_of(model)
        self.last = _last_of(model)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        blocks = {name: as_stored(x) for name, x in zip(self.blocks, self.trunk(pixels), strict=True)}
        found: torch.Tensor | tuple[torch.Tensor, ...] = self.last(self.head(blocks))
        return found


def graph_of(model: Loaded) -> nn.Module:
    """The model in evaluation mode, without gradients, of a task in OUTPUTS."""
    return Graph(model).eval().requires_grad_(False)


def as_stored(x: torch.Tensor) -> torch.Tensor:
    """Features as they are kept between the network and the head: rounded to float16, within its range.

    In float32 arithmetic (Veltkamp 1968; of values below float16's normal ones to multiples of its least), since
    runtimes drop a conversion to float16 and back.
    """
    x = x.clamp(-MAX_FLOAT16, MAX_FLOAT16)
    wide = x * SPLITTER
    normal = wide - (wide - x)
    return torch.where(x.abs() < LEAST_NORMAL, torch.round(x * PER_LEAST) / PER_LEAST, normal)


def _last_of(model: Loaded) -> Any:
    """What makes answers of scores."""
    if OUTPUTS[model.task.name] != PROBABILITIES:
        return nn.Identity()
    return nn.Softmax(dim=1) if model.task.name == "classify" else nn.Sigmoid()
