"""How unlike the good pictures a picture is: as a whole, and patch by patch.

Two parts, each a logarithm of a distance to good pictures alone:

- the picture as a whole: Mahalanobis distance of its last features at unit length (Lee et al. 2018), the covariance
  shrunk as Ledoit and Wolf (2004) say;
- its patches: places of the maps of two middle stages, each smoothed over 3 x 3 places and side by side (PatchCore;
  Roth et al. 2022, section 3.1), whitened, and compared with the nearest of a thinned memory of good ones.

Each part is centred and scaled by good pictures that it was made without, and the odder of the two counts: there are no
bad pictures to choose between them by, and in a sum one that sees nothing would drown the other (docs/anomalies.md).
The same left-out pictures say from which score a picture is called odd.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from headstart.data.splits import folds as stratified_folds
from headstart.heads.gallery import Threshold, threshold_at
from headstart.heads.material import Blocks, Ints, rows_of
from headstart.heads.probe import Candidate
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import Part

Floats = npt.NDArray[np.float32]

RATE = 0.05  # of good pictures that are called odd, where nobody says otherwise
FOLDS = 5  # in which good pictures are left out
LEFT_OUT = 500  # good pictures that are left out at most: a rate of 1 % is known from them to 0.4 points
POOLED = 8_000  # patches of which a memory is drawn and the covariance known
MEMORY = 1_000  # patches that are kept: with 4,000 the AUROC of MRI scans is no better
AXES = 32  # of the random projection in which the memory is thinned (Johnson and Lindenstrauss 1984)
RIDGE = 0.05  # of the mean variance, added to the covariance of patches
AT_ONCE = 16  # pictures whose patches are compared at a time: 25 MB of distances
STEEPEST = 30.0  # of the exponent of a score, so that it stays a number
MAP, MEAN = "/map", "/mean"


@dataclass(frozen=True, eq=False)
class Cloud:
    """Good pictures as wholes: `mean` (feature,) of `parts` side by side; `axes` (axis, feature) of unit length with
    `spread` (axis,), the variance along them, and `rest`, the variance everywhere else."""

    parts: tuple[Part, ...]
    mean: Floats
    axes: Floats
    spread: Floats
    rest: float

    def distances(self, blocks: Blocks) -> Doubles:
        """(image,): squared Mahalanobis distances."""
        x = _side_by_side(self.parts, blocks) - self.mean
        along = x @ self.axes.T
        aside = x - along @ self.axes
        return np.asarray((aside**2).sum(axis=1) / self.rest + (along**2 / self.spread).sum(axis=1), np.float64)


@dataclass(frozen=True)
class Layer:
    """A map: `block` holds (image, channel x place), of `channels`."""

    block: str
    channels: int

    def grid(self, values: npt.NDArray[np.floating]) -> Floats:
        """(image, height, width, channel). Tokens are a square, after those of the whole picture."""
        wide = values.reshape(len(values), self.channels, -1).astype(np.float32)
        side = math.isqrt(wide.shape[2])
        return wide[:, :, wide.shape[2] - side**2 :].reshape(*wide.shape[:2], side, side).transpose(0, 2, 3, 1)


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches of good pictures: `mean` (feature,), `whitening` (feature, component), `memory` (patch, component)."""

    layers: tuple[Layer, ...]
    mean: Floats
    whitening: Floats
    memory: Floats

    def heat(self, blocks: Blocks) -> Floats:
        """(image, height, width): the distance of each patch to the nearest that is known."""
        n = len(blocks[self.layers[0].block])
        mine = {layer.block: blocks[layer.block] for layer in self.layers}
        parts = [self._heat(rows_of(mine, np.arange(n)[start : start + AT_ONCE])) for start in range(0, n, AT_ONCE)]
        return np.concatenate(parts)

    def _heat(self, blocks: Blocks) -> Floats:
        found = patches_of(self.layers, blocks)
        asked = (found.reshape(-1, found.shape[-1]) - self.mean) @ self.whitening
        squares = (self.memory**2).sum(axis=1) - 2 * (asked @ self.memory.T)
        away = asked - self.memory[squares.argmin(axis=1)]  # of a known patch nothing; the squares would leave some
        return np.asarray(np.sqrt((away**2).sum(axis=1)).reshape(found.shape[:3]), np.float32)


