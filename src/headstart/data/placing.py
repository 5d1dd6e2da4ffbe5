"""Where a place of the picture lies in the network's frame, and back: the only code that converts between the two.

The picture is upright: as it is displayed, EXIF orientation applied. The frame is the whole picture squashed to a
network's input size, so that the two differ by one factor an axis and by nothing else. A grid is the frame in cells: a
map of a network at its stride, whose cells share the frame without rest.

Sizes are (height, width) in px, as an array's shape and as `preprocess.size`; points are x, y. Places are edges, not
centres: the pixel in column x covers x to x + 1, its centre is x + 0.5, and a box of one pixel at the origin is
0, 0, 1, 1. So a place is converted by its factor alone, without halves to add, and a flip is x -> width - x.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
Doubles = NDArray[np.float64]
Kind = TypeVar("Kind", bound=np.generic)

VOID = 255  # the class number of pixels of which nothing is known: they neither teach nor judge
STRIP = (
    2 << 20
)  # bytes of values at a time in the picture's px: of 256 KiB to 16 MiB the fastest on 480 x 360 and 1920 x 1080
SEGMENTS = 1 << 18  # pieces of pixels that are counted at a time, some 30 bytes each: the fastest of 2^14 to 2^22


def frame_for(sizes: NDArray[Any], stride: int, pixels: int) -> Size:
    """The frame for pictures of these upright sizes (image, 2): height, width.

    Multiples of `stride` nearest to the median picture in size and shape, of at most `pixels` px (one cell where that
    is less), and never larger than that picture but for rounding: enlarging adds no detail. Inputs of 32k + 1 px are
    worse than multiples of the stride: a mirrored picture's maps differ more from the mirrored maps. Raises ValueError
    where there are no sizes.
    """
    if len(sizes) == 0:
        raise ValueError("a frame is chosen from the sizes of pictures, and there are none")
    given = np.asarray(sizes, np.float64)
    shape = float(np.exp(np.median(np.log(given[:, 0] / given[:, 1]))))  # height for a width of 1
    area = min(float(np.median(given[:, 0] * given[:, 1])), float(pixels))
    height, width = np.sqrt(area * shape), np.sqrt(area / shape)

    def near(length: float) -> list[int]:
        below = int(length // stride)
        return sorted({max(1, below), below + 1})

    choices = [(h * stride, w * stride) for h, w in product(near(float(height)), near(float(width)))]
    fitting = [size for size in choices if size[0] * size[1] <= pixels] or [min(choices, key=lambda s: s[0] * s[1])]
    return min(fitting, key=lambda s: abs(np.log(s[0] / height)) + abs(np.log(s[1] / width)))


def to_frame(places: NDArray[Any], picture: Size, frame: Size) -> Doubles:
    """Points (..., 2) x, y or boxes (..., 4) x1, y1, x2, y2 of the picture, in px of the frame."""
    return np.asarray(places, np.float64) * _factors(picture, frame, places.shape[-1])


def to_picture(places: NDArray[Any], picture: Size, frame: Size) -> Doubles:
    """Points or boxes of the frame, in px of the picture; nothing is cut off at its edges."""
    return np.asarray(places, np.float64) * _factors(frame, picture, places.shape[-1])


def _factors(before: Size, after: Size, n: int) -> Doubles:
    return np.array([after[1] / before[1], after[0] / before[0]] * (n // 2))


def flipped(boxes: NDArray[Any], width: float) -> Doubles:
    """Boxes (..., 4) in the picture, or frame, of that width in px, mirrored left to right."""
    found = np.array(boxes, np.float64)
    found[..., [0, 2]] = width - found[..., [2, 0]]
    return found


def upright(array: NDArray[Kind], orientation: int) -> NDArray[Kind]:
    """Pixels (height, width, ...) as they are stored, as they are displayed. orientation: EXIF's, 1 to 8."""
    turned = np.swapaxes(array, 0, 1) if orientation >= 5 else array
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return turned


def upright_size(stored: Size, orientation: int) -> Size:
    return (stored[1], stored[0]) if orientation >= 5 else stored


def upright_points(points: NDArray[Any], stored: Size, orientation: int) -> Doubles:
    """Points (..., 2) of the picture as it is stored, in the picture as it is displayed."""
    x, y = np.moveaxis(np.asarray(points, np.float64), -1, 0)
    height, width = upright_size(stored, orientation)
    if orientation >= 5:
        x, y = y, x
    if orientation in (2, 3, 6, 7):
        x = width - x
    if orientation in (3, 4, 7, 8):
        y = height - y
    return np.stack([x, y], axis=-1)


def upright_boxes(boxes: NDArray[Any], stored: Size, orientation: int) -> Doubles:
    """Boxes (..., 4) of the picture as it is stored, in the picture as it is displayed."""
    corners = upright_points(np.asarray(boxes).reshape(*boxes.shape[:-1], 2, 2), stored, orientation)
    return np.concatenate([corners.min(axis=-2), corners.max(axis=-2)], axis=-1)


# Masks at a grid


