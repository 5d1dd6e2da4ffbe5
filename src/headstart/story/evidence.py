"""How good the frozen model is: the headline, the baselines, the learning curve.

What chose a setting never scores it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from headstart import recipe
from headstart.data.splits import nested_order
from headstart.files.cores import n_cores
from headstart.finetune.at_cut import Stored
from headstart.finetune.design import Bar, Design, Epoch, no_bar
from headstart.finetune.job import Session, Tuning
from headstart.finetune.trained_head import TrainedHead
from headstart.heads.material import Blocks, Ints, Material
from headstart.heads.probe import Probe
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import Part, TapSet, last, plain, tap_sets
from headstart.heads.without import Shared
from headstart.judge.crossing import CrossValidation, CurvePoint, Fit, Judged, Measure, cross_validate, learning_curve
from headstart.judge.intervals import Gain
from headstart.judge.marks import Interval, Marks
from headstart.story.folds import Fitter, fitter, refitter
from headstart.story.plan import Plan
from headstart.tasks.task import Head, OwnHead, Rule, Task, Verdict, closed_form, solved
from headstart.tasks.two_classes import judged_by

FEW_IMAGES = 1000  # up to which folds are fitted one after another
CHUNK = 1024  # rows that a head reads at a time
CURVE_IMAGES = 3000  # above, the curve is drawn on a stratified part: its largest fits would cost more than the rest
PIXELS = TapSet("pixels", (Part("pixels", root=False, unit=False),))


@dataclass(frozen=True)
class Baseline:
    """What the model is held against, on `n` images.

    `scores` and `rival`: of this one and of what it is compared with, on the same images, the headline and what these
    data are compared in. `difference`: the rival's `measure` minus this one's, paired.
    """

    kind: Literal["constant", "raw pixels", "frozen", "closed form", "random weights"]
    n: int
    measure: str
    scores: Mapping[str, Interval]
    rival: Mapping[str, Interval]
    difference: Gain
    n_train: int = 0  # images that both learned from, where that is less than all

    @property
    def against(self) -> str:
        """What the rival is."""
        return "the same head on pre-trained weights" if self.kind == "random weights" else "this model"


@dataclass(frozen=True)
class Method:
    """How a model of a task is made: closed-form heads on these tap sets, or one head of the user's own layers; or a
    tuned network, which is worked on in `session`."""

    task: Task
    sets: tuple[TapSet, ...]
    design: Design | None = None
    tuning: Tuning | None = None
    session: Session | None = None
    device: str = "cpu"  # that trains it

    @property
    def closed(self) -> bool:
        """Whether nothing is trained step by step."""
        return self.design is None and self.tuning is None


def called(baseline: Baseline, task: Task) -> str:
    """The kind of a baseline in words: the constant answer by the name that its task gives it."""
    return task.constant_name if baseline.kind == "constant" else baseline.kind


def shared_of(material: Material, plan: Plan, method: Method) -> Shared | None:
    """The features of the training images, where cross-validation will ask for them again and again."""
    again = plan.judge is None and method.closed and method.task.own is None
    return Shared(material.without_maps().at(plan.train)) if again else None


def final_head(material: Material, plan: Plan, method: Method, bar: Bar, shared: Shared | None = None) -> Head:
    """The model that is handed over, from all training rows. `shared`: what is known of their features."""
    if method.design is None:
        return solved(method.task, material, plan.train, method.sets, shared)
    step = bar("train the head", method.design.training.epochs)
    return _train(material, plan.train, method, lambda epoch: step(1))


def _train(
    material: Material, rows: Ints, method: Method, progress: Callable[[Epoch], None] = lambda epoch: None
) -> TrainedHead:
    """The user's own layers, trained on these rows."""
    from headstart.finetune.training import Examples, train_head  # torch

    assert method.design is not None
    assert method.task.objective is not None
    m, keys = material, [material.keys[row] for row in rows]
    stored = Stored(method.design.shape, m.blocks[method.design.block])
    examples = Examples(stored, rows, m.targets.take(rows), m.groups[rows], keys)
    objective, device = method.task.objective, method.device
    return train_head(method.design, examples, objective, seed=m.seed, device=device, progress=progress)


