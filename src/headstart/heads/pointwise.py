"""The class of each place of a picture, in closed form: ridge on what several stages' maps say there.

A place is described by every map at it, read bilinearly, and by the mean of the map's 3 x 3 cells around it, at unit
variance. The ridge is fitted to some pixels of each training image, drawn class by class (Bishop 2006, section 4.1.3:
least squares for classification), the classes weighted by their frequency to the power -1/2. Both the weighted sum of
maps and the reading between cells are linear, so that scores are made on each map's own grid and only they are
enlarged: a picture costs one product a map.

The penalty is chosen by leave-one-group-out, exact by formula: with H the hat matrix of the weighted rows, what is said
of a group without it is wrong by (1 - H_gg)^-1 e_g (Cook and Weisberg 1982, section 3.6).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.placing import VOID
from headstart.heads.closed import one_hot
from headstart.heads.maps import Layer
from headstart.heads.material import Blocks, Ints

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.uint8]  # (height, width) class numbers in px of the upright picture, VOID where nothing is known
MaskOf = Callable[[int], Mask]  # row of an image -> its mask
Rng = np.random.Generator

EACH = 500  # pixels of an image: neighbours say much the same
LEAST_EACH = 24  # and where there are many images
POSITIONS = 60_000  # pixels in all: 400 MB of rows for the default backbone's stages
COLUMNS = 128  # features whose spread is told at a time, as that copies them in float64
ASKED = 12_000  # pixels, of whole groups, that are asked while they are left out: half of the time goes there
AROUND = 3  # cells: the side of the square whose mean is read beside the cell itself
EXPONENT = -0.5  # of a class's frequency: its weight. 5 points of mIoU more than 0 on camvid's training images
RAREST = 1e-4  # frequency: rarer classes weigh as if they were as frequent, 100 times the most frequent at most
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)  # in the variance of a feature, which is 1
SCALES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)  # of scores between about -1 and 1, as logits
AT_ONCE = 8  # images whose scores are made at a time


@dataclass(frozen=True, eq=False)
class Pointwise:
    """A linear head on maps. `weights`: a map each, (2, channel, class): of the cell and of the mean around it; `bias`
    (class,). Its outputs are logits: sums times `scale`. `left_out`: of each penalty tried, the mean IoU of pixels that
    were left out with their group; `penalty` is that of the largest."""

    maps: tuple[Layer, ...]
    weights: tuple[Floats, ...]
    bias: Floats
    scale: float
    penalty: float
    left_out: tuple[tuple[float, float], ...] = ()

    @property
    def grid(self) -> tuple[int, int]:
        """(height, width) of the finest map."""
        return max((layer.shape[1:] for layer in self.maps), key=lambda side: side[0] * side[1])

    @property
    def n_classes(self) -> int:
        return len(self.bias)

    def outputs(self, blocks: Blocks) -> Floats:
        """Logits (image, class, height, width) on the finest grid."""
        n = len(blocks[self.maps[0].block])
        found = np.empty((n, self.n_classes, *self.grid), np.float32)
        for start in range(0, n, AT_ONCE):
            here = slice(start, start + AT_ONCE)
            found[here] = self._scores(blocks, here)
        return found

    def _scores(self, blocks: Blocks, rows: slice) -> Floats:
        total: Any = self.bias[:, None, None]
        for layer, weight in zip(self.maps, self.weights, strict=True):
            x = layer.of(blocks, rows)
            flat = x.reshape(len(x), x.shape[1], -1)
            own, around = (w.T @ flat for w in weight)
            shape = (len(x), self.n_classes, *layer.shape[1:])
            total = total + enlarged(own.reshape(shape) + around_of(around.reshape(shape)), self.grid)
        return np.asarray(total * self.scale, np.float32)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """What is kept in a file, by name."""
        return {"bias": self.bias, **{f"weight.{k}": weight for k, weight in enumerate(self.weights)}}

    def described(self) -> dict[str, Any]:
        """What else is kept, JSON-ready."""
        return {
            "kind": "pointwise",
            "maps": [{"block": layer.block, "shape": list(layer.shape)} for layer in self.maps],
            "scale": self.scale,
            "penalty": self.penalty,
            "left_out": [list(pair) for pair in self.left_out],
        }


def read_pointwise(described: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]], n_classes: int) -> Pointwise:
    """The head that `described` and `tensors` tell of. Raises ValueError in words that follow "its head ...", KeyError
    and TypeError for what is missing."""
    maps = layers_of(described)
    weights = tuple(checked(tensors, f"weight.{k}", (2, layer.shape[0], n_classes)) for k, layer in enumerate(maps))
    scale, penalty = float(described["scale"]), float(described["penalty"])
    if not (np.isfinite(scale) and scale > 0):
        raise ValueError(f"has a scale of {scale}, which must be a number above 0")
    left_out = tuple((float(one), float(other)) for one, other in described.get("left_out", ()))
    return Pointwise(maps, weights, checked(tensors, "bias", (n_classes,)), scale, penalty, left_out)


def layers_of(described: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The maps that a described head reads. Raises ValueError, KeyError, TypeError."""
    found = []
    for one in described["maps"]:
        channels, height, width = (int(side) for side in one["shape"])
        found.append(Layer(str(one["block"]), (channels, height, width)))
    if not found or any(min(layer.shape) < 1 for layer in found):
        raise ValueError("names maps that are not (channel, height, width)")
    return tuple(found)


