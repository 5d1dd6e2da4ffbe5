"""Polygons and runs of pixels as masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ImageError


def filled(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels (height, width) whose centres lie in a polygon (corner, 2) x, y in px, by the even-odd rule.

    Coordinates are edges: the polygon 0,0 2,0 2,2 0,2 is four pixels. What lies outside the picture is cut off. A
    centre on an edge belongs to the right or the lower side, so that polygons that share an edge share no pixel.
    """
    height, width = size
    inside = np.zeros(size, bool)
    ahead = np.roll(points, -1, axis=0)
    for (x0, y0), (x1, y1) in zip(points.tolist(), ahead.tolist(), strict=True):
        if y0 > y1:
            x0, y0, x1, y1 = x1, y1, x0, y0
        rows = np.arange(max(0, int(np.ceil(y0 - 0.5))), max(0, min(height, int(np.ceil(y1 - 0.5)))))
        if len(rows) and y1 > y0:
            crossed = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            first = np.ceil(crossed - 0.5).clip(0, width).astype(np.int64)
            kept = first < width
            inside[rows[kept], first[kept]] ^= True
    return np.bitwise_xor.accumulate(inside, axis=1)


def unrolled(counts: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """COCO's runs of pixels outside and inside by turns, column by column, as (height, width). Raises ImageError."""
    runs = np.asarray(counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ImageError(f"runs of {int(runs.sum()):,} px do not fill a picture of {size[1]} x {size[0]} px")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return inside.reshape(size[1], size[0]).T