@dataclass(frozen=True, eq=False)
class Oddity:
    """A head that scores pictures: 1 is the threshold, above it a picture is odd.

    `middles`, `widths` (measure,): of the left-out good pictures; `limit`: the largest measure from which on a
    picture is odd, so that of good ones the share `rate` is; of `n` left-out pictures. `usual`, `hot`: the distance of
    a patch of a left-out good picture, the middle one, and the largest of a picture at the same rate.
    """

    cloud: Cloud
    patches: Patches | None
    middles: tuple[float, ...]
    widths: tuple[float, ...]
    limit: float
    rate: float
    n: int
    usual: float
    hot: float

    @property
    def parts(self) -> tuple[Part, ...]:
        maps = self.patches.layers if self.patches else ()
        return (*self.cloud.parts, *(Part(layer.block, root=False, unit=False) for layer in maps))

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Of linear heads: none."""
        return ()

    @property
    def left_out(self) -> Doubles:
        """No image: those that are left out serve the threshold."""
        return np.empty((0, 1))

    @property
    def supported(self) -> bool:
        """Whether so few left-out pictures can tell the rate; else none of them is odd."""
        return Threshold(self.limit, self.rate, self.n).supported

    def outputs(self, blocks: Blocks) -> Doubles:
        """(image, 1): the score."""
        return self.of(self.most(self.measures(blocks)))[:, None]

    def measures(self, blocks: Blocks) -> Doubles:
        """(image, measure)."""
        return measures(self.cloud, self.patches, blocks)[0]

    def of(self, most: Doubles) -> Doubles:
        """(image,): the score of the largest measure (image,)."""
        return np.exp(np.clip(most - self.limit, -STEEPEST, STEEPEST))

    def most(self, measured: Doubles) -> Doubles:
        """(image,): the largest of measures (image, measure), each in widths from its middle."""
        return np.asarray(((measured - np.array(self.middles)) / np.array(self.widths)).max(axis=1))

    def heat(self, blocks: Blocks) -> Floats | None:
        """(image, height, width): 0 is usual of a patch, 1 as odd as in one of the good pictures at the threshold."""
        if self.patches is None:
            return None
        return np.maximum((self.patches.heat(blocks) - self.usual) / max(self.hot - self.usual, 1e-9), 0)


def fit_oddity(
    blocks: Blocks,
    groups: Ints,
    keys: Sequence[str],
    pooled: tuple[Part, ...],
    layers: tuple[Layer, ...],
    seed: int,
    rate: float = RATE,
) -> Oddity:
    """From good pictures alone. groups (image,): left out together; there must be some."""
    asked = _asked(groups, seed)
    measured, heats = _left_out(blocks, groups, keys, pooled, layers, seed, asked)
    middles, widths = np.median(measured, axis=0), np.maximum(measured.std(axis=0), 1e-9)
    cloud, patches = learned(blocks, pooled, layers, seed)
    usual, hot = (float(np.median(heats[:, 0])), threshold_at(heats[:, 1], rate).value) if layers else (0.0, 1.0)
    found = Oddity(cloud, patches, tuple(middles.tolist()), tuple(widths.tolist()), 0.0, rate, len(asked), usual, hot)
    return replace(found, limit=threshold_at(found.most(measured), rate).value)


def needed(rate: float) -> int:
    """Left-out good pictures that can tell this false-alarm rate."""
    return math.ceil(1 / rate - 1e-9) - 1


def _asked(groups: Ints, seed: int) -> Ints:
    """Rows that are asked while they are left out: all, or some of many."""
    return np.sort(np.random.default_rng(seed).permutation(len(groups))[:LEFT_OUT])


def _left_out(
    blocks: Blocks,
    groups: Ints,
    keys: Sequence[str],
    pooled: tuple[Part, ...],
    layers: tuple[Layer, ...],
    seed: int,
    asked: Ints,
) -> tuple[Doubles, Doubles]:
    """(measures (asked, measure), (asked, 2): the middle and the largest distance of their patches), each by what was
    made without the picture's group."""
    fold = good_folds(groups, keys, seed)
    measured, heats = np.empty(0), np.empty((len(asked), 2))
    for f in np.unique(fold[asked]):
        cloud, patches = learned(rows_of(blocks, np.flatnonzero(fold != f)), pooled, layers, seed)
        mine = np.flatnonzero(fold[asked] == f)
        found, heats[mine] = measures(cloud, patches, rows_of(blocks, asked[mine]))
        if not len(measured):
            measured = np.empty((len(asked), found.shape[1]))
        measured[mine] = found
    return measured, heats


