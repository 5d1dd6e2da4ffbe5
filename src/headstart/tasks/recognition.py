"""Who or what is it: identities that may be new at test time, and unknown as an answer.

Answers (image, identity) are cosine similarities to the gallery's prototypes. How such a model is judged needs pairs of
images, which no answer holds, so the task brings its own judge (`Task.own`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.counted import counted
from headstart.data.scarce import scarce, without
from headstart.data.table import Table
from headstart.data.targets import Targets, class_numbers, class_targets
from headstart.data.teachable import LEAST_IDENTITIES, LEAST_IMAGES
from headstart.errors import DataError
from headstart.files.bundle import GALLERY
from headstart.files.forms import RECOGNISER
from headstart.heads.embedding import Embedding
from headstart.heads.gallery import RATE, Gallery, Threshold
from headstart.heads.material import Ints, Material
from headstart.heads.probe import Known
from headstart.heads.recognition import Recogniser, fit_recogniser, folds_of_images, judge_given, judge_recognition
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import TapSet, last, tap_sets
from headstart.judge.crossing import Measure
from headstart.judge.intervals import Gain, accuracy_interval, paired_gain
from headstart.judge.marks import Interval, Marks, Score
from headstart.tasks import identifier
from headstart.tasks.identifier import ABSENT, Identifier, identifier_of
from headstart.tasks.task import Head, Judging, OwnHead, Record, Rule, Task, Verdict

UNTOLD: Interval = {"value": None, "low": None, "high": None}
NAME = "identification_rate"


def prepare(table: Table, min_images: int | None) -> Table:
    """Without the identities that have fewer training images than `min_images`, if it is given. Raises DataError where
    a part that judges has nobody who could be identified."""
    table = without(table, scarce(table, min_images), min_images)
    for part in ("test", "validation"):
        judged = set(table.labels[table.splits == part]) - {""}
        if judged and not judged & set(table.classes):
            raise DataError(
                f"nobody in the {part} part is in the training part, so that nobody can be identified there: give the "
                "images without parts (strangers are judged too, by cross-validation), or put other images of the same "
                f"identities into the {part} part"
            )
    return table


def check(targets: Targets, rows: Ints) -> None:
    """Raises DataError where fewer than two identities have two images that can be read."""
    counts = np.bincount(class_numbers(targets)[rows], minlength=len(targets.names))
    several = int((counts >= LEAST_IMAGES).sum())
    if several < LEAST_IDENTITIES:
        raise DataError(
            f"{counted(several, 'identity', 'identities')} with {LEAST_IMAGES} training images or more that can be "
            f"read: at least {LEAST_IDENTITIES} are needed; add images"
        )


def sets_for(taps: str, blocks: tuple[str, ...]) -> tuple[TapSet, ...]:
    """All layers: on faces every metric does better with them than with the last alone. `last`: that one."""
    return (last(),) if taps == "last" else tap_sets("all" if taps == "auto" else taps, blocks)[-1:]


def solve(
    material: Material, sets: tuple[TapSet, ...], *, quick: bool = False, known: Known | None = None, workers: int = 1
) -> Identifier:
    """Metric, gallery and thresholds; with `quick` the plain cosine, and no threshold."""
    m, y = material, class_numbers(material.targets)
    parts = tuple(part for tap_set in sets for part in tap_set.parts)
    if quick:
        embedding, none = Embedding(parts), Threshold(1.0, RATE, 0)
        gallery = Gallery.of(embedding.embed(m.blocks), y, m.targets.names)
        found = Recogniser(embedding, gallery, none, none, (), ())
    else:
        found = fit_recogniser(m.blocks, y, m.targets.names, m.groups, parts, m.seed)
    return Identifier(found, m.targets.names, len(found.gallery.names))


def answers(outputs: Doubles, rule: Rule) -> Doubles:
    """The similarities as they are."""
    return outputs


def mark(targets: Targets, said: NDArray[Any]) -> Marks:
    """Of answers (image, identity): `truth`, `best`, its `similarity`, whether the truth is `known` to the gallery, and
    whether the best is `right`."""
    truth = class_numbers(targets)
    best = said.argmax(axis=1)
    inside = np.minimum(truth, said.shape[1] - 1)
    known = (truth < said.shape[1]) & (said[np.arange(len(said)), inside] > ABSENT)
    similarity = said.max(axis=1)
    return Marks(
        {"truth": truth, "best": best, "similarity": similarity, "known": known, "right": known & (best == truth)}
    )


def _rate(marks: Marks) -> float:
    known = marks["known"]
    return float(marks["right"][known].mean()) if known.any() else float("nan")


def _interval(marks: Marks, groups: NDArray[np.integer[Any]] | None) -> Interval:
    known = marks["known"]
    if not known.any():
        return UNTOLD
    found = accuracy_interval(marks["right"][known], None if groups is None else groups[known])
    return {"value": found["value"], "low": found["low"], "high": found["high"]}


def _gain(one: Marks, other: Marks, groups: NDArray[np.integer[Any]] | None) -> Gain:
    both = one["known"] & other["known"]
    if not both.any():
        return {"n": 0, "difference": UNTOLD}
    return paired_gain(one["right"][both], other["right"][both], None if groups is None else groups[both])


IDENTIFICATION = Measure(NAME, _rate, _interval, _gain)


def _score(marks: Marks, names: Sequence[str], groups: Ints, seed: int) -> Score:
    """What marks alone can say: the identification rate. Pairs are the own judge's."""
    return Score(int(marks["known"].sum()), {NAME: _interval(marks, groups)}, {})


