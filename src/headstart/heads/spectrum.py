"""One decomposition of the training features; every ridge penalty is read off it.

With X the centred features (image, feature) and X X' = U diag(w) U', the ridge hat matrix for a penalty l2 is
H = U diag(w / (w + l2)) U'. `Spectrum` holds w and the means to produce rows of U. It is computed from the
smaller Gram matrix: (image, image) where there are fewer images than features (the dual), else (feature, feature).

Arrays are float64: leave-one-out divides by 1 - H[i, i], which float32 rounds away at weak penalties. Above
DOUBLE_ROWS images the large products run in float32, whose error (1e-6 of a score) is then far below the noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from headstart.heads.sums import (
    CHUNK,
    Doubles,
    Floats,
    Multiplying,
    Summing,
    Sums,
    Turning,
    each_of,
    in_threads,
    passed,
    stretch,
    stretches,
    summed,
)

DOUBLE_ROWS = 5000  # images up to which everything is float64
FLOOR = 1e-12  # eigenvalues below this share of the largest are rounding noise of a float64 product
UNIT = 0.02  # of a decade: penalties lie half a decade apart, and are a fiftieth of that off at most
ROUNDED = 1000  # images above which the folds of a set share a unit, and with it what a penalty costs
LEAST = 1e-30  # an eigenvalue where every image has the same features (a dead network): nothing is learned from it


@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of the centred Gram matrix and what is needed to make rows of U.

    `features` (image, feature) as given; `mean` (feature,); `values` (component,) decreasing rank is not required;
    `left` (image, component) = U, None in the primal above DOUBLE_ROWS images, where rows are made when they are asked
    for; `right` (feature, component) = V in the primal, None in the dual. Where rows are made anew, what took a
    pass over all of them is kept: `products` (component, target) by the targets' hash, `leverages` (image,) by the
    penalty.
    """

    features: Floats
    mean: Doubles
    values: Doubles
    left: Doubles | None
    right: Doubles | None
    products: dict[bytes, Doubles] = field(default_factory=dict, repr=False, compare=False)
    leverages: dict[float, Floats] = field(default_factory=dict, repr=False, compare=False)

    @property
    def n_images(self) -> int:
        return int(self.features.shape[0])

    @property
    def scale(self) -> float:
        """The mean squared length of a centred row: penalties are stated in this unit."""
        return unit_of(float(self.values.sum() / self.n_images), self.n_images)

    def rows(self, index: slice | npt.NDArray[np.intp]) -> Doubles:
        """Rows of U, (row, component)."""
        if self.left is not None:
            return self.left[index]
        kind = _working_type(self.n_images)
        return (self._centred(index, kind) @ self._turn).astype(np.float64)

    @cached_property
    def _turn(self) -> Floats:
        """(feature, component): what makes rows of U of centred rows, in the primal."""
        assert self.right is not None
        return np.asarray((self.right / np.sqrt(self.values)).astype(_working_type(self.n_images)))

    def _centred(self, index: slice | npt.NDArray[np.intp], kind: type[np.floating]) -> Floats:
        """Rows of the features (row, feature) minus their mean."""
        return np.subtract(self.features[index], self.mean.astype(kind), dtype=kind)

    def fits(
        self, l2s: Sequence[float], projected: Doubles, rows: npt.NDArray[np.intp]
    ) -> Iterator[tuple[slice, Doubles, Floats]]:
        """(places, leverages (row, penalty), U diag(share) projected (penalty, row, target)) for these rows, a chunk at
        a time: share = w / (w + l2), projected = U' targets.

        Where rows of U are made anew they are made for the leverages alone, once for all images.
        """
        share = self.values / (self.values + np.asarray(l2s)[:, None])  # (penalty, component)
        weights = (share[:, :, None] * projected).transpose(1, 0, 2).reshape(len(projected), -1)  # (component, ...)
        shape = (-1, len(l2s), projected.shape[1])
        if self.left is not None:
            for here, u in self.chunks(rows):
                yield here, (u**2) @ share.T, np.asarray((u @ weights).reshape(shape).transpose(1, 0, 2))
            return
        assert self.right is not None
        leverages, coef = self._leverages(l2s), (self.right @ (weights / np.sqrt(self.values)[:, None]))
        work = Turning(self.features, self.mean.astype(np.float32), coef.astype(np.float32))
        parts = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
        each = each_of(self.features) if len(rows) > DOUBLE_ROWS else in_threads
        start = 0
        for some, found in zip(parts, passed(each, work, map(stretch, parts)), strict=True):
            place = slice(start, start := start + len(some))
            yield place, leverages[:, some].T.astype(np.float64), np.asarray(found.reshape(shape).transpose(1, 0, 2))

    def _leverages(self, l2s: Sequence[float]) -> Floats:
        """(penalty, image) of float32, in one pass for those that are not known yet."""
        new = [l2 for l2 in dict.fromkeys(l2s) if l2 not in self.leverages]
        if new:
            share = (self.values[:, None] / (self.values[:, None] + np.array(new))).astype(np.float32)
            work = Turning(self.features, self.mean.astype(np.float32), self._turn, share)
            every = [slice(start, min(start + CHUNK, self.n_images)) for start in range(0, self.n_images, CHUNK)]
            found = np.empty((len(new), self.n_images), np.float32)
            for some, squares in zip(every, passed(each_of(self.features), work, every), strict=True):
                found[:, some] = squares.T
            self.leverages.update(zip(new, found, strict=True))
        return np.stack([self.leverages[l2] for l2 in l2s])

    def coordinates(self, features: Floats) -> Doubles:
        """What rows of U would be for other images (row, feature): (row, component)."""
        centred = features.astype(np.float64) - self.mean
        if self.right is not None:
            return np.asarray(centred @ self.right / np.sqrt(self.values))
        assert self.left is not None
        inner = centred @ (self.features.astype(np.float64) - self.mean).T  # (row, image)
        return np.asarray(inner @ self.left / self.values)

    def chunks(self, rows: npt.NDArray[np.intp] | None = None) -> Iterator[tuple[slice, Doubles]]:
        """(places, rows of U) for the rows asked for (all of them by default), a chunk at a time."""
        index = np.arange(self.n_images) if rows is None else rows
        for start in range(0, len(index), CHUNK):
            here = slice(start, min(start + CHUNK, len(index)))
            yield here, self.rows(stretch(index[here]))

    def project(self, targets: Floats) -> Doubles:
        """U' targets, (component, target), for targets (image, target)."""
        if self.left is not None:
            return np.asarray(self.left.T @ targets)
        assert self.right is not None
        key = hashlib.blake2b(targets.tobytes()).digest()
        if key not in self.products:
            total = -np.outer(self.mean, targets.sum(axis=0))
            kind = _working_type(self.n_images)
            pieces = ((some, targets[some].astype(kind)) for some in stretches(self.n_images))
            for part in passed(each_of(self.features), Multiplying(self.features), pieces):
                total += part
            self.products[key] = self.right.T @ total / np.sqrt(self.values)[:, None]
        return self.products[key]

    def coefficients(self, weights: Doubles) -> Doubles:
        """V weights, (feature, target), for weights (component, target): from singular coordinates to features."""
        if self.right is not None:
            return np.asarray(self.right @ weights)
        assert self.left is not None
        dual = self.left @ (weights / np.sqrt(self.values)[:, None])  # (image, target)
        dual -= dual.mean(axis=0)  # centring the features is the same as centring the dual weights
        return np.asarray(self.features.T.astype(np.float64) @ dual)