def checked(tensors: Mapping[str, npt.NDArray[Any]], name: str, shape: tuple[int, ...]) -> Floats:
    """A tensor of this shape, all of it numbers. Raises ValueError, KeyError."""
    found = np.asarray(tensors[name], np.float32)
    if found.shape != shape:
        raise ValueError(f"has {name} of {found.shape}, which must be {shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"has {name} with values that are no numbers")
    return found


# Fitting


def fit_pointwise(
    blocks: Blocks,
    maps: Sequence[Layer],
    mask_of: MaskOf,
    groups: Ints,
    n_classes: int,
    seed: int = 0,
    penalties: Sequence[float] = PENALTIES,
) -> Pointwise:
    """From maps of training images and their masks. groups (image,): images of one group are left out together.

    Raises ValueError where no pixel of any mask is known.
    """
    rng = np.random.default_rng(seed)
    drawn = drawn_pixels(mask_of, len(groups), n_classes, rng)
    x, centre, spread = described_rows(blocks, maps, drawn)
    y, share = drawn.classes, drawn.worth
    frequency = np.bincount(y, share, n_classes) / share.sum()
    weight = share * np.maximum(frequency, RAREST)[y] ** EXPONENT
    root = np.sqrt(weight / weight.mean()).astype(np.float32)[:, None]
    targets = (2 * one_hot(y, n_classes) - 1).astype(np.float32) * root
    x *= root
    tied = groups[drawn.images]
    fits = _Ridge(x, targets, root[:, 0])
    asked = _asked(tied, rng)
    known = [fits.left_out(penalty, tied, asked) for penalty in penalties]
    marks = [mean_iou(y[asked], found.argmax(axis=1), share[asked], n_classes) for found in known]
    best = int(np.argmax(marks))
    coef = fits.coefficients(penalties[best]).astype(np.float64)
    coef, bias = coef[:-1] / spread[:, None], coef[-1] - (centre / spread) @ coef[:-1]
    return Pointwise(
        tuple(maps),
        _by_map(coef.astype(np.float32), maps),
        bias.astype(np.float32),
        _scale(known[best], y[asked], weight[asked]),
        penalties[best],
        tuple(zip(penalties, marks, strict=True)),
    )


@dataclass(frozen=True, eq=False)
class Drawn:
    """Pixels of training images: `images` (pixel,) rows, in runs; `at` (pixel, 2): y and x as shares of the picture's
    height and width; `classes` (pixel,); `worth` (pixel,): how many pixels of its image each stands for."""

    images: Ints
    at: Floats
    classes: Ints
    worth: Doubles


def drawn_pixels(mask_of: MaskOf, n_images: int, n_classes: int, rng: Rng) -> Drawn:
    """Of each image about as many of a class as the root of how many there are: rare classes and frequent ones."""
    each = int(np.clip(POSITIONS // n_images, LEAST_EACH, EACH))
    rows = np.sort(rng.permutation(n_images)[: POSITIONS // each])
    images, at, classes, worth = list[Ints](), list[Floats](), list[Ints](), list[Doubles]()
    for row in rows:
        mask = mask_of(int(row))
        order = np.argsort(mask, axis=None, kind="stable")
        counts = np.bincount(mask.ravel(), minlength=VOID + 1)[:n_classes]
        starts, roots = np.cumsum(counts) - counts, np.sqrt(counts)
        wanted = np.minimum(counts, np.ceil(each * roots / max(1.0, roots.sum()))).astype(int)
        for k in np.flatnonzero(wanted):
            place = order[starts[k] + rng.choice(counts[k], wanted[k], replace=False, shuffle=False)]
            y, x = np.divmod(place, mask.shape[1])
            at.append(np.stack([(y + 0.5) / mask.shape[0], (x + 0.5) / mask.shape[1]], axis=1).astype(np.float32))
            images.append(np.full(len(place), row))
            classes.append(np.full(len(place), k))
            worth.append(np.full(len(place), counts[k] / wanted[k] / max(1, counts.sum())))
    if not classes:
        raise ValueError("no pixel of any mask is known")
    return Drawn(*(np.concatenate(part) for part in (images, at, classes, worth)))  # type: ignore[arg-type]


def described_rows(blocks: Blocks, maps: Sequence[Layer], drawn: Drawn) -> tuple[Floats, Doubles, Doubles]:
    """(rows (pixel, feature + 1) at mean 0 and variance 1 with a last 1; mean and spread (feature,) that they had)."""
    width = sum(2 * layer.shape[0] for layer in maps)
    x = np.ones((len(drawn.images), width + 1), np.float32)
    starts = np.flatnonzero(np.diff(drawn.images, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(drawn.images)], strict=True):
        row, at = drawn.images[start], 0
        for layer in maps:
            own = layer.of(blocks, np.array([row]))[0]
            for part in (own, around_of(own)):
                x[start:end, at : at + len(part)] = read_at(part, drawn.at[start:end])
                at += len(part)
    centre = x[:, :-1].mean(axis=0, dtype=np.float64)
    parts = (x[:, at : min(at + COLUMNS, width)] for at in range(0, width, COLUMNS))
    spread = np.concatenate([part.std(axis=0, dtype=np.float64) for part in parts])
    spread = np.where(spread > 1e-6 * max(float(spread.max()), 1e-30), spread, 1.0)
    x[:, :-1] -= centre.astype(np.float32)
    x[:, :-1] /= spread.astype(np.float32)
    return x, centre, spread


class _Ridge:
    """Weighted least squares on rows x (pixel, feature + 1), the last of them free of any penalty. root (pixel,): the
    square root of each row's weight, which x and targets (pixel, class) have been multiplied by."""

    def __init__(self, x: Floats, targets: Floats, root: Floats) -> None:
        self.x, self.targets, self.root = x, targets, root
        self.scatter, self.products = (x.T @ x).astype(np.float64), (x.T @ targets).astype(np.float64)

    def _lower(self, penalty: float) -> Doubles:
        """The Cholesky factor of what is inverted."""
        ridge = np.full(len(self.scatter), penalty * len(self.x))
        ridge[-1] = 1e-9 * len(self.x)
        return np.asarray(np.linalg.cholesky(self.scatter + np.diag(ridge)), np.float64)

    def coefficients(self, penalty: float) -> Doubles:
        """(feature + 1, class)."""
        from scipy.linalg import cho_solve

        return np.asarray(cho_solve((self._lower(penalty), True), self.products))

    def left_out(self, penalty: float, tied: Ints, asked: Ints) -> Floats:
        """Scores (asked, class) of these rows, each by what was fitted without its group."""
        from scipy.linalg import cho_solve, solve_triangular

        lower = self._lower(penalty)
        coef, low = cho_solve((lower, True), self.products).astype(np.float32), lower.astype(np.float32)
        found = np.empty((len(asked), self.targets.shape[1]), np.float32)
        for group in np.unique(tied[asked]):
            mine = np.flatnonzero(tied[asked] == group)
            rows = asked[mine]
            z = solve_triangular(low, self.x[rows].T, lower=True, check_finite=False)  # (feature + 1, row)
            wrong = self.targets[rows] - self.x[rows] @ coef
            if len(rows) <= len(z):
                away = np.linalg.solve(np.eye(len(rows), dtype=np.float32) - z.T @ z, wrong)
            else:  # the same by the smaller matrix (Woodbury)
                away = wrong + z.T @ np.linalg.solve(np.eye(len(z), dtype=np.float32) - z @ z.T, z @ wrong)
            found[mine] = (self.targets[rows] - away) / self.root[rows, None]
        return found


def _asked(tied: Ints, rng: Rng) -> Ints:
    """Rows of whole groups drawn at random, about ASKED or one group, in order."""
    names, counts = np.unique(tied, return_counts=True)
    order = rng.permutation(len(names))
    taken = order[: max(1, int(np.searchsorted(np.cumsum(counts[order]), ASKED)))]
    return np.flatnonzero(np.isin(tied, names[taken]))


def mean_iou(truth: Ints, answer: Ints, worth: Doubles, n_classes: int) -> float:
    """Over the classes that truth (pixel,) or answer has; each pixel counts as `worth`."""
    both = np.bincount(truth[truth == answer], worth[truth == answer], n_classes)
    either = np.bincount(truth, worth, n_classes) + np.bincount(answer, worth, n_classes) - both
    return float((both[either > 0] / either[either > 0]).mean())


def _scale(scores: Floats, y: Ints, weight: Doubles) -> float:
    """What scores (pixel, class) are multiplied by so that their softmax has the least weighted log-loss."""

    def loss(scale: float) -> float:
        z = scale * scores.astype(np.float64)
        z -= z.max(axis=1, keepdims=True)
        return float(weight @ (np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y]))

    return min(SCALES, key=loss)


def _by_map(coef: Floats, maps: Sequence[Layer]) -> tuple[Floats, ...]:
    """(feature, class) -> a map each, (2, channel, class)."""
    ends = np.cumsum([2 * layer.shape[0] for layer in maps])[:-1]
    parts = zip(np.split(coef, ends), maps, strict=True)
    return tuple(part.reshape(2, layer.shape[0], -1) for part, layer in parts)


# Grids


def around_of(grid: Floats) -> Floats:
    """(..., height, width): the mean of the AROUND x AROUND cells about each; at the edge its cells count again."""
    for axis in (-2, -1):
        n, reach = grid.shape[axis], AROUND // 2
        moved = [np.take(grid, np.clip(np.arange(n) + by, 0, n - 1), axis=axis) for by in range(-reach, reach + 1)]
        grid = np.asarray(sum(moved) / np.float32(AROUND), np.float32)
    return grid


def between(n: int, to: int) -> Floats:
    """(to, n): what reads `to` evenly spaced values off n cells, linearly between their centres and as they are
    beyond the outermost."""
    return _weights(np.asarray((np.arange(to) + 0.5) / to, np.float32), n)


def _weights(at: Floats, n: int) -> Floats:
    """(place, n) for places as shares of the length."""
    place = np.clip(at * n - 0.5, 0, n - 1)
    low = np.minimum(place.astype(np.intp), max(0, n - 2))
    found, rows = np.zeros((len(at), n), np.float32), np.arange(len(at))
    found[rows, low] = 1 - (place - low)
    if n > 1:
        found[rows, low + 1] = place - low
    return found


def enlarged(grid: Floats, size: tuple[int, int]) -> Floats:
    """(..., height, width) at another size, bilinearly, by the centres of cells."""
    if grid.shape[-2:] == size:
        return grid
    down, right = (between(n, to) for n, to in zip(grid.shape[-2:], size, strict=True))
    return np.asarray(down @ grid @ right.T, np.float32)


def read_at(grid: Floats, at: Floats) -> Floats:
    """(place, channel): a grid (channel, height, width) at places (place, 2), y and x as shares of its sides."""
    _, height, width = grid.shape
    y, x = (np.clip(at[:, k] * n - 0.5, 0, n - 1) for k, n in ((0, height), (1, width)))
    top, left = (np.minimum(v.astype(np.intp), max(0, n - 2)) for v, n in ((y, height), (x, width)))
    down, right = y - top, x - left
    found: Any = 0.0
    for row, share in ((top, 1 - down), (np.minimum(top + 1, height - 1), down)):
        for column, part in ((left, 1 - right), (np.minimum(left + 1, width - 1), right)):
            found = found + grid[:, row, column] * (share * part)
    return np.asarray(found.T, np.float32)
