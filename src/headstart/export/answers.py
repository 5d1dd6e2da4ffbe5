"""What comes out of a graph beside what `predict` says: probabilities, values, scores or similarities, and the task's
own form of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import OptionError
from headstart.heads.material import Blocks
from headstart.heads.oddity import Oddity
from headstart.judge.class_marks import decision_of
from headstart.ship.package import Loaded
from headstart.tasks.identifier import Identifier
from headstart.tasks.task import Head, Rule

PROBABILITIES, VALUES, SCORES, SIMILARITIES = "probabilities", "values", "scores", "similarities"
OUTPUTS = {  # task -> what comes out
    "classify": PROBABILITIES,
    "tag": PROBABILITIES,
    "regress": VALUES,
    "anomaly": SCORES,
    "recognise": SIMILARITIES,
}
LEAST = 1e-300  # of a probability whose logarithm is taken

Plain = npt.NDArray[np.floating[Any]]  # (image, output), as a graph gives it


@dataclass(frozen=True)
class Further:
    """A second output of a graph: its name, its axes, and what it holds."""

    name: str
    axes: tuple[str, ...]
    what: str


HEAT = Further(
    "heat",
    ("image", "row", "column"),
    "how odd each place is: 0 usual, 1 as odd as the oddest place of a good picture at the threshold",
)
EMBEDDING = Further("embedding", ("image", "feature"), "of unit length: products of two are cosines")


def further_of(head: Head) -> Further | None:
    """What a graph of this head gives beside its answers."""
    if isinstance(head, Oddity):
        return None if head.patches is None else HEAT
    return EMBEDDING if isinstance(head, Identifier) else None


def further(head: Head, blocks: Blocks) -> npt.NDArray[np.float32] | None:
    """The same of features that `predict` reads."""
    if isinstance(head, Oddity):
        return head.heat(blocks)
    return head.recogniser.embedding.embed(blocks) if isinstance(head, Identifier) else None


def check_exportable(model: Loaded, name: str) -> None:
    """Raises OptionError for a task that no graph can answer."""
    if model.task.name not in OUTPUTS:
        raise OptionError(
            f"{name} is a model of --task {model.task.name}, which is not exported yet: export is of the tasks "
            f"{', '.join(OUTPUTS)}; use headstart predict or serve"
        )


def rule_of(model: Loaded) -> Rule:
    """What makes a decision of answers; of scores of oddity that from which a picture is odd, and the share of good
    ones that may be."""
    if isinstance(model.head, Oddity):
        return {"odd_from": (1.0,), "false_alarms": (model.head.rate,)}
    return model.rule


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
    if model.task.name == "anomaly":
        return np.asarray((mine[:, 0] >= 1) == (other[:, 0] >= 1))
    if model.task.name == "recognise":
        return np.asarray(_named(model, mine) == _named(model, other))
    return None


def _named(model: Loaded, similarities: Plain) -> npt.NDArray[np.int64]:
    """(image,): who it is, -1 for unknown."""
    known = similarities.max(axis=1) >= model.rule["identify"][0]
    return np.where(known, similarities.argmax(axis=1), -1)


def compared_as(model: Loaded, plain: Plain) -> npt.NDArray[np.float64]:
    """What differences are told of: scores of oddity by their logarithms, since they may be any number above 0."""
    wide = plain.astype(np.float64)
    return np.log(np.maximum(wide, LEAST)) if model.task.name == "anomaly" else wide
