"""When an answer can be relied on: sets of classes that hold the truth, and the probability below which to abstain.

Both are thresholds on probabilities, found once from left-out answers: at prediction they cost a comparison.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headstart.heads.measured import half_widths
from headstart.heads.spectrum import Doubles

Ints = npt.NDArray[np.integer]
NEVER = 2.0
"""A threshold above any probability: nothing is answered."""
CONFIDENCE = 0.95  # that the bound on the error holds
# Several places among the answers from which the search for the threshold begins, each with its part of the risk: one
# sure mistake, such as a wrong label, would end the only one (Angelopoulos et al. 2021, section 2: multi-start).
STARTS = 4  # of as many answers as can be; fewer where they are few


def set_threshold(of_truth: Doubles, coverage: float, groups: Ints) -> float:
    """The probability from which a class belongs to an image's set: least ambiguous sets (Sadinle, Lei and Wasserman
    2019) hold the truth of the share `coverage` of new images.

    of_truth (image,): the left-out probability of the true class. It is the (n + 1)-corrected quantile of those, in
    which each group (image,) counts once. 0, where the images are too few to say: every class belongs to the set.
    """
    largest = float(half_widths(1 - of_truth[:, None], coverage, groups)[0])
    return max(0.0, 1 - largest) if np.isfinite(largest) else 0.0


def class_thresholds(p: Doubles, truth: Ints, coverage: float, groups: Ints) -> Doubles:
    """(class,): a threshold for each class from its own images alone, so that the sets hold the truth of the share
    `coverage` of new images of each class (Mondrian or class-conditional sets, Vovk 2012; Sadinle, Lei and Wasserman
    2019, section 2.2). 0 for a class with too few independent images to say: it belongs to every set.

    p (image, class): left-out probabilities; truth, groups (image,).
    """
    return np.array(
        [set_threshold(p[truth == k, k], coverage, groups[truth == k]) for k in range(p.shape[1])], dtype=np.float64
    )


def least_groups(coverage: float) -> int:
    """Images (groups) from which on a set can be less than all classes."""
    return int(np.ceil(coverage / (1 - coverage) - 1e-9))


def answer_threshold(sure: Doubles, right: npt.NDArray[np.bool_], max_error: float, groups: Ints) -> float:
    """The probability from which an answer is given, so that with 95 % confidence at most the share `max_error` of the
    answers given is wrong; NEVER, where these images do not show it for any.

    sure (image,): the left-out probability of the answer; right (image,): whether it is. Of each group (image,) one
    image is drawn, since the others say little more. The thresholds are tried from sure to less sure ones, from a few
    starts, each until the first that is not shown to hold the bound (fixed-sequence testing, Angelopoulos et al. 2021,
    "Learn then test"). Above the k-th surest answer the mistakes among those that are surer are binomial, whatever that
    answer's probability is: the exact test of Clopper and Pearson holds.
    """
    one = _one_of_each(groups)
    order = one[np.argsort(-sure[one], kind="stable")]
    n = len(order)
    surest, mistakes = sure[order], np.cumsum(~right[order], dtype=np.int64)
    # the k surest are those above the next one; all of them, those above 0. Equals are not told apart.
    apart = np.append(surest[1:] < surest[:-1], True)
    starts = min(STARTS, n // least_answers(max_error))
    if not starts:
        return NEVER
    shown = ~apart | _at_most(mistakes, np.arange(1, n + 1), max_error, (1 - CONFIDENCE) / starts)
    best = 0
    for start in np.linspace(least_answers(max_error, starts), n, starts, endpoint=False).astype(int):
        until = int(np.argmin(np.append(shown[start - 1 :], False)))  # so many are shown, one after the other
        reached = np.flatnonzero(apart[start - 1 : start - 1 + until])
        best = max(best, start + int(reached[-1]) if len(reached) else 0)
    if not best:
        return NEVER
    return 0.0 if best == n else float(np.nextafter(surest[best], NEVER))


def least_answers(max_error: float, starts: int = 1) -> int:
    """Answers, all of them right, that show at most so many wrong ones with the part of the risk of one start."""
    return int(np.ceil(np.log((1 - CONFIDENCE) / starts) / np.log1p(-max_error)))


def _at_most(mistakes: Ints, n: Ints, share: float, risk: float) -> npt.NDArray[np.bool_]:
    """Whether so few mistakes among n would be rarer than `risk`, were the share of mistakes `share` or more."""
    from scipy.special import bdtr

    return np.asarray(bdtr(mistakes, n, share) <= risk)


def _one_of_each(groups: Ints) -> npt.NDArray[np.intp]:
    """One row of each group, drawn."""
    order = np.random.default_rng(0).permutation(len(groups))
    return np.asarray(order[np.unique(groups[order], return_index=True)[1]])
