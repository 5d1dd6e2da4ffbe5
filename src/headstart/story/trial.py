"""How good the frozen model is: the headline, the baselines, the learning curve.

What chose a setting never scores it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from headstart import recipe
from headstart.finetune.activations import Stored
from headstart.finetune.trained import Bar, Design, Epoch, Examples, SpecHead, no_bar, train_head
from headstart.finetune.tune import Tuning, answers, tune
from headstart.heads.material import Material
from headstart.heads.probe import Probe, fit_closed, fit_probe
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import Part, TapSet, last, plain, tap_sets
from headstart.judge.evaluate import CrossValidation, combine_cv, cross_validate, learning_curve
from headstart.judge.metrics import accuracy_interval, balanced_interval, paired_balanced_gain, paired_gain, score
from headstart.story.plan import Plan
from headstart.trunk.engine import n_cores

Ints = npt.NDArray[np.int64]
Blocks = Mapping[str, npt.NDArray[np.floating]]
Fit = Callable[[Ints], Callable[[Ints], Doubles]]

DOUBLE_IMAGES = 1000  # above, folds are decomposed in float32, which halves their time; the model itself never is
CHUNK = 1024  # rows that a head reads at a time
CURVE_IMAGES = 3000  # above, the curve is drawn on a stratified part: its largest fits would cost more than the rest
PIXELS = TapSet("pixels", (Part("pixels", root=False, unit=False),))


@dataclass(frozen=True)
class Verdict:
    """A score with the predictions behind it: probabilities (row, class) for `rows` of the features. `right` (row,):
    the share of right answers, of several where cross-validation was repeated."""

    score: dict[str, Any]
    rows: Ints
    probabilities: Doubles
    right: Doubles


@dataclass(frozen=True)
class Baseline:
    """What the model is held against, on `n` images.

    `scores` and `rival`: of this one and of what it is compared with, on the same images, the accuracy and, where one
    class is rare, the balanced accuracy. `difference`: the rival's `measure` minus this one's, paired.
    """

    kind: str  # "most frequent", "raw pixels", "frozen", "closed form" or "random weights"
    n: int
    measure: str  # "accuracy" or "balanced_accuracy"
    scores: dict[str, Any]
    rival: dict[str, Any]
    difference: dict[str, Any]
    n_train: int = 0  # images that both learned from, where that is less than all

    @property
    def accuracy(self) -> dict[str, Any]:
        """The plain accuracy of this one."""
        return dict(self.scores["accuracy"])

    @property
    def against(self) -> str:
        """What the rival is."""
        return "the same head on pre-trained weights" if self.kind == "random weights" else "this model"


def fitter(material: Material, sets: tuple[TapSet, ...], heads: tuple[str, ...] | None = None) -> Fit:
    """A `fit` for cross-validation: everything is chosen anew from the rows it is given.

    The products of the prepared features of all images are made once, and each fit picks its own rows of them: they
    hold nothing of labels, and preparation looks at one image at a time.
    """
    n = len(material.y)
    grams: dict[str, npt.NDArray[np.floating]] = {}
    for tap_set in sets:
        x = tap_set.of(material.blocks)
        if n * 0.8 <= x.shape[1]:  # the folds will be solved in the dual
            wide = x.astype(np.float64) if n <= DOUBLE_IMAGES else x
            grams[tap_set.name] = np.asarray(wide @ wide.T)

    def fit(rows: Ints) -> Callable[[Ints], Doubles]:
        mine = material.part(rows)
        chosen = heads or recipe.heads(len(rows), len(material.classes))
        inner = {name: gram[np.ix_(rows, rows)] for name, gram in grams.items()}
        probe = fit_probe(mine.blocks, mine.y, mine.groups, sets, chosen, material.seed, inner)
        return lambda other: np.exp(probe.log_probabilities(material.at(other)))

    return fit


@dataclass(frozen=True)
class Method:
    """How a model is made: closed-form heads on these tap sets, or one head of the user's own layers."""

    sets: tuple[TapSet, ...]
    design: Design | None = None
    tuning: Tuning | None = None
    device: str = "cpu"  # that trains it

    @property
    def closed(self) -> bool:
        """Whether nothing is trained step by step."""
        return self.design is None and self.tuning is None


def final_head(material: Material, plan: Plan, method: Method, bar: Bar) -> Probe | SpecHead:
    """The model that is handed over, from all training rows."""
    if method.design is None:
        return final_probe(material, plan, method.sets)
    step = bar("train the head", method.design.training.epochs)
    return _train(material, plan.train, method, lambda epoch: step(1))


