"""What a classifier's answers shall serve: the share that is right, the mean recall of the classes, or costs.

An answer is then (class, 2): the probability, as it was calibrated, and what answering with the class is worth. What
that is worth is a part of the rule: `weights` (class,) or `costs` (true class x answer, row by row), kept with the
model; probabilities, and all that is said of them, stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import recipe
from headstart.data.costs import read_costs
from headstart.data.targets import Targets, class_numbers
from headstart.errors import OptionError
from headstart.heads.decide import balancing, spared, weighted
from headstart.heads.material import Ints
from headstart.heads.spectrum import Doubles
from headstart.judge.class_marks import class_marks
from headstart.judge.marks import Marks, Score
from headstart.tasks.classification import BALANCED_ACCURACY, CLASSIFICATION
from headstart.tasks.confidence import LEAST_AMBIGUOUS, check_sets, confidence
from headstart.tasks.task import Judging, Rule, Task

DECIDING = ("weights", "costs")  # of a rule


@dataclass(frozen=True, eq=False)
class Aim:
    """`balanced`: the mean recall; `costs` (true class, answer): these. Neither: the most probable class."""

    balanced: bool = False
    costs: Doubles | None = None

    @property
    def decides(self) -> bool:
        return self.balanced or self.costs is not None


def with_aim(
    task: Task,
    aim: str,
    cost: str | None,
    classes: Sequence[str],
    counts: Sequence[int],
    coverage: float | None,
    max_error: float | None,
    sets: str = LEAST_AMBIGUOUS,
) -> Task:
    """The task with what the user's answers shall serve; counts (class,): images that teach. Raises OptionError for a
    task without classes, DataError for costs that are none of these classes."""
    asked = f"--cost {cost}" if cost is not None else f"--aim {aim}" if aim != "accuracy" else ""
    if task.name != CLASSIFICATION.name:
        if asked:
            raise OptionError(
                f"{asked} says nothing for --task {task.name}: it is of one class an image (--task classify); "
                "leave it out"
            )
        return task
    found = Aim(aim == "balanced", None if cost is None else read_costs(cost, classes))
    if found.decides:
        task = replace(deciding(task, found), rule=partial(_rule, found, coverage, max_error, sets))
    if aim == "balanced" or recipe.unequal(list(counts)):
        task = replace(task, judging=in_balance(task.judging))
    return task


def as_saved(task: Task, rule: Rule, n_classes: int) -> Task:
    """The task of a saved model, by its rule. Raises ValueError for a rule that does not fit its classes."""
    if task.name != CLASSIFICATION.name:
        return task
    check_sets(rule, n_classes)
    if not any(name in rule for name in DECIDING):
        return task
    costs = None
    if "costs" in rule:
        if len(rule["costs"]) != n_classes**2:
            raise ValueError(f"it has {len(rule['costs'])} costs, needed: {n_classes**2}")
        costs = np.array(rule["costs"]).reshape(n_classes, n_classes)
    elif len(rule["weights"]) != n_classes:
        raise ValueError(f"it has {len(rule['weights'])} weights of classes, needed: {n_classes}")
    task = deciding(task, Aim(costs is None, costs))
    return task if costs is not None else replace(task, judging=in_balance(task.judging))


def deciding(task: Task, aim: Aim) -> Task:
    """With answers (image, class, 2), judged by what they decide."""
    judging = replace(task.judging, mark=partial(_mark, aim))
    return replace(task, answers=_answers, extra=(2,), judging=judging)


def in_balance(judging: Judging) -> Judging:
    """Judging whose headline is the balanced accuracy."""

    def first(score: Callable[..., Score]) -> Callable[..., Score]:
        def ordered(*given: Any) -> Score:
            found = score(*given)
            return replace(found, estimates={BALANCED_ACCURACY.name: found[BALANCED_ACCURACY.name], **found.estimates})

        return ordered

    return replace(
        judging,
        headline=BALANCED_ACCURACY,
        measure=None,
        score=first(judging.score),
        crossed=first(judging.crossed),
    )


def _rule(
    aim: Aim,
    coverage: float | None,
    max_error: float | None,
    sets: str,
    targets: Targets,
    left_out: Doubles,
    groups: Ints,
) -> Rule:
    """From log-probabilities left out (image, class): nothing else teaches the weights."""
    known = np.isfinite(left_out).all(axis=1)
    own: dict[str, tuple[float, ...]] = {}
    if aim.costs is not None:
        own["costs"] = tuple(aim.costs.ravel().tolist())
    else:
        y, n = class_numbers(targets), left_out.shape[1]
        taught = balancing(np.exp(left_out[known]), y[known], groups[known]) if known.any() else np.ones(n)
        own["weights"] = tuple(taught.tolist())
    decided = _answers(left_out, own)[:, :, 1].argmax(axis=1)
    return own | dict(confidence(coverage, max_error, targets, left_out, groups, decided, sets))


def _answers(outputs: Doubles, rule: Rule) -> Doubles:
    """(image, class, 2): probability and worth, from log-probabilities."""
    p = np.exp(outputs)
    if "costs" in rule:
        worth = spared(p, np.reshape(rule["costs"], (p.shape[1], p.shape[1])))
    else:
        worth = weighted(p, rule["weights"])
    return np.stack([p, worth], axis=2)


def _mark(aim: Aim, targets: Targets, answers: NDArray[Any]) -> Marks:
    """Marks of what was decided; with costs also `cost` (image,), and `cost_by_probability`."""
    y = class_numbers(targets)
    marks = class_marks(y, answers)
    if aim.costs is None:
        return marks
    p = answers[:, :, 0] if answers.ndim == 3 else answers
    of = {"cost": marks["answer"], "cost_by_probability": p.argmax(axis=1)}
    return Marks({**marks.columns, **{name: aim.costs[y, answer] for name, answer in of.items()}})