def _crossed_score(
    repeats: Sequence[Marks], folds: Sequence[Ints], names: Sequence[str], groups: Ints, seed: int
) -> Score:
    found = _score(_mean(repeats, np.empty(0)), names, groups, seed)
    return replace(found, folds=len(np.unique(folds[0])), repeats=len(repeats))


def _mean(repeats: Sequence[Marks], said: NDArray[Any]) -> Marks:
    """The marks of the first, with the share of them that is right."""
    right = np.mean([marks["right"] for marks in repeats], axis=0)
    known = np.all([marks["known"] for marks in repeats], axis=0)
    return Marks({**repeats[0].columns, "right": right > 0.5 if len(repeats) == 1 else right, "known": known})


def _weakest(marks: Marks) -> float:
    truth, right = marks["truth"][marks["known"]], marks["right"][marks["known"]]
    return min((float(right[truth == k].mean()) for k in np.unique(truth)), default=1.0)


def most_frequent(targets: Targets, n: int) -> Doubles:
    """The identity with the most images, for each of n images."""
    counts = np.bincount(class_numbers(targets), minlength=len(targets.names))
    similarity = np.where(counts > 0, 0.0, ABSENT)
    similarity[int(counts.argmax())] = 1.0
    return np.tile(similarity, (n, 1))


def _threshold(rule: Rule) -> float:
    return rule["identify"][0] if "identify" in rule else 1.0


def record(names: Sequence[str], answer: NDArray[np.floating[Any]], rule: Rule, top: int) -> Record:
    """{"identity": a name, or None for unknown, "score": the highest similarity, "nearest": [{"identity", "score"}]},
    the most similar first."""
    order = np.argsort(-answer, kind="stable")[:top]
    nearest = [{"identity": names[k], "score": float(answer[k])} for k in order if answer[k] > ABSENT]
    best = int(order[0])
    known = bool(answer[best] >= _threshold(rule))
    return {"identity": names[best] if known else None, "score": float(answer[best]), "nearest": nearest}


def said(names: Sequence[str], answer: NDArray[np.floating[Any]], rule: Rule) -> tuple[str, float]:
    """The most similar identity, and how similar from 0 to 1."""
    best = int(answer.argmax())
    name = names[best] if answer[best] >= _threshold(rule) else f"unknown (most like {names[best]})"
    return name, float(np.clip(answer[best], 0, 1))


