"""A saved model of masks or boxes as one torch module: uint8 RGB pixels of its frame in, what its places say out.

As in `graph.py`, normalisation, every map that the head reads, rounded as `predict` rounds it, and the head are inside.
What depends on the picture or has no fixed length is not: enlarging scores to the picture's pixels, and each thing
answered once (`forms.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from headstart.export.graph import as_stored
from headstart.finetune.box_head import BoxHead
from headstart.finetune.decoded import Decoded
from headstart.finetune.decoder import Linear
from headstart.heads.pointwise import Pointwise
from headstart.ship.placed import Placed
from headstart.tasks.placed import PlacedHead
from headstart.trunk.module import Trunk
from headstart.trunk.network import block_names


class PlacedGraph(nn.Module):
    """uint8 (image, height, width, 3) of the model's frame -> float32, of masks (image, class, row, column): logits; of
    boxes (image, place, 4 + class), see `Places`."""

    def __init__(self, model: Placed) -> None:
        super().__init__()
        self.trunk = Trunk(model.backbone)
        self.blocks = block_names(model.backbone)
        self.maps = tuple((layer.block, layer.shape) for layer in model.head.maps)
        self.head = head_of(model.head)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        blocks = dict(zip(self.blocks, self.trunk(pixels), strict=True))
        found: torch.Tensor = self.head([as_stored(blocks[name]).reshape(-1, *shape) for name, shape in self.maps])
        return found


class Closed(nn.Module):
    """The head in closed form: maps -> logits of the finest."""

    def __init__(self, head: Pointwise) -> None:
        super().__init__()
        self.grid = head.grid
        self.linear = Linear([layer.shape for layer in head.maps], head.n_classes)
        with torch.no_grad():
            self.linear.bias.copy_(torch.from_numpy(head.bias * head.scale))
            for layer, weight in zip(self.linear.maps, head.weights, strict=True):  # (2, channel, class)
                both = torch.from_numpy(weight * head.scale).permute(0, 2, 1).reshape(-1, weight.shape[1], 1, 1)
                layer.weight.copy_(both)  # type: ignore[operator, union-attr]

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        found: torch.Tensor = self.linear(maps, self.grid)
        return found


class Places(nn.Module):
    """The head that finds things: maps -> (image, place, 4 + class): edges x1, y1, x2, y2 in px of the frame, then the
    score of each class in 0..1."""

    def __init__(self, head: BoxHead) -> None:
        super().__init__()
        self.layers, self.frame = head.module, head.frame

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        logits, boxes = self.layers(maps, self.frame)
        return torch.cat([boxes, logits.sigmoid()], 2)


def head_of(head: PlacedHead) -> nn.Module:
    """Raises TypeError for a head of another kind."""
    if isinstance(head, BoxHead):
        return Places(head)
    if isinstance(head, Decoded):
        return head.module
    if not isinstance(head, Pointwise):
        raise TypeError(f"{type(head).__name__} is no head of masks or boxes")
    return Closed(head)


def placed_graph(model: Placed) -> nn.Module:
    """The model in evaluation mode, without gradients."""
    return PlacedGraph(model).eval().requires_grad_(False)
