"""Whether the images that judge are of the same kind as those that teach: can a linear head tell the two apart?

A classifier two-sample test (Lopez-Paz and Oquab 2017): ridge learns from the features which part an image is of, and
its leave-one-out answers are compared with what they are when the parts are dealt out anew, at random within each
class. So neither the number of features nor another mixture of the classes makes two parts differ. One decomposition
serves every deal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.heads.closed import ridge_path
from headstart.heads.material import Blocks
from headstart.heads.spectrum import Doubles, decompose
from headstart.heads.taps import last

Ints = npt.NDArray[np.int64]

MOST = 400  # images of each part: random halves then lie within .05 of chance, and one decomposition takes 0.1 s
LEAST = 20  # images of each part: with fewer, parts of quite another kind may look alike
DEALS = 200
# In units of the mean squared length of a centred row; of 0.001 to 10 this told greyscale, inverted, blurred and
# recompressed CIFAR-10 pictures from the others best, at 60 to 400 images of each (EfficientNet-Lite0).
PENALTY = 1.0
RARE = 0.01  # share of random deals that are told apart as well: below it chance is no explanation
CLEAR = 0.6  # AUROC: a difference that is real but smaller than this is nobody's concern


@dataclass(frozen=True)
class Apart:
    """`auroc`, with the `low` and `high` end of its 95 % interval: how well the parts are told apart, .5 by chance;
    `chance`: the share of random divisions that are told apart as well; `n`: images of each part."""

    auroc: float
    low: float
    high: float
    chance: float
    n: int

    @property
    def clear(self) -> bool:
        """Whether they differ by more than chance, and by enough to matter."""
        return self.chance <= RARE and self.auroc >= CLEAR

    def to_json(self) -> dict[str, Any]:
        """As metrics.json has it."""
        return asdict(self) | {"clear": self.clear}


def apart(
    blocks: Callable[[Ints], Blocks], first: Ints, second: Ints, strata: Ints, groups: Ints, seed: int
) -> Apart | None:
    """How well images `first` (row,) and `second` (row,) can be told apart; None where there are too few to say.

    `blocks(rows)`: their features; strata (image,): classes, of which as many are drawn from each part; groups
    (image,): of images that belong together one is drawn, and none where they are of both parts.
    """
    rng = np.random.default_rng(seed)
    both = np.intersect1d(groups[first], groups[second])
    mine, theirs = (_one_a_group(rng.permutation(rows), groups, both) for rows in (first, second))
    drawn = _matched(mine, theirs, strata)
    n = len(drawn[0])
    if n < LEAST:
        return None
    rows = np.concatenate(drawn)
    part = np.repeat([0.0, 1.0], n)
    deals = np.stack([part, *(_dealt(part, strata[rows], rng) for _ in range(DEALS))], axis=1)
    spectrum = decompose(last().of(blocks(rows)))
    answers = ridge_path(spectrum, deals, [PENALTY * spectrum.scale])[0]
    values = _auroc(answers, deals)
    chance = float((values >= values[0]).mean())  # the real one among them: never 0
    return Apart(float(values[0]), *_interval(float(values[0]), n), chance, n)


def _one_a_group(rows: Ints, groups: Ints, both: Ints) -> Ints:
    rows = rows[~np.isin(groups[rows], both)]
    return rows[np.sort(np.unique(groups[rows], return_index=True)[1])]


def _matched(first: Ints, second: Ints, strata: Ints) -> tuple[Ints, Ints]:
    """As many of each class from both parts, at most MOST in all of each, the classes in turn."""
    turns = []
    for rows in (first, second):
        place = np.zeros(len(rows), dtype=np.int64)
        for c in np.unique(strata[rows]):
            mine = strata[rows] == c
            place[mine] = np.arange(mine.sum())
        turns.append(dict(zip(zip(strata[rows].tolist(), place.tolist(), strict=True), rows.tolist(), strict=True)))
    common = sorted(turns[0].keys() & turns[1].keys(), key=lambda key: (key[1], key[0]))[:MOST]
    chosen = [np.array([turn[key] for key in common], dtype=np.int64) for turn in turns]
    return chosen[0], chosen[1]


def _dealt(part: Doubles, strata: Ints, rng: np.random.Generator) -> Doubles:
    """The parts dealt out anew within each class."""
    order = np.lexsort((rng.random(len(part)), strata))
    out = np.empty_like(part)
    out[order] = part[np.lexsort((np.arange(len(part)), strata))]
    return out


def _auroc(scores: Doubles, truth: Doubles) -> Doubles:
    """Of each column, scores (image, column) for truth (image, column) of 0 and 1: (column,). Ties count half."""
    found = []
    for s, t in zip(scores.T, truth.T, strict=True):
        _, inverse, counts = np.unique(s, return_inverse=True, return_counts=True)
        rank = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
        ones, zeros = t.sum(), len(t) - t.sum()
        found.append((rank[t == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros))
    return np.array(found)


def _interval(value: float, n: int) -> tuple[float, float]:
    """95 %, for n images of each part (Hanley and McNeil 1982)."""
    q1, q2 = value / (2 - value), 2 * value * value / (1 + value)
    variance = (value * (1 - value) + (n - 1) * (q1 + q2 - 2 * value * value)) / (n * n)
    half = 1.96 * float(np.sqrt(max(variance, 0.0)))
    return max(0.0, value - half), min(1.0, value + half)