def judge(
    material: Material, plan: Plan, head: Head, method: Method, bar: Bar, shared: Shared | None = None
) -> Verdict:
    """The headline: the head on the rows held out for it, or cross-validation of all that led to it. `shared`: as in
    `final_head`."""
    if plan.judge is not None:
        return judge_rows(method.task, material, head, plan.judge, rule_of(method.task, material, plan.train, head))
    folds, repeats = recipe.cross_validation(len(plan.train))
    mine = material.part(plan.train)
    if method.task.own is not None:
        return _own_crossed(method.task.own, mine, method.sets, plan.train, bar=bar)
    if method.closed:
        step = bar("judge", folds * repeats)
        fit = fitter(method.task, mine, method.sets, shared=shared, near=head.candidates)
        found = _crossed(method.task, mine, fit, folds, repeats, lambda *_: step(1))
        return _verdict_of(method.task, mine, plan.train, found)

    def fit_own(rows: Ints) -> Callable[[Ints], Doubles]:
        trained = _train(material, plan.train[rows], method)
        rule = rule_of(method.task, material, plan.train[rows], trained)
        return lambda other: _answers(method.task, material, trained, plan.train[other], rule)

    step = bar("judge", recipe.TRAINED_FOLDS)
    judged, marking = judged_of(mine), _marking(method.task, mine)
    found = cross_validate(fit_own, judged, marking, recipe.TRAINED_FOLDS, 1, lambda *_: step(1))
    return _verdict_of(method.task, mine, plan.train, found)


def _own_crossed(
    own: OwnHead, material: Material, sets: tuple[TapSet, ...], rows: Ints, quick: bool = False, bar: Bar = no_bar
) -> Verdict:
    """A task's own cross-validation of this material, whose rows of the features are `rows`."""
    told: list[Callable[[int], None]] = []

    def progress(done: int, of: int) -> None:
        if not told:
            told.append(bar("judge", of))
        told[0](1)

    with threadpool_limits(1, "blas"):
        found = own.crossed(material, sets, quick=quick, progress=progress)
    return replace(found, rows=rows[found.rows])


def cross_tuned(material: Material, plan: Plan, method: Method, bar: Bar) -> tuple[Verdict, Verdict]:
    """Cross-validation in which all of a tuning is done anew: of the model, and of its linear top alone. `material`:
    the frozen network's."""
    from headstart.finetune.tune import answers, tune  # torch

    assert method.tuning is not None
    assert method.session is not None
    tuning, session = method.tuning, method.session.quiet()
    train, mine, task = plan.train, material.part(plan.train), method.task
    tops = np.full((len(train), len(material.targets.names), *task.extra), np.nan)

    def fit(rows: Ints) -> Callable[[Ints], Doubles]:
        tuned = tune(tuning, material, train[rows], session)
        rule = rule_of(task, material, train[rows], tuned.head)

        def answer(other: Ints) -> Doubles:
            head, top = answers(tuning, tuned, material, train[other], session)
            tops[other] = task.answers(top, rule)
            return task.answers(head, rule)

        return answer

    step, folds = bar("judge", recipe.TRAINED_FOLDS), recipe.TRAINED_FOLDS
    found = cross_validate(fit, judged_of(mine), _marking(task, mine), folds, 1, lambda *_: step(1))
    marks = task.judging.mark(mine.targets, tops)
    top = CrossValidation(tops, (marks,), found.folds)
    return _verdict_of(task, mine, train, found), _verdict_of(task, mine, train, top)


def judged_of(material: Material) -> Judged:
    """What cross-validation needs to know of its images."""
    m = material
    return Judged(m.targets.strata, m.targets.names, m.groups, m.keys, m.seed)


def _marking(task: Task, material: Material) -> Callable[[Ints, npt.NDArray[np.floating]], Marks]:
    return lambda rows, found: task.judging.mark(material.targets.take(rows), found)


