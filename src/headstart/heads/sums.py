"""What linear heads need of images, as sums over the images: chunks of them add up, on one machine or on many.

The mean, the scatter matrix and the products with targets are read off the sums; no image is needed twice for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]


class Rows(Protocol):
    """Features (image, feature) of which a part is read at a time: an array, in memory or mapped, or what makes one."""

    @property
    def shape(self) -> Any: ...  # (image, feature)

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...  # a slice or row numbers -> array (row, feature)


def stretch(rows: npt.NDArray[np.intp]) -> slice | npt.NDArray[np.intp]:
    """The rows as a slice, of which an array needs no copy, where they follow each other."""
    if not len(rows) or rows[-1] - rows[0] + 1 != len(rows) or (np.diff(rows) != 1).any():
        return rows
    return slice(int(rows[0]), int(rows[-1]) + 1)


@dataclass(frozen=True)
class Sums:
    """Over `n` images: `total` (feature,) of the features x, `scatter` (feature, feature) of x x', `products` (feature,
    target) of x t' and `targets` (target,) of t. About zero, so that the sums of two sets of images are added."""

    n: int
    total: Doubles
    scatter: Doubles
    products: Doubles
    targets: Doubles

    def __add__(self, other: Sums) -> Sums:
        parts = ((getattr(self, name), getattr(other, name)) for name in ("total", "scatter", "products", "targets"))
        return Sums(self.n + other.n, *(one + two for one, two in parts))

    @property
    def mean(self) -> Doubles:
        return self.total / self.n

    @property
    def centred_scatter(self) -> Doubles:
        """(feature, feature) of (x - mean)(x - mean)'."""
        return self.scatter - np.outer(self.total, self.mean)

    @property
    def centred_products(self) -> Doubles:
        """(feature, target) of (x - mean) t'."""
        return self.products - np.outer(self.mean, self.targets)


def sums_of(chunk: Floats, targets: Floats) -> Sums:
    """The sums of one chunk (image, feature) with targets (image, target): class sums where those are one-hot.

    The products run in the type of the chunk; a chunk of a few thousand rows of float32 is exact to 1e-6.
    """
    flat = targets.astype(chunk.dtype)
    total, scatter = chunk.sum(axis=0, dtype=np.float64), (chunk.T @ chunk).astype(np.float64)
    return Sums(len(chunk), total, scatter, (chunk.T @ flat).astype(np.float64), targets.sum(axis=0, dtype=np.float64))


def added(parts: Iterable[tuple[Floats, Floats]]) -> Sums:
    """The sums over (chunk, targets), one after the other; as `sum(sums_of(...))`, with one scatter matrix in memory.

    Raises ValueError where there is no chunk."""
    whole: Sums | None = None
    n = 0
    for chunk, targets in parts:
        part = sums_of(chunk, targets)
        n += part.n
        if whole is None:
            whole = part
            continue
        for name in ("total", "scatter", "products", "targets"):
            mine = getattr(whole, name)
            mine += getattr(part, name)
    if whole is None:
        raise ValueError("no images to add up: at least one chunk is needed")
    return Sums(n, whole.total, whole.scatter, whole.products, whole.targets)