def decompose(features: Floats) -> Spectrum:
    """The spectrum of features (image, feature)."""
    n, d = features.shape
    if n > max(d, DOUBLE_ROWS):
        return of_sums(features, summed(passed(each_of(features), Summing(features), stretches(n))))
    mean = features.mean(axis=0, dtype=np.float64)
    if n <= d:
        wide = features.astype(np.float64)
        gram = wide @ wide.T
        column = gram.mean(axis=0)
        centred = gram - column - column[:, None] + column.mean()
        values, left = np.linalg.eigh(centred)
        values = np.maximum(values, LEAST)
        keep = values > FLOOR * float(values[-1])
        return Spectrum(features, mean, values[keep], left[:, keep], None)
    scatter = -n * np.outer(mean, mean)
    for start in range(0, n, CHUNK):
        block = features[start : start + CHUNK].astype(np.float64)
        scatter += block.T @ block
    made = _primal(features, mean, scatter)
    return replace(made, left=made.rows(slice(None)))


def of_sums(features: Floats, sums: Sums) -> Spectrum:
    """The spectrum of more than DOUBLE_ROWS images from their sums, which may have been added up elsewhere. What the
    sums say of targets is not used."""
    return _primal(features, sums.mean, sums.centred_scatter)


def _primal(features: Floats, mean: Doubles, scatter: Doubles) -> Spectrum:
    values, right = np.linalg.eigh(scatter)
    values = np.maximum(values, LEAST)
    keep = values > FLOOR * float(values[-1])
    return Spectrum(features, mean, values[keep], None, right[:, keep])


def unit_of(mean_square: float, n_images: int) -> float:
    """The mean squared length of a centred row of so many, rounded to UNIT above ROUNDED images. 1 where every image is
    alike."""
    if mean_square <= LEAST:
        return 1.0
    return float(10 ** (round(np.log10(mean_square) / UNIT) * UNIT)) if n_images > ROUNDED else mean_square


def _working_type(n_images: int) -> type[np.floating]:
    return np.float64 if n_images <= DOUBLE_ROWS else np.float32
