"""A task is a frozen dataclass of functions: everything in which one kind of answer differs from another.

The story (`story/`) is the same for all: it reads a table, runs the network once, fits, judges, compares, saves. A new
task is one file in `tasks/` that fills in these fields (CONTRIBUTING.md, "A new task in one file").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from headstart import recipe
from headstart.data.duplicates import DuplicateSet, tie_groups
from headstart.data.table import Table
from headstart.data.targets import Targets
from headstart.errors import OptionError
from headstart.files.cores import n_cores
from headstart.finetune.objective import Objective
from headstart.heads.material import Blocks, Ints, Material
from headstart.heads.probe import Candidate, Known, Link, Probe
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import MANY, Part, Taken, TapSet, tap_sets
from headstart.heads.without import Shared
from headstart.judge.crossing import Measure
from headstart.judge.labels import Suspect
from headstart.judge.marks import Marks, Score, Summary
from headstart.judge.summaries import crossed, measure_of, summarise

Rule = Mapping[str, tuple[float, ...]]  # what turns outputs into a decision: thresholds, half widths; kept with a model
Record = dict[str, Any]  # of one image, JSON-ready: what `predict` says of it


class Head(Protocol):
    """What is fitted: it reads blocks of features and gives outputs (image, output)."""

    @property
    def parts(self) -> tuple[Part, ...]: ...

    @property
    def candidates(self) -> tuple[Candidate, ...]: ...

    @property
    def left_out(self) -> Doubles: ...

    def outputs(self, blocks: Blocks) -> Doubles: ...


class Solve(Protocol):
    """The closed-form head of all rows of a material. `quick`: the plainest one, for baselines and curves; `known`:
    what is known of its features already, of a fold all that there is; `workers`: tap sets at once, on threads."""

    def __call__(
        self,
        material: Material,
        sets: tuple[TapSet, ...],
        *,
        quick: bool = False,
        known: Known | None = None,
        workers: int = 1,
    ) -> Head: ...


@dataclass(frozen=True)
class Judging:
    """How answers (image, ...) become marks, and marks become numbers.

    `score(marks, names, groups, seed)`; `crossed(marks of each repeat, folds of each, names, groups, seed)`;
    `mean(marks of several answers an image, the mean answers)`; `measure(targets that teach)`: what comparisons are
    made in, for these data, where that is not always the headline; `weakest(marks)`: the share that is right of the
    class or label that fares worst, where there are some.
    """

    mark: Callable[[Targets, NDArray[Any]], Marks]
    score: Callable[[Marks, Sequence[str], Ints, int], Score]
    crossed: Callable[[Sequence[Marks], Sequence[Ints], Sequence[str], Ints, int], Score]
    headline: Measure
    mean: Callable[[Sequence[Marks], NDArray[Any]], Marks]
    measure: Callable[[Targets], Measure] | None = None
    weakest: Callable[[Marks], float] | None = None

    def compared_in(self, targets: Targets) -> Measure:
        """What comparisons are made in, for these targets that teach."""
        return self.headline if self.measure is None else self.measure(targets)


@dataclass(frozen=True, eq=False)
class Verdict:
    """A score with what is behind it, of `rows` of the features: answers (row, ...), of several answers an image their
    mean, and the marks of them."""

    score: Score
    rows: Ints
    answers: Doubles
    marks: Marks
    notes: tuple[str, ...] = ()  # what was done otherwise than asked


@dataclass(frozen=True)
class Tried:
    """Something that was tried: `error` by which it was compared, 0 to 1; `quality`, a share; whether it was chosen."""

    name: str
    error: float
    quality: float
    chosen: bool


class CrossedHead(Protocol):
    """Cross-validation of all that leads to a head, of the rows of a material. `quick`: as `Solve`; `progress(done,
    of)`. The rows of the verdict are those that could be judged."""

    def __call__(
        self,
        material: Material,
        sets: tuple[TapSet, ...],
        *,
        quick: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> Verdict: ...


class ReadHead(Protocol):
    """A head from what the manifest says of it and its tensors; `width`: features of its parts side by side. Raises
    KeyError, ValueError or HeadstartError."""

    def __call__(
        self,
        described: Mapping[str, Any],
        tensors: Mapping[str, NDArray[Any]],
        names: tuple[str, ...],
        parts: tuple[Part, ...],
        width: int,
    ) -> Head: ...


def always(targets: Targets) -> bool:
    """Of a task that can be compared on whatever images there are."""
    return True


@dataclass(frozen=True)
class OwnHead:
    """What a task tells of a head that is no linear one: how it is judged, saved and read again. No part of it stands
    in the timm view, which is then the network without a top.

    `crossed`: see CrossedHead; `given(material of the rows that judge, head)`: its score on images held out.
    `judgeable(material)`: rows whose truth other images can teach, for the learning curve.
    `rule(head)`: what `Task.rule` is for other tasks. `names(head)`: what it can answer, in the order of its outputs.
    `file`, `kind`, `described(head)`, `tensors(head)`: of the saved head, `kind` as the manifest calls it.
    `read`: see ReadHead. `tried(head)`, `settings(head)`, `remarks(head)`: what the account of a fit says of it.
    `comparable(targets)`: whether a baseline says anything for these images. `keeps`: whether images that taught are
    kept with the model, for later ones to be compared with.
    """

    crossed: CrossedHead
    given: Callable[[Material, Head], Verdict]
    judgeable: Callable[[Material], Ints]
    rule: Callable[[Head], Rule]
    names: Callable[[Head], tuple[str, ...]]
    file: str
    kind: str
    described: Callable[[Head], dict[str, Any]]
    tensors: Callable[[Head], dict[str, NDArray[Any]]]
    read: ReadHead
    tried: Callable[[Head], tuple[Tried, ...]]
    settings: Callable[[Head], tuple[recipe.Setting, ...]]
    remarks: Callable[[Head], tuple[str, ...]]
    comparable: Callable[[Targets], bool] = always
    keeps: bool = True


def all_images(table: Table, min_images: int | None) -> Table:
    """The table as it is. Raises OptionError for what is of classes."""
    if min_images is not None:
        raise OptionError(f"--min-images {min_images} is of classes, which these images do not have: leave it out")
    return table


def anything(targets: Targets, rows: Ints) -> None:
    """Of a task that can learn from whatever there is."""


def no_rule(targets: Targets, left_out: Doubles, groups: Ints) -> Rule:
    """Of a task whose answers need none."""
    return {}


def tied(table: Table, duplicates: Sequence[DuplicateSet], hashes: Sequence[str]) -> Ints:
    """Group number (image,): copies, and what the user groups, belong together. hashes (image,): of the files."""
    return tie_groups(len(table), duplicates, table.groups)


def no_maps(stages: tuple[str, ...]) -> tuple[str, ...]:
    """Of a task whose heads read pooled features alone."""
    return ()


def no_galleries(marks: Marks) -> dict[str, Ints]:
    """Of a task that shows no pictures."""
    return {}


def judging_by(marks_of: Callable[[NDArray[Any], NDArray[Any]], Marks], summaries: tuple[Summary, ...]) -> Judging:
    """Judging by summaries of marks, the first the headline; intervals by a bootstrap over groups.

    marks_of(truth (image, output), answers (image, output, ...)): marks that hold the truth under this name.
    """

    def mark(targets: Targets, answers: NDArray[Any]) -> Marks:
        return marks_of(targets.matrix(), answers)

    def score(marks: Marks, names: Sequence[str], groups: Ints, seed: int) -> Score:
        return Score(len(marks), summarise(marks, summaries, groups, seed), {})

    def over_folds(
        repeats: Sequence[Marks], folds: Sequence[Ints], names: Sequence[str], groups: Ints, seed: int
    ) -> Score:
        found = crossed(repeats, folds, summaries, groups, seed)
        return Score(len(repeats[0]), found, {}, len(np.unique(folds[0])), len(repeats))

    def mean(repeats: Sequence[Marks], answers: NDArray[Any]) -> Marks:
        return marks_of(repeats[0]["truth"], answers)

    return Judging(mark, score, over_folds, measure_of(summaries[0]), mean)


@dataclass(frozen=True)
class Task:
    """One kind of answer.

    `name`: as `--task` says it.
    `targets(table, names)`: the truth of its rows; names: of what the training rows hold (`Table.classes`), or of a
    saved model. Raises DataError for others.
    `prepare(table, min_images)`: the rows that will be used, checked before anything slow.
    `check(targets, rows that teach)`: raises DataError where nothing can be learned or judged.
    `solve`: the closed-form head. `link`: what a linear head's scores become; `calibration`: how they were calibrated,
    in words. `objective`: what is trained step by step; None where nothing can be.
    `answers(outputs, rule)`: what the user is told, (image, output, ...) where `extra` are the sizes after those two;
    the rule is that of the head that gave them.
    `constant(targets that teach, n)`: the answers of a model that never looks; `constant_name`: what it is.
    `rule(targets, outputs left out, groups)`: see Rule; rows that are nan were not left out.
    `record(names, answers of one image, rule, top)`: what `predict` says of it beside `path` and `error`, of a ranked
    list the `top` best; `said`: the same in words, and how sure.
    `galleries(marks)`: which images the page shows, first the worst.
    `sets(--taps, blocks)`: which layers' features are tried. `whole`: whether pictures are seen to their borders, where
    what counts may lie, and not cropped as photographs are. `maps(stages of the network)`: those whose whole maps are
    read too. `ties`: which images belong together, see `tied`.
    `suspects(targets, answers left out)`: labels that are probably wrong, rows of these; None where no method is known.
    `own`: of a task whose head is no linear one, and None otherwise. `refits`: whether `solve` takes no notice of what
    is `known`, so that each fold is fitted from its features.
    """

    name: str
    targets: Callable[[Table, tuple[str, ...]], Targets]
    solve: Solve
    answers: Callable[[Doubles, Rule], Doubles]
    judging: Judging
    constant: Callable[[Targets, int], Doubles]
    record: Callable[[Sequence[str], NDArray[np.floating[Any]], Rule, int], Record]
    said: Callable[[Sequence[str], NDArray[np.floating[Any]], Rule], tuple[str, float]]
    prepare: Callable[[Table, int | None], Table] = all_images
    check: Callable[[Targets, Ints], None] = anything
    objective: Objective | None = None
    link: Link = "none"
    calibration: str = "none"
    constant_name: str = "constant"
    rule: Callable[[Targets, Doubles, Ints], Rule] = no_rule
    galleries: Callable[[Marks], dict[str, Ints]] = no_galleries
    sets: Callable[[str, tuple[str, ...]], tuple[TapSet, ...]] = tap_sets
    whole: bool = False
    maps: Callable[[tuple[str, ...]], tuple[str, ...]] = no_maps
    ties: Callable[[Table, Sequence[DuplicateSet], Sequence[str]], Ints] = tied
    extra: tuple[int, ...] = ()
    suspects: Callable[[Targets, NDArray[Any]], list[Suspect]] | None = None
    own: OwnHead | None = None
    refits: bool = False


def solved(task: Task, material: Material, rows: Ints, sets: tuple[TapSet, ...], shared: Shared | None = None) -> Head:
    """The closed-form model of these rows. `shared`: what is known of their features."""
    names = dict.fromkeys(part.block for tap_set in sets for part in tap_set.parts)
    bare, few = replace(material, blocks={}).part(rows), len(rows) <= recipe.SMALL
    read = replace(material, blocks={name: material.blocks[name] for name in names})
    if len(rows) > MANY and task.own is None:  # read in chunks, never copied whole
        mine = replace(bare, blocks={name: cast(Any, Taken(block, rows)) for name, block in read.blocks.items()})
    else:
        mine = replace(bare, blocks=read.at(rows))
    # an eigendecomposition gains less from a second BLAS thread than a tap set gains from a processor of its own
    with threadpool_limits(1 if few else None, "blas"):
        return task.solve(mine, sets, known=shared.of if shared else None, workers=n_cores() if few else 1)


def closed_form(
    task: Task, material: Material, rows: Ints, sets: tuple[TapSet, ...], shared: Shared | None = None
) -> Probe:
    """The linear model of these rows. Raises TypeError for a task whose head is no linear one."""
    found = solved(task, material, rows, sets, shared)
    if not isinstance(found, Probe):
        raise TypeError(f"the head of {task.name} is no linear one")
    return found
