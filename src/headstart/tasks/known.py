"""The tasks that come with headstart, by the names that `--task`, tables and saved models give them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from headstart.errors import OptionError
from headstart.tasks import multilabel
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.confidence import LEAST_AMBIGUOUS, confidence
from headstart.tasks.detection import DETECTION
from headstart.tasks.multilabel import MULTILABEL
from headstart.tasks.oddities import ODDITIES
from headstart.tasks.placed import PlacedTask
from headstart.tasks.recognition import RECOGNITION
from headstart.tasks.regression import REGRESSION
from headstart.tasks.segmentation import SEGMENTATION
from headstart.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, MULTILABEL, REGRESSION, RECOGNITION, ODDITIES)}

PLACED: dict[str, PlacedTask] = {task.name: task for task in (SEGMENTATION, DETECTION)}  # answers lie in the picture


def with_threshold(task: Task, threshold: float | None) -> Task:
    """The task with the user's own threshold, if there is one. Raises OptionError where nothing is given by one."""
    if threshold is None:
        return task
    if task.name != MULTILABEL.name:
        raise OptionError(
            f"--threshold {threshold:g} is of several labels an image (--task tag), and the task here is {task.name}: "
            "leave it out"
        )
    return replace(task, rule=partial(multilabel.fixed, threshold))


def with_confidence(task: Task, coverage: float | None, max_error: float | None, sets: str = LEAST_AMBIGUOUS) -> Task:
    """The task with the user's own sets, their coverage, and largest error of answers. Raises OptionError where it has
    none of them."""
    if coverage is None and max_error is None and sets == LEAST_AMBIGUOUS:
        return task
    if task.name != CLASSIFICATION.name:
        option = f"--sets {sets}" if max_error is None else f"--max-error {max_error:g}"
        option = option if coverage is None else f"--coverage {coverage:g}"
        raise OptionError(
            f"{option} says nothing for --task {task.name}: it is of one class an image (--task classify); leave it out"
        )
    return replace(task, rule=partial(confidence, coverage, max_error, sets=sets))
