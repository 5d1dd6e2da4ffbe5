"""Several labels an image: any of them, all, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.table import Table
from headstart.data.targets import LabelSets, Targets, label_targets
from headstart.errors import DataError, OptionError
from headstart.finetune.objective import BINARY
from headstart.heads.calibrate import sigmoid
from headstart.heads.material import Ints, Material
from headstart.heads.per_label import best_thresholds, fit_per_label, learnable
from headstart.heads.probe import Known, Probe
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import TapSet
from headstart.judge.marks import Marks
from headstart.judge.summaries import measure_of
from headstart.judge.tag_marks import SUMMARIES, crossed_tag_score, tag_marks, tag_score, weakest_label
from headstart.tasks.task import Judging, Record, Rule, Task

PRECISION = measure_of(SUMMARIES[0])


def labels_of(targets: Targets) -> NDArray[np.int8]:
    """(image, label) 1, 0, or -1 for unknown. Raises TypeError for the targets of another task."""
    if not isinstance(targets, LabelSets):
        raise TypeError(f"{type(targets).__name__} are not sets of labels")
    return targets.present


def prepare(table: Table, min_images: int | None) -> Table:
    """The table as it is. Raises OptionError for what is of classes."""
    if min_images is not None:
        raise OptionError(f"--min-images {min_images} is of classes, and these images have labels: leave it out")
    return table


def check(targets: Targets, rows: Ints) -> None:
    """Raises DataError where no label can be learned: each image would count as its own group."""
    if not learnable(labels_of(targets)[rows], np.arange(len(rows))).any():
        raise DataError(
            f"none of the labels {', '.join(targets.names[:10])} has two training images with it and two without it: "
            "add images"
        )


def solve(
    material: Material, sets: tuple[TapSet, ...], *, quick: bool = False, known: Known | None = None, workers: int = 1
) -> Probe:
    """Ridge for each label, calibrated; with `quick` without the averaging of tap sets."""
    m = material
    return fit_per_label(m.blocks, labels_of(m.targets), m.groups, sets, m.seed, quick, known, workers)


def answers(outputs: Doubles, rule: Rule) -> Doubles:
    """(image, label, 2): its probability, and the threshold from which it is given; outputs are log-odds."""
    p = sigmoid(outputs)
    return np.stack([p, np.broadcast_to(rule["thresholds"], p.shape)], axis=2)


def mark(targets: Targets, said: NDArray[Any]) -> Marks:
    """Of answers (image, label, 2)."""
    return tag_marks(labels_of(targets), said[:, :, 0], said[:, :, 1])


def _mean(repeats: Sequence[Marks], said: NDArray[Any]) -> Marks:
    return tag_marks(repeats[0]["truth"], said[:, :, 0], said[:, :, 1])


def share_of_each(targets: Targets, n: int) -> Doubles:
    """How often each label occurs, for each of n images."""
    present = labels_of(targets)
    known = np.maximum((present >= 0).sum(axis=0), 1)
    share = (present == 1).sum(axis=0) / known
    return np.broadcast_to(np.stack([share, np.full(len(share), 0.5)], axis=1), (n, len(share), 2)).copy()


def thresholds(targets: Targets, left_out: Doubles, groups: Ints) -> Rule:
    """The probability from which each label is given, by left-out answers."""
    known = np.isfinite(left_out).all(axis=1)
    if not known.any():
        return {"thresholds": (0.5,) * len(targets.names)}
    found = best_thresholds(left_out[known], labels_of(targets)[known])
    return {"thresholds": tuple(float(v) for v in found)}


def fixed(threshold: float, targets: Targets, left_out: Doubles, groups: Ints) -> Rule:
    """The user's own threshold for every label."""
    return {"thresholds": (threshold,) * len(targets.names)}


def record(names: Sequence[str], answer: NDArray[np.floating[Any]], rule: Rule, top: int) -> Record:
    """{"labels": those given, "probabilities": of all}."""
    given = [name for name, (p, least) in zip(names, answer, strict=True) if p >= least]
    return {"labels": given, "probabilities": {name: float(p) for name, p in zip(names, answer[:, 0], strict=True)}}


def said(names: Sequence[str], answer: NDArray[np.floating[Any]], rule: Rule) -> tuple[str, float]:
    """The labels given, and how sure the least sure of all decisions is."""
    given = [name for name, (p, least) in zip(names, answer, strict=True) if p >= least]
    return " + ".join(given) or "none of them", float(np.maximum(answer[:, 0], 1 - answer[:, 0]).min())


def galleries(marks: Marks) -> dict[str, Ints]:
    """Rows of the marks by their loss: the worst of those not all right, the best of those all right."""
    loss = np.where(np.isfinite(marks["loss"]), marks["loss"], -1.0)
    order = np.argsort(-loss, kind="stable")
    wrong, right = marks["exact"][order] == 0, marks["exact"][order] == 1
    return {"worst": order[wrong], "most_certain": order[right][::-1]}


MULTILABEL = Task(
    name="tag",
    targets=label_targets,
    prepare=prepare,
    check=check,
    solve=solve,
    objective=BINARY,
    calibration="scale and offset of each label on leave-one-out scores (Platt 1999), folded into the head",
    answers=answers,
    judging=Judging(
        mark=mark,
        score=tag_score,
        crossed=crossed_tag_score,
        headline=PRECISION,
        mean=_mean,
        weakest=weakest_label,
    ),
    constant=share_of_each,
    constant_name="prevalence",
    rule=thresholds,
    record=record,
    galleries=galleries,
    said=said,
    whole=True,
    extra=(2,),
)
