"""Which layers' features a head reads, and how they are prepared.

Preparation works on each image alone: it needs no statistics of a training set, so that leave-one-out and
cross-validation stay exact whatever is left out.

`last`  the network's own pre-logits, signed square root then unit length. The square root evens out the few large
        values of pooled ReLU features (the power transform of few-shot work, methods.md 1.2); measured here it lowers
        the leave-one-out log-loss on five of six sets.
`all`   mean and standard deviation of every stage and the pre-logits, each block at unit length so that every stage
        has equal energy (Head2Toe's `unit_vector`; Evci et al. 2022).
`plain` the pre-logits as they are: what a linear top inside the network itself can read, for `--taps last`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from headstart.errors import OptionError
from headstart.heads.sums import Each, Rows, each_of, stretch
from headstart.trunk.layers import OF

LAST = "pre_logits"  # the block that the network's own classifier reads (trunk.backbone.LAST)
TAPS = ("auto", "last", "all", "late")
CHUNK = 4096  # rows prepared at a time
# Images above which features are prepared whenever they are read and not kept: 50,000 of the default backbone would be
# 570 MB beside the features themselves, and preparing them again takes about an eighth of the product that they are for
# (5 ns a value, most of it from float16 to float32).
MANY = 20_000


@dataclass(frozen=True)
class Part:
    """One block of features and its preparation."""

    block: str
    root: bool  # signed square root
    unit: bool  # divide by the row's length

    def of(self, values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """(image, feature) -> (image, feature). A row of zeros stays zero."""
        x: npt.NDArray[np.float32] = values.astype(np.float32)
        if self.root:
            x = np.copysign(np.sqrt(np.abs(x)), x)
        if self.unit:
            length = np.sqrt((x * x).sum(axis=1, keepdims=True))
            x /= np.where(length > 0, length, np.float32(1))
        return x


@dataclass(frozen=True)
class TapSet:
    name: str
    parts: tuple[Part, ...]

    def of(self, blocks: Mapping[str, npt.NDArray[np.floating]]) -> npt.NDArray[np.floating]:
        """All parts side by side, (image, feature). For more than MANY images what makes rows as they are asked for
        (`Prepared`): then blocks may be mapped files, or anything of which a part is read at a time (`sums.Rows`)."""
        widths = [blocks[part.block].shape[1] for part in self.parts]
        n = len(blocks[self.parts[0].block])
        prepared = Prepared(tuple((part, blocks[part.block]) for part in self.parts), n, sum(widths))
        if n > max(MANY, sum(widths)):
            return cast(npt.NDArray[np.floating], prepared)
        out = np.empty((n, sum(widths)), np.float32)
        for start in range(0, n, CHUNK):  # a chunk at a time: no second copy, however many images
            prepared.write(slice(start, start + CHUNK), out[start : start + CHUNK])
        return out


@dataclass(frozen=True, eq=False)
class Prepared:
    """Features (image, feature) that are prepared when they are read: `features[rows]` is float32 (row, feature)."""

    parts: tuple[tuple[Part, Rows], ...]
    n_images: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.n_images, self.width

    @property
    def each(self) -> Each:
        """As those of its blocks."""
        return each_of(self.parts[0][1])

    def __len__(self) -> int:
        return self.n_images

    def __getitem__(self, index: Any) -> npt.NDArray[np.float32]:
        rows = range(self.n_images)[index] if isinstance(index, slice) else index
        out = np.empty((len(rows), self.width), np.float32)
        self.write(index, out)
        return out

    def write(self, index: Any, out: npt.NDArray[np.float32]) -> None:
        """These rows into `out` (row, feature)."""
        start = 0
        for part, block in self.parts:
            end = start + block.shape[1]
            out[:, start:end] = part.of(block[index])
            start = end


@dataclass(frozen=True, eq=False)
class Taken:
    """These rows of features (image, feature), read when they are asked for: no copy of them all."""

    of: Rows
    rows: npt.NDArray[np.intp]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), self.of.shape[1]

    @property
    def each(self) -> Each:
        """As those of which these are rows."""
        return each_of(self.of)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        rows = self.rows[index]
        return self.of[rows if np.ndim(rows) == 0 else stretch(rows)]


def tap_sets(taps: str, blocks: tuple[str, ...]) -> tuple[TapSet, ...]:
    """The sets that a choice of `--taps` allows: `auto` tries `last` and `all`; `late` the last layer and the upper
    half of the stages: some .3 points less on pictures of the same kind, 0 to 3 more on others (docs/measurements.md,
    late-taps). Raises OptionError."""
    if taps not in TAPS:
        raise OptionError(f"taps {taps!r} is not known: one of {', '.join(TAPS)}")
    if taps == "last":
        return (plain(),)
    if taps == "late":
        return (last(), late(blocks))
    every = TapSet("all", tuple(Part(block, root=False, unit=True) for block in blocks))
    return (every,) if taps == "all" else (last(), every)


def with_late(sets: tuple[TapSet, ...], blocks: tuple[str, ...]) -> tuple[TapSet, ...]:
    """`late` beside `last` and `all`, for images of several places: all stages then count where they are better on
    places left out (docs/measurements.md, places). Other sets, and those of one layer, stay."""
    more = late(blocks)
    return (*sets, more) if [one.name for one in sets] == ["last", "all"] and len(more.parts) > 1 else sets


def value_sets(taps: str, blocks: tuple[str, ...]) -> tuple[TapSet, ...]:
    """As `tap_sets`, for measured values: `auto` tries the lower stages too, which count and measure better than they
    name. With them the left-out R2 of red cells in a smear rises from .35 to .38, of platelets from .22 to .31, of how
    far a tile was enlarged from .974 to .978 (EfficientNet-Lite0, whole pictures of 224 px)."""
    found, below = tap_sets(taps, blocks), lower(blocks)
    return (*found, below) if taps == "auto" and below.parts else found


def lower(blocks: tuple[str, ...]) -> TapSet:
    """Mean and standard deviation of the lower half of the stages, of each of two networks, each block at unit
    length."""
    of_each: dict[str, dict[str, None]] = {}
    for block in blocks:
        if stage := block.rpartition("/")[0]:
            of_each.setdefault(stage.rpartition(OF)[0], {})[stage] = None
    kept = {stage for stages in of_each.values() for stage in list(stages)[: (len(stages) + 1) // 2]}
    return TapSet("lower", tuple(Part(block, False, True) for block in blocks if block.rpartition("/")[0] in kept))


def late(blocks: tuple[str, ...]) -> TapSet:
    """The pre-logits, and mean and standard deviation of the stages that `lower` leaves."""
    below = lower(blocks).parts
    every = (Part(block, root=False, unit=True) for block in blocks)
    return TapSet("late", tuple(part for part in every if part not in below))


def last() -> TapSet:
    """The pre-logits, rooted and of unit length."""
    return TapSet("last", (Part(LAST, root=True, unit=True),))


def one_layer(name: str, block: str) -> TapSet:
    """The pooled features of one layer that the user chose."""
    return TapSet(name, (Part(block, root=False, unit=True),))


def plain() -> TapSet:
    """The pre-logits as they are."""
    return TapSet("plain", (Part(LAST, root=False, unit=False),))
