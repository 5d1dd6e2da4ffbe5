"""Some images of a set, as if the others had never been there: the folds of a cross-validation, exactly.

What ridge and LDA ask of the k images R that teach is I - H, H the hat matrix of ridge with its intercept, for one
penalty: its diagonal, its product with the targets, the blocks of images that are left out together, and the answers
for the held images S. All of it follows from products that the folds share, in three ways (`Z`: centred features):

narrow  more images than features: I - H = I - 1/k - Z_R (Z_R' Z_R + l2 I)^-1 Z_R', where the scatter Z_R' Z_R is that
        of all images less that of S.
few     R is small: I - H = l2 (Z_R Z_R' + l2 I)^-1 - 1/k, from rows and columns of one Gram matrix.
most    S is small: with A = I - H of all n images, from their decomposition, I - H of R is A_RR - A_RS A_SS^-1 A_SR,
        and the answers for S are -A_SS^-1 A_SR y_R: a linear system from which S is eliminated.

Each takes one Cholesky factor, of the features, of R or of S; the cheapest is taken. Nothing is decomposed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from headstart.files.forks import Lock
from headstart.heads.spectrum import Doubles, Floats, Spectrum, decompose, unit_of
from headstart.heads.taps import TapSet

Rows = npt.NDArray[np.intp]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Kept:
    """I - H of images that teach, for one penalty: diagonal (row,); times the targets (row, target); blocks, one for
    each tied group. held (held, target): the answers for the held images."""

    diagonal: Doubles
    residuals: Doubles
    blocks: tuple[Doubles, ...]
    held: Doubles


class _Once(Generic[Made]):
    """An attribute of a `Whole` that is made when it is first asked for, by one thread for all."""

    def __init__(self, make: Callable[[Whole], Made]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    def __get__(self, whole: Whole, kind: type[Whole]) -> Made:
        with whole.lock:
            if self not in whole.made:
                whole.made[self] = self._make(whole)
            return whole.made[self]  # type: ignore[no-any-return]


class Whole:
    """Features (image, feature) of all images, and what is made of them once, when it is first asked for."""

    def __init__(self, features: Floats) -> None:
        self.taught = features
        self.lock, self.made = Lock(), dict[object, Any]()
        self._ready: dict[tuple[bytes, float], tuple[Doubles, Sequence[Rows], Kept]] = {}

    @_Once
    def spectrum(self) -> Spectrum:
        """Their decomposition."""
        return decompose(self.taught)

    @_Once
    def centred(self) -> Doubles:
        """(image, feature), float64."""
        wide: Doubles = self.taught.astype(np.float64)
        wide -= wide.mean(axis=0)
        return wide

    @_Once
    def lengths(self) -> Doubles:
        """(image,): the squared lengths of the centred rows."""
        return np.asarray((self.centred**2).sum(axis=1))

    @_Once
    def gram(self) -> Doubles:
        """(image, image) of the centred rows."""
        return np.asarray(self.centred @ self.centred.T)

    @_Once
    def scatter(self) -> Doubles:
        """(feature, feature) of the centred rows."""
        return np.asarray(self.centred.T @ self.centred)

    def without(self, held: Rows, starts: Mapping[str, float] | None = None) -> Taught:
        """All images but the held ones."""
        rows = np.setdiff1d(np.arange(len(self.taught)), held)
        fewer = rows if len(rows) < len(held) else held
        total = self.centred[fewer].sum(axis=0)  # the rows' is its opposite, or itself
        scale = (float(self.lengths[rows].sum()) - float(total @ total) / len(rows)) / len(rows)
        return Taught(self, rows, held, unit_of(scale, len(rows)), starts or {})

    def prepare(self, asked: Sequence[Asked], penalties: Sequence[float], workers: int) -> None:
        """What these folds will ask for these penalties (in the unit of each), from one matrix for each penalty and
        unit; `workers` folds at once."""
        for l2 in sorted({one.taught.scale * penalty for one in asked for penalty in penalties}):
            ours = [one for one in asked if any(one.taught.scale * penalty == l2 for penalty in penalties)]
            kept = self._kept(l2)

            def ready(one: Asked, kept: Doubles = kept, l2: float = l2) -> None:
                found = _without_held(kept, one)
                self._ready[one.taught.held.tobytes(), l2] = (one.targets, one.tied, found)

            with threadpool_limits(1, "blas"), ThreadPoolExecutor(workers) as pool:
                list(pool.map(ready, ours))

    def _kept(self, l2: float) -> Doubles:
        """I - H of all images, (image, image)."""
        u, values = self.spectrum.rows(slice(None)), self.spectrum.values
        half = u * np.sqrt(values / (values + l2))
        found = np.asarray(half @ half.T)
        found += 1 / len(u)
        np.negative(found, out=found)
        found[np.diag_indices_from(found)] += 1
        return found

    def ready(self, held: Rows, l2: float, targets: Doubles, tied: Sequence[Rows]) -> Kept | None:
        """What `prepare` made of this, if it did."""
        theirs, groups, found = self._ready.get((held.tobytes(), l2), (None, (), None))
        same = theirs is not None and np.array_equal(theirs, targets) and len(groups) == len(tied)
        return found if same and all(map(np.array_equal, groups, tied)) else None


@dataclass(frozen=True, eq=False)
class Taught:
    """The images `rows` of a whole, which teach, and those `held`, which have answers. `scale`: the mean squared length
    of a centred row, as of a Spectrum of the rows alone. `starts`: head -> the penalty, in that unit, near which its
    best is looked for first."""

    whole: Whole
    rows: Rows
    held: Rows
    scale: float
    starts: Mapping[str, float] = field(default_factory=dict)

    @property
    def n_images(self) -> int:
        return len(self.rows)

    @property
    def taught(self) -> Floats:
        """(row, feature): for a head that has no formula."""
        return self.whole.taught[self.rows]

    def answers(self, coef: Doubles, intercept: Doubles) -> Doubles:
        """(held, output) of a head of these features."""
        return np.asarray(self.whole.taught[self.held].astype(np.float64) @ coef.T + intercept)

    def kept(self, l2: float, targets: Doubles, tied: Sequence[Rows]) -> Kept:
        """What is asked for one penalty, for targets (row, target). tied: places among the rows, of each group."""
        return self.whole.ready(self.held, l2, targets, tied) or self._way.kept(l2, targets, tied)

    @cached_property
    def _way(self) -> _Narrow | _Few | _Most:
        """The one with the fewest multiplications a penalty."""
        d, k, m = self.whole.taught.shape[1], len(self.rows), len(self.held)
        costs = {
            _Narrow: d**3 / 3 + d * d * k,
            _Few: 2 / 3 * k**3,
            _Most: 2 * m * k * min(k + m, d) + m * m * k + m**3 / 3,
        }
        return min(costs, key=lambda way: costs[way]).of(self)


@dataclass(frozen=True, eq=False)
class Asked:
    """What a fold will ask: targets (row, target) and tied places, as of `Taught.kept`."""

    taught: Taught
    targets: Doubles
    tied: Sequence[Rows]


class Shared:
    """The features of some images, prepared once for each tap set that is asked for: blocks (image, feature)."""

    def __init__(self, blocks: Mapping[str, Floats]) -> None:
        self.blocks = blocks
        self._wholes: dict[str, Whole] = {}
        self._lock = Lock()

    def of(self, tap_set: TapSet) -> Whole:
        with self._lock:
            if tap_set.name not in self._wholes:
                self._wholes[tap_set.name] = Whole(tap_set.of(self.blocks))
            return self._wholes[tap_set.name]


@dataclass(frozen=True, eq=False)
class _Narrow:
    """By the scatter matrix of the rows; z (row, feature), ahead (held, feature): centred on the mean of the rows."""

    z: Doubles
    ahead: Doubles
    scatter: Doubles

    @staticmethod
    def of(taught: Taught) -> _Narrow:
        whole, k = taught.whole, taught.n_images
        away = whole.centred[taught.held]
        total = -away.sum(axis=0)
        less = whole.scatter - away.T @ away - np.outer(total, total) / k
        return _Narrow(whole.centred[taught.rows] - total / k, away - total / k, less)

    def kept(self, l2: float, targets: Doubles, tied: Sequence[Rows]) -> Kept:
        k, root = len(self.z), _inverse_root(self.scatter, l2)
        thin = _product(root, self.z.T)  # (feature, row)
        seen = thin @ targets
        mean = targets.mean(axis=0)
        blocks = tuple(np.eye(len(p)) - 1 / k - thin[:, p].T @ thin[:, p] for p in tied)
        held = mean + self.ahead @ root.T @ seen
        return Kept(1 - 1 / k - _squares(thin), targets - mean - thin.T @ seen, blocks, held)


@dataclass(frozen=True, eq=False)
class _Few:
    """By the Gram matrix of the rows, to which the constant direction (centred away) is added with the mean eigenvalue:
    weak penalties would lose digits there. ahead (held, row): products of the held images with the rows."""

    gram: Doubles
    ahead: Doubles
    constant: float

    @staticmethod
    def of(taught: Taught) -> _Few:
        gram = taught.whole.gram
        inner = gram[np.ix_(taught.rows, taught.rows)]
        column = inner.mean(axis=0)
        ahead = gram[np.ix_(taught.held, taught.rows)] - column
        inner += column.mean() - column - column[:, None]
        constant = float(np.trace(inner)) / len(inner) or 1.0
        return _Few(inner + constant / len(inner), ahead, constant)

    def kept(self, l2: float, targets: Doubles, tied: Sequence[Rows]) -> Kept:
        k, mean = len(self.gram), targets.mean(axis=0)
        thin = _inverse_root(self.gram, l2)  # (row, row)
        thin *= np.sqrt(l2)
        rest = l2 / (l2 + self.constant) / k  # what is left of the constant direction
        residuals = thin.T @ (thin @ targets) - rest * targets.sum(axis=0)
        blocks = tuple(thin[:, p].T @ thin[:, p] - rest for p in tied)
        weights = (residuals - residuals.mean(axis=0)) / l2  # they sum to zero, but for rounding
        return Kept(_squares(thin) - rest, residuals, blocks, mean + self.ahead @ weights)


@dataclass(frozen=True, eq=False)
class _Most:
    """By the decomposition of all images; u (row, component) and ahead (held, component) of it, values (component,)."""

    u: Doubles
    ahead: Doubles
    values: Doubles

    @staticmethod
    def of(taught: Taught) -> _Most:
        spectrum = taught.whole.spectrum
        return _Most(spectrum.rows(taught.rows), spectrum.rows(taught.held), spectrum.values)

    def kept(self, l2: float, targets: Doubles, tied: Sequence[Rows]) -> Kept:
        n, share = len(self.u) + len(self.ahead), self.values / (self.values + l2)
        shared = self.ahead * share
        root = _inverse_root(-1 / n - shared @ self.ahead.T, 1.0)
        thin = _product(root, -1 / n - (self.u @ shared.T).T)  # (held, row)
        seen = thin @ targets
        fitted = targets.sum(axis=0) / n + self.u @ (share[:, None] * (self.u.T @ targets))
        diagonal = 1 - 1 / n - np.square(self.u) @ share - _squares(thin)
        blocks = tuple(
            np.eye(len(p)) - 1 / n - (self.u[p] * share) @ self.u[p].T - thin[:, p].T @ thin[:, p] for p in tied
        )
        return Kept(diagonal, targets - fitted - thin.T @ seen, blocks, -root.T @ seen)


def _without_held(kept: Doubles, asked: Asked) -> Kept:
    """As _Most, from I - H of all images, (image, image)."""
    rows, held, targets = asked.taught.rows, asked.taught.held, asked.targets
    root = _inverse_root(kept[np.ix_(held, held)], 0.0)
    thin = _product(root, kept[np.ix_(rows, held)].T)  # (held, row); kept is symmetric
    seen = thin @ targets
    everyone = np.zeros((len(kept), targets.shape[1]))
    everyone[rows] = targets
    residuals = (kept @ everyone)[rows] - thin.T @ seen
    blocks = tuple(kept[np.ix_(rows[p], rows[p])] - thin[:, p].T @ thin[:, p] for p in asked.tied)
    return Kept(kept.diagonal()[rows] - _squares(thin), residuals, blocks, -root.T @ seen)


def _inverse_root(matrix: Doubles, ridge: float) -> Doubles:
    """W (n, n), lower triangular, with W' W = (matrix + ridge I)^-1: the inverse of the Cholesky factor."""
    from scipy.linalg.lapack import dpotrf, dtrtri

    sloped = np.array(matrix, order="F")
    sloped[np.diag_indices_from(sloped)] += ridge
    factor, failed = dpotrf(sloped, lower=1, overwrite_a=1)
    assert not failed
    return np.asarray(dtrtri(factor, lower=1, overwrite_c=1)[0])


def _product(root: Doubles, right: Doubles) -> Doubles:
    """W right (n, column). An inverse and a product take 0.6 of the time of solving with the factor itself."""
    from scipy.linalg.blas import dtrmm

    return np.asarray(dtrmm(1.0, root, right, lower=1))


def _squares(matrix: Doubles) -> Doubles:
    """(column,): the squared length of each."""
    return np.asarray(np.einsum("ij,ij->j", matrix, matrix))
