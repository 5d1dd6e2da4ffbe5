"""The truth of a picture as a mask: the class of each of its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.mask_text import drawn_in, mask_of
from headstart.data.placing import VOID, Size
from headstart.data.table import Table
from headstart.errors import DataError, nearest


@dataclass(frozen=True, eq=False)
class MaskTruth:
    """Masks of images, unread.

    texts (image,): object array of str in the form of `mask_text.py`, "" where nothing is known of an image. pixels
    (image, class): how many are of each class. sizes (image, 2): height, width px of the upright pictures; both 0 where
    nothing is known. turned (class in the text,): its place in `names`.
    """

    texts: NDArray[np.object_]
    pixels: NDArray[np.int64]
    sizes: NDArray[np.int64]
    turned: NDArray[np.uint8]
    names: tuple[str, ...]

    @property
    def known(self) -> NDArray[np.bool_]:
        """(image,): whether there is a mask."""
        return np.asarray(self.texts != "", dtype=bool)

    @property
    def strata(self) -> NDArray[np.int64]:
        """(image, class): 1 where the class is present."""
        return np.asarray(self.pixels > 0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: NDArray[Any]) -> MaskTruth:
        """Of these row numbers, in this order; or of the rows where a boolean array (image,) is true."""
        return MaskTruth(self.texts[rows], self.pixels[rows], self.sizes[rows], self.turned, self.names)

    def matrix(self) -> NDArray[np.float64]:
        """(image, class): the share of the pixels that are of a class; nan where nothing is known."""
        total = self.pixels.sum(axis=1, keepdims=True)
        return np.divide(self.pixels, total, out=np.full(self.pixels.shape, np.nan), where=total > 0)

    def mask(self, image: int, size: Size | None = None) -> NDArray[np.uint8]:
        """Class numbers (height, width), places in `names`, VOID = 255; all of it where nothing is known.

        size: (height, width) px of the upright picture; it may be None where a mask is known. Raises ImageError with a
        reason, as for a file that is gone by now.
        """
        text = self.texts[image]
        if not text:
            if size is None:
                raise ValueError("the size of a picture without a mask must be given")
            return np.full(size, VOID, np.uint8)
        return self.turned[mask_of(text, size)]


def mask_targets(table: Table, names: Sequence[str] | None = None) -> MaskTruth:
    """The masks of a table's images, which are not read for it. names: of a saved model, into whose numbers classes are
    turned; None: the table's. Raises DataError for a class with pixels that is not among the names."""
    known = table.columns if names is None else tuple(names)
    number = {name: k for k, name in enumerate(known)}
    turned = np.full(VOID + 1, VOID, np.uint8)
    pixels, sizes = np.zeros((len(table), len(known)), np.int64), np.zeros((len(table), 2), np.int64)
    for own, name in enumerate(table.columns):
        turned[own] = number.get(name, VOID)
    for row, text in enumerate(table.labels):
        if not text:
            continue
        truth = drawn_in(text)
        sizes[row] = truth.upright
        for own, n in truth.pixels.items():
            name = table.columns[own] if own < len(table.columns) else str(own)
            if name not in number:
                raise DataError(
                    f"{table.names[row]} has {n:,} px of class {name!r}, which is none of the {len(known)} that are "
                    f"known{nearest(name, known)}: give the names of classes with --classes, or take the picture out"
                )
            pixels[row, number[name]] += n
    return MaskTruth(np.asarray(table.labels, dtype=object), pixels, sizes, turned, known)