def _verdict_of(task: Task, material: Material, rows: Ints, found: CrossValidation) -> Verdict:
    """Of a cross-validation of this material, whose rows of the features are `rows`."""
    m = material
    score = task.judging.crossed(found.marks, list(found.folds), m.targets.names, m.groups, m.seed)
    return Verdict(score, rows, found.answers, task.judging.mean(found.marks, found.answers), found.notes)


def rule_of(task: Task, material: Material, rows: Ints, head: Head) -> Rule:
    """What turns the outputs of a head that learned from these rows into decisions."""
    if task.own is not None:
        return task.own.rule(head)
    return task.rule(material.targets.take(rows), head.left_out, material.groups[rows])


def judge_rows(task: Task, material: Material, head: Head, rows: Ints, rule: Rule) -> Verdict:
    """The head on these rows, each once."""
    if task.own is not None:
        return replace(task.own.given(material.part(rows), head), rows=rows)
    found, m = _answers(task, material, head, rows, rule), material
    marks = task.judging.mark(m.targets.take(rows), found)
    judging = judged_by(task, rule).judging
    return Verdict(judging.score(marks, m.targets.names, m.groups[rows], m.seed), rows, found, marks)


def _answers(task: Task, material: Material, head: Head, rows: Ints, rule: Rule) -> Doubles:
    """(row, ...), a chunk of rows at a time: maps may be larger than memory."""
    chunks = [rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK)]
    return task.answers(np.concatenate([head.outputs(material.at(chunk)) for chunk in chunks]), rule)


def timm_view(task: Task, material: Material, plan: Plan, shared: Shared | None = None) -> tuple[Probe, Verdict]:
    """The best head that fits inside the network itself, judged as the headline is (one repeat)."""
    if plan.judge is None:
        shared = shared or Shared(material.at(plan.train))
    probe = closed_form(task, material, plan.train, (plain(),), shared)
    if plan.judge is not None:
        return probe, judge_rows(task, material, probe, plan.judge, rule_of(task, material, plan.train, probe))
    mine, (folds, _) = material.part(plan.train), recipe.cross_validation(len(plan.train))
    fit = fitter(task, mine, (plain(),), shared=shared, near=probe.candidates)
    return probe, _verdict_of(task, mine, plan.train, _crossed(task, mine, fit, folds, 1))


def measure_of(task: Task, material: Material, plan: Plan) -> Measure:
    """What comparisons are made in, for these data."""
    return task.judging.compared_in(material.targets.take(plan.train))


def constant(task: Task, material: Material, plan: Plan, verdict: Verdict) -> Baseline:
    """A model that never looks at an image."""
    said = task.constant(material.targets.take(plan.train), len(verdict.rows))
    return _baseline("constant", task, material, plan, verdict, (verdict.rows, said))


def raw_pixels(
    task: Task, material: Material, plan: Plan, verdict: Verdict, thumbnails: npt.NDArray[np.uint8]
) -> Baseline:
    """The same heads on 16 x 16 pixels: what needs no network."""
    found = _quick(task, _pixels_of(material, thumbnails), plan, (PIXELS,))
    return _baseline("raw pixels", task, material, plan, verdict, found)


def _pixels_of(material: Material, thumbnails: npt.NDArray[np.uint8]) -> Material:
    return replace(material, blocks={"pixels": thumbnails.reshape(len(thumbnails), -1).astype(np.float32) / 255})


def pixel_answers(
    task: Task, material: Material, plan: Plan, thumbnails: npt.NDArray[np.uint8]
) -> npt.NDArray[np.floating]:
    """Answers for the judged rows by ridge on 16 x 16 pixels."""
    assert plan.judge is not None
    return _quick(task, _pixels_of(material, thumbnails), plan, (PIXELS,))[1]


def single_layer_answers(task: Task, material: Material, plan: Plan) -> npt.NDArray[np.floating]:
    """Answers for the judged rows by ridge on the last layer alone."""
    return _quick(task, material, plan, (last(),))[1]