def galleries(marks: Marks) -> dict[str, Ints]:
    """Rows of the marks, of those whose identity is known: taken for another, the most similar first; then by how
    similar they are to their own."""
    order, right = np.argsort(-marks["similarity"], kind="stable"), marks["right"] > 0
    known = order[marks["known"][order]]
    return {"worst": known[~right[known]], "least_certain": known[::-1], "most_certain": known[right[known]]}


def crossed(
    material: Material,
    sets: tuple[TapSet, ...],
    *,
    quick: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Verdict:
    """Cross-validation over images and over identities (`heads/recognition.py`); `quick`: over images, of the plain
    cosine, on the same folds."""
    if quick:
        return _crossed_quickly(material, sets)
    m, y = material, class_numbers(material.targets)
    parts = tuple(part for tap_set in sets for part in tap_set.parts)
    found = judge_recognition(m.blocks, y, m.targets.names, m.groups, m.keys, parts, m.seed, progress)
    if not len(found.marks):
        raise DataError(
            "no identity has two images that are not copies of each other or of one group, so that nobody can be "
            "identified: add images"
        )
    rows, best = found.marks["row"], found.marks["best"]
    similarities = np.full((len(rows), len(m.targets.names)), -1.0)  # of the others no more is kept
    similarities[np.arange(len(rows)), best] = found.marks["similarity"]
    return Verdict(found.score, rows, similarities, mark(m.targets.take(rows), similarities), found.notes)


def _crossed_quickly(material: Material, sets: tuple[TapSet, ...]) -> Verdict:
    y = class_numbers(material.targets)
    fold = folds_of_images(y, material.groups, material.keys, material.seed)
    found = np.full((len(y), len(material.targets.names)), ABSENT)
    for f in np.unique(fold):
        held = np.flatnonzero(fold == f)
        head = solve(material.part(np.flatnonzero(fold != f)), sets, quick=True)
        found[held] = head.outputs(material.at(held))
    rows = np.flatnonzero(mark(material.targets, found)["known"])
    targets, groups = material.targets.take(rows), material.groups[rows]
    marks = mark(targets, found[rows])
    score = _score(marks, targets.names, groups, material.seed)
    return Verdict(replace(score, folds=len(np.unique(fold)), repeats=1), rows, found[rows], marks)


def given(material: Material, head: Head) -> Verdict:
    """The score of a head on held-out images, enrolled or new."""
    names, own = material.targets.names, identifier_of(head)
    truth = [names[k] for k in class_numbers(material.targets)]
    found = judge_given(own.recogniser, material.blocks, truth, material.groups, material.seed)
    similarities = own.outputs(material.blocks)
    marks = mark(material.targets, similarities)
    return Verdict(found.score, np.arange(len(truth)), similarities, marks, found.notes)


def judgeable(material: Material) -> Ints:
    """Rows of the identities with two groups of images or more."""
    y = class_numbers(material.targets)
    pairs = np.unique(np.stack([y, material.groups]), axis=1)
    return np.flatnonzero(np.bincount(pairs[0], minlength=len(material.targets.names))[y] > 1)


RECOGNITION = Task(
    name="recognise",
    targets=class_targets,
    prepare=prepare,
    check=check,
    solve=solve,
    refits=True,
    answers=answers,
    judging=Judging(
        mark=mark,
        score=_score,
        crossed=_crossed_score,
        headline=IDENTIFICATION,
        mean=_mean,
        weakest=_weakest,
    ),
    constant=most_frequent,
    constant_name="most frequent",
    record=record,
    galleries=galleries,
    said=said,
    sets=sets_for,
    own=OwnHead(
        crossed=crossed,
        given=given,
        judgeable=judgeable,
        rule=identifier.rule_of,
        names=identifier.names_of,
        file=GALLERY,
        kind=RECOGNISER,
        described=identifier.described,
        tensors=identifier.tensors,
        read=identifier.read,
        tried=identifier.tried,
        settings=identifier.settings,
        remarks=identifier.remarks,
    ),
)