def mask_at(mask: NDArray[np.uint8], grid: Size) -> NDArray[np.uint8]:
    """The class numbers of a mask (height, width) in each cell of a grid: uint8 (row, column).

    VOID where more than half of a cell is; elsewhere the class that covers most of it, of equal ones the lower number.
    Areas are exact: a pixel that lies in several cells counts in each by its part. So a flip of the mask is a flip of
    the grid. Memory does not grow with the mask.
    """
    height = mask.shape[0]
    x, columns, across = _segments(mask.shape[1], grid[1])
    y, rows, down = _segments(height, grid[0])
    found = np.zeros(VOID + 1, np.int64)
    for top in range(0, height, max(1, SEGMENTS // mask.shape[1])):
        found += np.bincount(mask[top : top + max(1, SEGMENTS // mask.shape[1])].ravel(), minlength=VOID + 1)
    kinds = np.flatnonzero(found)
    number = np.zeros(VOID + 1, np.int64)
    number[kinds] = np.arange(len(kinds))
    found = np.empty(grid, np.uint8)
    step = max(1, SEGMENTS * grid[0] // (len(y) * len(x)))
    for top in range(0, grid[0], step):
        part = slice(*np.searchsorted(rows, [top, top + step]))
        n_rows = min(step, grid[0] - top)
        cell = (rows[part, None] - top) * grid[1] + columns
        keys = cell * len(kinds) + number[mask[y[part, None], x]]
        areas = np.bincount(keys.ravel(), (down[part, None] * across).ravel(), n_rows * grid[1] * len(kinds))
        found[top : top + n_rows] = _majority(areas.reshape(n_rows, grid[1], len(kinds)), kinds)
    return found


def _segments(pixels: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """An axis cut at the edges of its pixels and of its cells: (pixel, cell, length) of each piece, in units of which a
    pixel has `cells` and a cell `pixels`: whole numbers."""
    edges = np.union1d(np.arange(pixels + 1, dtype=np.int64) * cells, np.arange(cells + 1, dtype=np.int64) * pixels)
    return edges[:-1] // cells, edges[:-1] // pixels, np.diff(edges)


def _majority(areas: NDArray[Any], kinds: NDArray[np.int64]) -> NDArray[np.uint8]:
    """areas (row, column, kind), kinds ascending, so that VOID is the last."""
    if kinds[-1] != VOID:
        return np.asarray(kinds[areas.argmax(axis=-1)], np.uint8)
    if len(kinds) == 1:
        return np.full(areas.shape[:2], VOID, np.uint8)
    best = kinds[areas[..., :-1].argmax(axis=-1)]
    return np.where(2 * areas[..., -1] > areas.sum(axis=-1), VOID, best).astype(np.uint8)


# Values of a grid in the picture's pixels


def values_in(values: NDArray[Any], size: Size) -> NDArray[np.float32]:
    """Values (class, row, column) of a grid at each pixel of a picture: float32 (class, height, width).

    Bilinear between the centres of cells, constant beyond the outermost ones.
    """
    found = np.empty((len(values), *size), np.float32)
    for top, strip in strips_in(values, size):
        found[:, top : top + strip.shape[1]] = strip
    return found


def numbers_in(values: NDArray[Any], size: Size) -> NDArray[np.uint8]:
    """The class of the largest value at each pixel, of equal ones the lower number: uint8 (height, width).

    Memory does not grow with the picture but by this.
    """
    found = np.empty(size, np.uint8)
    for top, strip in strips_in(values, size):
        found[top : top + strip.shape[1]] = largest(strip)
    return found


def strips_in(values: NDArray[Any], size: Size) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(top, values (class, rows, width)) of strips of the picture from top to bottom, as `values_in`."""
    n, rows, columns = values.shape
    left, share = _between(columns, np.arange(size[1]), size[1])
    step = max(1, STRIP // (4 * n * size[1]))
    for top in range(0, size[0], step):
        at = np.arange(top, min(top + step, size[0]))
        above, part = _between(rows, at, size[0])
        first, last = int(above[0]), min(int(above[-1]) + 2, rows)
        coarse = np.asarray(values[:, first:last], np.float32)
        across = coarse.take(left, axis=-1)
        if columns > 1:
            across += (coarse.take(left + 1, axis=-1) - across) * share
        down = np.zeros((len(at), last - first), np.float32)
        down[np.arange(len(at)), above - first] = 1 - part
        if rows > 1:
            down[np.arange(len(at)), above - first + 1] = part
        yield top, np.matmul(down, across)


def largest(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The class (height, width) of the largest of values (class, height, width). argmax along the first axis takes four
    times as long."""
    best = values[0].copy()
    found = np.zeros(best.shape, np.uint8)
    for number in range(1, len(values)):
        better = values[number] > best
        np.copyto(found, np.uint8(number), where=better)
        np.maximum(best, values[number], out=best)
    return found


def _between(cells: int, at: NDArray[np.int64], pixels: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(cell, share of the next one) at the centres of pixels `at`, of an axis of so many cells and pixels."""
    place = np.clip((at + 0.5) * cells / pixels - 0.5, 0, cells - 1)
    cell = np.minimum(place.astype(np.int64), max(cells - 2, 0))
    return cell, (place - cell).astype(np.float32)


# Tiles


def tiles_of(size: Size, tile: Size, overlap: float = 0.25) -> NDArray[np.int64]:
    """Boxes (tile, 4) x1, y1, x2, y2 of equal tiles that cover a picture, row by row.

    tile: (height, width) px at most; a picture that is smaller on an axis is one tile there. overlap: the least part of
    a tile that it shares with its neighbour on an axis. Tiles lie evenly: the first and the last end at the edges.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap {overlap}: allowed is 0 to below 1")
    starts, lengths = [], []
    for whole, most in zip(size, tile, strict=True):
        length = min(whole, most)
        free = whole - length
        n = 1 + int(np.ceil(free / max(1, np.floor(length * (1 - overlap)))))
        starts.append(np.round(np.linspace(0, free, n)).astype(np.int64))
        lengths.append(length)
    top, left = (grid.ravel() for grid in np.meshgrid(*starts, indexing="ij"))
    return np.stack([left, top, left + lengths[1], top + lengths[0]], axis=1)
