"""Which images are worth a label: those of which the model is least sure, without taking the same one twice.

The least sure images are gathered into as many clusters as labels are wanted, each counted by how unsure the model is,
and the image nearest to the middle of each is taken (Zhdanov 2019, "Diverse mini-batch Active Learning", arXiv
1901.05954). What it is worth beside chance: benchmarks/suggest.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]

POOL = 10  # times the labels wanted: the least sure images among which clusters are made (Zhdanov's beta)
ROUNDS = 20  # of k-means at most
CHUNK = 1024  # images compared at a time
FAR = 0.99  # of the labelled images have a nearer one among the others: what is farther is unlike them


@dataclass(frozen=True)
class Choice:
    """rows (choice,): the images to label, the least sure first; unsure (image,): 1 less the margin between the two
    best answers; distance (image,): to the nearest labelled image (None: not known); far: from where it is unlike all
    of them."""

    rows: npt.NDArray[np.int64]
    unsure: npt.NDArray[np.float64]
    distance: npt.NDArray[np.float64] | None = None
    far: float = np.inf


def choose(features: Floats, probabilities: Floats, n: int, taught: Floats | None = None) -> Choice:
    """n of the images with features (image, feature) of unit length and probabilities (image, class). taught (row,
    feature): the labelled images; of those chosen that are unlike all of them it is only said so."""
    best = np.sort(probabilities, axis=1)[:, ::-1]
    unsure = 1.0 - (best[:, 0] - best[:, 1] if best.shape[1] > 1 else best[:, 0]).astype(np.float64)
    distance, far = None, np.inf
    if taught is not None and len(taught) > 1:
        distance = nearest_distance(features, taught)
        far = float(np.quantile(nearest_distance(taught, taught, itself=False), FAR))
    pool = np.argsort(-unsure, kind="stable")[: max(n, min(len(unsure), POOL * n))]
    rows = pool if len(pool) <= n else pool[_middles(features[pool].astype(np.float32), unsure[pool], n)]
    return Choice(rows[np.argsort(-unsure[rows], kind="stable")], unsure, distance, far)


def nearest_distance(features: Floats, others: Floats, itself: bool = True) -> npt.NDArray[np.float64]:
    """(image,): Euclidean distance to the nearest of `others`; without `itself` these are the same rows, and none is
    its own neighbour."""
    wide, found = others.astype(np.float32), np.empty(len(features))
    for start in range(0, len(features), CHUNK):
        alike = features[start : start + CHUNK].astype(np.float32) @ wide.T
        if not itself:
            here = np.arange(len(alike))
            alike[here, start + here] = -np.inf
        found[start : start + CHUNK] = alike.max(axis=1)
    return np.asarray(np.sqrt(np.maximum(2.0 - 2.0 * found, 0.0)))


def _middles(x: npt.NDArray[np.float32], weights: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.int64]:
    """Rows of x (row, feature), one of each of n clusters; the least sure first is the first middle, then what is
    farthest from all."""
    weights = weights + 1e-6
    first = [int(weights.argmax())]
    away = ((x - x[first[0]]) ** 2).sum(axis=1)
    while len(first) < n:
        first.append(int((away * weights).argmax()))
        away = np.minimum(away, ((x - x[first[-1]]) ** 2).sum(axis=1))
    middles, cluster = x[first].copy(), np.zeros(len(x), dtype=np.int64)
    for round_ in range(ROUNDS):
        before = cluster
        cluster = ((middles**2).sum(axis=1) - 2 * x @ middles.T).argmin(axis=1)
        if round_ and (cluster == before).all():
            break
        for k in range(n):
            mine = cluster == k
            if mine.any():
                middles[k] = (x[mine] * weights[mine, None]).sum(axis=0) / weights[mine].sum()
    taken = np.zeros(len(x), dtype=bool)
    for k in range(n):
        apart = ((x - middles[k]) ** 2).sum(axis=1)
        taken[int(np.where(taken | (cluster != k), np.inf if (cluster == k).any() else apart, apart).argmin())] = True
    rest = np.argsort(-weights, kind="stable")
    more = rest[~taken[rest]][: n - int(taken.sum())]
    return np.asarray(np.concatenate([np.flatnonzero(taken), more]), dtype=np.int64)