def own_head(task: Task, material: Material, plan: Plan, verdict: Verdict) -> Baseline:
    """What headstart's own head makes of the same network, beside a head of the user's layers."""
    found = _quick(task, material, plan, (last(),), quick=False)
    return _baseline("closed form", task, material, plan, verdict, found)


def frozen(task: Task, material: Material, plan: Plan, verdict: Verdict, sets: tuple[TapSet, ...]) -> Baseline:
    """The frozen model beside the tuned one, on the same images."""
    return _baseline("frozen", task, material, plan, verdict, _quick(task, material, plan, sets, quick=False))


def random_weights(task: Task, material: Material, plan: Plan, drawn: Ints, blocks: Blocks) -> Baseline:
    """The same network with random weights, on the rows `drawn`; blocks: block -> (drawn, feature).

    Its rival is the pre-trained network with the same quick head, learned from and judged on the same few rows, so
    that the difference says what the weights are worth and not what more images or a better head are.
    """
    part = material.part(drawn)
    bare = replace(part, blocks=blocks).without_maps()
    place = {int(row): k for k, row in enumerate(drawn)}

    def inside(rows: Ints | None) -> Ints | None:
        return None if rows is None else np.array([place[int(r)] for r in rows if int(r) in place], dtype=np.int64)

    train = inside(plan.train)
    assert train is not None
    small = Plan(plan.source, train, inside(plan.judge), None, plan.splits[drawn])
    sets = tap_sets("all", tuple(bare.blocks))
    rows, untrained = _quick(task, bare, small, sets)
    _, pretrained = _quick(task, part, small, sets)
    targets, groups, measure = part.targets.take(rows), part.groups[rows], measure_of(task, material, plan)
    one, other = (task.judging.mark(targets, found) for found in (pretrained, untrained))
    mine, rival = (_scores(task, measure, marks, groups) for marks in (other, one))
    n_train = len(train) if plan.judge is not None else 0
    gain = measure.gain(one, other, groups)
    return Baseline("random weights", gain["n"], measure.name, mine, rival, gain, n_train)


