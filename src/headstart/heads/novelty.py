"""Whether an image is unlike all that taught: how far its features lie from theirs, and how undecided its answer is.

Two distances, of which the one is taken that better tells classes that are left out from those that stay. Both are of
features at unit length, to each class apart, in units of what is usual in that class, and the nearest class counts:

`class means`         squared Mahalanobis distance to the mean of each class, with one covariance for all (Lee et al.
                      2018) of unit rows (Mahalanobis++, Mueller and Hein 2025), far shrunk: what remains of it are the
                      directions in which images of one class differ most, so that these alone are kept.
`nearest neighbours`  mean squared distance to the nearest images of each class (Sun et al. 2022).

A distance alone misses what the classes are told apart by: to its logarithm the root of the answer's entropy is added,
each in units of its spread over images that taught, left out. The sum tells classes that no model had seen from those
that it knew better than either does (benchmarks/novelty.py); the root, since the entropy itself has so long a tail that
pictures of quite another kind, far away and surely answered, stayed below the limit.

The limit is a quantile of left-out scores with the n + 1 correction of conformal prediction: of new images of known
classes at most the share RATE lies beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from headstart.heads.closed import row_by_row, tied_places
from headstart.heads.confident import least_groups
from headstart.heads.material import Ints
from headstart.heads.measured import half_widths
from headstart.heads.spectrum import Doubles
from headstart.heads.sums import Rows
from headstart.heads.taps import LAST, Part

Floats32 = npt.NDArray[np.float32]
Times = Callable[[Floats32, Floats32], Floats32]  # (row, k), (k, column) -> (row, column)

RATE = 0.05  # of false alarms: at 1 % a third to a half of the images of unseen classes that 5 % finds are found
MEANS, NEIGHBOURS = "class means", "nearest neighbours"
MOST = 2000  # images that are looked at, and at least EACH of every class: enough for a quantile to within 1 point
EACH = 20
CHOICE = 400  # images by which one of the two distances is chosen
FOLDS = 5  # of the images, for the limit
CLASS_FOLDS = 2  # of the classes, for the choice
CLEARLY = 0.02  # of AUROC: nearest neighbours are taken where they win by more; means are smaller and steadier
RANK = 32  # directions that are kept of the covariance
EXTRA, ROUNDS = 8, 2  # of the search for them (Halko, Martinsson and Tropp 2011)
SHRINKAGE = 10.0  # of the covariance, in units of its mean eigenvalue: of 0.1, 1 and 10 best on Fashion-MNIST and faces
NEAREST = 3  # images of a class
MOST_ROWS, MOST_BYTES = 512, 2**20  # that are kept of nearest neighbours
STEADY = 5.0  # images of average spread that are added to each class: one of two images knows little of its own
WIDEST = 8192  # features: wider ones are maps of a layer
TENSORS = ("rows", "classes", "whitening", "spread")


def part_of(parts: tuple[Part, ...]) -> Part:
    """What distances are of, among the parts that a head reads: the pre-logits, else the deepest."""
    if LAST in {part.block for part in parts}:
        return Part(LAST, root=True, unit=True)
    return Part(parts[-1].block, root=False, unit=True)


@dataclass(frozen=True, eq=False)
class Distance:
    """`rows` (row, feature) of `classes` (row,): means, or images; `whitening` (feature, component), of which none are
    for nearest neighbours; `spread` (class,): what is usual."""

    rows: Floats32
    classes: Ints
    whitening: Floats32
    spread: Floats32

    def of(self, x: Floats32, times: Times = np.matmul) -> Doubles:
        """(image,): to the nearest class, for x (image, feature); `times` multiplies matrices."""
        return np.asarray((_by_class(self.between(x, times), self.classes, len(self.spread)) / self.spread).min(axis=1))

    def rounded(self) -> Distance:
        """As the saved model has it."""
        rows, whitening = (a.astype(np.float16).astype(np.float32) for a in (self.rows, self.whitening))
        return Distance(rows, self.classes, whitening, self.spread)

    @cached_property
    def _whitened(self) -> Floats32:
        """(row, component): images come one by one, the rows stay."""
        return self.rows @ self.whitening

    @cached_property
    def _lengths(self) -> tuple[Floats32, Floats32]:
        """Squared lengths (row,) of the rows, as they are and whitened."""
        return (self.rows * self.rows).sum(axis=1), (self._whitened * self._whitened).sum(axis=1)

    def between(self, x: Floats32, times: Times = np.matmul) -> Doubles:
        """(image, row)."""
        plain, white = self._lengths
        found = _squares(x, self.rows, plain, times)
        found -= _squares(times(x, self.whitening), self._whitened, white, times)
        return np.asarray(np.maximum(found, 1e-9), dtype=np.float64)


Make = Callable[[Floats32, Ints, Ints], Distance]


def of_means(x: Floats32, y: Ints, groups: Ints) -> Distance:
    """From images x (image, feature) of classes y (image,), each present; groups (image,)."""
    n = np.bincount(y)
    sums = np.eye(len(n), dtype=np.float32)[y].T @ x
    means = sums / n[:, None].astype(np.float32)
    residuals = x - means[y]
    rng = np.random.default_rng(0)
    sketch = rng.standard_normal((x.shape[1], min(RANK + EXTRA, *x.shape)), dtype=np.float32)
    for _ in range(ROUNDS):
        sketch = np.linalg.qr(residuals.T @ (residuals @ sketch))[0].astype(np.float32)
    inside = residuals @ sketch
    values, turn = np.linalg.eigh((inside.T @ inside).astype(np.float64))
    values, turn = np.maximum(values[::-1][:RANK], 0), turn[:, ::-1][:, :RANK]
    penalty = SHRINKAGE * max(float((residuals * residuals).sum()), 1e-12) / x.shape[1]
    whitening = ((sketch @ turn) * np.sqrt(values / (values + penalty))).astype(np.float32)
    # what is usual: the distance to the mean of the others of the class, without those of one's own group
    tied = np.unique(np.stack([y, groups]), axis=1, return_inverse=True)[1].ravel()  # numpy 2.0 gives a row
    rest, without = (n[y] - np.bincount(tied)[tied])[:, None].astype(np.float32), sums[y] - x
    for members in tied_places(tied):
        without[members] = sums[y[members]] - x[members].sum(axis=0)
    some = rest[:, 0] > 0
    apart = x[some] - without[some] / rest[some]
    own = (apart**2).sum(axis=1) - ((apart @ whitening) ** 2).sum(axis=1)
    return Distance(means, np.arange(len(n)), whitening, _spread(own, y[some], len(n)))


def of_neighbours(x: Floats32, y: Ints, groups: Ints) -> Distance:
    """From the same: the classes in turn give the rows that are kept."""
    kept = np.sort(_in_turn(y)[: min(MOST_ROWS, max(len(np.unique(y)), MOST_BYTES // (2 * x.shape[1])))])
    found = Distance(x[kept], y[kept], np.zeros((x.shape[1], 0), np.float32), np.ones(1, np.float32))
    between = found.between(x)
    between[groups[:, None] == groups[kept]] = np.inf
    own = _by_class(between, found.classes, int(y.max()) + 1)[np.arange(len(y)), y]
    some = np.isfinite(own)
    return Distance(found.rows, found.classes, found.whitening, _spread(own[some], y[some], int(y.max()) + 1))


METHODS: Mapping[str, Make] = {MEANS: of_means, NEIGHBOURS: of_neighbours}


@dataclass(frozen=True, eq=False)
class Novelty:
    """A distance with its calibration. `middles` and `widths`: of the distance's logarithm and the entropy's root, over
    `n` independent images, left out; `usual` and `limit`: of their sum, the median and what at most the share `rate` of
    new images of known classes is beyond; `told_apart`: the AUROC of each distance for classes left out."""

    method: str
    distance: Distance
    middles: tuple[float, float]
    widths: tuple[float, float]
    usual: float
    limit: float
    rate: float
    n: int
    told_apart: Mapping[str, float]

    def scores(self, x: Floats32, answers: npt.NDArray[np.floating]) -> Floats32:
        """(image,): 0 is usual, above 1 is unlike all that taught; of an image the same bits in any company, on one
        thread of BLAS. x (image, feature), as `part_of` prepares them; answers (image, class): probabilities."""
        found = _sum(_measures(self.distance, x, answers, row_by_row), self.middles, self.widths)
        return np.asarray((found - self.usual) / max(self.limit - self.usual, 1e-9), dtype=np.float32)

    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """As they are saved."""
        d = self.distance
        kept = (d.rows.astype(np.float16), d.classes.astype(np.int32), d.whitening.astype(np.float16), d.spread)
        return dict(zip(TENSORS, kept, strict=True))

    def to_json(self) -> dict[str, Any]:
        """As headstart.json has it."""
        return {
            "method": self.method,
            "false_alarms": self.rate,
            "images": self.n,
            "told_apart": dict(self.told_apart),
            "middles": list(self.middles),
            "widths": list(self.widths),
            "usual": self.usual,
            "limit": self.limit,
        }

    @classmethod
    def read(cls, told: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]], width: int, n_classes: int) -> Self:
        """As it was saved. Raises KeyError, ValueError or TypeError for what was not."""
        rows, classes, whitening, spread = (tensors[name] for name in TENSORS)
        if rows.ndim != 2 or rows.shape[1] != width or classes.shape != rows.shape[:1] or not len(rows):
            raise ValueError(f"its novelty has rows of the shape {rows.shape}, needed: (row, {width})")
        if whitening.ndim != 2 or len(whitening) != width or spread.shape != (n_classes,):
            raise ValueError(f"its novelty has the shapes {whitening.shape} and {spread.shape}")
        if classes.min() < 0 or classes.max() >= n_classes or not (spread > 0).all():
            raise ValueError("its novelty is of other classes")
        rows, whitening, spread = (a.astype(np.float32) for a in (rows, whitening, spread))
        distance = Distance(rows, classes.astype(np.int64), whitening, spread)
        middles, widths = (tuple(map(float, told[name])) for name in ("middles", "widths"))
        if len(middles) != 2 or len(widths) != 2:
            raise ValueError("its novelty is calibrated for other measures")
        return cls(
            str(told["method"]),
            distance,
            (middles[0], middles[1]),
            (widths[0], widths[1]),
            float(told["usual"]),
            float(told["limit"]),
            float(told["false_alarms"]),
            int(told["images"]),
            {str(name): float(value) for name, value in told["told_apart"].items()},
        )


def novelty_of(
    block: Rows, part: Part, train: Ints, y: Ints, groups: Ints, left_out: Doubles, seed: int
) -> Novelty | None:
    """For the images `train` (row,) of a block (image, feature) that `part` prepares, of classes y (row,), groups
    (row,) and log-probabilities left_out (row, class), nan where there are none. None where there are too few to say,
    or too wide features."""
    known = np.flatnonzero(np.isfinite(left_out).all(axis=1))
    rng, n_classes = np.random.default_rng(seed), left_out.shape[1]
    known = rng.permutation(known)
    fair = known[:MOST]  # the others only teach what a rare class looks like
    rows = np.union1d(fair, known[_places(y[known]) < EACH])
    if block.shape[1] > WIDEST or len(np.unique(groups[rows])) < least_groups(1 - RATE):
        return None
    if len(np.unique(y[rows])) < n_classes:
        return None
    x, y, groups, answers = part.of(block[train[rows]]), y[rows], groups[rows], np.exp(left_out[rows])
    told_apart = _told_apart(x, y, groups, rng)
    method = NEIGHBOURS if told_apart[NEIGHBOURS] > told_apart[MEANS] + CLEARLY else MEANS
    fold = _dealt(groups, FOLDS, rng)
    found, fair = np.full((len(rows), 2), np.nan), np.isin(rows, fair)
    for k in range(FOLDS):
        taught = np.flatnonzero(fold != k)
        found[fold == k] = _measures(_made(method, x, y, groups, taught), x[fold == k], answers[fold == k])
    found, tied = found[fair], groups[fair]
    middles, widths = found.mean(axis=0), np.maximum(found.std(axis=0), 1e-6)
    total = _sum(found, (middles[0], middles[1]), (widths[0], widths[1]))
    limit = float(half_widths((total - total.min())[:, None], 1 - RATE, tied)[0] + total.min())
    return Novelty(
        method,
        METHODS[method](x, y, groups).rounded(),
        (float(middles[0]), float(middles[1])),
        (float(widths[0]), float(widths[1])),
        float(np.median(total)),
        limit,
        RATE,
        len(np.unique(tied)),
        told_apart,
    )


def _told_apart(x: Floats32, y: Ints, groups: Ints, rng: np.random.Generator) -> dict[str, float]:
    """The AUROC by which each distance tells classes that are left out from new images of the others: the mean over
    parts of the classes."""
    rows = np.sort(_in_turn(y)[:CHOICE])
    x, y, groups = x[rows], y[rows], groups[rows]
    n_classes = int(y.max()) + 1
    part = rng.permutation(n_classes) % min(CLASS_FOLDS, n_classes)
    judged, found = _dealt(groups, 3, rng) == 0, {method: [] for method in METHODS}
    for k in np.unique(part):
        new, taught = part[y] == k, np.flatnonzero((part[y] != k) & ~judged)
        fresh = judged & np.isin(y, y[taught]) & ~new
        if len(taught) and fresh.any():
            for method, values in found.items():
                distance = _made(method, x, y, groups, taught)
                values.append(_auroc(distance.of(x[new]), distance.of(x[fresh])))
    return {method: float(np.mean(values)) if values else 0.5 for method, values in found.items()}


def _made(method: str, x: Floats32, y: Ints, groups: Ints, rows: Ints) -> Distance:
    return METHODS[method](x[rows], np.unique(y[rows], return_inverse=True)[1], groups[rows])


def _measures(distance: Distance, x: Floats32, answers: npt.NDArray[np.floating], times: Times = np.matmul) -> Doubles:
    """(image, 2): the logarithm of the distance, and the root of the entropy (nats) of probabilities (image, class)."""
    p = np.maximum(answers.astype(np.float64), 1e-12)
    entropy = np.maximum(-(p * np.log(p)).sum(axis=1), 0)
    return np.stack([np.log(distance.of(x, times)), np.sqrt(entropy)], axis=1)


def _sum(found: Doubles, middles: tuple[float, float], widths: tuple[float, float]) -> Doubles:
    return np.asarray(((found - np.array(middles)) / np.array(widths)).sum(axis=1))


def _squares(x: Floats32, rows: Floats32, lengths: Floats32, times: Times) -> Floats32:
    """Squared distances (image, row). lengths (row,): squared, of the rows."""
    return np.asarray((x * x).sum(axis=1)[:, None] - 2 * times(x, rows.T) + lengths)


def _by_class(between: Doubles, classes: Ints, n_classes: int) -> Doubles:
    """(image, class): the mean of the NEAREST, of distances (image, row); infinite where a class has no row."""
    if len(classes) == n_classes and np.array_equal(classes, np.arange(n_classes)):
        return between
    out = np.full((len(between), n_classes), np.inf)
    for c in np.unique(classes):
        mine = np.sort(between[:, classes == c], axis=1)[:, :NEAREST]
        there = np.isfinite(mine)
        some = there.any(axis=1)
        out[some, c] = np.where(there, mine, 0)[some].sum(axis=1) / there[some].sum(axis=1)
    return out


def _spread(own: Doubles, y: Ints, n_classes: int) -> Floats32:
    """(class,): the mean of `own` (image,) over the images y (image,) of each class, drawn to that of all."""
    mean = max(float(own.mean()), 1e-9) if len(own) else 1.0
    sums = np.bincount(y, weights=own, minlength=n_classes)
    return np.asarray((sums + STEADY * mean) / (np.bincount(y, minlength=n_classes) + STEADY), dtype=np.float32)


def _places(y: Ints) -> Ints:
    """(image,): the place of each image among those of its class, in their order."""
    order = np.argsort(y, kind="stable")
    out = np.empty(len(y), dtype=np.int64)
    out[order] = np.arange(len(y)) - np.searchsorted(y[order], y[order])
    return out


def _in_turn(y: Ints) -> Ints:
    """Images, one of each class after the other."""
    return np.argsort(_places(y), kind="stable")


def _dealt(groups: Ints, n_folds: int, rng: np.random.Generator) -> Ints:
    """(image,): the fold of each, whole groups at random."""
    _, group = np.unique(groups, return_inverse=True)
    return np.asarray((rng.permutation(int(group.max()) + 1) % n_folds)[group])


def _auroc(new: Doubles, known: Doubles) -> float:
    order = np.argsort(np.concatenate([known, new]), kind="stable")
    rank = np.empty(len(order))
    rank[order] = np.arange(1, len(order) + 1)
    n = len(new)
    return float((rank[len(known) :].sum() - n * (n + 1) / 2) / (n * len(known)))