def _train(
    material: Material, rows: Ints, method: Method, progress: Callable[[Epoch], None] = lambda epoch: None
) -> SpecHead:
    """The user's own layers, trained on these rows."""
    assert method.design is not None
    m, keys = material, [material.keys[row] for row in rows]
    stored = Stored(method.design.shape, m.blocks[method.design.block])
    examples = Examples(stored, rows, m.y[rows], m.groups[rows], keys, len(m.classes))
    return train_head(method.design, examples, m.seed, method.device, progress)


def final_probe(material: Material, plan: Plan, sets: tuple[TapSet, ...]) -> Probe:
    """The closed-form model, from all training rows."""
    return fit_closed(material, plan.train, sets)


def judge(material: Material, plan: Plan, head: Probe | SpecHead, method: Method, bar: Bar) -> Verdict:
    """The headline: the head on the rows held out for it, or cross-validation of all that led to it."""
    if plan.judge is not None:
        return judge_rows(material, head, plan.judge)
    folds, repeats = recipe.cross_validation(len(plan.train))
    if method.closed:
        step = bar("judge", folds * repeats)
        mine = material.part(plan.train)
        found = _crossed(mine, fitter(mine, method.sets), folds, repeats, lambda *_: step(1))
        return Verdict(found.score, plan.train, found.probabilities, found.right)

    def fit(rows: Ints) -> Callable[[Ints], Doubles]:
        trained = _train(material, plan.train[rows], method)
        return lambda other: _probabilities(material, trained, plan.train[other])

    m, step = material, bar("judge", folds)
    y, groups, keys = m.y[plan.train], m.groups[plan.train], [m.keys[row] for row in plan.train]
    found = cross_validate(fit, y, groups, keys, m.classes, folds, 1, m.seed, lambda *_: step(1), workers=1)
    return Verdict(found.score, plan.train, found.probabilities, found.right)


def cross_tuned(material: Material, plan: Plan, method: Method, bar: Bar) -> tuple[Verdict, Verdict]:
    """Cross-validation in which all of a tuning is done anew: of the model, and of its linear top alone. `material`:
    the frozen network's."""
    assert method.tuning is not None
    tuning = replace(method.tuning, say=lambda text: None, bar=no_bar)
    m, train = material, plan.train
    y, groups, keys = m.y[train], m.groups[train], [m.keys[row] for row in train]
    tops = np.full((len(train), len(m.classes)), np.nan)

    def fit(rows: Ints) -> Callable[[Ints], Doubles]:
        mine = tune(tuning, m, train[rows], method.device)

        def answer(other: Ints) -> Doubles:
            head, top = answers(tuning, mine, m, train[other])
            tops[other] = np.exp(top)
            return np.exp(head)

        return answer

    folds, _ = recipe.cross_validation(len(train))
    step = bar("judge", folds)
    found = cross_validate(fit, y, groups, keys, m.classes, folds, 1, m.seed, lambda *_: step(1), workers=1)
    top_score = combine_cv(y, [tops], list(found.folds), m.classes, groups, m.seed)
    top = Verdict(top_score, train, tops, _right(y, tops))
    return Verdict(found.score, train, found.probabilities, found.right), top


def _verdict(material: Material, rows: Ints, probabilities: Doubles) -> Verdict:
    scored = score(material.y[rows], probabilities, material.classes, material.groups[rows], material.seed)
    return Verdict(scored, rows, probabilities, _right(material.y[rows], probabilities))


def _right(y: Ints, probabilities: Doubles) -> Doubles:
    return np.asarray(probabilities.argmax(axis=1) == y, dtype=np.float64)


def judge_rows(material: Material, head: Probe | SpecHead, rows: Ints) -> Verdict:
    return _verdict(material, rows, _probabilities(material, head, rows))


def _probabilities(material: Material, head: Probe | SpecHead, rows: Ints) -> Doubles:
    """(row, class), a chunk of rows at a time: maps may be larger than memory."""
    chunks = [rows[at : at + CHUNK] for at in range(0, len(rows), CHUNK)]
    return np.asarray(np.exp(np.concatenate([head.log_probabilities(material.at(chunk)) for chunk in chunks])))


def timm_view(material: Material, plan: Plan) -> tuple[Probe, Verdict]:
    """The best head that fits inside the network itself, judged as the headline is (one repeat)."""
    probe = final_probe(material, plan, (plain(),))
    if plan.judge is not None:
        return probe, judge_rows(material, probe, plan.judge)
    return probe, _one_repeat(material.part(plan.train), (plain(),), plan.train)


