"""What linear heads need of images, as sums over the images: chunks of them add up, on one machine or on many.

The mean, the scatter matrix and the products with targets are read off the sums; no image is needed twice for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from headstart.files.cores import n_cores

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]

CHUNK = 4096  # images multiplied at a time: 4096 x 2848 x 8 bytes = 93 MB for the default backbone's features
# Chunks that are added up before their sum goes anywhere: 65 MB of 2,848 features in float64, for 270 GFLOP of work.
# The order of additions is always this one, so that it does not matter who made which sum.
STRETCH = 8
AT_ONCE = 8  # pieces in the memory of this process: 0.2 GB each, of 2,848 features
ARRAYS = ("total", "scatter", "products", "targets")


class Rows(Protocol):
    """Features (image, feature) of which a part is read at a time: an array, in memory or mapped, or what makes one."""

    @property
    def shape(self) -> Any: ...  # (image, feature)

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...  # a slice or row numbers -> array (row, feature)


Work = Callable[[Any], Any]
Each = Callable[[Work, Iterable[Any]], Iterable[Any]]  # as `map`: what is made of each piece, in order


def each_of(features: Rows) -> Each:
    """How passes over these features are worked on: by this process, or as the features themselves say: `each`, which
    may hand pieces, and the features, to other processes."""
    found: Each = getattr(features, "each", in_threads)
    return found


def in_threads(work: Work, pieces: Iterable[Any]) -> Iterator[Any]:
    """As `map`: a piece for each processor at a time, AT_ONCE at most."""
    at_once = min(n_cores(), AT_ONCE)
    waiting: deque[Future[Any]] = deque()
    with ThreadPoolExecutor(at_once) as pool:
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) > at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def passed(each: Each, work: Work, pieces: Iterable[Any]) -> Iterator[Any]:
    """What comes of a pass, in order. BLAS has one thread meanwhile, here as in the workers of a cluster: the last
    digits of a product may depend on how many there are (of 624 features, one or two)."""
    with threadpool_limits(1, "blas"):
        yield from each(work, pieces)


def stretches(n: int) -> Iterator[slice]:
    """All of n images, STRETCH chunks at a time."""
    return (slice(start, min(start + STRETCH * CHUNK, n)) for start in range(0, n, STRETCH * CHUNK))


def chunks_in(here: slice) -> Iterator[slice]:
    """A stretch, a chunk at a time."""
    return (slice(start, min(start + CHUNK, here.stop)) for start in range(here.start, here.stop, CHUNK))


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
        parts = ((getattr(self, name), getattr(other, name)) for name in ARRAYS)
        return Sums(self.n + other.n, *(one + two for one, two in parts))

    def copied(self) -> Sums:
        return Sums(self.n, *(np.array(getattr(self, name)) for name in ARRAYS))

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
    return summed(sums_of(chunk, targets) for chunk, targets in parts)


def summed(parts: Iterable[Sums]) -> Sums:
    """All of them, in order; the first becomes the sum. Raises ValueError where there is none."""
    whole: Sums | None = None
    n = 0
    for part in parts:
        n += part.n
        if whole is None:
            whole = part if part.scatter.flags.writeable else part.copied()  # not what another process has handed over
            continue
        for name in ARRAYS:
            mine = getattr(whole, name)
            mine += getattr(part, name)
    if whole is None:
        raise ValueError("no images to add up: at least one chunk is needed")
    return Sums(n, whole.total, whole.scatter, whole.products, whole.targets)


@dataclass(frozen=True, eq=False)
class Summing:
    """Makes the sums of a stretch of these features, without targets, in float32."""

    features: Rows

    def __call__(self, here: slice) -> Sums:
        chunks = (self.features[some].astype(np.float32, copy=False) for some in chunks_in(here))
        return added((chunk, np.empty((len(chunk), 0))) for chunk in chunks)


@dataclass(frozen=True, eq=False)
class Multiplying:
    """Makes features' targets (feature, target) of a stretch and its targets (image, target), in the type of these."""

    features: Rows

    def __call__(self, piece: tuple[slice, Floats]) -> Doubles:
        (here, targets), total = piece, np.zeros((self.features.shape[1], piece[1].shape[1]))
        for some in chunks_in(here):
            own = targets[some.start - here.start : some.stop - here.start]
            total += self.features[some].astype(own.dtype).T @ own
        return total


@dataclass(frozen=True, eq=False)
class Turning:
    """Makes (features - mean) turn of some rows (row, column) in float32, `turn` (feature, column); with `share`
    (column, penalty) the squares of that times share, (row, penalty)."""

    features: Rows
    mean: npt.NDArray[np.float32]
    turn: npt.NDArray[np.float32]
    share: npt.NDArray[np.float32] | None = None

    def __call__(self, rows: slice | npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        found = np.subtract(self.features[rows], self.mean, dtype=np.float32) @ self.turn
        if self.share is None:
            return found
        np.square(found, out=found)
        return found @ self.share
