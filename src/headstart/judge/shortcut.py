"""Can the class be told without looking at what a picture shows: from its file alone?

A class that was saved by another program, at another size or with another camera can be told from the file. A model
learns that too, and scores well on images that were made in the same way, and on no others. So ridge learns from the
facts (each value a column of its own, numbers in ranges) which class an image is of, in folds of which each is answered
by the others; of images that belong together one is taken. Of each class it is asked how well it is told from the
rest: the mean of the share of its images that is found and the share of the others that is not taken for it, 50 % by
guessing whatever the sizes of the classes. The class told best counts; its interval is Wilson's for as many classes as
there were to choose from, and the labels dealt out anew at random say how often chance does as well.

What a picture shows may differ in brightness and colour for good reason, as forest and sea do. Facts of the picture are
therefore told, and only facts of the file accuse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.facts import Facts
from headstart.data.quality import Looks
from headstart.judge.intervals import wilson

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Column = NDArray[Any]  # (image,) of numbers, or of texts

LEAST = 10  # images of a class, each of a group of its own: fewer show no rule
MOST = 2000  # images: more change nothing but the seconds
FOLDS = 5
RANGES = 8  # of equal numbers of images, into which numbers are parted
VALUES = 24  # values of a fact that have a column of their own, each of at least SEEN images
SEEN = 3
PENALTY = 1.0  # of ridge: as much as one image that says nothing
DEALS = 200
RARE = 0.01  # share of random deals that do as well: below it chance is no explanation
# The lower end of the interval from which a class is accused. Photographs from the web differ by class a little in
# their sizes and qualities: ants are told from bees at .58 [.53, .63] (398 images).
CLEAR = 0.65


@dataclass(frozen=True)
class Told:
    """How well the class that is told best is told from the others: `value` with `low` and `high`; `chance`: the share
    of random labels that do as well, 1 where that need not be asked; by which `facts`, the best first, each with what
    it does alone."""

    label: str
    value: float
    low: float
    high: float
    chance: float
    n: int
    facts: tuple[tuple[str, float], ...]

    @property
    def clear(self) -> bool:
        """Whether more than chance tells it, and well enough to matter."""
        return self.low >= CLEAR and self.chance <= RARE

    def to_json(self) -> dict[str, Any]:
        """As metrics.json has it."""
        found = {name: round(value, 4) for name, value in self.facts}
        ends = {name: round(getattr(self, name), 4) for name in ("value", "low", "high", "chance")}
        return {"class": self.label, **ends, "n": self.n, "alone": found, "clear": self.clear}


def of_files(facts: Sequence[Facts], looks: Sequence[Looks] | None = None) -> dict[str, Column]:
    """What stands in the files, fact -> (image,), and the frames around pictures where they were looked at."""
    sides = np.array([(f.width, f.height) for f in facts], dtype=np.float64)
    shape = np.log(np.maximum(sides[:, 0], 1) / np.maximum(sides[:, 1], 1))
    found: dict[str, Column] = {
        "size": sides.prod(axis=1),
        "width x height": _texts(f"{f.width} x {f.height}" for f in facts),
        "shape": shape,
        "format": _texts(f.kind for f in facts),
        "JPEG quality": _texts(f.packing for f in facts),
        "colour sampling": _texts(f.sampling for f in facts),
        "camera": _texts(f.camera for f in facts),
    }
    return found | ({"frame": _texts(look.frame for look in looks)} if looks is not None else {})


def of_pictures(facts: Sequence[Facts], looks: Sequence[Looks]) -> dict[str, Column]:
    """What a glance at the pictures says, fact -> (image,)."""
    colours = np.array([look.colour for look in looks])
    return {
        "bytes a pixel": np.array([f.n_bytes / max(1, f.width * f.height) for f in facts]),
        "brightness": colours.mean(axis=1),
        "red": colours[:, 0] - colours[:, 1],
        "blue": colours[:, 2] - colours[:, 1],
        "contrast": np.array([look.bright - look.dark for look in looks]),
        "sharpness": np.array([look.blur for look in looks]),
    }


def _texts(values: Iterable[str]) -> Column:
    return np.array(list(values), dtype=object)


def drawn(labels: NDArray[Any], groups: Ints, seed: int, most: int = MOST) -> Ints:
    """Rows that are asked: one of each group, of classes with at least LEAST, at most `most`, the classes in turn."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    order = order[np.sort(np.unique(groups[order], return_index=True)[1])]
    _, classes = np.unique(labels[order].astype(str), return_inverse=True)
    turn = np.zeros(len(order), dtype=np.int64)
    for one, count in enumerate(np.bincount(classes)):
        turn[classes == one] = np.arange(count) if count >= LEAST else -1
    order, turn = order[turn >= 0], turn[turn >= 0]
    return np.sort(order[np.argsort(turn, kind="stable")[:most]])


