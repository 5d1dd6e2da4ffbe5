"""Polygons and runs of pixels as masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ImageError

CROSSINGS = 1 << 20  # of edges and rows at a time, some 80 bytes each


def filled(points: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels (height, width) whose centres lie in a polygon (corner, 2) x, y in px, by the even-odd rule.

    Coordinates are edges: the polygon 0,0 2,0 2,2 0,2 is four pixels. What lies outside the picture is cut off. A
    centre on an edge belongs to the right or the lower side, so that polygons that share an edge share no pixel.
    """
    height = size[0]
    inside = np.zeros(size, bool)
    low, high = points, np.roll(points, -1, axis=0)
    swap = (low[:, 1] > high[:, 1])[:, None]
    low, high = np.where(swap, high, low), np.where(swap, low, high)
    first, last = (np.clip(np.ceil(end[:, 1] - 0.5), 0, height).astype(np.int64) for end in (low, high))
    chunk = np.cumsum(last - first) // CROSSINGS
    for number in np.unique(chunk):
        part = chunk == number
        _cross(inside, low[part], high[part], first[part], last[part])
    return np.bitwise_xor.accumulate(inside, axis=1)


def _cross(
    inside: NDArray[np.bool_],
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
) -> None:
    """Marks, for each edge and each row that it crosses, the first pixel whose centre lies right of it."""
    n, width = last - first, inside.shape[1]
    edge = np.repeat(np.arange(len(n)), n)
    row = first[edge] + np.arange(len(edge)) - (np.cumsum(n) - n)[edge]
    (x, y), (across, down) = low[edge].T, (high - low)[edge].T
    column = np.clip(np.ceil(x + (row + 0.5 - y) * across / down - 0.5), 0, width).astype(np.int64)
    kept = column < width
    np.bitwise_xor.at(inside, (row[kept], column[kept]), True)


def unrolled(counts: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """COCO's runs of pixels outside and inside by turns, column by column, as (height, width). Raises ImageError."""
    runs = np.asarray(counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ImageError(f"runs of {int(runs.sum()):,} px do not fill a picture of {size[1]} x {size[0]} px")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return inside.reshape(size[1], size[0]).T
