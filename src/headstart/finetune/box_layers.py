"""The layers that find things on maps of a network: a pyramid of features, and at each place scores and a box.

One stage and no anchors (FCOS; Tian et al. 2019): a place says of each class how likely a thing of it lies there, and
how far its left, upper, right and lower edge are away. Maps are brought to one width and summed from coarse to fine
(Lin et al. 2017); the layers after that are the same at every stride. Convolutions are depthwise, then pointwise: a
dense 3 x 3 costs 2 to 3 times as much on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812, its usual name

WIDTH = 64  # channels of the pyramid
RARE = 0.01  # score of every class before the first step (Lin et al. 2017, Focal loss, section 3.3)
REACH = 2.0  # strides from a place to each edge before the first step: boxes of 32, 64 and 128 px
FARTHEST = 5.0  # of the logarithm of a distance in REACH strides: 4,700 px at stride 16; beyond it the exponent is cut


class Block(nn.Module):
    """Depthwise `side` x `side`, then pointwise, normalised over the batch."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, width, side, padding=side // 2, groups=width, bias=False)
        self.across = nn.Conv2d(width, width, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.across(self.around(x))))


class BoxLayers(nn.Module):
    """Maps (image, channel, h, w), fine to coarse, of `channels` each, from pictures of a frame (height, width) ->
    (logits (image, place, class), boxes (image, place, 4) in px of the frame); places of the finest map come first."""

    def __init__(self, channels: Sequence[int], n_classes: int, width: int = WIDTH) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Conv2d(c, width, 1, bias=False) for c in channels)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in channels)
        self.smooth = nn.ModuleList(Block(width, 3) for _ in channels)
        self.shared = nn.Sequential(Block(width, 5), Block(width, 5))
        self.what, self.where = Block(width, 5), Block(width, 5)
        self.scores = nn.Conv2d(width, n_classes, 1)
        self.edges = nn.Conv2d(width, 4, 1)
        self.reach = nn.Parameter(torch.zeros(len(channels)))  # of the logarithm of distances, for each stride
        nn.init.normal_(self.scores.weight, std=0.01)
        nn.init.constant_(self.scores.bias, -math.log((1 - RARE) / RARE))  # type: ignore[arg-type]
        nn.init.normal_(self.edges.weight, std=0.01)
        nn.init.zeros_(self.edges.bias)  # type: ignore[arg-type]

    def forward(self, maps: Sequence[torch.Tensor], frame: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        logits, boxes = [], []
        for level, x in enumerate(self._pyramid(maps)):
            x = self.shared(x)
            logits.append(_by_place(self.scores(self.what(x))))
            far = (self.edges(self.where(x)) + self.reach[level]).float().clamp(max=FARTHEST).exp()
            middle, stride = places(x.shape[2:], frame, x.device)
            boxes.append(around(middle, _by_place(far) * REACH * stride.repeat(2)))
        return torch.cat(logits, 1).float(), torch.cat(boxes, 1)

    def _pyramid(self, maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Fine to coarse, each with what the coarser ones know."""
        found: list[torch.Tensor] = []
        for level in reversed(range(len(maps))):
            x = self.norms[level](self.enter[level](maps[level]))
            if found:
                x = x + F.interpolate(found[0], x.shape[2:], mode="nearest")
            found.insert(0, x)
        return [smooth(F.relu(x)) for smooth, x in zip(self.smooth, found, strict=True)]


def _by_place(x: torch.Tensor) -> torch.Tensor:
    """(image, channel, h, w) -> (image, place, channel)."""
    return x.flatten(2).transpose(1, 2)


def places(
    grid: Sequence[int], frame: tuple[int, int], device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """((place, 2) x, y of the middle of each cell of a grid (h, w) over the frame (height, width), (2,) the sides x, y
    of a cell), in px of the frame; rows from top to bottom."""
    (h, w), (height, width) = grid, frame
    ys = (torch.arange(h, dtype=torch.float32, device=device) + 0.5) * (height / h)
    xs = (torch.arange(w, dtype=torch.float32, device=device) + 0.5) * (width / w)
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1), torch.tensor([width / w, height / h], device=device)


def around(middle: torch.Tensor, far: torch.Tensor) -> torch.Tensor:
    """Boxes (..., place, 4) with their edges so `far` (..., place, 4) to the left, above, right and below of the places
    (place, 2)."""
    return torch.cat([middle - far[..., :2], middle + far[..., 2:]], -1)


def far_of(middle: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """How far the edges of boxes (..., place, 4) are from places (place, 2): the inverse of `around`."""
    return torch.cat([middle - boxes[..., :2], boxes[..., 2:] - middle], -1)
