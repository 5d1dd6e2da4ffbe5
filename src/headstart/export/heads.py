"""Heads as torch modules: blocks of features -> what is answered.

A head that compares a picture with what it knows, good pictures or people, gives two tensors: the answers, and what
stands behind them (`answers.FURTHER`).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart.finetune.trained_head import TrainedHead
from headstart.heads.oddity import STEEPEST, Cloud, Layer, Oddity, Patches
from headstart.heads.probe import Probe
from headstart.heads.recognition import Recogniser
from headstart.heads.taps import Part
from headstart.ship.package import Loaded
from headstart.tasks.identifier import Identifier
from headstart.trunk.network import block_names, block_widths

LEAST_LENGTH = 1e-30  # below it a row is all zeros: float16 holds nothing smaller than 6e-8
TINY = 1e-9  # added to what a logarithm is taken of, as in heads/oddity.py
Blocks = dict[str, torch.Tensor]


def head_of(model: Loaded) -> nn.Module:
    """The module of a model's head."""
    head = model.head
    if isinstance(head, TrainedHead):
        return LayersHead(head)
    if isinstance(head, Oddity):
        widths = zip(block_names(model.backbone), block_widths(model.backbone), strict=True)
        return OddityHead(head, dict(widths))
    if isinstance(head, Identifier):
        return RecognitionHead(head.recogniser)
    assert isinstance(head, Probe)
    return LinearHead(head)


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


class OddityHead(nn.Module):
    """Blocks of features -> (score (image, 1), 1 the threshold; heat (image, height, width), 1 as odd as the oddest
    place of a good picture at the threshold), the latter where patches are known."""

    def __init__(self, head: Oddity, blocks: dict[str, int]) -> None:
        super().__init__()
        self.cloud = CloudDistance(head.cloud)
        self.patches = None if head.patches is None else PatchDistances(head.patches, blocks)
        self.limit, self.usual, self.span = head.limit, head.usual, max(head.hot - head.usual, TINY)
        self.middles, self.widths = constant(head.middles), constant(head.widths)

    def forward(self, blocks: Blocks) -> tuple[torch.Tensor, ...]:
        measures = [torch.log(self.cloud(blocks) + TINY) / 2]
        heat = []
        if self.patches is not None:
            away = self.patches(blocks)
            measures.append(torch.log(away.mean(dim=(1, 2)) + TINY))
            heat = [((away - self.usual) / self.span).clamp(min=0.0)]
        most = ((torch.stack(measures, dim=1) - self.middles) / self.widths).amax(dim=1, keepdim=True)
        return (torch.exp((most - self.limit).clamp(-STEEPEST, STEEPEST)), *heat)


class CloudDistance(nn.Module):
    """Blocks of features -> (image,), the squared Mahalanobis distance of `Cloud.distances`."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__()
        self.parts, self.rest = cloud.parts, cloud.rest
        self.mean, self.axes = constant(cloud.mean), constant(cloud.axes)
        self.spread = constant(cloud.spread)

    def forward(self, blocks: Blocks) -> torch.Tensor:
        x = torch.cat([prepared(part, blocks[part.block]) for part in self.parts], dim=1) - self.mean
        if not len(self.axes):
            return (x**2).sum(dim=1) / self.rest
        along = x @ self.axes.T
        aside = x - along @ self.axes
        return (aside**2).sum(dim=1) / self.rest + (along**2 / self.spread).sum(dim=1)


class PatchDistances(nn.Module):
    """Blocks of features -> (image, height, width), what `Patches.heat` says. blocks: widths of the maps."""

    def __init__(self, patches: Patches, blocks: dict[str, int]) -> None:
        super().__init__()
        self.layers = patches.layers
        self.places = [blocks[layer.block] // layer.channels for layer in self.layers]
        self.side = max(math.isqrt(n) for n in self.places)
        self.mean, self.whitening = constant(patches.mean), constant(patches.whitening)
        self.memory = constant(patches.memory)
        self.lengths = constant((patches.memory.astype(np.float64) ** 2).sum(axis=1))

    def forward(self, blocks: Blocks) -> torch.Tensor:
        maps = [self._map(layer, n, blocks[layer.block]) for layer, n in zip(self.layers, self.places, strict=True)]
        found = torch.cat(maps, dim=1).permute(0, 2, 3, 1)
        asked = (found.reshape(-1, self.side**2, len(self.mean)) - self.mean) @ self.whitening
        nearest = (self.lengths - 2 * (asked @ self.memory.T)).argmin(dim=2)
        away = asked - self.memory.index_select(0, nearest.reshape(-1)).reshape(asked.shape)
        return (away**2).sum(dim=2).sqrt().reshape(-1, self.side, self.side)

    def _map(self, layer: Layer, places: int, x: torch.Tensor) -> torch.Tensor:
        """(image, channel, height, width) of a layer, smoothed, on the places of the finest."""
        side = math.isqrt(places)
        x = x.reshape(-1, layer.channels, places)[:, :, places - side**2 :].reshape(-1, layer.channels, side, side)
        x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
        x = (x[:, :, 2:] + x[:, :, 1:-1] + x[:, :, :-2]) / 3
        x = torch.cat([x[:, :, :, :1], x, x[:, :, :, -1:]], dim=3)
        x = (x[:, :, :, 2:] + x[:, :, :, 1:-1] + x[:, :, :, :-2]) / 3
        if side == self.side:
            return x
        at = ((torch.arange(self.side) + 0.5) * side / self.side).long().clamp(max=side - 1)
        return x.index_select(2, at).index_select(3, at)


class RecognitionHead(nn.Module):
    """Blocks of features -> (cosines (image, identity) to those enrolled, embedding (image, k) of unit length)."""

    def __init__(self, head: Recogniser) -> None:
        super().__init__()
        embedding = head.embedding
        self.parts = embedding.parts
        self.whitened = embedding.whitening is not None
        if embedding.mean is not None and embedding.whitening is not None:
            self.mean, self.whitening = map(constant, (embedding.mean, embedding.whitening))
        self.prototypes = constant(head.gallery.prototypes.T)

    def forward(self, blocks: Blocks) -> tuple[torch.Tensor, ...]:
        x = torch.cat([prepared(part, blocks[part.block]) for part in self.parts], dim=1)
        if self.whitened:
            x = (x - self.mean) @ self.whitening
        x = x / (x * x).sum(dim=1, keepdim=True).sqrt().clamp(min=LEAST_LENGTH)
        return x @ self.prototypes, x


def prepared(part: Part, x: torch.Tensor) -> torch.Tensor:
    """`Part.of`, on (image, feature)."""
    if part.root:
        x = x.sign() * x.abs().sqrt()
    if part.unit:
        x = x / (x * x).sum(dim=1, keepdim=True).sqrt().clamp(min=LEAST_LENGTH)
    return x


def constant(values: npt.ArrayLike) -> torch.Tensor:
    """float32, as a number that a graph holds."""
    return nn.Parameter(torch.from_numpy(np.array(values, np.float32)), requires_grad=False)
