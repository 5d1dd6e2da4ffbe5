"""A saved model as one torch module: uint8 RGB pixels in, what the model answers out.

Normalisation, every layer that the head reads, its preparations, the head, calibration and the last non-linearity are
inside, so that no runtime has to be told of them. `predict` rounds features to float16; the graph does so too, which
brings the two ten times nearer to each other than float32 alone (Lite0, 153 photographs: 4e-6 instead of 3.5e-5).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from headstart.export.answers import OUTPUTS, VALUES
from headstart.finetune.trained_head import TrainedHead
from headstart.heads.probe import Probe
from headstart.heads.taps import Part
from headstart.ship.package import Loaded
from headstart.trunk.module import Trunk
from headstart.trunk.network import block_names

MAX_FLOAT16 = 65504.0
SPLITTER = 2.0**13 + 1  # leaves 11 of float32's 24 bits
LEAST_NORMAL, PER_LEAST = 2.0**-14, 2.0**24  # of float16: its least normal value; how many of its least value make 1
LEAST_LENGTH = 1e-30  # below it a row is all zeros: float16 holds nothing smaller than 6e-8


class Graph(nn.Module):
    """uint8 (image, height, width, 3) of the model's size -> float32 (image, output): the probability of each class or
    label, calibrated, or measured values."""

    def __init__(self, model: Loaded) -> None:
        super().__init__()
        self.trunk = Trunk(model.backbone)
        self.blocks = block_names(model.backbone)
        self.head = _head_of(model)
        self.last = _last_of(model)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        blocks = {name: as_stored(x) for name, x in zip(self.blocks, self.trunk(pixels), strict=True)}
        found: torch.Tensor = self.last(self.head(blocks))
        return found


class LinearHead(nn.Module):
    """Blocks of features -> scores (image, output)."""

    def __init__(self, head: Probe) -> None:
        super().__init__()
        self.parts = head.parts
        self.linear = nn.Linear(head.coef.shape[1], head.coef.shape[0])
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(head.coef.astype(np.float32)))
            self.linear.bias.copy_(torch.from_numpy(head.intercept.astype(np.float32)))

    def forward(self, blocks: dict[str, torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = self.linear(torch.cat([prepared(part, blocks[part.block]) for part in self.parts], dim=1))
        return found


class LayersHead(nn.Module):
    """One block of features -> scores (image, output), by layers that were trained."""

    def __init__(self, head: TrainedHead) -> None:
        super().__init__()
        self.block, self.shape, self.scale = head.design.block, head.design.shape, float(head.scale)
        self.layers = head.module

    def forward(self, blocks: dict[str, torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = self.layers(blocks[self.block].reshape(-1, *self.shape) / self.scale)
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


def prepared(part: Part, x: torch.Tensor) -> torch.Tensor:
    """`Part.of`, on (image, feature)."""
    if part.root:
        x = x.sign() * x.abs().sqrt()
    if part.unit:
        x = x / (x * x).sum(dim=1, keepdim=True).sqrt().clamp(min=LEAST_LENGTH)
    return x


def _head_of(model: Loaded) -> nn.Module:
    if isinstance(model.head, TrainedHead):
        return LayersHead(model.head)
    assert isinstance(model.head, Probe)
    return LinearHead(model.head)


def _last_of(model: Loaded) -> Any:
    """What makes answers of scores."""
    if OUTPUTS[model.task.name] == VALUES:
        return nn.Identity()
    return nn.Softmax(dim=1) if model.task.name == "classify" else nn.Sigmoid()