def good_folds(groups: Ints, keys: Sequence[str], seed: int) -> Ints:
    """(image,): the fold in which each good picture is left out, with its group."""
    n = min(FOLDS, len(np.unique(groups)))
    return stratified_folds(np.zeros(len(groups), np.int64), groups, n, seed, keys)


def learned(
    blocks: Blocks, pooled: tuple[Part, ...], layers: tuple[Layer, ...], seed: int
) -> tuple[Cloud, Patches | None]:
    """What good pictures look like."""
    return cloud_of(blocks, pooled), memory_of(blocks, layers, seed) if layers else None


def measures(cloud: Cloud, patches: Patches | None, blocks: Blocks) -> tuple[Doubles, Doubles]:
    """((image, measure) logarithms of distances: of the whole, and the mean of the patches; (image, 2): the middle and
    the largest distance of the patches)."""
    whole = np.log(cloud.distances(blocks) + 1e-9)[:, None] / 2
    if patches is None:
        return whole, np.zeros((len(whole), 2))
    heat = patches.heat(blocks).reshape(len(whole), -1).astype(np.float64)
    mean = np.log(heat.mean(axis=1) + 1e-9)[:, None]
    return np.hstack([whole, mean]), np.stack([np.median(heat, axis=1), heat.max(axis=1)], axis=1)


# As a whole


def _side_by_side(parts: tuple[Part, ...], blocks: Blocks) -> Floats:
    return np.concatenate([part.of(blocks[part.block]) for part in parts], axis=1)


def cloud_of(blocks: Blocks, parts: tuple[Part, ...]) -> Cloud:
    """Mean and shrunk covariance of these pictures."""
    x = _side_by_side(parts, blocks).astype(np.float64)
    mean = x.mean(axis=0)
    x -= mean
    n, p = x.shape
    scale = float((x**2).sum() / (n * p))
    if scale <= 0:  # all the same: any other is as far as it is away
        return Cloud(parts, mean.astype(np.float32), np.zeros((0, p), np.float32), np.zeros(0, np.float32), 1e-9)
    inner = x @ x.T if n <= p else x.T @ x
    values, vectors = np.linalg.eigh(inner)
    kept = values > values[-1] * 1e-10
    values = values[kept] / n
    axes = (vectors[:, kept].T @ x) / np.sqrt(n * values)[:, None] if n <= p else vectors[:, kept].T
    share = _shrinkage(values, (x**2).sum(axis=1), scale, n, p)
    spread = (1 - share) * values + share * scale
    rest = max(share, 1e-3) * scale  # never quite 0 where no good picture differs
    return Cloud(parts, mean.astype(np.float32), axes.astype(np.float32), spread.astype(np.float32), rest)


def _shrinkage(values: Doubles, lengths: Doubles, scale: float, n: int, p: int) -> float:
    """The share of the identity: Ledoit and Wolf (2004), section 3.3. values: of the covariance; lengths (image,):
    squared, of centred rows; scale: the mean variance."""
    square = float((values**2).sum())
    away = square / p - scale**2
    noise = (float((lengths**2).mean()) - square) / (n * p)
    return float(np.clip(noise / away, 0, 1)) if away > 0 else 1.0


