"""What is learned step by step: gradients as by hand, the unknown teaches nothing, a tuned network is no worse."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from headstart import recipe
from headstart.data.targets import ClassNumbers, LabelSets, Targets, Values
from headstart.errors import OptionError
from headstart.finetune import spec
from headstart.finetune.at_cut import AtCut, Stored
from headstart.finetune.design import Design
from headstart.finetune.job import Session, Tuning
from headstart.finetune.loop import Loop
from headstart.finetune.objective import BINARY, CROSS_ENTROPY, SQUARED, Objective, Unit
from headstart.finetune.record import Compared
from headstart.finetune.training import Examples, enter, leave, train_head
from headstart.finetune.tunable import Tunable
from headstart.finetune.tune import Tuned, answers, tune
from headstart.finetune.versus import wins
from headstart.heads.material import Material
from headstart.heads.taps import last
from headstart.judge.marks import Interval
from headstart.story.activations_of import marks_of
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.multilabel import MULTILABEL
from headstart.tasks.regression import REGRESSION
from headstart.tasks.task import Task, closed_form
from headstart.trunk.backbone import open_backbone
from headstart.trunk.cut import find_cuts
from headstart.trunk.network import Backbone

N = 60
NAN = float("nan")
Doubles = npt.NDArray[np.float64]
RNG = np.random.default_rng(0)
PRESENT = RNG.integers(-1, 2, (8, 3)).astype(np.int8)
KINDS: list[tuple[Objective, Targets]] = [
    (CROSS_ENTROPY, ClassNumbers(np.arange(8) % 3, ("a", "b", "c"))),
    (BINARY, LabelSets(PRESENT, ("a", "b", "c"))),
    (SQUARED, Values(RNG.normal(size=(8, 3)), ("a", "b", "c"))),
]


def gradient(
    objective: Objective, scores: Doubles, wanted: npt.NDArray[np.floating], smoothing: float = 0.0
) -> Doubles:
    x = torch.from_numpy(scores).requires_grad_()
    objective.loss(x, torch.from_numpy(wanted).double(), smoothing).backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    return np.asarray(x.grad.numpy())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_gradients_are_the_ones_on_paper(smoothing: float) -> None:
    """Probability minus (smoothed) truth, over what is known; of squares twice the error."""
    scores = np.random.default_rng(1).normal(size=(8, 3))
    for objective, targets in KINDS:
        wanted = objective.encode(targets).astype(np.float64)
        found = gradient(objective, scores, wanted, smoothing)
        if objective is CROSS_ENTROPY:
            p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            by_hand = (p - (1 - smoothing) * wanted - smoothing / 3) / 8
        elif objective is BINARY:
            p, known = 1 / (1 + np.exp(-scores)), ~np.isnan(wanted)
            by_hand = np.where(known, p - (1 - smoothing) * wanted - smoothing / 2, 0) / known.sum()
        else:
            by_hand = 2 * (scores - wanted) / scores.size
        assert found == pytest.approx(by_hand, abs=1e-12)


def test_what_is_not_known_neither_teaches_nor_judges() -> None:
    """Whatever is said where nothing is known: the same loss, gradient, scale and marks; all unknown is no loss."""
    targets, scores = LabelSets(PRESENT, ("a", "b", "c")), np.random.default_rng(2).normal(size=(8, 3))
    other = np.where(PRESENT == -1, 50.0, scores)
    wanted = BINARY.encode(targets)
    assert (PRESENT == -1).any()
    assert np.array_equal(gradient(BINARY, scores, wanted), gradient(BINARY, other, wanted))
    assert BINARY.best_scale(targets, scores) == BINARY.best_scale(targets, other)
    assert BINARY.mean_loss(targets, scores) == BINARY.mean_loss(targets, other)
    assert np.array_equal(BINARY.losses(targets, scores), BINARY.losses(targets, other))
    assert BINARY.right is not None
    assert np.array_equal(BINARY.right(targets, scores), BINARY.right(targets, other))
    nothing = LabelSets(np.full((8, 3), -1, np.int8), ("a", "b", "c"))
    assert np.array_equal(gradient(BINARY, scores, BINARY.encode(nothing)), np.zeros((8, 3)))
    assert BINARY.losses(nothing, scores).tolist() == [0.0] * 8
    assert BINARY.best_scale(nothing, scores)[0] == 1


@pytest.mark.parametrize(("objective", "targets"), KINDS, ids=["classes", "labels", "values"])
def test_a_batch_in_parts_is_one_step_whatever_is_known_of_each(objective: Objective, targets: Targets) -> None:
    x, moved = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), []
    for part in (8, 3):
        module = torch.nn.Linear(5, 3)
        torch.nn.init.constant_(module.weight, 0.1)
        torch.nn.init.zeros_(module.bias)
        loop = Loop(module, replace(recipe.training(50, 1, 8), smoothing=0.1, optimizer="sgd"), 4, objective)
        loop.part = part
        wanted = torch.from_numpy(objective.encode(targets))
        loss = list(loop.batches(np.arange(8), lambda some: (x[some], wanted[some])))  # noqa: B023
        moved.append([*loss, *module.weight.detach().ravel().tolist()])
    assert moved[0] == pytest.approx(moved[1], abs=1e-6)


def test_mixup_never_makes_a_truth_of_the_unknown_and_leaves_values_alone() -> None:
    how = replace(recipe.tuning(50, 1, 8), mixup=0.2)
    for objective, targets in KINDS[1:]:
        loop = Loop(torch.nn.Linear(2, 3), how, 4, objective)
        wanted = torch.from_numpy(objective.encode(targets))
        _, mixed = loop._mixed(torch.randn(8, 2), wanted, 8)
        if objective is BINARY:
            assert not torch.equal(mixed.nan_to_num(9), wanted.nan_to_num(9))
            assert bool(mixed[wanted.isnan()].isnan().all())
        else:
            assert mixed is wanted


def test_the_best_scale_of_log_odds_is_the_best() -> None:
    targets = LabelSets(np.random.default_rng(3).integers(-1, 2, (200, 3)).astype(np.int8), ("a", "b", "c"))
    odds = np.where(targets.present == 1, 1.0, -1.0) + np.random.default_rng(4).normal(size=(200, 3))
    scale, loss = BINARY.best_scale(targets, odds)
    assert BINARY.best_scale(targets, 7 * odds)[0] == pytest.approx(scale / 7, rel=0.01)
    around = [BINARY.mean_loss(targets, factor * scale * odds) for factor in (0.8, 1.0, 1.25)]
    assert around[1] == min(around)
    assert loss == pytest.approx(around[1], abs=0.02)  # its truths are smoothed by 1 / (n + 2)


@pytest.mark.parametrize(("factor", "shift"), [(1000.0, -5e4), (1e-3, 0.0), (0.0, 3.0)])
def test_a_head_learns_values_alike_in_any_unit(factor: float, shift: float) -> None:
    """In thousands or thousandths, with any zero: the same answers, in the user's own numbers."""
    rng, how = np.random.default_rng(5), recipe.training(60, 5, 16)
    x = rng.normal(size=(60, 4)).astype(np.float32)
    values = x[:, :2] @ np.array([[1.0, 2.0], [-1.0, 0.5]]) + 0.1 * rng.normal(size=(60, 2))
    design = Design("dense", spec.parse("dense"), "pre_logits", (4,), how)
    found = []
    for truth in (values, factor * values + shift):
        keys = [f"{k:03d}" for k in range(60)]
        targets = Values(np.asarray(truth), ("a", "b"))
        some = Examples(Stored((4,), x), np.arange(60), targets, np.arange(60), keys)
        found.append(train_head(design, some, SQUARED))
    plain, other = (head.outputs({"pre_logits": x}) for head in found)
    if factor:
        assert other == pytest.approx(factor * plain + shift, rel=1e-3, abs=1e-3 * abs(factor))
        assert [e.held_out_loss for e in found[0].epochs] == pytest.approx([e.held_out_loss for e in found[1].epochs])
        assert found[1].epochs[-1].held_out_accuracy is None
        out = ~np.isnan(found[1].left_out[:, 0])
        assert found[1].left_out[out] == pytest.approx(other[out], rel=1e-3, abs=1e-3 * abs(factor))
    else:  # a column that is the same throughout
        assert np.isfinite(other).all()


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_a_win_is_a_gain_in_whichever_direction_is_better(higher_is_better: bool) -> None:
    """An error that falls beyond doubt wins as a share that grows does; the other way round neither does."""
    measure = replace(CLASSIFICATION.judging.headline, higher_is_better=higher_is_better)
    nothing, sign = Interval(value=0.0, low=-1.0, high=1.0), 1 if higher_is_better else -1
    for better, won in ((sign, True), (-sign, False)):
        low, high = sorted((1.0 * better, 3.0 * better))
        gain = Interval(value=2.0 * better, low=low, high=high)
        assert wins(Compared(9, "mae", False, nothing, nothing, gain, nothing), measure) == won


