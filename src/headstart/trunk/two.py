"""The torch module of two networks side by side: the same pixels through both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

LEAST = 1e-6  # of a mean that is divided by: a row of zeros stays zero


class Two(nn.Module):
    """Two of timm's networks under their own names, with the two calls that `module.Trunk` makes of one.

    x, images as the first wants them normalised, is `scale * x + shift` for the second, each (channel,). `pooled`: of
    each, whether its last layer is the mean of its last map (`Backbone.last_is_pooled`).
    """

    def __init__(
        self,
        names: Sequence[str],
        networks: Sequence[Any],
        pooled: Sequence[bool],
        scale: Sequence[float],
        shift: Sequence[float],
    ) -> None:
        super().__init__()
        for name, network in zip(names, networks, strict=True):
            self.add_module(name, network)
        self.names, self.pooled = tuple(names), tuple(pooled)
        self.alike = all(s == 1 for s in scale) and not any(shift)
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        self.register_buffer("scale", torch.tensor(list(scale), dtype=torch.float32))
        self.register_buffer("shift", torch.tensor(list(shift), dtype=torch.float32))

    def forward_features(self, x: torch.Tensor) -> tuple[Any, Any]:
        """The last map of each."""
        second = x if self.alike else x * self.scale.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1)
        first, other = (getattr(self, name) for name in self.names)
        return first.forward_features(x), other.forward_features(second)

    def forward_head(self, features: tuple[Any, Any], pre_logits: bool = False) -> torch.Tensor:
        """What the classifiers of both read, side by side (image, feature), each with a mean absolute value of 1.

        So neither drowns the other, whatever their scales: signed roots of the two, which are what a head reads first
        (`heads.taps.last`), have the same length, and the inner products of images are the sum of each network's own.
        """
        rows = []
        for name, pooled, one in zip(self.names, self.pooled, features, strict=True):
            network = getattr(self, name)
            if not pre_logits:
                network.forward_head(one)  # for who reads a layer of its top
            row = (one.float().mean((2, 3)) if pooled else network.forward_head(one, pre_logits=True)).float()
            rows.append(row / row.abs().mean(1, keepdim=True).clamp(min=LEAST))
        return torch.cat(rows, 1)
