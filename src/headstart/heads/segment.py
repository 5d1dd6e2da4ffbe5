"""A head that answers each pixel: what all have in common, and which of two is better on images that taught neither."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from headstart.heads.maps import Layer
from headstart.heads.material import Blocks, Ints, rows_of
from headstart.heads.pointwise import AT_ONCE, Floats, Mask, MaskOf, enlarged
from headstart.judge.intervals import Gain
from headstart.judge.marks import Marks
from headstart.judge.segments import MIOU, segment_marks
from headstart.judge.summaries import paired, value


class SegmentHead(Protocol):
    """Reads `maps` of the store, from low to high, and gives logits on the finest of their grids."""

    @property
    def maps(self) -> tuple[Layer, ...]: ...
    @property
    def grid(self) -> tuple[int, int]: ...  # height, width of that grid
    @property
    def n_classes(self) -> int: ...

    def outputs(self, blocks: Blocks) -> Floats:
        """Logits (image, class, height, width)."""

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """What is kept in a file, by name."""

    def described(self) -> dict[str, Any]:
        """What else is kept, JSON-ready; `kind` says who reads it."""


def marks_of(head: SegmentHead, blocks: Blocks, mask_of: MaskOf, rows: Ints) -> Marks:
    """What is judged of these images, each in the pixels of its own mask. A few images' logits are in memory."""
    return segment_marks(_pairs(head, blocks, mask_of, rows), head.n_classes)


def _pairs(head: SegmentHead, blocks: Blocks, mask_of: MaskOf, rows: Ints) -> Iterator[tuple[Mask, Mask]]:
    mine = {layer.block: blocks[layer.block] for layer in head.maps}
    for start in range(0, len(rows), AT_ONCE):
        some = rows[start : start + AT_ONCE]
        for row, logits in zip(some, head.outputs(rows_of(mine, some)), strict=True):
            truth = mask_of(int(row))
            yield truth, enlarged(logits, truth.shape).argmax(axis=0).astype(np.uint8)


def better(plain: Marks, other: Marks, groups: Ints | None = None) -> tuple[bool, Gain]:
    """(whether `other` has the larger mean IoU on the same held-out images, other minus plain with its interval)."""
    one, two = value(MIOU, plain), value(MIOU, other)
    return (two or 0.0) > (one or 0.0), paired(MIOU, other, plain, groups)