def test_the_way_into_a_unit_and_back_is_none() -> None:
    unit, layer, x = Unit(np.array([5.0, -2.0]), np.array([10.0, 0.1])), torch.nn.Linear(3, 2), torch.randn(4, 3)
    before = layer(x).detach().double().numpy()
    enter(unit, layer)
    assert unit.back(layer(x).detach().double().numpy()) == pytest.approx(before, abs=1e-5)
    leave(unit, layer)
    assert layer(x).detach().double().numpy() == pytest.approx(before, abs=1e-5)


def test_layers_that_end_in_an_activation_give_no_values() -> None:
    values = Values(np.arange(20.0)[:, None], ("a",))
    some = Examples(Stored((4,), np.ones((20, 4))), np.arange(20), values, np.arange(20), [f"{k}" for k in range(20)])
    design = Design("dense relu", spec.parse("dense relu"), "pre_logits", (4,), recipe.training(20, 1))
    with pytest.raises(OptionError, match="'dense relu' ends in an activation"):
        train_head(design, some, SQUARED)


@pytest.fixture(scope="module")
def network() -> Backbone:
    found = open_backbone("test_efficientnet", "none")
    return replace(found.resized(replace(found.preprocess, size=(32, 32))), weights_source="a file")


def bars(n: int, seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """(normalised pixels (image, 3, 32, 32), which of three bars of rows are bright (image, bar))."""
    rng = np.random.default_rng(seed)
    bright = rng.integers(0, 2, (n, 3))
    x = rng.normal(size=(n, 3, 32, 32)).astype(np.float32)
    for bar in range(3):
        x[:, :, 10 * bar : 10 * bar + 10] += 1.5 * bright[:, bar, None, None, None]
    return x, bright


@dataclass(frozen=True, eq=False)
class BarReader:
    """Activations and features of pictures in memory."""

    network: Backbone
    pixels: npt.NDArray[np.float32]

    def at_cut(self, what: Tunable, rows: npt.NDArray[np.int64], epochs: int, session: Session) -> AtCut:
        x = torch.from_numpy(self.pixels)
        with torch.inference_mode():
            values = (x if what.cut == "input" else find_cuts(self.network).between("input", what.cut)(x)).numpy()
        return Stored(values.shape[1:], values.reshape(len(values), -1))

    def features(self, backbone: Backbone, rows: npt.NDArray[np.int64], session: Session) -> dict[str, Any]:
        with torch.inference_mode():
            maps = backbone.module.forward_features(torch.from_numpy(self.pixels[rows]))  # type: ignore[operator]
            return {"pre_logits": backbone.module.forward_head(maps, pre_logits=True).numpy()}  # type: ignore[operator]


def planned(network: Backbone, task: Task, targets: Targets, x: npt.NDArray[np.float32]) -> tuple[Tuning, Material]:
    assert task.objective is not None
    reader, n = BarReader(network, x), len(x)
    plan = Tuning(
        backbone=network,
        tune="last",
        training=replace(recipe.tuning(N, 10, 16, rate=5e-3), held_out=0.3),
        sets=(last(),),
        reader=reader,
        solve=partial(closed_form, task),
        objective=task.objective,
        mark=partial(marks_of, task),
        measure=task.judging.headline,
        precision="f32",
    )
    blocks = reader.features(network, np.arange(n), Session())
    return plan, Material(blocks, targets, np.arange(n), tuple(f"{k:04d}" for k in range(n)), 0)


def truths(task: Task, bright: npt.NDArray[np.int64]) -> Targets:
    if task is CLASSIFICATION:
        return ClassNumbers(bright[:, 0], ("dark", "bright"))
    if task is MULTILABEL:
        present = bright.astype(np.int8)
        present[::7, 0] = -1
        return LabelSets(present, ("top", "middle", "bottom"))
    return Values(1000 + 250.0 * bright.sum(axis=1, keepdims=True), ("bright",))


def same(one: Tuned, other: Tuned) -> bool:
    assert one.backbone is not None
    assert other.backbone is not None
    a, b = one.backbone.module.state_dict(), other.backbone.module.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a) and np.array_equal(one.head.coef, other.head.coef)


