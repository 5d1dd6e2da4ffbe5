"""What comes out of a graph beside what `predict` says: probabilities or values, and the task's own form of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import OptionError
from headstart.judge.class_marks import decision_of
from headstart.ship.package import Loaded

PROBABILITIES, VALUES = "probabilities", "values"
OUTPUTS = {"classify": PROBABILITIES, "tag": PROBABILITIES, "regress": VALUES}  # task -> what comes out
LEAST = 1e-300  # of a probability whose logarithm is taken

Plain = npt.NDArray[np.floating[Any]]  # (image, output), as a graph gives it


def check_exportable(model: Loaded, name: str) -> None:
    """Raises OptionError for a task that no graph can answer."""
    if model.task.name == "anomaly":
        raise OptionError(
            f"{name} is a model of --task anomaly, whose head looks for the nearest patches that it knows and is not "
            f"exported yet: export is of the tasks {', '.join(OUTPUTS)}; use headstart predict or serve"
        )
    if model.task.name not in OUTPUTS:
        raise OptionError(
            f"{name} is a model of --task {model.task.name}, which answers from the list of those enrolled, and that "
            f"grows after the fit: export is of the tasks {', '.join(OUTPUTS)}"
        )


def plain_of(answers: npt.NDArray[np.floating[Any]]) -> Plain:
    """(image, output) of what `predict` answers, (image, output) or (image, output, 2)."""
    return answers[:, :, 0] if answers.ndim == 3 else answers


def answers_of(model: Loaded, plain: Plain) -> npt.NDArray[np.float32]:
    """What a graph gave in the form of the model's task, with its thresholds, intervals or worths beside."""
    p = plain.astype(np.float64)
    if model.task.name == "classify":
        p = np.log(np.maximum(p, LEAST))
    elif model.task.name == "tag":
        p = np.clip(p, LEAST, 1 - np.finfo(np.float64).epsneg)
        p = np.log(p) - np.log1p(-p)
    return model.task.answers(p, model.rule).astype(np.float32)


def same_answer(model: Loaded, ours: Plain, theirs: Plain) -> npt.NDArray[np.bool_] | None:
    """(image,): whether the labels are the same; None of measured values."""
    mine, other = answers_of(model, ours), answers_of(model, theirs)
    if model.task.name == "classify":
        return np.asarray(decision_of(mine) == decision_of(other))
    if model.task.name == "tag":
        given = [found[:, :, 0] >= found[:, :, 1] for found in (mine, other)]
        return np.asarray((given[0] == given[1]).all(axis=1))
    return None
