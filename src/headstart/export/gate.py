"""Whether an int8 file is good enough: what it loses on images that judge the model, paired with `predict`.

A few hundred images cannot show half a point by counting right answers: of two files that are equally good each gets
some images right that the other does not. So two numbers decide.

- What was lost counts where it is more than `--max-drop` allows and more than chance: where equally good files would
  lose as many in fewer than CHANCE of cases (sign test of the images that only one of the two gets right).
- Each label that changed costs what the model itself gives for it: the probability of its label minus that of the new
  one. Probabilities are calibrated, so that their mean is the drop to be expected, without the chance of which images
  these are. It hardly varies, and may be no more than `--max-drop` either.

Where the model was cross-validated every image has taught, and labels of images that taught change too seldom. The
drop to be expected is then worked out from the change of the scores and the share of wrong answers, see
`quantise.expected_drop`, where that is more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.counted import counted
from headstart.errors import HeadstartError
from headstart.judge.marks import Interval

CHANCE = 0.2
Answers = npt.NDArray[np.floating[Any]]  # (image, output)


@dataclass(frozen=True)
class Verdict:
    """All in points. drop: what was lost of the measure on `n` images, with the paired 95 % interval; lost, gained:
    images that only the float model, only the int8 file gets right, and chance: how often equally good files would lose
    so many, None where answers are not right or wrong; expected: the drop to be expected, None of other tasks than
    classification."""

    max_drop: float
    n: int
    drop: float
    low: float
    high: float
    lost: int | None
    gained: int | None
    chance: float | None
    expected: float | None
    accepted: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def judged(
    max_drop: float,
    n: int,
    difference: Interval,
    right: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]] | None,
    expected: float | None,
) -> Verdict:
    """difference: int8 minus float, of the task's measure. right: (image,) which answers of the float model and of the
    int8 file are right, None of other tasks."""
    drop, low, high = (100 * -float(difference[end] or 0.0) for end in ("value", "high", "low"))
    lost = gained = chance = None
    if right is not None:
        lost, gained = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        chance = at_least(lost, lost + gained)
    beyond = drop > max_drop + 1e-9 and (chance is None or chance < CHANCE)
    accepted = not beyond and (expected is None or expected <= max_drop)
    return Verdict(max_drop, n, drop + 0.0, low, high, lost, gained, chance, expected, accepted)


def at_least(lost: int, changed: int) -> float:
    """The probability of so many heads or more in so many throws of a fair coin."""
    from scipy.special import betainc

    return float(betainc(lost, changed - lost + 1, 0.5)) if lost else 1.0


def cost_of_changes(probabilities: Answers, before: npt.NDArray[np.intp], after: npt.NDArray[np.intp]) -> float:
    """Points that changed labels cost by the float model's probabilities (image, class); before, after (image,)."""
    rows = np.arange(len(before))
    return 100 * float((probabilities[rows, before] - probabilities[rows, after]).mean()) if len(rows) else 0.0


def said(verdict: Verdict) -> str:
    """The numbers in words."""
    v = verdict
    told = f"it loses {v.drop:.2f} points ({v.low:+.2f} to {v.high:+.2f}) on {counted(v.n, 'image')}"
    if v.lost is not None:
        told += f", {v.lost:,} right answers lost and {v.gained:,} gained"
    if v.expected is not None:
        told += f"; by the probabilities of the labels that change {v.expected:.2f} points are to be expected"
    return told


def remark(verdict: Verdict, taught: bool) -> str | None:
    """What the images are too few to tell, or of another kind, in words."""
    v = verdict
    if taught:
        return "these images taught the model in the end, so that their labels change less often than those of new ones"
    if v.accepted and v.drop > v.max_drop and v.chance is not None:
        return (
            f"{v.drop:.2f} points on these {v.n:,} images are no more than chance, since equally good files would lose "
            f"as many in {v.chance:.0%} of cases: more held-out images would tell"
        )
    if v.n * v.max_drop < 100 and v.lost is not None:
        return f"one of {v.n:,} images is {100 / v.n:.2f} points: they are too few to show {v.max_drop:g} by themselves"
    return None


def check(verdict: Verdict, floats: int, layers: int) -> None:
    """Raises HeadstartError where the file loses too much."""
    if verdict.accepted:
        return
    raise HeadstartError(
        f"int8 is not good enough here: {said(verdict)}, and --max-drop allows {verdict.max_drop:g} "
        f"({floats:,} of {layers:,} layers are in float): nothing was written; leave out --int8, or allow more"
    )
