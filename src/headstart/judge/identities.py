"""Scores of pairs -> verification: EER, true accepts at a stated false-accept rate, and the ROC, with 95 % intervals.

Pairs are not independent: each identity is in many. Intervals resample identities (pigeonhole bootstrap, Owen 2007):
where identity i is drawn w_i times, a pair of two images of i counts w_i times and a pair of i and j w_i w_j times.
They are never narrower than Wilson's interval by the effective number of genuine pairs, whose clusters are the
identities: a bootstrap without mistakes would be certain of perfection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from headstart.judge.intervals import accuracy_interval
from headstart.judge.marks import Interval

Ints = NDArray[np.int64]
Array = NDArray[np.float64]

MOST_PAIRS = 100_000  # of each kind; more are drawn at random: 0.1 % false accepts are then 100 pairs
RESAMPLES = 1000
BLOCKS = 60  # identities resampled at most; more are merged at random into so many: the variance stays as it is
EDGES = 200  # thresholds of a resampled ROC, quantiles of the scores, dense where false accepts are few
CHUNK = 250  # resamples at a time
FALSE_ACCEPTS = {"tar_at_far_1e2": 1e-2, "tar_at_far_1e3": 1e-3}
ROC = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.2, 0.3, 0.5, 1.0)  # false-accept rates of the table
CLOSEST = 10  # pairs of identities in the table


@dataclass(frozen=True, eq=False)
class Pairs:
    """Scores (pair,) of images, and the identities first, second (pair,) of the two; equal in a genuine pair."""

    scores: Array
    first: Ints
    second: Ints

    @property
    def genuine(self) -> Array:
        return np.asarray(self.scores[self.first == self.second])

    @property
    def impostor(self) -> Array:
        return np.asarray(self.scores[self.first != self.second])


def drawn_pairs(identities: Ints, groups: Ints, seed: int, most: int = MOST_PAIRS) -> tuple[Ints, Ints]:
    """Rows (pair,), (pair,) of the pairs of images that are scored: all, or about `most` genuine and `most` impostor.

    Images of one group (copies, one film) are never a pair: they would be alike whatever the metric.
    """
    rng = np.random.default_rng(seed)
    n = len(identities)
    if n * (n - 1) // 2 <= most:
        one, other = np.triu_indices(n, 1)
    else:
        one, other = rng.integers(0, n, (2, 2 * most))
        apart = identities[one] != identities[other]
        own = _genuine(identities, rng, most)
        one, other = np.concatenate([one[apart][:most], own[0]]), np.concatenate([other[apart][:most], own[1]])
    kept = groups[one] != groups[other]
    return one[kept], other[kept]


def _genuine(identities: Ints, rng: np.random.Generator, most: int) -> tuple[Ints, Ints]:
    """All pairs of two images of one identity, or `most` of them at random."""
    order = np.argsort(identities, kind="stable")
    counts = np.unique(identities, return_counts=True)[1]
    starts = np.cumsum(counts) - counts
    below = np.cumsum(counts * (counts - 1) // 2)
    total = int(below[-1])
    number = np.arange(total) if total <= most else np.sort(rng.choice(total, most, replace=False))
    which = np.searchsorted(below, number, "right")
    within = number - (below[which] - counts[which] * (counts[which] - 1) // 2)
    second = ((1 + np.sqrt(1 + 8 * within)) // 2).astype(np.int64)  # of the pairs (0, 1), (0, 2), (1, 2), (0, 3) ...
    first = within - second * (second - 1) // 2
    return order[starts[which] + first], order[starts[which] + second]


def scored_pairs(embedded: NDArray[Any], identities: Ints, groups: Ints, seed: int) -> Pairs:
    """Cosines of pairs among embedded (image, k), rows of unit length."""
    one, other = drawn_pairs(identities, groups, seed)
    scores = np.empty(len(one))
    for start in range(0, len(one), 20_000):  # 20,000 x 400 float32 twice are 64 MB
        here = slice(start, start + 20_000)
        scores[here] = (embedded[one[here]] * embedded[other[here]]).sum(axis=1)
    return Pairs(scores, identities[one], identities[other])


def together(parts: Sequence[Pairs]) -> Pairs:
    """The pairs of several folds; identities are numbered alike in all."""
    columns = (np.concatenate([getattr(p, name) for p in parts]) for name in ("scores", "first", "second"))
    return Pairs(*columns)


def error_rates(genuine: Array, impostor: Array) -> tuple[Array, Array, Array]:
    """(thresholds, false-accept rates, false-reject rates), from all accepted to none; a score at the threshold is
    accepted."""
    thresholds = np.append(np.unique(np.concatenate([genuine, impostor])), np.inf)
    accepted = 1 - np.searchsorted(np.sort(impostor), thresholds, "left") / len(impostor)
    rejected = np.searchsorted(np.sort(genuine), thresholds, "left") / len(genuine)
    return thresholds, accepted, rejected


def equal_error_rate(genuine: Array, impostor: Array) -> float:
    """Where false accepts are as frequent as false rejects, on the straight line between two points of the ROC."""
    _, accepted, rejected = error_rates(genuine, impostor)
    return float(_crossing(accepted[None], rejected[None])[0])


def _crossing(accepted: Array, rejected: Array) -> Array:
    """EER (resample,) from rates (resample, threshold)."""
    gap = rejected - accepted
    after = np.maximum((gap >= 0).argmax(axis=1), 1)
    row = np.arange(len(gap))
    low, high = gap[row, after - 1], gap[row, after]
    share = np.divide(-low, high - low, out=np.zeros(len(low)), where=high > low)
    return np.asarray(accepted[row, after - 1] * (1 - share) + accepted[row, after] * share)


def accepted_at(genuine: Array, impostor: Array, rate: float) -> float | None:
    """Share of genuine pairs above the lowest threshold whose false-accept rate is at most `rate`; None where there are
    fewer than 1 / rate impostor pairs."""
    if len(impostor) * rate < 1 or not len(genuine):
        return None
    _, accepted, rejected = error_rates(genuine, impostor)
    return float(1 - rejected[(accepted <= rate + 1e-12).argmax()])


class PairTables(TypedDict):
    """`pairs`: how many are genuine and impostors; `roc`: {"false_accept_rate", "true_accept_rate"}."""

    pairs: dict[str, int]
    roc: list[dict[str, float]]


class Close(TypedDict):
    """Two identities and the mean similarity of their images."""

    first: str
    second: str
    similarity: float


class Confused(TypedDict):
    """How often images of an identity were taken for another."""

    identity: str
    taken_for: str
    n: int


def verification(pairs: Pairs, seed: int = 0) -> tuple[dict[str, Interval], PairTables]:
    """Estimates `eer`, `tar_at_far_1e2`, `tar_at_far_1e3`; tables `roc`, `pairs` and `closest`, JSON-ready.

    None where no pair is genuine, none an impostor, or impostors are too few for the rate.
    """
    genuine, impostor = pairs.genuine, pairs.impostor
    estimates: dict[str, Interval] = {n: {"value": None, "low": None, "high": None} for n in ("eer", *FALSE_ACCEPTS)}
    tables: PairTables = {"pairs": {"genuine": len(genuine), "impostor": len(impostor)}, "roc": []}
    if not (len(genuine) and len(impostor)):
        return estimates, tables
    thresholds, accepted, rejected = error_rates(genuine, impostor)
    draws = _resampled(pairs, seed)
    owner = pairs.first[pairs.first == pairs.second]
    at = int(np.abs(accepted - rejected).argmin())
    clusters = accuracy_interval(genuine < thresholds[at], owner)
    estimates["eer"] = _interval(equal_error_rate(genuine, impostor), _crossing(*draws), clusters)
    for name, rate in FALSE_ACCEPTS.items():
        value = accepted_at(genuine, impostor, rate)
        if value is not None:
            at = int((accepted <= rate + 1e-12).argmax())
            clusters = accuracy_interval(genuine >= thresholds[at], owner)
            estimates[name] = _interval(value, _at_rate(*draws, rate), clusters)
    for rate in ROC:
        value = accepted_at(genuine, impostor, rate)
        if value is not None:
            tables["roc"].append({"false_accept_rate": rate, "true_accept_rate": value})
    return estimates, tables


def _interval(value: float, draws: Array, clusters: Any) -> Interval:
    low, high = np.percentile(draws, [2.5, 97.5])
    shift = float(np.clip(clusters["value"] - value, -1, 1))  # of a rate read on the line between two thresholds
    ends = min(low, clusters["low"] - shift), max(high, clusters["high"] - shift)
    return {"value": value, "low": float(np.clip(ends[0], 0, value)), "high": float(np.clip(ends[1], value, 1))}


def _resampled(pairs: Pairs, seed: int) -> tuple[Array, Array]:
    """(false-accept, false-reject) rates (resample, threshold) of resampled identities."""
    rng = np.random.default_rng(seed)
    numbers = np.unique(np.concatenate([pairs.first, pairs.second]), return_inverse=True)[1]
    n = int(numbers.max()) + 1
    if n > BLOCKS:
        numbers, n = (rng.permutation(n) % BLOCKS)[numbers], BLOCKS
    one, other = numbers[: len(pairs.first)], numbers[len(pairs.first) :]
    edges = _edges(pairs)
    place = np.searchsorted(edges, pairs.scores, "right")  # accepted at so many of the thresholds
    same = pairs.first == pairs.second
    weights = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)
    low, high = np.minimum(one, other), np.maximum(one, other)
    cells = np.zeros((n * n, len(edges) + 1))
    np.add.at(cells, (low[~same] * n + high[~same], place[~same]), 1)
    own = np.zeros((n, len(edges) + 1))
    np.add.at(own, (one[same], place[same]), 1)
    accepted = np.empty((RESAMPLES, len(edges) + 1))
    for start in range(0, RESAMPLES, CHUNK):
        w = weights[start : start + CHUNK]
        both = w[:, :, None] * w[:, None, :]
        both[:, np.arange(n), np.arange(n)] = w  # two identities that were merged are drawn together
        accepted[start : start + CHUNK] = both.reshape(len(w), -1) @ cells
    return _above(accepted), 1 - _above(weights @ own)


def _edges(pairs: Pairs) -> Array:
    tail = 1 - np.geomspace(1e-4, 1, EDGES // 2)
    shares = np.linspace(0, 1, EDGES // 2)
    return np.unique(np.concatenate([np.quantile(pairs.impostor, tail), np.quantile(pairs.genuine, shares)]))


def _above(counts: Array) -> Array:
    """Share (resample, threshold) of the scores from the threshold on; first all, at last none. A resample without any
    pair counts as half."""
    total = counts.sum(axis=1, keepdims=True)
    above = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
    share = np.divide(above, total, out=np.full(above.shape, 0.5), where=total > 0)
    return np.concatenate([share, np.zeros((len(share), 1))], axis=1)


def _at_rate(accepted: Array, rejected: Array, rate: float) -> Array:
    at = (accepted <= rate).argmax(axis=1)
    return np.asarray(1 - rejected[np.arange(len(at)), at])


def closest(pairs: Pairs, names: Sequence[str]) -> list[Close]:
    """The pairs of identities with the highest mean similarity of their images."""
    apart = pairs.first != pairs.second
    one, other = (f(pairs.first[apart], pairs.second[apart]) for f in (np.minimum, np.maximum))
    cells, place = np.unique(one * len(names) + other, return_inverse=True)
    mean = np.bincount(place, weights=pairs.scores[apart]) / np.maximum(np.bincount(place), 1)
    return [
        {
            "first": names[int(cells[i] // len(names))],
            "second": names[int(cells[i] % len(names))],
            "similarity": float(mean[i]),
        }
        for i in np.argsort(-mean, kind="stable")[:CLOSEST]
    ]


def confused(truth: Ints, best: Ints, names: Sequence[str]) -> list[Confused]:
    """Who was taken for whom how often, the most frequent first."""
    wrong = truth != best
    cells, counts = np.unique(truth[wrong] * len(names) + best[wrong], return_counts=True)
    return [
        {
            "identity": names[int(cells[i] // len(names))],
            "taken_for": names[int(cells[i] % len(names))],
            "n": int(counts[i]),
        }
        for i in np.argsort(-counts, kind="stable")[:CLOSEST]
    ]
