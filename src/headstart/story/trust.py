"""Do the judged images speak for the training images? Two alarms, which cost no pass of the network.

What the model answers for its own training images, each left out, is what it would answer for new ones of the same
kind: where it answers the judged ones worse than chance explains, they are of another kind. And where a linear head
can tell which part an image is of, they look different, whatever the score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.heads import reference
from headstart.heads.apart import Apart, apart
from headstart.heads.material import Ints, Material
from headstart.heads.taps import LAST
from headstart.judge.crossing import Measure
from headstart.judge.marks import Interval
from headstart.story.plan import Plan
from headstart.tasks.task import Head, Rule, Task, Verdict

GIVEN = ("test folder", "validation folder")  # parts that the user made; ours is drawn at random


@dataclass(frozen=True)
class Trust:
    """`left_out`: the headline of the training images, each by a model without it; `dropped`: whether the judged ones
    are answered worse, beyond both intervals; `apart`: how well the two are told apart, where the user made the parts.
    """

    left_out: Interval | None
    dropped: bool
    apart: Apart | None

    @property
    def shifted(self) -> bool:
        """Whether the headline speaks of other pictures than those that taught."""
        return self.dropped or (self.apart is not None and self.apart.clear)

    def to_json(self) -> dict[str, Any]:
        """As metrics.json has it."""
        return {
            "left_out": self.left_out,
            "dropped": self.dropped,
            "told_apart": self.apart and self.apart.to_json(),
        }


def trust_of(task: Task, material: Material, plan: Plan, head: Head, rule: Rule, verdict: Verdict) -> Trust | None:
    """What can be said of a model that was judged on a part of its own; None for one that was cross-validated."""
    if plan.judge is None or task.own is not None:
        return None
    headline = task.judging.headline
    left_out = _left_out(task, material, plan.train, head, rule)
    dropped = left_out is not None and _worse(headline, verdict.score[headline.name], left_out)
    found = None
    if plan.source in GIVEN and LAST in material.blocks:
        strata = material.targets.strata
        classes = strata if strata.ndim == 1 else np.zeros(len(strata), dtype=np.int64)
        found = apart(material.at, plan.train, plan.judge, classes, material.groups, material.seed)
    return Trust(left_out, dropped, found)


def kept_of(task: Task, material: Material, train: Ints, head: Head, rule: Rule) -> reference.Reference | None:
    """Some of the images that taught, to be kept with the model; None where the head was not asked without them.

    The features must be of a network that has not learned from these images: what it says of them else is no more what
    it says of new ones.
    """
    block = reference.block_of(head.parts)
    if block not in material.blocks or (task.own is not None and not task.own.keeps):
        return None
    if task.own is not None:
        placed = np.zeros(len(train))
    elif len(head.left_out) == len(train):
        placed = reference.placed_by(task.answers(head.left_out, rule), task.name)
    else:
        return None
    return reference.reference_of(material.blocks, block, train, placed, material.groups[train], material.seed)


def _left_out(task: Task, material: Material, train: Ints, head: Head, rule: Rule) -> Interval | None:
    """The headline of the training images of which the head has such answers."""
    known = np.asarray(np.isfinite(head.left_out.reshape(len(head.left_out), -1)).all(axis=1))
    if len(known) != len(train) or not known.any():
        return None
    rows = train[known]
    marks = task.judging.mark(material.targets.take(rows), task.answers(head.left_out[known], rule))
    return task.judging.headline.of(marks, material.groups[rows])


def _worse(measure: Measure, judged: Interval, left_out: Interval) -> bool:
    """Whether the judged images are answered worse, beyond both intervals."""
    ends = (judged["low"], judged["high"], left_out["low"], left_out["high"])
    if any(end is None for end in ends):
        return False
    low, high, least, most = (float(end or 0.0) for end in ends)
    return high < least if measure.higher_is_better else low > most
