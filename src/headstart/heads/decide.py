"""From probabilities to the answer: not the most probable class, but the one that is worth most.

For the mean recall of the classes (balanced accuracy) that is the class whose probability is largest beside its share
of the images (Elkan 2001; Menon et al. 2013); for costs the answer whose expected cost is smallest (Elkan 2001).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headstart.heads.spectrum import Doubles

Ints = npt.NDArray[np.integer]
# How much of the classes' shares is taken out: none, part or all of them. What theory asks for comes first of equals.
POWERS = (1.0, 0.75, 0.5, 0.25, 0.0)


def weighted(p: Doubles, weights: npt.ArrayLike) -> Doubles:
    """(image, class): probabilities by weights (class,), which sum to 1 again."""
    found = p * np.asarray(weights)
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def spared(p: Doubles, costs: npt.ArrayLike) -> Doubles:
    """(image, answer): the expected cost of each answer, negative, for costs (true class, answer)."""
    return np.asarray(-(p @ np.asarray(costs)))


def balancing(p: Doubles, y: Ints, groups: Ints) -> Doubles:
    """Weights (class,) by which the most probable class becomes the answer that serves the mean recall.

    p (image, class): left-out probabilities; y (image,): the classes; groups (image,): one counts once. A power of the
    inverse of the classes' shares, that of POWERS whose left-out mean recall is best: one number is chosen, so that
    little is learned by heart. A class without an image weighs as much as the rarest.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    each = 1 / sizes[group]
    share = np.bincount(y, weights=each, minlength=p.shape[1])
    share = np.where(share > 0, share, share[share > 0].min(initial=share.max()))
    tried = [(share.max() / share) ** power for power in POWERS]
    recalls = [mean_recall(weighted(p, w).argmax(axis=1), y, each) for w in tried]
    return np.asarray(tried[int(np.argmax(np.round(recalls, 12)))])


def mean_recall(answer: Ints, y: Ints, each: Doubles) -> float:
    """The mean over the classes that occur of their share of right answers; each (image,): what an image counts."""
    of = np.bincount(y, weights=each)
    right = np.bincount(y, weights=each * (answer == y), minlength=len(of))
    return float((right[of > 0] / of[of > 0]).mean())