def measure_of(material: Material, plan: Plan) -> str:
    """What comparisons are made in: the balanced accuracy where one class is rare."""
    counts = np.bincount(material.y[plan.train], minlength=len(material.classes))
    return "balanced_accuracy" if recipe.unequal(counts.tolist()) else "accuracy"


def most_frequent(material: Material, plan: Plan, verdict: Verdict) -> Baseline:
    common = np.bincount(material.y[plan.train], minlength=len(material.classes))
    constant = np.tile(common / common.sum(), (len(verdict.rows), 1))
    return _baseline("most frequent", material, plan, verdict, (verdict.rows, constant))


def raw_pixels(material: Material, plan: Plan, verdict: Verdict, thumbnails: npt.NDArray[np.uint8]) -> Baseline:
    """The same heads on 16 x 16 pixels: what needs no network."""
    found = _quick(_pixels_of(material, thumbnails), plan, (PIXELS,))
    return _baseline("raw pixels", material, plan, verdict, found)


def _pixels_of(material: Material, thumbnails: npt.NDArray[np.uint8]) -> Material:
    pixels = thumbnails.reshape(len(thumbnails), -1).astype(np.float32) / 255
    return Material({"pixels": pixels}, material.y, material.groups, material.keys, material.classes, material.seed)


def pixel_answers(material: Material, plan: Plan, thumbnails: npt.NDArray[np.uint8]) -> Doubles:
    """Probabilities of the judged rows by ridge on 16 x 16 pixels."""
    assert plan.judge is not None
    return _quick(_pixels_of(material, thumbnails), plan, (PIXELS,))[1]


def single_layer_answers(material: Material, plan: Plan) -> Doubles:
    """Probabilities of the judged rows by ridge on the last layer alone."""
    return _quick(material, plan, (last(),))[1]


def closed_form(material: Material, plan: Plan, verdict: Verdict) -> Baseline:
    """What headstart's own head makes of the same network, beside a head of the user's layers."""
    return _baseline("closed form", material, plan, verdict, _quick(material, plan, (last(),), None))


def frozen(material: Material, plan: Plan, verdict: Verdict, sets: tuple[TapSet, ...]) -> Baseline:
    """The frozen model beside the tuned one, on the same images."""
    return _baseline("frozen", material, plan, verdict, _quick(material, plan, sets, None))


def random_weights(material: Material, plan: Plan, drawn: Ints, blocks: Blocks) -> Baseline:
    """The same network with random weights, on the rows `drawn`; blocks: block -> (drawn, feature).

    Its rival is the pre-trained network with the same quick head, learned from and judged on the same few rows, so
    that the difference says what the weights are worth and not what more images or a better head are.
    """
    part = material.part(drawn)
    bare = Material(blocks, part.y, part.groups, part.keys, part.classes, material.seed).without_maps()
    place = {int(row): k for k, row in enumerate(drawn)}

    def inside(rows: Ints | None) -> Ints | None:
        return None if rows is None else np.array([place[int(r)] for r in rows if int(r) in place], dtype=np.int64)

    train = inside(plan.train)
    assert train is not None
    small = Plan(plan.source, train, inside(plan.judge), None, plan.splits[drawn])
    sets = tap_sets("all", tuple(bare.blocks))
    rows, probabilities = _quick(bare, small, sets)
    _, pretrained = _quick(part, small, sets)
    y, groups, measure = part.y[rows], part.groups[rows], measure_of(material, plan)
    one, other = (p.argmax(axis=1) == y for p in (pretrained, probabilities))
    gain = _gain(measure, y, one, other, groups)
    mine, rival = (_scores(measure, y, hit, groups) for hit in (other, one))
    n_train = len(train) if plan.judge is not None else 0
    return Baseline("random weights", len(rows), measure, mine, rival, gain, n_train)


