"""The same graph for pictures of any height and width: the crop and both passes of the resize are inside.

Each pass is a product with a matrix of the filter's weights, which is made of the picture's size as it runs; between
the passes values are rounded to whole grey levels, as Pillow does. Pillow rounds the weights too, to 22 bits, so some
values are a level apart. The main graph takes pictures of the model's size and has no such difference; how much this
one has is said with every export (`agreement.ANY_SIZE_BOUND`).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from headstart.data.images import Preprocess
from headstart.data.resize import GRID
from headstart.errors import OptionError
from headstart.export.graph import graph_of
from headstart.ship.package import Loaded

CUBIC = -0.5  # Pillow's coefficient of the bicubic filter
LOBES = 3.0  # of Lanczos's filter


class AnySize(nn.Module):
    """uint8 (image, height, width, 3), upright RGB of one size -> float32 (image, output)."""

    def __init__(self, graph: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.sized, self.preprocess = graph, preprocess  # `graph` is a word of torch's own

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        down, across = (torch.arange(pixels.shape[axis], dtype=torch.float32) for axis in (1, 2))
        height, width = down[-1] + 1, across[-1] + 1
        boxes, borders = box_of(height, width, self.preprocess), borders_of(height, width, self.preprocess)
        rows, columns = (
            weights(places, low, high, size, self.preprocess.interpolation, border)
            for places, (low, high), size, border in zip(
                (down, across), boxes, self.preprocess.size, borders, strict=True
            )
        )
        x = pixels.permute(0, 3, 1, 2).float()
        x = whole(x @ columns.T)
        x = whole(rows @ x)
        if self.preprocess.resize == "pad":
            fill = torch.tensor(self.preprocess.fill, dtype=torch.float32)[:, None, None]
            shown = rows.sum(dim=1)[:, None] * columns.sum(dim=1)[None]  # 1 inside, 0 on the borders
            x = torch.where(shown > 0.5, x, fill)
        found: torch.Tensor = self.sized(x.permute(0, 2, 3, 1))
        return found


def any_size_graph(model: Loaded) -> nn.Module:
    """The model in evaluation mode, without gradients, of a task in OUTPUTS. Raises OptionError for a network that
    wants the nearest pixels: which one that is hangs on the last digit where a place lies between two."""
    if model.backbone.preprocess.interpolation not in FILTERS:
        raise OptionError(f"--any-size is not of {model.backbone.name}, which wants the nearest pixels: leave it out")
    return AnySize(graph_of(model), model.backbone.preprocess).eval().requires_grad_(False)


Range = tuple[torch.Tensor, torch.Tensor]


def box_of(height: torch.Tensor, width: torch.Tensor, preprocess: Preprocess) -> tuple[Range, Range]:
    """((top, bottom), (left, right)) of the part that is kept, in px: `images.crop_box` on tensors."""
    zero = torch.zeros(())
    if preprocess.resize != "shortest":
        return (zero, height), (zero, width)
    asked = [round(side / preprocess.crop_fraction) for side in preprocess.size]
    scale = torch.maximum(asked[0] / height, asked[1] / width)
    found = []
    for length, side in zip((height, width), preprocess.size, strict=True):
        kept = torch.minimum(length, side / scale)
        low = (length - kept) / 2
        found.append((on_grid(low), on_grid(torch.minimum(length, low + kept))))
    return found[0], found[1]


def borders_of(height: torch.Tensor, width: torch.Tensor, preprocess: Preprocess) -> list[torch.Tensor]:
    """(top, left): px of the input on either side of the picture, `images.place_in_frame` on tensors."""
    down, across = preprocess.size
    if preprocess.resize != "pad":
        return [torch.zeros(())] * 2
    scale = torch.minimum(down / height, across / width)
    return [
        torch.round((side - scale * length) / 2).clamp(0, (side - 1) // 2)
        for side, length in ((down, height), (across, width))
    ]


def on_grid(edge: torch.Tensor) -> torch.Tensor:
    return torch.round(edge * GRID) / GRID


def weights(
    places: torch.Tensor,
    low: torch.Tensor,
    high: torch.Tensor,
    size: int,
    interpolation: str,
    border: torch.Tensor | None = None,
) -> torch.Tensor:
    """(size, place): how much each place of a line of px counts in each px of the result; a row sums to 1, and to 0 on
    the borders, so many px at either end."""
    around = torch.zeros(()) if border is None else border
    at = torch.arange(size, dtype=torch.float32)
    ratio = (high - low) / (size - 2 * around)
    middle = low + (at - around + 0.5) * ratio
    found = FILTERS[interpolation]((places[None] + 0.5 - middle[:, None]) / ratio.clamp(min=1.0))
    inside = ((at >= around) & (at < size - around))[:, None]
    return torch.where(inside, found / found.sum(dim=1, keepdim=True), torch.zeros(()))


def bilinear(x: torch.Tensor) -> torch.Tensor:
    return (1 - x.abs()).clamp(min=0)


def bicubic(x: torch.Tensor) -> torch.Tensor:
    """Keys 1981, with Pillow's coefficient."""
    x = x.abs()
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = CUBIC * (((x - 5) * x + 8) * x - 4)
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def lanczos(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.abs() < LOBES, sinc(x) * sinc(x / LOBES), torch.zeros_like(x))


def sinc(x: torch.Tensor) -> torch.Tensor:
    x = x * math.pi
    safe = torch.where(x == 0, torch.ones_like(x), x)
    return torch.where(x == 0, torch.ones_like(x), torch.sin(safe) / safe)


def whole(x: torch.Tensor) -> torch.Tensor:
    """Grey levels, as Pillow rounds them."""
    return torch.floor(x + 0.5).clamp(0, 255)


FILTERS = {"bilinear": bilinear, "bicubic": bicubic, "lanczos": lanczos}