def draw_for_baseline(task: Task, material: Material, plan: Plan) -> Ints:
    """Rows for the random-weights baseline: a part of the training rows and one of the judged rows, stratified; with a
    rare class as many of each class as there are."""
    rare = measure_of(task, material, plan).name == "balanced_accuracy"

    def most(rows: Ints) -> int:
        return recipe.baseline_images(len(rows), len(material.targets.names), rare)

    if plan.judge is None:
        return _drawn(material, plan.train, most(plan.train), rare)
    whole = most(np.concatenate([plan.train, plan.judge]))
    judged = _drawn(material, plan.judge, max(whole // 2, whole - len(plan.train)), rare)
    return np.sort(np.concatenate([_drawn(material, plan.train, whole - len(judged), rare), judged]))


def _drawn(material: Material, rows: Ints, most: int, rare: bool) -> Ints:
    """So many of the rows, stratified but for two of each class that are no copies; with `rare` the same number of each
    class, as far as it goes. Copies come last."""
    rows = rows[nested_order(material.targets.strata[rows], material.seed, [material.keys[r] for r in rows])]
    _, first = np.unique(material.groups[rows], return_index=True)
    copy = np.ones(len(rows), dtype=np.int64)
    copy[first] = 0
    strata = material.targets.strata[rows]
    if strata.ndim > 1:
        return np.sort(rows[np.argsort(copy, kind="stable")[:most]])
    nth = np.zeros(len(rows), dtype=np.int64)  # of its class; the copies of others come last
    for c in np.unique(strata):
        mine = np.flatnonzero(strata == c)
        nth[mine[np.argsort(copy[mine], kind="stable")]] = np.arange(len(mine))
    order = np.argsort(nth if rare else nth >= 2, kind="stable")
    return np.sort(rows[order[:most]])


def curve(material: Material, plan: Plan, head: Head, method: Method, shared: Shared | None = None) -> list[CurvePoint]:
    """The headline against the number of training images, with ridge on the tap set of the best candidate (on the last
    tap where the head is of the user's own layers)."""
    rows, task = plan.train, method.task
    best = max(head.candidates, key=lambda c: c.weight, default=None)
    chosen = next((t for t in method.sets if best and t.name == best.taps), last())
    if len(rows) > CURVE_IMAGES:
        order = nested_order(material.targets.strata[rows], material.seed, [material.keys[r] for r in rows])
        rows = np.sort(rows[order[:CURVE_IMAGES]])
    if task.own is not None:
        chosen, rows = method.sets[0], rows[task.own.judgeable(material.part(rows))]
        if not len(rows):
            return []
    part = material.part(rows)
    with threadpool_limits(1, "blas"):
        whole = shared if len(rows) == len(plan.train) else None
        fit = fitter(task, part, (chosen,), quick=True, shared=whole, near=head.candidates)
        marking, judging = _marking(task, part), task.judging
        return learning_curve(
            fit,
            judged_of(part),
            marking,
            judging.headline,
            judging.mean,
            draws=1,
            workers=n_cores(),
            of=len(plan.train),
        )


def _quick(
    task: Task, material: Material, plan: Plan, sets: tuple[TapSet, ...], quick: bool = True
) -> tuple[Ints, npt.NDArray[np.floating]]:
    """(rows, answers) of closed-form heads, on the judged rows or by one cross-validation of the training rows. Not
    `quick`: they stand beside what was trained, and are judged in as many folds."""
    if plan.judge is not None:
        return plan.judge, refitter(task, material, sets, quick)(plan.train)(plan.judge)
    mine = material.part(plan.train)
    if task.own is not None:
        verdict = _own_crossed(task.own, mine, sets, plan.train, quick)
        return verdict.rows, verdict.answers
    shared = Shared(mine.blocks)
    with threadpool_limits(1, "blas"):
        near = task.solve(mine, sets, quick=quick, known=shared.of).candidates
    folds = recipe.cross_validation(len(mine))[0] if quick else recipe.TRAINED_FOLDS
    return plan.train, _crossed(task, mine, fitter(task, mine, sets, quick, shared, near), folds, 1).answers


def _crossed(
    task: Task,
    material: Material,
    fit: Fit,
    folds: int,
    repeats: int,
    progress: Callable[[int, int], None] | None = None,
) -> CrossValidation:
    """Cross-validation with a fold per processor at a time, each on one BLAS thread. Of few images a fold at a time:
    fits so short are mostly Python, of which one thread works at a time (400 images: 0.61 s on two threads and 0.59 s
    on one)."""
    workers = n_cores() if len(material) > FEW_IMAGES else 1
    prepare = fit.prepare if isinstance(fit, Fitter) else None
    with threadpool_limits(1, "blas"):
        marking = _marking(task, material)
        return cross_validate(fit, judged_of(material), marking, folds, repeats, progress, workers, prepare)


def _baseline(
    kind: Literal["constant", "raw pixels", "frozen", "closed form"],
    task: Task,
    material: Material,
    plan: Plan,
    verdict: Verdict,
    found: tuple[Ints, npt.NDArray[np.floating]],
) -> Baseline:
    """Compared with the verdict, on the rows that both judged: all of them."""
    rows, said = found
    assert np.array_equal(rows, verdict.rows)
    groups, measure = material.groups[rows], measure_of(task, material, plan)
    marks = task.judging.mark(material.targets.take(rows), said)
    mine = _scores(task, measure, marks, groups)
    rival = {name: verdict.score[name] for name in mine}
    gain = measure.gain(verdict.marks, marks, groups)
    return Baseline(kind, gain["n"], measure.name, mine, rival, gain)


def _scores(task: Task, measure: Measure, marks: Marks, groups: Ints) -> dict[str, Interval]:
    """The headline, and what these data are compared in."""
    return {m.name: m.of(marks, groups) for m in (task.judging.headline, measure)}
