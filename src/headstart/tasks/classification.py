"""One class an image: the task of a folder of class folders."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart import recipe
from headstart.data.scarce import refuse_scarce, scarce, training_images, without
from headstart.data.table import Table
from headstart.data.targets import ClassNumbers, Targets, class_numbers
from headstart.errors import DataError, nearest
from headstart.finetune.objective import CROSS_ENTROPY
from headstart.heads.material import Ints, Material
from headstart.heads.probe import Known, Probe, fit_probe
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import TapSet
from headstart.judge.class_marks import (
    class_marks,
    class_score,
    crossed_class_score,
    decision_of,
    mean_marks,
    probabilities_of,
)
from headstart.judge.crossing import Measure
from headstart.judge.intervals import (
    Gain,
    accuracy_interval,
    balanced_interval,
    paired_balanced_gain,
    paired_gain,
)
from headstart.judge.labels import Suspect, suspected_labels
from headstart.judge.marks import Interval, Marks
from headstart.tasks.confidence import confidence, decided, ranking
from headstart.tasks.task import Judging, Record, Rule, Task


def targets_of(table: Table, names: tuple[str, ...]) -> ClassNumbers:
    """The class of each row by the names of a saved model. Raises DataError for one that it does not know."""
    unknown = sorted({str(label) for label in table.labels} - set(names))
    if unknown:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise DataError(
            f"the model does not know the class {unknown[0]!r}{more}{nearest(unknown[0], names)}: it knows "
            f"{', '.join(names[:20])}; rename the folder or take it out"
        )
    number = {name: k for k, name in enumerate(names)}
    return ClassNumbers(np.array([number[str(label)] for label in table.labels], dtype=np.int64), names)


def prepare(table: Table, min_images: int | None) -> Table:
    """Without the classes that have fewer training images than `min_images`. Raises DataError on fewer than two
    classes, or on classes with one training image."""
    table = without(table, scarce(table, min_images), min_images)
    if len(table.classes) < 2:
        raise DataError(
            f"only one class, {table.classes[0]!r}: at least 2 are needed" if table.classes else "no labels"
        )
    refuse_scarce(training_images(table))
    return table


def check(targets: Targets, rows: Ints) -> None:
    """Raises DataError where a class cannot be learned or judged, with what to do."""
    counts = np.bincount(class_numbers(targets)[rows], minlength=len(targets.names)).tolist()
    refuse_scarce(dict(zip(targets.names, counts, strict=True)), readable=True)


def solve(
    material: Material, sets: tuple[TapSet, ...], *, quick: bool = False, known: Known | None = None, workers: int = 1
) -> Probe:
    """Ridge, LDA and logistic regression, the best averaged; with `quick` ridge alone."""
    heads = ("ridge",) if quick else recipe.heads(len(material), len(material.targets.names))
    y, m = class_numbers(material.targets), material
    return fit_probe(m.blocks, y, m.groups, sets, heads, m.seed, known, workers)


def mark(targets: Targets, answers: NDArray[Any]) -> Marks:
    """Of probabilities (image, class)."""
    return class_marks(class_numbers(targets), answers)


def _share_right(marks: Marks) -> float:
    return float(marks["right"].mean())


def _mean_recall(marks: Marks) -> float:
    truth, right = marks["truth"], marks["right"]
    return float(np.mean([right[truth == k].mean() for k in np.unique(truth)]))


def _accuracy(marks: Marks, groups: NDArray[np.integer[Any]] | None) -> Interval:
    return accuracy_interval(marks["right"], groups)


def _accuracy_gain(one: Marks, other: Marks, groups: NDArray[np.integer[Any]] | None) -> Gain:
    return paired_gain(one["right"], other["right"], groups)


def _balanced(marks: Marks, groups: NDArray[np.integer[Any]] | None) -> Interval:
    return balanced_interval(marks["truth"], marks["right"], groups)


def _balanced_gain(one: Marks, other: Marks, groups: NDArray[np.integer[Any]] | None) -> Gain:
    return paired_balanced_gain(one["truth"], one["right"], other["right"], groups)


def weakest(marks: Marks) -> float:
    """The recall of the class of which least is found."""
    truth, right = marks["truth"], marks["right"]
    return min(float(right[truth == k].mean()) for k in np.unique(truth))


ACCURACY = Measure("accuracy", _share_right, _accuracy, _accuracy_gain)
BALANCED_ACCURACY = Measure("balanced_accuracy", _mean_recall, _balanced, _balanced_gain)


def _measure(targets: Targets) -> Measure:
    """The balanced accuracy where one class is rare."""
    counts = np.bincount(class_numbers(targets), minlength=len(targets.names))
    return BALANCED_ACCURACY if recipe.unequal(counts.tolist()) else ACCURACY


def probabilities(outputs: Doubles, rule: Rule) -> Doubles:
    """(image, class), from log-probabilities."""
    return np.exp(outputs)


def most_frequent(targets: Targets, n: int) -> Doubles:
    """The shares of the classes, for each of n images."""
    common = np.bincount(class_numbers(targets), minlength=len(targets.names))
    return np.tile(common / common.sum(), (n, 1))


def galleries(marks: Marks) -> dict[str, Ints]:
    """Rows of the marks: the surest mistakes, the least sure, the surest that are right."""
    order, right = np.argsort(-marks["sure"], kind="stable"), marks["truth"] == marks["answer"]
    return {"worst": order[~right[order]], "least_certain": order[::-1], "most_certain": order[right[order]]}


def said(names: Sequence[str], answer: NDArray[np.floating[Any]], rule: Rule) -> tuple[str, float]:
    """The most probable class and its probability."""
    best = int(decision_of(answer[None])[0])
    return names[best], float(probabilities_of(answer[None])[0, best])


def record(names: Sequence[str], answer: NDArray[np.floating[Any]], rule: Rule, top: int) -> Record:
    """{"label", "probability", "set", "abstain", "top": [{"label", "probability"}]}: the answer, then the most
    probable of the others; see `decided`."""
    order, p = ranking(answer)[:top], probabilities_of(answer[None])[0]
    ranked = [{"label": names[k], "probability": float(p[k])} for k in order]
    return {**ranked[0], **decided(names, answer, rule), "top": ranked}


def suspects(targets: Targets, answers: NDArray[Any]) -> list[Suspect]:
    """By the rate of wrong labels that the answers show."""
    return suspected_labels(class_numbers(targets), probabilities_of(answers), targets.names)


CLASSIFICATION = Task(
    name="classify",
    targets=targets_of,
    prepare=prepare,
    check=check,
    solve=solve,
    objective=CROSS_ENTROPY,
    link="softmax",
    calibration="scale and class offsets on leave-one-out scores, folded into the head",
    answers=probabilities,
    judging=Judging(
        mark=mark,
        score=class_score,
        crossed=crossed_class_score,
        headline=ACCURACY,
        measure=_measure,
        mean=mean_marks,
        weakest=weakest,
    ),
    constant=most_frequent,
    constant_name="most frequent",
    rule=partial(confidence, None, None),
    record=record,
    galleries=galleries,
    said=said,
    suspects=suspects,
)
