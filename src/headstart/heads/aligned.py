"""A head for pictures of another kind than those that taught: their mean takes the place of the training mean.

What makes a whole set of pictures unlike the others (grey, dark, another camera) moves the features of all of them
alike. A linear head takes that back by its intercept alone: scores(x) - coef (mean of theirs - mean of ours), the first
moment of CORAL (Sun, Feng and Saenko 2016). No label is needed, but it holds only where both hold the classes in about
the same shares: of other shares the means differ too. That shows in two ways: the means then differ along what tells
the classes apart, and the answers of the moved head have other shares than the classes that taught.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from headstart.heads.material import Blocks, Ints
from headstart.heads.probe import Probe
from headstart.heads.spectrum import LEAST, Doubles
from headstart.heads.taps import CHUNK

# Half the sum of the differences between the shares of classes in the answers and among the images that taught, less
# what chance makes of so few images. Of CIFAR-10 and EuroSAT in grey, inverted, blurred, as edges, at half and twice
# the resolution: with the same shares .04 to .23 are left of up to .52, with five of ten classes, or two mostly, .13
# to .41 (docs/measurements.md, late-taps).
ALIKE = 0.10
SMALLER = 0.5  # or this part of what the answers were off before
# Of the squared difference of the means the part that lies between the classes' own means: the same pictures .04 to .21
# with the same shares; five of ten classes, or two mostly, as they are, .45 to .93.
BETWEEN = 0.25


@dataclass(frozen=True)
class Aligned:
    """The head for the other pictures; how far the shares of its answers are off, before and after (0 to 1); the part
    of the squared difference of the means that lies between the means of the classes (0 to 1)."""

    head: Probe
    before: float
    after: float
    between: float

    @property
    def kept(self) -> bool:
        """Whether the classes seem to be mixed as among the images that taught."""
        return self.between <= BETWEEN and (self.after <= ALIKE or self.after <= SMALLER * self.before)


def aligned(head: Probe, taught: Blocks, y: Ints, theirs: Blocks) -> Aligned:
    """taught: block -> (image, feature) of the images of classes y (image,) that taught; theirs: of the others."""
    n = len(head.intercept)
    counts, classes = np.bincount(y, minlength=n), _sums(head, taught, y, n)
    shares, ours = counts / len(y), classes.sum(axis=0) / len(y)
    other = _sums(head, theirs, np.zeros(_n(head, theirs), np.int64), 1)[0] / _n(head, theirs)
    moved = other - ours
    apart = np.linalg.svd((classes / np.maximum(counts, 1)[:, None] - ours).T, full_matrices=False)[0][:, : n - 1]
    between = float(((apart.T @ moved) ** 2).sum() / max(float(moved @ moved), LEAST))
    new = replace(head, intercept=head.intercept - head.coef @ moved)
    before, after = (_off(one, theirs, shares) for one in (head, new))
    return Aligned(new, before, after, between)


def _n(head: Probe, blocks: Blocks) -> int:
    return len(blocks[head.parts[0].block])


def _sums(head: Probe, blocks: Blocks, y: Ints, n: int) -> Doubles:
    """(class, feature): of what the head reads, over the images of each of n classes y (image,)."""
    widths = [blocks[part.block].shape[1] for part in head.parts]
    found = np.zeros((n, sum(widths)))
    for k in range(0, len(y), CHUNK):
        here = slice(k, k + CHUNK)
        rows = np.concatenate([part.of(blocks[part.block][here]) for part in head.parts], axis=1)
        np.add.at(found, y[here], rows.astype(np.float64))
    return found


def _off(head: Probe, blocks: Blocks, shares: Doubles) -> float:
    """Half the sum of what the shares of its answers differ from these, beyond chance."""
    answers = np.exp(head.outputs(blocks))
    chance = np.sqrt(2 * shares * (1 - shares) / (np.pi * len(answers))).sum() / 2
    return max(0.0, float(np.abs(answers.mean(axis=0) - shares).sum() / 2 - chance))