# Patch by patch


def patches_of(layers: tuple[Layer, ...], blocks: Blocks) -> Floats:
    """(image, height, width, feature): the layers side by side on the places of the finest."""
    grids = [_smoothed(layer.grid(blocks[layer.block])) for layer in layers]
    side = max(grid.shape[1] for grid in grids)
    return np.concatenate([_enlarged(grid, side) for grid in grids], axis=3)


def _smoothed(grid: Floats) -> Floats:
    """Each place the mean of 3 x 3, as far as there are any."""
    for axis in (1, 2):
        n = grid.shape[axis]
        up = np.take(grid, np.minimum(np.arange(n) + 1, n - 1), axis=axis)
        down = np.take(grid, np.maximum(np.arange(n) - 1, 0), axis=axis)
        grid = np.asarray((grid + up + down) / 3, np.float32)
    return grid


def _enlarged(grid: Floats, side: int) -> Floats:
    """The places of a coarser map, each as often as it covers those of the finest."""
    if grid.shape[1] == side:
        return grid
    at = np.minimum(((np.arange(side) + 0.5) * grid.shape[1] / side).astype(np.intp), grid.shape[1] - 1)
    return np.asarray(np.take(np.take(grid, at, axis=1), at, axis=2))


def memory_of(blocks: Blocks, layers: tuple[Layer, ...], seed: int) -> Patches:
    """Whitening and memory of the patches of these pictures, or of some of them where there are many."""
    rng = np.random.default_rng(seed)
    pool = _drawn(blocks, layers, rng)
    mean = pool.mean(axis=0)
    pool -= mean
    covariance = (pool.T @ pool).astype(np.float64) / len(pool)
    ridge = RIDGE * np.trace(covariance) / len(covariance) or 1.0
    values, vectors = np.linalg.eigh(covariance)
    whitening = (vectors / np.sqrt(np.maximum(values, 0) + ridge)).astype(np.float32)
    white = pool @ whitening
    return Patches(layers, mean, whitening, thinned(white, MEMORY, rng).astype(np.float16).astype(np.float32))


def _drawn(blocks: Blocks, layers: tuple[Layer, ...], rng: np.random.Generator) -> Floats:
    """(patch, feature): as many of each picture, POOLED at most or one a picture."""
    n = len(blocks[layers[0].block])
    rows = np.sort(rng.permutation(n)[:POOLED])
    each = max(1, -(-POOLED // len(rows)))
    found, mine = list[Floats](), {layer.block: blocks[layer.block] for layer in layers}
    for start in range(0, len(rows), AT_ONCE):
        here = patches_of(layers, rows_of(mine, rows[start : start + AT_ONCE]))
        flat = here.reshape(len(here), -1, here.shape[-1])
        for one in flat:
            found.append(one[rng.permutation(len(one))[:each]])
    return np.concatenate(found)


def thinned(white: Floats, most: int, rng: np.random.Generator) -> Floats:
    """So many rows (patch, component) that no other lies far from all of them: each the farthest from those before it
    (k-centre greedy; Sener and Savarese 2018), in a random projection."""
    if len(white) <= most:
        return white
    width = white.shape[1]
    near = white if width <= AXES else white @ rng.standard_normal((width, AXES)).astype(np.float32)
    squares = (near**2).sum(axis=1)
    chosen = np.empty(most, np.intp)
    chosen[0] = int(rng.integers(len(near)))
    away = np.full(len(near), np.inf, np.float32)
    for k in range(most):
        last = chosen[k]
        np.minimum(away, squares - 2 * (near @ near[last]) + squares[last], out=away)
        away[last] = -np.inf
        if k + 1 < most:
            chosen[k + 1] = int(away.argmax())
    return white[np.sort(chosen)]
