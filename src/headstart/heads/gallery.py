"""Who is known: one prototype an identity, which images are compared with; unknown is an answer.

A prototype is the mean of its images' embeddings at unit length (prototypes: Snell et al. 2017; the mean
direction: Mardia and Jupp 2000). Names are kept sorted, so that the order of enrolling does not matter.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.counted import counted
from headstart.errors import DataError, OptionError

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]

CHUNK = 1024  # images compared at a time: with 10,000 identities 82 MB
RATE = 0.01  # of strangers that are taken for somebody


def unit(rows: Floats) -> Doubles:
    """Rows at unit length; a row of zeros stays zero."""
    wide = rows.astype(np.float64)
    length = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    return np.asarray(wide / np.where(length > 0, length, 1.0))


@dataclass(frozen=True)
class Threshold:
    """A similarity from which on an image is accepted. rate: of false accepts, as asked; n: the impostor scores that it
    comes from; supported: whether so few can tell that rate (else nobody of them was accepted)."""

    value: float
    rate: float
    n: int

    @property
    def supported(self) -> bool:
        return _above(self.n, self.rate) >= 1

    @property
    def note(self) -> str | None:
        if self.supported:
            return None
        needed = math.ceil(1 / self.rate) - 1
        return (
            f"a false-accept rate of {self.rate:g} cannot be told from {counted(self.n, 'score')} of strangers: "
            f"{needed} are needed; the threshold lies above all of them"
        )


def _above(n: int, rate: float) -> int:
    """Of n exchangeable scores, how many lie above a threshold that a new one passes with a probability of `rate`."""
    return math.floor(rate * (n + 1) + 1e-9)  # the product is rounded


def threshold_at(impostors: Floats, rate: float = RATE) -> Threshold:
    """The lowest threshold at which a new stranger is accepted with a probability of at most `rate`.

    Of n exchangeable scores, a new one lies above the k-th largest with probability k / (n + 1) (Vovk et al. 2005), so
    k = floor(rate (n + 1)); with k = 0 the threshold lies above all. Raises OptionError for a rate outside (0, 1).
    """
    if not 0 < rate < 1:
        raise OptionError(f"false-accept rate {rate:g}: allowed is more than 0 and less than 1, such as 0.01")
    if not len(impostors):
        return Threshold(1.0, rate, 0)
    k = max(_above(len(impostors), rate), 1)
    above = float(np.partition(impostors.astype(np.float64), len(impostors) - k)[len(impostors) - k])
    return Threshold(float(np.nextafter(above, np.inf)), rate, len(impostors))


@dataclass(frozen=True, eq=False)
class Gallery:
    """names, sorted; means (identity, k) of unit embeddings; counts (identity,) of images."""

    names: tuple[str, ...]
    means: Doubles
    counts: Ints

    @staticmethod
    def empty(k: int) -> Gallery:
        return Gallery((), np.zeros((0, k)), np.zeros(0, np.int64))

    @staticmethod
    def of(embedded: Floats, identities: Ints, names: Sequence[str]) -> Gallery:
        """All at once: embedded (image, k), identities (image,) numbers of names. Names without image are dropped."""
        order = np.argsort(np.asarray(names, dtype=str), kind="stable")
        rank = np.argsort(order, kind="stable")
        counts = np.bincount(rank[identities], minlength=len(names))
        means = _sums(embedded, rank[identities], len(names)) / np.maximum(counts, 1)[:, None]
        here = np.flatnonzero(counts)
        return Gallery(tuple(str(names[int(order[i])]) for i in here), means[here], counts[here])

    @property
    def prototypes(self) -> Doubles:
        """(identity, k) at unit length."""
        return unit(self.means)

    def enrol(self, name: str, embedded: Floats) -> Gallery:
        """With these images (image, k) of `name`, which are added to those that it has. Raises DataError for none."""
        if not len(embedded):
            raise DataError(f"{name} cannot be enrolled: no image is given, at least 1 is needed")
        new = embedded.astype(np.float64).sum(axis=0)
        if name in self.names:
            i = self.names.index(name)
            means, counts = self.means.copy(), self.counts.copy()
            counts[i] += len(embedded)
            means[i] = (means[i] * self.counts[i] + new) / counts[i]
            return Gallery(self.names, means, counts)
        at = int(np.searchsorted(np.asarray(self.names, dtype=str), name)) if self.names else 0
        names = (*self.names[:at], name, *self.names[at:])
        means = np.insert(self.means, at, new / len(embedded), axis=0)
        return Gallery(names, means, np.insert(self.counts, at, len(embedded)))

    def remove(self, name: str) -> Gallery:
        """Without this identity. Raises OptionError where it is not enrolled."""
        if name not in self.names:
            near = difflib.get_close_matches(name, self.names, 1)
            hint = f"did you mean {near[0]}?" if near else f"{counted(len(self.names), 'name')} in the gallery"
            raise OptionError(f"{name} is not enrolled: {hint}")
        kept = np.arange(len(self.names)) != self.names.index(name)
        names = tuple(n for n in self.names if n != name)
        return Gallery(names, self.means[kept], self.counts[kept])

    def nearest(self, embedded: Floats) -> Doubles:
        """Cosine similarities (image, identity)."""
        return np.asarray(embedded.astype(np.float64) @ self.prototypes.T)

    def best(self, embedded: Floats) -> tuple[Ints, Doubles]:
        """(place of the most similar identity (image,), its similarity (image,)); -1 and -1.0 in an empty gallery."""
        number, similarity = np.full(len(embedded), -1), np.full(len(embedded), -1.0)
        if self.names:
            prototypes = self.prototypes
            for start in range(0, len(embedded), CHUNK):
                scores = embedded[start : start + CHUNK].astype(np.float64) @ prototypes.T
                number[start : start + CHUNK] = scores.argmax(axis=1)
                similarity[start : start + CHUNK] = scores.max(axis=1)
        return number, similarity

    def identify(self, embedded: Floats, threshold: float) -> list[tuple[str | None, float]]:
        """(name, similarity) of each image; None for unknown, whose best similarity is below the threshold."""
        found = zip(*self.best(embedded), strict=True)
        return [(self.names[int(i)] if i >= 0 and s >= threshold else None, float(s)) for i, s in found]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What is saved beside the list of names."""
        return {"gallery.means": self.means, "gallery.counts": self.counts}

    @staticmethod
    def read(names: Sequence[str], arrays: Mapping[str, npt.NDArray[Any]]) -> Gallery:
        """From `arrays` and names. Raises DataError where they do not belong together."""
        means, counts = arrays["gallery.means"].astype(np.float64), arrays["gallery.counts"].astype(np.int64)
        sound = means.ndim == 2 and counts.shape == (len(names),) == means.shape[:1] and len(set(names)) == len(names)
        if not (sound and np.isfinite(means).all() and (counts > 0).all() and list(names) == sorted(names)):
            raise DataError("the gallery is damaged: its names and prototypes do not belong together; fit again")
        return Gallery(tuple(names), means, counts)