def draw_for_baseline(material: Material, plan: Plan) -> Ints:
    """Rows for the random-weights baseline: a part of the training rows and one of the judged rows, stratified; with a
    rare class as many of each class as there are."""
    rare = measure_of(material, plan) == "balanced_accuracy"

    def most(rows: Ints) -> int:
        return recipe.baseline_images(len(rows), len(material.classes), rare)

    if plan.judge is None:
        return _drawn(material, plan.train, most(plan.train), rare)
    whole = most(np.concatenate([plan.train, plan.judge]))
    judged = _drawn(material, plan.judge, max(whole // 2, whole - len(plan.train)), rare)
    return np.sort(np.concatenate([_drawn(material, plan.train, whole - len(judged), rare), judged]))


def _drawn(material: Material, rows: Ints, most: int, rare: bool) -> Ints:
    """So many of the rows, stratified but for two of each class that are no copies; with `rare` the same number of each
    class, as far as it goes."""
    from headstart.data.splits import nested_order

    rows = rows[nested_order(material.y[rows], material.seed, [material.keys[r] for r in rows])]
    _, first = np.unique(material.groups[rows], return_index=True)
    copy = np.ones(len(rows), dtype=np.int64)
    copy[first] = 0
    nth = np.zeros(len(rows), dtype=np.int64)  # of its class; the copies of others come last
    for c in np.unique(material.y[rows]):
        mine = np.flatnonzero(material.y[rows] == c)
        nth[mine[np.argsort(copy[mine], kind="stable")]] = np.arange(len(mine))
    order = np.argsort(nth if rare else nth >= 2, kind="stable")
    return np.sort(rows[order[:most]])


def curve(material: Material, plan: Plan, head: Probe | SpecHead, method: Method) -> list[dict[str, Any]]:
    """Accuracy against the number of training images, with ridge on the tap set of the best candidate (on the last
    tap where the head is of the user's own layers)."""
    best = max(head.candidates, key=lambda c: c.weight, default=None)
    chosen = next((t for t in method.sets if best and t.name == best.taps), last())
    rows = plan.train
    if len(rows) > CURVE_IMAGES:
        from headstart.data.splits import nested_order

        order = nested_order(material.y[rows], material.seed, [material.keys[r] for r in rows])
        rows = np.sort(rows[order[:CURVE_IMAGES]])
    part = material.part(rows)
    with threadpool_limits(1, "blas"):
        fit = fitter(part, (chosen,), ("ridge",))
        return learning_curve(
            fit, part.y, part.groups, part.keys, part.classes, draws=1, seed=material.seed, workers=n_cores()
        )


def _quick(
    material: Material, plan: Plan, sets: tuple[TapSet, ...], heads: tuple[str, ...] | None = ("ridge",)
) -> tuple[Ints, Doubles]:
    """(rows, probabilities) of these heads, on the judged rows or by one cross-validation of the training rows."""
    if plan.judge is not None:
        return plan.judge, fitter(material, sets, heads)(plan.train)(plan.judge)
    verdict = _one_repeat(material.part(plan.train), sets, plan.train, heads)
    return verdict.rows, verdict.probabilities


def _one_repeat(
    material: Material, sets: tuple[TapSet, ...], rows: Ints, heads: tuple[str, ...] | None = None
) -> Verdict:
    folds, _ = recipe.cross_validation(len(material.y))
    found = _crossed(material, fitter(material, sets, heads), folds, 1)
    return Verdict(found.score, rows, found.probabilities, found.right)


def _crossed(
    material: Material, fit: Fit, folds: int, repeats: int, progress: Callable[[int, int], None] | None = None
) -> CrossValidation:
    """Cross-validation with a fold per processor at a time, each on one BLAS thread: an eigendecomposition gains less
    from a second thread than two of them gain from a processor each. Of few images a fold at a time: fits so short are
    mostly Python, of which one thread works at a time (400 images: 0.61 s on two threads and 0.59 s on one)."""
    m, workers = material, n_cores() if len(material.y) > DOUBLE_IMAGES else 1
    with threadpool_limits(1, "blas"):
        return cross_validate(fit, m.y, m.groups, m.keys, m.classes, folds, repeats, m.seed, progress, workers)


def _baseline(kind: str, material: Material, plan: Plan, verdict: Verdict, found: tuple[Ints, Doubles]) -> Baseline:
    """Compared with the verdict, on the rows that both judged: all of them."""
    rows, probabilities = found
    assert np.array_equal(rows, verdict.rows)
    y, groups, measure = material.y[rows], material.groups[rows], measure_of(material, plan)
    right = probabilities.argmax(axis=1) == y
    mine = _scores(measure, y, right, groups)
    rival = {name: verdict.score[name] for name in mine}
    return Baseline(kind, len(rows), measure, mine, rival, _gain(measure, y, verdict.right, right, groups))


def _scores(measure: str, y: Ints, right: npt.NDArray[np.bool_], groups: Ints) -> dict[str, Any]:
    """The accuracy, and the balanced one where that is the measure."""
    plain = {"accuracy": accuracy_interval(right, groups)}
    return plain if measure == "accuracy" else plain | {measure: balanced_interval(y, right, groups)}


def _gain(measure: str, y: Ints, one: npt.NDArray[Any], other: npt.NDArray[Any], groups: Ints) -> dict[str, Any]:
    """The paired difference in this measure, from which answers are right."""
    if measure == "accuracy":
        return paired_gain(one, other, groups)
    return paired_balanced_gain(y, one, other, groups)
