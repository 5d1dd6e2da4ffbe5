"""Is anything odd about it: learned from good pictures alone.

Answers (image, 1) are scores, 1 the threshold. The targets are 0 for a good picture and a number for each kind of
oddity; those never teach, and judge where there are some. How such a model is judged needs folds over the good ones
alone, so the task brings its own judge (`Task.own`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.counted import counted
from headstart.data.duplicates import DuplicateSet
from headstart.data.good import GOOD
from headstart.data.splits import folds as stratified_folds
from headstart.data.table import Table
from headstart.data.targets import Targets, class_numbers, kind_targets
from headstart.data.teachable import LEAST_GOOD
from headstart.errors import DataError, OptionError
from headstart.files.bundle import ODDITY
from headstart.files.forms import DETECTOR
from headstart.heads.material import Blocks, Ints, Material
from headstart.heads.oddity import FOLDS, MAP, MEAN, RATE, Layer, Oddity, cloud_of, fit_oddity
from headstart.heads.probe import Known
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import LAST, Part, TapSet, tap_sets
from headstart.judge.marks import Marks, Score
from headstart.judge.oddities import AUROC, FALSE_ALARMS, marks_of, score_of
from headstart.tasks import detector
from headstart.tasks.detector import oddity_of
from headstart.tasks.task import Head, Judging, OwnHead, Record, Rule, Task, Verdict, all_images, tied
from headstart.trunk.engine import n_cores

MOST_ALIKE = 0.5  # share of the good pictures that may be near copies of others: of MRI scans from the web 0.4


def prepare(table: Table, min_images: int | None) -> Table:
    """The table; without parts where the one that judges holds no good picture. Raises DataError for too few good
    ones."""
    table = all_images(table, min_images)
    part = _judged_part(table)
    if part is not None and not (table.labels[table.splits == part] == GOOD).any():
        none = np.full(len(table), "none", dtype=object)
        note = f"the {part} part holds no good picture, so that all are judged by cross-validation"
        table = replace(table, splits=none, notes=(*table.notes, note))
    n = int((table.labels[table.teaching] == GOOD).sum())
    if n < LEAST_GOOD:
        raise DataError(
            f"{counted(n, 'good picture')} to learn from: at least {LEAST_GOOD} are needed, and 19 for a false-alarm "
            "rate of 5 %; add good ones, or say with --good which labels are good"
        )
    return table


def _judged_part(table: Table) -> str | None:
    return next((split for split in ("test", "validation") if (table.splits == split).any()), None)


def ties(table: Table, duplicates: Sequence[DuplicateSet], hashes: Sequence[str]) -> Ints:
    """Copies belong together. Where a fixed camera makes most good pictures nearly the same, that is no sign of a copy,
    and only the same files are."""
    near = np.unique([row for one in duplicates if one.kind == "near" for row in one.rows]).astype(np.int64)
    good = table.labels == GOOD
    if good[near].sum() <= MOST_ALIKE * good.sum():
        return tied(table, duplicates, hashes)
    places = dict[str, list[int]]()
    for row, digest in enumerate(hashes):
        places.setdefault(digest, []).append(row)
    same = [DuplicateSet("exact", tuple(rows)) for rows in places.values() if len(rows) > 1]
    return tied(table, same, hashes)


def middle(stages: tuple[str, ...]) -> tuple[str, ...]:
    """Of a network's stages those whose patches are looked at: the third and second from its end (PatchCore; Roth et
    al. 2022, section 3.1). The last ones know objects, the first ones edges."""
    return stages[-3:-1] if len(stages) > 2 else stages[:1]


def sets_for(taps: str, blocks: tuple[str, ...]) -> tuple[TapSet, ...]:
    """The whole picture, by the means of all stages and the last layer; then its patches, where maps are read. `last`:
    the last layer alone."""
    known = {part.block for one in tap_sets(taps, blocks) for part in one.parts}  # a wrong word is refused
    read = [block for block in blocks if block == LAST or (block in known and block.endswith(MEAN))]
    whole = TapSet("whole", tuple(Part(block, root=False, unit=True) for block in read))
    maps = tuple(Part(block, root=False, unit=False) for block in blocks if block.endswith(MAP))
    return (whole, TapSet("patches", maps)) if maps and taps != "last" else (whole,)


def _parts(sets: tuple[TapSet, ...], blocks: Blocks) -> tuple[tuple[Part, ...], tuple[Layer, ...]]:
    """(parts of the whole picture, maps with their channels, as many as their means have)."""
    every = [part for tap_set in sets for part in tap_set.parts]
    maps = [part.block for part in every if part.block.endswith(MAP)]
    layers = tuple(Layer(block, blocks[block.removesuffix(MAP) + MEAN].shape[1]) for block in maps)
    return tuple(part for part in every if part.block not in maps), layers


def solve(
    material: Material,
    sets: tuple[TapSet, ...],
    *,
    quick: bool = False,
    known: Known | None = None,
    workers: int = 1,
    rate: float = RATE,
) -> Oddity:
    """From the good pictures alone. Raises DataError for too few groups of them."""
    good = np.flatnonzero(class_numbers(material.targets) == 0)
    n = len(np.unique(material.groups[good]))
    if n < LEAST_GOOD:
        raise DataError(
            f"{counted(n, 'good picture')} that can be read and are no copies of each other: at least {LEAST_GOOD} are "
            "needed; add some"
        )
    pooled, layers = _parts(sets, material.blocks)
    m, keys = material, [material.keys[row] for row in good]
    return fit_oddity(m.at(good), m.groups[good], keys, pooled, layers, m.seed, rate)


def answers(outputs: Doubles, rule: Rule) -> Doubles:
    """The scores as they are."""
    return outputs


def mark(targets: Targets, said: NDArray[Any]) -> Marks:
    """Of scores (image, 1)."""
    return marks_of(class_numbers(targets), np.asarray(said[:, 0], dtype=np.float64))


def _score(marks: Marks, names: Sequence[str], groups: Ints, seed: int) -> Score:
    return score_of(marks, names, groups)


def _crossed_score(
    repeats: Sequence[Marks], folds: Sequence[Ints], names: Sequence[str], groups: Ints, seed: int
) -> Score:
    return score_of(repeats[0], names, groups, folds=len(np.unique(folds[0])))


def _first(repeats: Sequence[Marks], said: NDArray[Any]) -> Marks:
    return repeats[0]


def never(targets: Targets, n: int) -> Doubles:
    """The same score for each of n images, below the threshold."""
    return np.full((n, 1), 0.5)


def record(names: Sequence[str], answer: NDArray[np.floating[Any]], rule: Rule, top: int) -> Record:
    """{"verdict": "good" or "odd", "score": 1 is the threshold}."""
    return {"verdict": _verdict(answer), "score": float(answer[0])}


def _verdict(answer: NDArray[np.floating[Any]]) -> str:
    return "odd" if answer[0] >= 1 else GOOD


def said(names: Sequence[str], answer: NDArray[np.floating[Any]], rule: Rule) -> tuple[str, float]:
    """The verdict with its score, and how sure from 0 to 1: half at the threshold."""
    score = float(answer[0])
    return f"{_verdict(answer)}, score {score:.2f}", score / (1 + score)


def galleries(marks: Marks) -> dict[str, Ints]:
    """Rows of the marks: mistakes, the furthest from the threshold first; the oddest that were found; the nearest to
    the threshold."""
    away = np.abs(np.log(marks["score"]))
    order, found = np.argsort(-away, kind="stable"), marks["odd"] & (marks["kind"] > 0)
    return {"worst": order[~marks["right"][order]], "least_certain": order[::-1], "most_certain": order[found[order]]}


def crossed(
    material: Material,
    sets: tuple[TapSet, ...],
    *,
    quick: bool = False,
    progress: Callable[[int, int], None] | None = None,
    rate: float = RATE,
) -> Verdict:
    """Folds over groups: each good picture is judged by what the others taught, each odd one by one of these models.
    `quick`: by the first set alone, without a threshold."""
    m, kind = material, class_numbers(material.targets)
    good = kind == 0
    n = min(FOLDS, len(np.unique(m.groups[good])))
    fold = stratified_folds(np.where(good, 0, 1), m.groups, n, m.seed, m.keys)
    pooled, layers = _parts(sets[:1] if quick else sets, m.blocks)

    def asked(f: int) -> tuple[Doubles, Doubles]:
        """(scores, in widths of left-out good pictures) of the pictures of a fold."""
        taught, held = np.flatnonzero(good & (fold != f)), np.flatnonzero(fold == f)
        if quick:
            cloud = cloud_of(m.at(taught), pooled)
            away = cloud.distances(m.at(held)) / max(float(np.median(cloud.distances(m.at(taught)))), 1e-9)
            return away, away
        keys = [m.keys[row] for row in taught]
        head = fit_oddity(m.at(taught), m.groups[taught], keys, pooled, layers, m.seed, rate)
        found = head.most(head.measures(m.at(held)))
        return head.of(found), found

    scores, order = np.empty((2, len(kind)))
    with ThreadPoolExecutor(n_cores()) as pool:
        for f, one in enumerate(pool.map(asked, range(n))):
            scores[fold == f], order[fold == f] = one
            if progress is not None:
                progress(f + 1, n)
    marks = marks_of(kind, scores, order)
    score = score_of(marks, m.targets.names, m.groups, rate, n)
    return Verdict(score, np.arange(len(kind)), scores[:, None], marks)


def given(material: Material, head: Head) -> Verdict:
    """The score of a head on held-out images."""
    m, own = material, oddity_of(head)
    found = own.outputs(m.blocks)
    marks = mark(m.targets, found)
    return Verdict(score_of(marks, m.targets.names, m.groups, own.rate), np.arange(len(found)), found, marks)


def judgeable(material: Material) -> Ints:
    """None: a curve would ask what a larger part of the good pictures teaches of the odd ones, in minutes."""
    return np.empty(0, np.int64)


def comparable(targets: Targets) -> bool:
    """Whether there are odd pictures, in the telling of which models can be compared."""
    return bool((class_numbers(targets) > 0).any())


def alarmed(task: Task, table: Table, rate: float | None) -> Task:
    """The task with the user's rate of false alarms, and with the headline that these images allow. Raises OptionError
    where the task raises no alarms."""
    if task.name != NAME:
        if rate is not None:
            raise OptionError(
                f"--false-alarms {rate:g} is of --task {NAME}, and the task here is {task.name}: leave it out"
            )
        return task
    asked = RATE if rate is None else rate
    assert task.own is not None
    part = _judged_part(table)
    judged = table.labels if part is None else table.labels[table.splits == part]
    odd = bool(((judged != GOOD) & (judged != "")).any())
    judging = replace(task.judging, headline=AUROC if odd else FALSE_ALARMS)
    own = replace(task.own, crossed=partial(crossed, rate=asked))
    return replace(task, solve=partial(solve, rate=asked), own=own, judging=judging)


NAME = "anomaly"
ODDITIES = Task(
    name=NAME,
    targets=kind_targets,
    prepare=prepare,
    solve=solve,
    refits=True,
    answers=answers,
    judging=Judging(mark=mark, score=_score, crossed=_crossed_score, headline=AUROC, mean=_first),
    constant=never,
    constant_name="always good",
    record=record,
    said=said,
    galleries=galleries,
    sets=sets_for,
    whole=True,
    maps=middle,
    ties=ties,
    own=OwnHead(
        crossed=crossed,
        given=given,
        judgeable=judgeable,
        rule=detector.rule_of,
        names=detector.names_of,
        file=ODDITY,
        kind=DETECTOR,
        described=detector.described,
        tensors=detector.tensors,
        read=detector.read,
        tried=detector.tried,
        settings=detector.settings,
        remarks=detector.remarks,
        comparable=comparable,
        keeps=False,
    ),
)