@pytest.mark.parametrize("task", [MULTILABEL, REGRESSION], ids=["labels", "values"])
def test_a_tuned_network_answers_better_than_its_start(network: Backbone, task: Task) -> None:
    """Of new images too: the loss of the tuned network beside that of the closed form on the frozen one."""
    x, bright = bars(N, 0)
    plan, data = planned(network, task, truths(task, bright), x)
    found = tune(plan, data, np.arange(N), Session())
    assert found.record.part is not None
    assert found.record.part.head in ("linear", *(c.head for c in found.head.candidates))
    assert found.record.compared is not None
    assert found.record.compared.measure == task.judging.headline.name
    new, bright = bars(200, 1)
    frozen = plan.solve(data, np.arange(N), plan.sets)
    targets, there = truths(task, bright), planned(network, task, truths(task, bright), new)[1]
    before = plan.objective.losses(targets, frozen.outputs(there.blocks)).mean()
    again = replace(plan, reader=BarReader(network, new))
    after = plan.objective.losses(targets, answers(again, found, there, np.arange(200), Session())[0]).mean()
    assert found.backbone is not None
    assert after < 0.8 * before


@pytest.mark.parametrize("task", [CLASSIFICATION, MULTILABEL, REGRESSION], ids=["classes", "labels", "values"])
def test_what_travelled_to_another_process_learns_the_same(network: Backbone, task: Task) -> None:
    x, bright = bars(N, 0)
    plan, data = planned(network, task, truths(task, bright), x)
    plan = replace(plan, training=replace(plan.training, epochs=1))
    here, there = (tune(one, data, np.arange(N), Session()) for one in (plan, pickle.loads(pickle.dumps(plan))))
    assert here.record == there.record
    assert here.backbone is None or same(here, there)
