"""Large pictures as several rows of a table, one a tile, and what is answered of the tiles put together again.

A picture much larger than the network's frame loses what is small in it when it is squashed. Its tiles are seen each in
a frame of their own; they are one group, so that no tile judges what another one of its picture taught.

Memory: one decoded picture at a time for each that is read, 3 bytes a px, in `CACHED_BYTES` together; what is answered
is put together row by row of tiles.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.data import images
from headstart.data.limits import DEFAULT_LIMITS
from headstart.data.mask_text import drawn_in, mask_of
from headstart.data.placing import Size, largest, tiles_of
from headstart.data.preprocess import Preprocess
from headstart.data.shapes import upright_size
from headstart.data.sources import Source
from headstart.data.table import Table
from headstart.errors import ImageError
from headstart.files.forks import Lock

CACHED_BYTES = 256 << 20  # of decoded pictures: two of 40 megapixels, which threads on both sides of a boundary read
LARGE = 1.5  # times the tile in height or width, from which on a picture is cut: below, squashing costs less than seams

Whole = NDArray[np.uint8]


class Decoded:
    """The pictures that were decoded last, whole, by the rules of `preprocess`; safe on several threads."""

    def __init__(self, preprocess: Preprocess | None = None) -> None:
        self._preprocess = preprocess
        self._kept: OrderedDict[int, Whole] = OrderedDict()
        self._lock = Lock()

    def read(self, number: int, source: Source) -> Whole:
        """The upright picture (height, width, 3). Raises ImageError."""
        with self._lock:
            found = self._kept.pop(number, None)
            if found is None:
                data = source.read()
                found = images.small(data, max(1, *upright_size(data)), DEFAULT_LIMITS, self._preprocess)
            self._kept[number] = found
            while len(self._kept) > 1 and sum(one.nbytes for one in self._kept.values()) > CACHED_BYTES:
                self._kept.popitem(last=False)
            return found


@dataclass(frozen=True, slots=True, eq=False)
class TileSource:
    """One tile of a picture. box: x1, y1, x2, y2 px of the upright picture."""

    decoded: Decoded
    number: int
    source: Source
    box: tuple[int, int, int, int]

    def read(self) -> Whole:
        left, top, right, bottom = self.box
        whole = self.decoded.read(self.number, self.source)
        return np.ascontiguousarray(whole[top:bottom, left:right])


@dataclass(frozen=True, eq=False)
class Tiled:
    """table: a row a tile, in the order of pictures, of each from the top left on. picture (tile,): the row of its
    picture in the table that was cut. boxes (tile, 4): x1, y1, x2, y2 px of that picture. sizes (picture, 2): height,
    width px, 0 of one that cannot be read."""

    table: Table
    picture: NDArray[np.intp]
    boxes: NDArray[np.int64]
    sizes: NDArray[np.int64]


def tiled(table: Table, tile: Size, overlap: float = 0.25, preprocess: Preprocess | None = None) -> Tiled:
    """Each picture that is larger than LARGE times a tile of (height, width) px cut into tiles; the others as they are.

    Tiles have the group of their picture, or its name; a mask is cut as its picture is. A picture that cannot be read
    stays one row, and so does one whose mask cannot. preprocess: how a model sees pictures, for those of 16 bits.
    """
    decoded = Decoded(preprocess)
    cut: list[tuple[int, NDArray[np.int64], list[str]]] = []
    sizes = np.zeros((len(table), 2), np.int64)
    for row, source in enumerate(table.sources):
        try:
            sizes[row] = size = upright_size(source.read())
            DEFAULT_LIMITS.check_size(size[1], size[0])
            boxes = tiles_of(size, tile, overlap)
            large = len(boxes) > 1 and any(side > LARGE * most for side, most in zip(size, tile, strict=True))
            boxes = boxes if large else np.array([[0, 0, size[1], size[0]]])
            cut.append((row, boxes, _labels(str(table.labels[row]), boxes)))
        except ImageError:
            cut.append((row, np.array([[0, 0, sizes[row, 1], sizes[row, 0]]]), [str(table.labels[row])]))
    picture = np.repeat([row for row, _, _ in cut], [len(boxes) for _, boxes, _ in cut]).astype(np.intp)
    rows = table.take(picture)
    boxes = np.concatenate([boxes for _, boxes, _ in cut]) if cut else np.zeros((0, 4), np.int64)
    many = np.bincount(picture, minlength=len(table))[picture] > 1
    names, groups = rows.names.copy(), rows.groups.copy()
    sources = list(rows.sources)
    for k in np.flatnonzero(many):
        left, top, right, bottom = boxes[k].tolist()
        names[k] = f"{rows.names[k]} [{left},{top},{right},{bottom}]"
        groups[k] = rows.groups[k] or rows.names[k]
        sources[k] = TileSource(decoded, int(picture[k]), rows.sources[k], (left, top, right, bottom))
    labels = np.empty(len(rows), object)
    labels[:] = [text for _, _, texts in cut for text in texts]
    return Tiled(
        replace(rows, names=names, groups=groups, labels=labels, sources=tuple(sources)), picture, boxes, sizes
    )


def _labels(text: str, boxes: NDArray[np.int64]) -> list[str]:
    """The truth of each tile, "" of one that is void all over. Raises ImageError."""
    if not text or len(boxes) == 1:
        return [text] * len(boxes)
    truth, mask = drawn_in(text), mask_of(text)
    return [truth.cut(tuple(box), mask) for box in boxes.tolist()]


def stitched(
    size: Size, boxes: NDArray[np.int64], values_of: Callable[[int], NDArray[np.floating]]
) -> NDArray[np.uint8]:
    """The class (height, width) of a picture whose tiles (tile, 4) lie in rows from the top, as `tiles_of` gives them.

    values_of: a tile's number -> its values (class, height, width) in px of the picture. Where tiles overlap their
    values are averaged, each weighted by its distance from the edge of its tile: a network sees least there.
    """
    found = np.empty(size, np.uint8)
    held: NDArray[np.float64] | None = None  # (class, row from `start` on, width): values that wait for tiles below
    start = 0
    for top, numbers in _rows_of(boxes):
        if held is not None and top > start:
            done = min(top - start, held.shape[1])
            found[start : start + done] = _best(held[:, :done])
            held, start = held[:, done:], top
        for number in numbers:
            left, _, right, bottom = boxes[number].tolist()
            values = values_of(number)
            if held is None:
                held = np.zeros((len(values) + 1, 0, size[1]))
            if bottom - start > held.shape[1]:
                more = np.zeros((len(held), bottom - start - held.shape[1], size[1]))
                held = np.concatenate([held, more], axis=1)
            weight = _towards_edges(bottom - top)[:, None] * _towards_edges(right - left)
            held[:-1, : bottom - top, left:right] += values * weight
            held[-1, : bottom - top, left:right] += weight
    if held is not None:
        found[start : start + held.shape[1]] = _best(held)
    return found


def _rows_of(boxes: NDArray[np.int64]) -> Iterator[tuple[int, list[int]]]:
    """(top, numbers of tiles) of each row of tiles."""
    for top in np.unique(boxes[:, 1]).tolist():
        yield top, np.flatnonzero(boxes[:, 1] == top).tolist()


def _towards_edges(n: int) -> NDArray[np.float64]:
    """The distance (px,) of each from the nearer end, in px."""
    at = np.arange(n) + 0.5
    return np.minimum(at, n - at)


def _best(held: NDArray[np.float64]) -> NDArray[np.uint8]:
    return largest((held[:-1] / held[-1]).astype(np.float32))