def told_by(columns: Mapping[str, Column], labels: NDArray[Any], seed: int) -> Told | None:
    """How well the class is told by facts -> (image,) of images that do not belong together, with their labels
    (image,); None where there are fewer than two classes, or no fact that differs."""
    names, classes = np.unique(labels.astype(str), return_inverse=True)
    parts = {name: part for name, column in columns.items() if (part := _columns(column)).shape[1] > 1}
    if len(names) < 2 or not parts:
        return None
    folds = _folds(classes, np.random.default_rng(seed))
    truth = np.eye(len(names))[classes]
    scores = _scores(np.column_stack(list(parts.values())), truth, folds)
    found = _balanced(scores, truth)
    best = int(found.argmax())
    z = NormalDist().inv_cdf(1 - 0.025 / len(names))
    low, high = _interval(scores[:, best], truth[:, best], z)
    chance = 1.0
    if low >= CLEAR:
        chance = _chance(np.column_stack(list(parts.values())), truth, folds, float(found[best]), seed)
    one = truth[:, [best]]
    alone = {name: float(_balanced(_scores(part, one, folds), one)[0]) for name, part in parts.items()}
    order = tuple(sorted(alone.items(), key=lambda item: -item[1]))
    return Told(str(names[best]), float(found[best]), low, high, chance, len(labels), order)


def _columns(column: Column) -> Doubles:
    """(image, value) of 0 and 1: a column for each frequent value, or for each range of numbers; the rest have none."""
    if column.dtype != object:
        known = np.unique(column)
        if len(known) > RANGES:
            edges = np.unique(np.quantile(column, np.linspace(0, 1, RANGES + 1)[1:-1]))
            return np.eye(len(edges) + 1)[np.searchsorted(edges, column, side="right")]
    values, codes, counts = np.unique(column.astype(str), return_inverse=True, return_counts=True)
    frequent = [k for k in np.argsort(-counts, kind="stable") if counts[k] >= SEEN][:VALUES]
    kept = np.eye(len(values))[codes][:, frequent]
    rest = 1 - kept.sum(axis=1, keepdims=True)
    return np.column_stack([kept, rest]) if rest.any() else kept


def _folds(classes: Ints, rng: np.random.Generator) -> Ints:
    """(image,): in 0 .. FOLDS - 1, each class spread evenly."""
    order = np.lexsort((rng.random(len(classes)), classes))
    found = np.empty(len(classes), dtype=np.int64)
    found[order] = np.arange(len(classes)) % FOLDS
    return found


def _scores(x: Doubles, truth: Doubles, folds: Ints) -> Doubles:
    """(image, class): the share of each class that the other folds' images with such facts have, over its share."""
    out = np.empty_like(truth)
    for fold in range(FOLDS):
        out_of, into = folds != fold, folds == fold
        known, mean, share = x[out_of], x[out_of].mean(axis=0), truth[out_of].mean(axis=0)
        centred = known - mean
        inner = centred.T @ centred
        inner[np.diag_indices(len(inner))] += PENALTY
        out[into] = (x[into] - mean) @ np.linalg.solve(inner, centred.T @ (truth[out_of] - share))
    return out


def _right(scores: Doubles, truth: Doubles) -> tuple[Doubles, Doubles]:
    """(share of each class that is found, share of the others that is not taken for it): what scores above 0 has facts
    of which the class has more than its share."""
    said = scores > 0
    mine, others = truth.sum(axis=0), len(truth) - truth.sum(axis=0)
    return (said * truth).sum(axis=0) / mine, (~said * (1 - truth)).sum(axis=0) / others


def _balanced(scores: Doubles, truth: Doubles) -> Doubles:
    """(class,)."""
    found, spared = _right(scores, truth)
    return (found + spared) / 2


def _interval(score: Doubles, truth: Doubles, z: float) -> tuple[float, float]:
    """Of the balanced share of one class, from those of its halves (Zou and Donner 2008)."""
    halves = [float(v[0]) for v in _right(score[:, None], truth[:, None])]
    counts = (float(truth.sum()), float(len(truth) - truth.sum()))
    ends = [wilson(share, n, z) for share, n in zip(halves, counts, strict=True)]
    middle = sum(halves) / 2
    below = sum((share - low) ** 2 for share, (low, _) in zip(halves, ends, strict=True)) ** 0.5 / 2
    above = sum((high - share) ** 2 for share, (_, high) in zip(halves, ends, strict=True)) ** 0.5 / 2
    return max(0.0, middle - below), min(1.0, middle + above)


def _chance(x: Doubles, truth: Doubles, folds: Ints, value: float, seed: int) -> float:
    """The share of random deals of the labels of which some class is told as well; the real one among them."""
    rng = np.random.default_rng(seed + 1)
    as_well = 1
    for _ in range(DEALS):
        dealt = truth[rng.permutation(len(truth))]
        as_well += bool(_balanced(_scores(x, dealt, folds), dealt).max() >= value)
    return as_well / (DEALS + 1)
