"""A head for pictures of another kind than those that taught: their mean takes the place of the training mean.

What makes a whole set of pictures unlike the others (grey, dark, another camera) moves the features of all of them
alike. A linear head takes that back by its intercept alone: scores(x) - coef (mean of theirs - mean of ours), the first
moment of CORAL (Sun, Feng and Saenko 2016). No label is needed, but it holds only where both hold the classes in about
the same shares: of other shares the means differ too. Whether they do is read off the answers, which then have the
shares of the classes that taught.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from headstart.heads.material import Blocks, Ints
from headstart.heads.probe import Probe
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import CHUNK, Part

# Half the sum of the differences between the shares of classes in the answers and among the images that taught, less
# what chance makes of so few images. Of CIFAR-10 and EuroSAT in grey, inverted, blurred, as edges, at half and twice
# the resolution: with the same shares .04 to .23 are left of up to .52, with five of ten classes, or two mostly, .13
# to .41 (docs/measurements.md, late-taps).
ALIKE = 0.10
SMALLER = 0.5  # or this part of what the answers were off before


@dataclass(frozen=True)
class Aligned:
    """The head for the other pictures; how far the shares of its answers are off, before and after (0 to 1)."""

    head: Probe
    before: float
    after: float

    @property
    def kept(self) -> bool:
        """Whether the shares of the answers say that the classes are mixed as among the images that taught."""
        return self.after <= ALIKE or self.after <= SMALLER * self.before


def aligned(head: Probe, taught: Blocks, y: Ints, theirs: Blocks) -> Aligned:
    """taught: block -> (image, feature) of the images of classes y (image,) that taught; theirs: of the others."""
    moved = np.concatenate([_mean(part, theirs) - _mean(part, taught) for part in head.parts])
    other = replace(head, intercept=head.intercept - head.coef @ moved)
    shares = np.bincount(y, minlength=len(head.intercept)) / len(y)
    return Aligned(other, *(_off(one, theirs, shares) for one in (head, other)))


def _mean(part: Part, blocks: Blocks) -> Doubles:
    """(feature,): of what the head reads of this part."""
    block = blocks[part.block]
    sums = [part.of(block[k : k + CHUNK]).sum(axis=0, dtype=np.float64) for k in range(0, len(block), CHUNK)]
    return np.asarray(sum(sums) / len(block))


def _off(head: Probe, blocks: Blocks, shares: Doubles) -> float:
    """Half the sum of what the shares of its answers differ from these, beyond chance."""
    answers = np.exp(head.outputs(blocks))
    chance = np.sqrt(2 * shares * (1 - shares) / (np.pi * len(answers))).sum() / 2
    return max(0.0, float(np.abs(answers.mean(axis=0) - shares).sum() / 2 - chance))