def similarity(first: Floats, second: Floats) -> Doubles:
    """How alike two images are: cosines (pair,) of embedded rows (pair, k)."""
    return np.asarray((first.astype(np.float64) * second).sum(axis=1))


def _sums(embedded: Floats, identities: Ints, n: int) -> Doubles:
    """Sums (identity, k); a stretch a time, since np.add.at would take a second a million rows."""
    order = np.argsort(identities, kind="stable")
    found, starts = np.unique(identities[order], return_index=True)
    sums = np.zeros((n, embedded.shape[1]))
    if len(found):
        sums[found] = np.add.reduceat(embedded.astype(np.float64)[order], starts, axis=0)
    return sums


@dataclass(frozen=True, eq=False)
class Against:
    """Each image against prototypes that it is no part of. own (image,): similarity to its identity's without the image
    and its group, nan where nothing is left; other (image,): the highest of the other identities, -1 without any."""

    own: Doubles
    other: Doubles

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Of the images whose identity has another group."""
        known = np.isfinite(self.own)
        return np.asarray(self.own[known] > self.other[known])


def leave_images_out(embedded: Floats, identities: Ints, groups: Ints) -> Against:
    """Genuine and impostor scores (image,) of the identities' own images: a group is left out of its prototype."""
    numbers = np.unique(identities, return_inverse=True)[1]
    n = int(numbers.max()) + 1
    wide = embedded.astype(np.float64)
    sums = _sums(wide, numbers, n)
    cells = np.unique(np.stack([numbers, groups]), axis=1, return_inverse=True)[1].ravel()
    rest = sums[numbers] - _sums(wide, cells, int(cells.max()) + 1)[cells]
    left = np.bincount(numbers)[numbers] > np.bincount(cells)[cells]
    own = np.where(left, (wide * unit(rest)).sum(axis=1), np.nan)
    other, prototypes = np.full(len(wide), -1.0), unit(sums)
    for start in range(0, len(wide), CHUNK):
        scores = wide[start : start + CHUNK] @ prototypes.T
        scores[np.arange(len(scores)), numbers[start : start + CHUNK]] = -1
        other[start : start + CHUNK] = scores.max(axis=1)
    return Against(own, other)
