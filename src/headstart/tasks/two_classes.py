"""What doctors and inspectors ask of a classifier, as a part of its scores: see `judge/two_classes.py`.

With two classes one is positive. Which one, and the probabilities that left-out training images chose for a specificity
and a sensitivity, are a part of the model's rule: `positive` and `operating_from`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from headstart.data.targets import Targets, class_numbers
from headstart.errors import OptionError, nearest
from headstart.heads.material import Ints
from headstart.heads.spectrum import Doubles
from headstart.judge.two_classes import crossed_diagnostic, diagnostic, looked_for, thresholds_of, with_diagnostic
from headstart.tasks.task import Rule, Task

CLASSES = "classify"


def positive_of(asked: str, classes: Sequence[str]) -> int:
    """The number of the class that is asked for. Raises OptionError for none of two classes."""
    if len(classes) != 2:
        raise OptionError(
            f"--positive {asked} is of two classes, and there are {len(classes):,}: leave it out"
            if classes
            else f"--positive {asked} is of two classes (--task classify): leave it out"
        )
    if asked not in classes:
        raise OptionError(
            f"--positive {asked} is no class{nearest(asked, classes)}: the classes are {classes[0]} and {classes[1]}"
        )
    return list(classes).index(asked)


def asked_for(task: Task, asked: str | None, classes: Sequence[str]) -> int | None:
    """The number of the class that a user asks for, or None. Raises OptionError for one that is none of two classes."""
    return None if asked is None else positive_of(asked, classes if task.name == CLASSES else ())


def with_positive(task: Task, asked: str | None, classes: Sequence[str], counts: Sequence[int]) -> Task:
    """The task whose scores say it, of one class an image; counts (class,): images that teach. Raises OptionError for a
    class that is none of two."""
    if task.name != CLASSES:
        asked_for(task, asked, classes)
        return task
    positive = asked_for(task, asked, classes)
    positive = looked_for(classes, counts) if positive is None and len(classes) == 2 else positive
    judging = replace(task.judging, crossed=with_diagnostic(task.judging.crossed, crossed_diagnostic, positive))
    rule = task.rule if positive is None else partial(_rule, task, positive)
    return replace(task, judging=judging, rule=rule)


def _rule(task: Task, positive: int, targets: Targets, left_out: Doubles, groups: Ints) -> Rule:
    """From log-probabilities left out (image, class)."""
    known = np.isfinite(left_out).all(axis=1)
    p = np.exp(left_out[known, positive])
    chosen = thresholds_of(class_numbers(targets)[known] == positive, p)
    own = {"positive": (float(positive),)} | ({"operating_from": chosen} if chosen else {})
    return {**task.rule(targets, left_out, groups), **own}


def judged_by(task: Task, rule: Rule, positive: int | None = None) -> Task:
    """The task whose score of images, each judged once, says it at the thresholds of the rule. `positive`: another
    class than the rule's, whose thresholds are then chosen on the judged images."""
    if task.name != CLASSES:
        return task
    kept = int(rule["positive"][0]) if "positive" in rule else None
    least = rule.get("operating_from") if positive in (None, kept) else None
    positive = kept if positive is None else positive
    score = with_diagnostic(task.judging.score, diagnostic, positive, thresholds=least)
    return replace(task, judging=replace(task.judging, score=score))
