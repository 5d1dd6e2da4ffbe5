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

import numpy as np
import numpy.typing as npt

from headstart.errors import OptionError

LAST = "pre_logits"  # the block that the network's own classifier reads (trunk.backbone.LAST)
TAPS = ("auto", "last", "all")
CHUNK = 4096  # rows prepared at a time
# Images above which prepared features are kept in float16, as the features themselves are: 50,000 of the default
# backbone are 285 MB instead of 570. The rounding (5e-4 of a value) is that of the stored features once more.
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
        """All parts side by side, (image, feature); float16 for more than MANY images."""
        widths = [blocks[part.block].shape[1] for part in self.parts]
        n = len(blocks[self.parts[0].block])
        out = np.empty((n, sum(widths)), np.float32 if n <= MANY else np.float16)
        for start in range(0, n, CHUNK):  # a chunk at a time: no second copy, however many images
            here = slice(start, start + CHUNK)
            for part, end, width in zip(self.parts, np.cumsum(widths), widths, strict=True):
                out[here, end - width : end] = part.of(blocks[part.block][here])
        return out


def tap_sets(taps: str, blocks: tuple[str, ...]) -> tuple[TapSet, ...]:
    """The sets that a choice of `--taps` allows: `auto` tries `last` and `all`. Raises OptionError."""
    if taps not in TAPS:
        raise OptionError(f"taps {taps!r} is not known: one of {', '.join(TAPS)}")
    if taps == "last":
        return (plain(),)
    every = TapSet("all", tuple(Part(block, root=False, unit=True) for block in blocks))
    return (every,) if taps == "all" else (last(), every)


def value_sets(taps: str, blocks: tuple[str, ...]) -> tuple[TapSet, ...]:
    """As `tap_sets`, for measured values: `auto` tries the lower stages too, which count and measure better than they
    name. With them the left-out R2 of red cells in a smear rises from .35 to .38, of platelets from .22 to .31, of how
    far a tile was enlarged from .974 to .978 (EfficientNet-Lite0, whole pictures of 224 px)."""
    found, below = tap_sets(taps, blocks), lower(blocks)
    return (*found, below) if taps == "auto" and below.parts else found


def lower(blocks: tuple[str, ...]) -> TapSet:
    """Mean and standard deviation of the lower half of the stages, each block at unit length."""
    stages = list(dict.fromkeys(stage for block in blocks if (stage := block.rpartition("/")[0])))
    kept = stages[: (len(stages) + 1) // 2]
    return TapSet("lower", tuple(Part(block, False, True) for block in blocks if block.rpartition("/")[0] in kept))


def last() -> TapSet:
    """The pre-logits, rooted and of unit length."""
    return TapSet("last", (Part(LAST, root=True, unit=True),))


def one_layer(name: str, block: str) -> TapSet:
    """The pooled features of one layer that the user chose."""
    return TapSet(name, (Part(block, root=False, unit=True),))


def plain() -> TapSet:
    """The pre-logits as they are."""
    return TapSet("plain", (Part(LAST, root=False, unit=False),))
