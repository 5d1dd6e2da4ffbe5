"""The decoder: maps of several stages -> logits of each place, on the grid of the finest map.

A feature pyramid (Lin et al. 2017) of depthwise and pointwise convolutions: the maps of one size side by side, brought
to one width; the coarsest gets a 5 x 5 look around and the picture's mean (Zhao et al. 2017); from there to the finest
each level is the enlarged one above plus its own, looked around in. The finest is half as wide: most of the work is
there. To its logits those of a linear head on the maps are added: with the weights of the closed form
(`heads/pointwise.py`) it starts as good as that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812, its usual name

from headstart.heads.pointwise import AROUND, Pointwise
from headstart.trunk.cut import Cuts

Shape = tuple[int, int, int]  # channel, height, width

WIDTH = 64  # channels of the pyramid: 104,000 weights beside those of the closed form
REACH = 5  # cells: the side of depthwise filters; each level then sees 5, the next finer one 10 of its own
DROPOUT = 0.1  # of whole channels before the logits (Tompson et al. 2015)


class Look(nn.Module):
    """A residual block: a depthwise look around, then a mix of channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(width, width, REACH, padding=REACH // 2, groups=width, bias=False)
        self.first = nn.BatchNorm2d(width)
        self.mix = nn.Conv2d(width, width, 1, bias=False)
        self.second = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.mix(F.relu(self.first(self.around(x))))
        return F.relu(x + self.second(y))


class Linear(nn.Module):
    """The closed form as layers, on maps at mean 0 and variance 1: what it says of each map's cells, enlarged."""

    def __init__(self, shapes: Sequence[Shape], n_classes: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(shape[0], 2 * n_classes, 1, bias=False) for shape in shapes)
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, maps: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        sums = dict[tuple[int, ...], torch.Tensor]()
        for layer, x in zip(self.maps, maps, strict=True):
            here, found = tuple(x.shape[2:]), layer(x)
            sums[here] = sums[here] + found if here in sums else found
        total = self.bias[:, None, None]
        for found in sums.values():
            own, around = found.chunk(2, dim=1)
            around = F.avg_pool2d(F.pad(around, (AROUND // 2,) * 4, mode="replicate"), AROUND, 1)
            total = total + enlarged(own + around, size)
        return total


class Decoder(nn.Module):
    """maps, each (image, channel, height, width) of `shapes` -> logits (image, class, height, width) of the finest.

    `centre.K`, `spread.K` (channel,): what map K has over the training images.
    """

    def __init__(self, shapes: Sequence[Shape], n_classes: int, width: int = WIDTH) -> None:
        super().__init__()
        self.shapes = tuple(shapes)
        self.levels = levels_of(self.shapes)
        for k, shape in enumerate(self.shapes):
            self.register_buffer(f"centre_{k}", torch.zeros(shape[0]))
            self.register_buffer(f"spread_{k}", torch.ones(shape[0]))
        self.linear = Linear(self.shapes, n_classes)
        fine = -(-width // 2)
        widths = [fine, *[width] * (len(self.levels) - 1)]
        channels = [sum(self.shapes[k][0] for k in level) for level in self.levels]
        self.lateral = nn.ModuleList(nn.Conv2d(*pair, 1) for pair in zip(channels, widths, strict=True))
        self.whole = nn.Linear(channels[-1], widths[-1])
        self.narrow = nn.Conv2d(width, fine, 1) if len(widths) > 1 else nn.Identity()
        self.looks = nn.ModuleList(Look(here) for here in widths)
        self.out = nn.Conv2d(fine, n_classes, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    @property
    def grid(self) -> tuple[int, int]:
        return self.shapes[self.levels[0][0]][1:]

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        maps = [
            (x - getattr(self, f"centre_{k}")[:, None, None]) / getattr(self, f"spread_{k}")[:, None, None]
            for k, x in enumerate(maps)
        ]
        sides = [
            torch.cat([maps[k] for k in level], dim=1) if len(level) > 1 else maps[level[0]] for level in self.levels
        ]
        y = self.whole(sides[-1].mean((2, 3)))[:, :, None, None]
        for k in reversed(range(len(sides))):
            own = self.lateral[k](sides[k])
            above = self.narrow(y) if k == 0 else y
            y = self.looks[k](F.relu(own + (above if above.shape[2:] == (1, 1) else enlarged(above, own.shape[2:]))))
        y = F.dropout2d(y, DROPOUT, self.training)
        return self.out(y) + self.linear(maps, y.shape[2:])  # type: ignore[no-any-return]

    def start(self, head: Pointwise) -> None:
        """Its linear part says what this closed form says. Scaling and centring are made good for."""
        bias = torch.from_numpy(head.bias.copy())
        with torch.no_grad():
            for k, weight in enumerate(head.weights):  # (2, channel, class)
                both = torch.from_numpy(weight.copy())
                centre, spread = getattr(self, f"centre_{k}"), getattr(self, f"spread_{k}")
                bias += (centre @ both).sum(dim=0)
                scaled = (both * spread[:, None] * head.scale).permute(0, 2, 1).reshape(-1, both.shape[1], 1, 1)
                self.linear.maps[k].weight.copy_(scaled)  # type: ignore[operator, union-attr]
            self.linear.bias.copy_(bias * head.scale)

    def groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """(what starts at random, what starts from the closed form)."""
        linear = [*self.linear.parameters()]
        known = {id(p) for p in linear}
        return [p for p in self.parameters() if id(p) not in known], linear


class Above(nn.Module):
    """A part of the trunk with the decoder on it -> logits: of maps as they are stored, the last of them that of the
    cut, and of those that `parts`, one after the other, make of it."""

    def __init__(self, parts: Sequence[nn.Module], decoder: Decoder, given: bool = True) -> None:
        """given: whether what the parts start from is one of the decoder's maps."""
        super().__init__()
        self.parts, self.decoder, self.given = nn.ModuleList(parts), decoder, given

    def forward(self, below: Sequence[torch.Tensor]) -> torch.Tensor:
        maps, x = list(below) if self.given else list(below[:-1]), below[-1]
        for part in self.parts:
            x = part(x)
            maps.append(x)
        return self.decoder(maps)  # type: ignore[no-any-return]


def parts_between(cuts: Cuts, cut: str, modules: Sequence[str]) -> list[nn.Module]:
    """What makes the output of each of these modules, from low to high, from that of the one before; the first from the
    activation at `cut`. Raises OptionError where one of them is no cut point."""
    return [cuts.between(low, high) for low, high in pairwise([cut, *modules])]


def levels_of(shapes: Sequence[Shape]) -> tuple[tuple[int, ...], ...]:
    """Places in `shapes` by the size of their maps, the finest first."""
    sizes = sorted({shape[1:] for shape in shapes}, key=lambda size: -size[0] * size[1])
    return tuple(tuple(k for k, shape in enumerate(shapes) if shape[1:] == size) for size in sizes)


def enlarged(x: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """(image, channel, height, width) at another size, as `heads.pointwise.enlarged` does it."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
