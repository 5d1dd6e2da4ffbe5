"""Fine-tuning: what is frozen stays, what is cached equals what is live, what judges has no part in it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch

from conftest import TINY, Run
from headstart import recipe
from headstart.cli.progress import epoch_table
from headstart.data.images import load as decode
from headstart.data.table import list_images, read_table
from headstart.data.targets import ClassNumbers, class_numbers
from headstart.errors import DataError, OptionError, OutputError
from headstart.files.bundle import read_bundle
from headstart.finetune.arithmetic import BF16, numbers, ordered, prepare
from headstart.finetune.at_cut import AtCut, Stored
from headstart.finetune.checkpoint import Checkpoint
from headstart.finetune.choice import BELOW, CLOSED, LINEAR, MEAN, build, choose, layer_sets
from headstart.finetune.design import PLAIN, Design, Epoch
from headstart.finetune.job import Job, Session, Tuning
from headstart.finetune.loop import Loop
from headstart.finetune.objective import CROSS_ENTROPY
from headstart.finetune.pilot import Pilot, pilot
from headstart.finetune.record import Compared, DepthTried, TunedPart, TuningRecord
from headstart.finetune.training import Examples
from headstart.finetune.tunable import Tail, Tunable, depths, kind_of, tunable
from headstart.finetune.tune import Tuned, answers, tune
from headstart.finetune.versus import compare
from headstart.heads.calibrate import best_scale
from headstart.heads.material import Material
from headstart.heads.probe import Probe
from headstart.heads.taps import Part, TapSet, last, plain
from headstart.judge.intervals import Gain, wilson
from headstart.judge.marks import Interval
from headstart.ship.predict import predict
from headstart.story import evidence, pipeline, publish
from headstart.story.account import no_gain_line
from headstart.story.activations_of import marks_of
from headstart.story.opening import Options
from headstart.story.pipeline import load
from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.task import closed_form
from headstart.trunk.backbone import open_backbone
from headstart.trunk.cut import find_cuts
from headstart.trunk.network import Backbone

N = 60
Y = np.arange(N) % 3
ROWS = np.arange(N)
Images = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def network() -> Backbone:
    found = open_backbone("test_efficientnet", "none")
    return found.resized(replace(found.preprocess, size=(32, 32)))


@pytest.fixture(autouse=True)
def unmixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tuned weights as they are, so that a test of training sees what training did."""
    monkeypatch.setattr("headstart.finetune.tune.ALPHAS", (1.0,))


def pixels(n: int = N, seed: int = 0) -> Images:
    """Normalised pixels (image, 3, 32, 32) of three classes: a bright third of the rows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3, 32, 32)).astype(np.float32)
    for k in range(n):
        x[k, :, 10 * (k % 3) : 10 * (k % 3) + 10] += 1.5
    return x


def top(network: Backbone, x: Images) -> Images:
    """What the network says before its own top."""
    with torch.inference_mode():
        maps = network.module.forward_features(torch.from_numpy(x))  # type: ignore[operator]
        return network.module.forward_head(maps, pre_logits=True).numpy()  # type: ignore[no-any-return, operator]


def at_cut(network: Backbone, cut: str, x: Images) -> Images:
    with torch.inference_mode():
        return x if cut == "input" else find_cuts(network).between("input", cut)(torch.from_numpy(x)).numpy()


def material(network: Backbone, labels: npt.NDArray[np.int64], x: Images | None = None) -> Material:
    values = top(network, pixels() if x is None else x)
    keys = tuple(f"{k:04d}" for k in range(len(values)))
    return Material({"pre_logits": values}, ClassNumbers(labels, ("a", "b", "c")), np.arange(len(values)), keys, 0)


fit_closed = partial(closed_form, CLASSIFICATION)


@dataclass(frozen=True, eq=False)
class PixelReader:
    """Of the images of `pixels`; `views`: pixels of further views."""

    network: Backbone
    views: tuple[Images, ...] = ()

    def at_cut(self, what: Tunable, rows: npt.NDArray[np.int64], epochs: int, session: Session) -> AtCut:
        x, *others = (at_cut(self.network, what.cut, images) for images in (pixels(), *self.views))
        return Stored(x.shape[1:], x.reshape(N, -1), tuple(o.reshape(N, -1) for o in others), np.arange(N))

    def features(
        self, backbone: Backbone, rows: npt.NDArray[np.int64], session: Session
    ) -> dict[str, npt.NDArray[np.floating]]:
        return {"pre_logits": top(backbone, pixels()[rows])}


def tuning(
    network: Backbone, what: str, epochs: int = 3, views: tuple[Images, ...] = (), store: Path | None = None
) -> Tuning:
    """Tuning of the images of `pixels`; `views`: pixels of further views."""
    return Tuning(
        backbone=network,
        tune=what,
        training=replace(recipe.tuning(N, epochs, 16), mixup=0.0),
        sets=(last(),),
        reader=PixelReader(network, views),
        solve=fit_closed,
        objective=CROSS_ENTROPY,
        mark=partial(marks_of, CLASSIFICATION),
        measure=CLASSIFICATION.judging.headline,
        precision="f32",
        store=store,
    )


def tuned(
    plan: Tuning,
    data: Material,
    rows: npt.NDArray[np.int64] = ROWS,
    session: Session | None = None,
    progress: Callable[[Epoch], None] = lambda epoch: None,
) -> Tuned:
    """In a session of its own."""
    return tune(plan, data, rows, session or Session(), progress)


def above(found: Tuned) -> TunedPart:
    assert found.record.part is not None
    return found.record.part


def comparison(found: Tuned) -> Compared:
    assert found.record.compared is not None
    return found.record.compared


def state(network: Backbone) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in network.module.state_dict().items()}


def weights(found: Tuned) -> dict[str, torch.Tensor]:
    assert found.backbone is not None
    return dict(found.backbone.module.state_dict()) | {"top": torch.from_numpy(found.top.coef)}


def alike(one: Tuned, other: Tuned) -> bool:
    a, b = weights(one), weights(other)
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def last_tuned(network: Backbone) -> Tuned:
    """The last stage, tuned in float32; not to be changed."""
    return tuned(tuning(network, "last"), material(network, Y), ROWS)


@pytest.mark.parametrize("what", ["last", "10", "blocks.2", "all"])
def test_what_is_frozen_stays_bit_for_bit(network: Backbone, what: str) -> None:
    """The original network whole; of the tuned one all that was not to learn, and every BatchNorm statistic."""
    before, part = state(network), tunable(network, what)
    found = tuned(tuning(network, what), material(network, Y), ROWS)
    assert found.backbone is not None
    assert all(torch.equal(t, before[name]) for name, t in network.module.state_dict().items())
    moved = {name for name, t in found.backbone.module.state_dict().items() if not torch.equal(t, before[name])}
    assert moved
    assert all(any(name.startswith(f"{m}.") for m in part.modules) for name in moved)
    assert not any(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in moved)
    learn = dict(network.module.named_modules())
    count = sum(p.numel() for m in part.modules for p in learn[m].parameters(recurse=False))
    assert above(found).parameters == part.n_parameters == count
    assert found.backbone.weights_hash != network.weights_hash


def test_modules_are_counted_from_the_top_as_the_tutorials_count_layers(network: Backbone) -> None:
    everything = tunable(network, "all").modules
    assert tunable(network, "10").modules == everything[-10:]
    assert tunable(network, str(len(everything))) == tunable(network, "all")
    assert set(tunable(network, "last").modules) < set(everything)
    with pytest.raises(OptionError, match=f"has {len(everything)} modules with weights"):
        tunable(network, "9999")
    with pytest.raises(OptionError, match=r"tune 'blocks\.9' is not known"):
        tunable(network, "blocks.9")


def test_a_tail_is_the_rest_of_the_network(network: Backbone) -> None:
    x = torch.from_numpy(pixels(4))
    features = network.module.forward_head(network.module.forward_features(x), pre_logits=True)  # type: ignore[operator]
    for what in ("last", "10", "all"):
        part = tunable(network, what)
        tail = Tail(network, part, 3).eval()
        with torch.inference_mode():
            z = find_cuts(network).between("input", part.cut)(x)
            assert torch.allclose(tail(z), tail.linear(features), atol=1e-5)


def test_cached_activations_learn_what_live_ones_learn(
    network: Backbone, last_tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last stage from its cached input in float32, and the same modules with everything before them run live."""
    from headstart.finetune import tune as finetune

    monkeypatch.setattr(finetune, "tunable", lambda b, what: replace(tunable(b, what), cut="input"))
    found = [last_tuned, tuned(tuning(network, "last"), material(network, Y), ROWS)]
    assert [above(one).cut == "input" for one in found] == [False, True]
    losses = [[epoch.loss for epoch in one.epochs] for one in found]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    held = [[epoch.held_out_accuracy for epoch in one.epochs] for one in found]
    assert held[0] == held[1]


def test_it_starts_from_the_fitted_head_and_learns(network: Backbone) -> None:
    plan = tuning(network, "all", epochs=15)
    found = tuned(plan, material(network, Y), ROWS)
    first, final = found.epochs[0].loss, found.epochs[-1].loss
    assert final < first
    assert found.backbone is not None
    said = found.head.outputs({"pre_logits": top(found.backbone, pixels(90, seed=5))}).argmax(axis=1)
    assert (said == np.arange(90) % 3).mean() > 0.8


def test_from_scratch_the_average_has_statistics_of_its_own(network: Backbone) -> None:
    """A network of random weights learns the statistics of BatchNorm: the averaged weights answer with them."""
    how = replace(recipe.tuning(N, 4, 16, random=True), average=0.5)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    loop = Loop(torch.nn.Sequential(module, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()), how, 40, CROSS_ENTROPY)
    x, y = torch.randn(64, 3, 8, 8) + 5, torch.eye(4)[torch.arange(64) % 4]
    for _ in range(10):
        list(loop.batches(np.arange(64), lambda some: (x[some], y[some])))
    mean, own = (m.state_dict()["0.1.running_mean"] for m in (loop.answering, loop.module))
    assert float(own.abs().max()) > 0.5
    assert torch.allclose(mean, own, atol=0.1 * float(own.abs().max()))


def test_a_seed_gives_the_same_tuned_network_and_0_is_a_seed(network: Backbone, last_tuned: Tuned) -> None:
    plan, data = tuning(network, "last"), material(network, Y)
    assert data.seed == 0
    assert alike(last_tuned, tuned(plan, data, ROWS))
    assert not alike(last_tuned, tuned(plan, replace(data, seed=1), ROWS))


def test_auto_keeps_the_frozen_model_where_labels_mean_nothing(
    network: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    y = np.random.default_rng(3).permutation(Y)
    for name, value in (("TUNABLE_IMAGES", 2), ("DISCORDANT", 0)):
        monkeypatch.setattr(recipe, name, value)
    found = tuned(tuning(network, "auto"), material(network, y), ROWS)
    assert not found.record.kept
    assert found.backbone is None
    assert [one.depth for one in found.record.pilot or ()] == ["none", *depths(network)]
    frozen = tuned(replace(tuning(network, "auto"), training=recipe.tuning(N, 1)), material(network, y), ROWS)
    assert np.array_equal(found.head.coef, frozen.head.coef)


def test_auto_trains_nothing_where_no_outcome_could_show_a_gain(network: Backbone) -> None:
    few = tuned(tuning(network, "auto"), material(network, Y), np.arange(30))
    assert "10 training images a class (the median)" in (few.record.why or "")
    sure = replace(material(network, Y), blocks={"pre_logits": np.eye(3)[Y] + 0.01 * top(network, pixels())[:, :3]})
    found = tuned(tuning(network, "auto"), sure, ROWS)
    assert "too few to show a gain by" in (found.record.why or "")
    assert (few.epochs, found.epochs) == ((), ())


def test_one_rare_class_does_not_keep_auto_from_trying(network: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "DISCORDANT", 0)
    y = np.where(ROWS < 2, 2, ROWS % 2)  # 29, 29 and 2 images
    found = tuned(replace(tuning(network, "auto"), training=recipe.tuning(N, 1)), material(network, y), ROWS)
    assert [one.depth for one in found.record.pilot or ()] == ["none", *depths(network)]
    assert found.head.coef.shape[0] == 3


def test_auto_keeps_what_wins_beyond_doubt(network: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the frozen features are noise and the images are not."""
    monkeypatch.setattr(recipe, "TUNABLE_IMAGES", 2)
    monkeypatch.setattr(recipe, "PILOT_EPOCHS", 8)
    noise = {"pre_logits": np.random.default_rng(0).normal(size=(N, network.last_channels)).astype(np.float32)}
    how = replace(recipe.tuning(N, 15, 16), held_out=0.4, patience=15)
    found = tuned(replace(tuning(network, "auto"), training=how), replace(material(network, Y), blocks=noise), ROWS)
    assert found.record.kept
    assert found.backbone is not None
    assert (comparison(found).difference["low"] or 0) > 0


@pytest.mark.parametrize(
    ("gain", "loss", "wins"),
    [
        ((0.02, 0.01, 0.03), (-0.01, -0.03, 0.01), True),  # more right beyond doubt
        ((0.02, -0.01, 0.05), (-0.05, -0.08, -0.02), True),  # more right, and the log-loss says that it is no chance
        ((0.02, -0.01, 0.05), (-0.05, -0.12, 0.02), False),  # neither is beyond doubt
        ((-0.01, -0.03, 0.01), (-0.05, -0.08, -0.02), False),  # surer, but fewer right
        ((0.0, -0.01, 0.01), (-0.05, -0.08, -0.02), False),
        ((0.02, None, None), (-0.05, None, None), False),  # one group: nothing can be told
    ],
)
def test_auto_asks_for_more_right_answers_and_no_doubt(
    network: Backbone, monkeypatch: pytest.MonkeyPatch, gain: tuple[Any, ...], loss: tuple[Any, ...], wins: bool
) -> None:
    monkeypatch.setattr(recipe, "TUNABLE_IMAGES", 2)
    monkeypatch.setattr("headstart.finetune.tune.no_need", lambda job, frozen: None)
    monkeypatch.setattr("headstart.finetune.tune.pilot", lambda job: Pilot("last", None))
    difference, losses = (Interval(value=value, low=low, high=high) for value, low, high in (gain, loss))
    found_so = Compared(9, "accuracy", True, difference, difference, difference, losses)
    monkeypatch.setattr("headstart.finetune.tune.compare", lambda *given: found_so)
    found = tuned(replace(tuning(network, "auto"), training=recipe.tuning(N, 1)), material(network, Y), ROWS)
    assert found.record.kept == wins
    assert (found.backbone is not None) == wins


@pytest.mark.parametrize(
    ("right", "depth", "why"),
    [
        ((1.0, 0.95), "deep", False),  # which is better is not known from so few: the deeper
        ((1.0, 0.4), "last", False),
        ((0.4, 1.0), "deep", False),
        ((0.0, 0.0), None, True),
    ],
)
def test_a_short_trial_rejects_only_what_is_worse_beyond_doubt(
    network: Backbone, monkeypatch: pytest.MonkeyPatch, right: tuple[float, float], depth: str | None, why: bool
) -> None:
    """`right`: the share of the held-out images that each depth's training answers rightly."""
    shares = iter(right)

    def trained(job: Job, what: Tunable) -> Any:
        y = class_numbers(job.material.targets)[job.rows]
        hit = np.random.default_rng(0).permutation(len(y)) < next(shares) * len(y)
        scores = np.log(0.05 + 0.85 * np.eye(3)[np.where(hit, y, (y + 1) % 3)])
        return SimpleNamespace(head=SimpleNamespace(left_out=scores, epochs=()))

    monkeypatch.setattr("headstart.finetune.pilot.train_above", trained)
    monkeypatch.setattr("headstart.finetune.job.held_out", lambda how, targets, *given: np.arange(0, len(targets), 2))
    noise = np.random.default_rng(0).normal(size=(N, network.last_channels))
    start = np.eye(network.last_channels)[Y] if why else noise  # the frozen model answers rightly, or by chance
    data = replace(material(network, Y), blocks={"pre_logits": start.astype(np.float32)})
    found = pilot(Job(tuning(network, "auto"), data, ROWS, Session()))
    assert [one.depth for one in found.tried] == ["none", *depths(network)]
    assert bool(found.why) == why
    if depth:
        assert found.depth == dict(zip(("last", "deep"), depths(network), strict=True))[depth]


@pytest.mark.parametrize(("n", "some", "hurried"), [(500, 500, 500), (5000, 1000, 1000), (50_000, 5000, 1000)])
def test_a_short_trial_of_many_images_has_steps_enough(n: int, some: int, hurried: int) -> None:
    """40 batches of 64 told nothing of a training of 3,700."""
    assert (recipe.pilot_images(n, False), recipe.pilot_images(n, True)) == (some, hurried)
    assert recipe.pilot(recipe.tuning(n), some).batch_size == 32
    assert recipe.pilot(recipe.tuning(n, batch_size=8), some).batch_size == 8


def test_the_log_losses_are_compared_at_the_best_scale_of_each(network: Backbone) -> None:
    """A model that is only less sure of the same answers is no worse."""
    plan, data = tuning(network, "last", 2), material(network, Y)
    found = tuned(plan, data, ROWS)
    held = np.flatnonzero(~np.isnan(found.head.left_out[:, 0]))
    frozen = fit_closed(data, np.delete(ROWS, held), plan.sets).outputs(data.at(held))
    for scale in (0.1, 10.0):
        outcome = compare(Job(plan, data, ROWS, Session()), scale * frozen)
        assert outcome.loss_difference["value"] == pytest.approx(0, abs=1e-3)


def test_views_reach_training_alone(network: Backbone) -> None:
    """With nonsense for views the training loss tells, and what stops and judges is what it was with none."""
    noise = np.random.default_rng(1).normal(size=(N, 3, 32, 32)).astype(np.float32) * 9
    found = [tuned(tuning(network, "last", 4, views), material(network, Y), ROWS) for views in ((), (noise,))]
    plain, odd = (one.epochs for one in found)
    assert plain[0].loss == odd[0].loss  # the first epoch sees the images themselves
    assert plain[0].held_out_loss == odd[0].held_out_loss
    assert odd[1].loss > 2 * plain[1].loss


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def undisturbed(network: Backbone) -> Tuned:
    return tuned(tuning(network, "all", 3, (pixels(seed=1),)), material(network, Y), ROWS)


@pytest.mark.parametrize("batch", [1, 4, 14])  # in an epoch, between two, in the last one on all images
def test_a_killed_training_ends_as_if_it_had_not_been(
    network: Backbone, undisturbed: Tuned, tmp_path: Path, batch: int
) -> None:
    """After any batch, with a checkpoint after each: the same weights bit for bit, and no batch is learned twice."""
    data, learned = material(network, Y), [0]
    step = Loop._learn

    def dying(self: Loop, x: torch.Tensor, target: torch.Tensor, n: int) -> float:
        learned[0] += 1
        if learned[0] == batch + 1:
            raise KilledError
        return step(self, x, target, n)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headstart.finetune.checkpoint.EVERY", 0.0)
        patch.setattr(Loop, "_learn", dying)
        plan = tuning(network, "all", 3, (pixels(seed=1),), tmp_path)
        with pytest.raises(KilledError):
            tuned(plan, data, ROWS)
        again = tuned(plan, data, ROWS)
    assert alike(undisturbed, again)
    assert undisturbed.epochs == again.epochs
    batches = 3 * 4 + 4  # of 16: 3 epochs of 51 images, one of all 60
    assert learned[0] == batches + 1  # and the batch that died
    third = tuned(plan, data, ROWS)  # what has ended is not trained again
    assert alike(undisturbed, third)
    assert learned[0] == batches + 1


def test_a_damaged_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    state = Checkpoint(tmp_path, {"a": 1})
    assert state.load() is None
    state.save({"x": torch.arange(3)}, {"step": 1})
    found = Checkpoint(tmp_path, {"a": 1}).load()
    assert found is not None
    assert found[1] == {"step": 1}
    assert Checkpoint(tmp_path, {"a": 2}).load() is None
    state.path.write_bytes(state.path.read_bytes()[:-4])
    assert state.load() is None


def test_a_full_disk_is_one_line(network: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, write: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headstart.finetune.checkpoint.write_whole", full)
    with pytest.raises(OutputError, match=r"cannot be written to .*No space left on device.*another --cache"):
        tuned(tuning(network, "last", store=tmp_path), material(network, Y), ROWS)


def test_short_memory_makes_parts_of_a_batch_and_the_result_is_the_same(
    network: Backbone, last_tuned: Tuned, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, sizes = material(network, Y), []
    forward = Tail.forward

    def small(self: Tail, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            sizes.append(len(x))
            if len(x) > 5:
                raise torch.OutOfMemoryError("simulated")
        return forward(self, x)

    monkeypatch.setattr(Tail, "forward", small)
    monkeypatch.setattr(recipe, "FINISH", 0.0)
    with monkeypatch.context() as patch:  # the pace is measured without the shortage
        patch.setattr("headstart.finetune.pace.rates", lambda modules, x, ways, device: [(ways[0], 1.0)])
        parts = tuned(tuning(network, "last"), data, ROWS)
    assert sizes[:3] == [16, 8, 4]
    assert max(sizes[3:]) == 4
    losses = [[epoch.loss for epoch in found.epochs] for found in (last_tuned, parts)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_memory_for_not_even_one_image_is_one_line(network: Backbone) -> None:
    def full(some: object) -> torch.Tensor:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")

    module = torch.nn.Linear(2, 2)
    module.forward = full  # type: ignore[method-assign]
    loop = Loop(module, recipe.tuning(N, 1, 4), 10, CROSS_ENTROPY)
    with pytest.raises(DataError, match="a single image at a time: take a smaller --size"):
        list(loop.batches(np.arange(4), lambda some: (torch.ones(4, 2), torch.eye(2)[[0, 0, 1, 1]])))


def test_other_numbers_leave_the_weights_as_they_are(network: Backbone) -> None:
    """In bfloat16 it is nearly the same function, of parameters in float32 under the same names."""
    x, part = torch.from_numpy(pixels(4)), tunable(network, "all")
    plain, other = Tail(network, part, 3).eval(), Tail(network, part, 3).eval()
    other.linear.load_state_dict(plain.linear.state_dict())
    prepare(other, BF16)
    assert {n: p.dtype for n, p in other.state_dict().items()} == {n: p.dtype for n, p in plain.state_dict().items()}
    with numbers(BF16, "cpu"):
        found = other(ordered(x, BF16))
    assert found.dtype == torch.bfloat16
    assert torch.allclose(plain(x), found.float(), atol=0.05 * float(plain(x).detach().abs().max()))
    assert ordered(x, PLAIN) is x


def test_rates_fall_with_the_stages(network: Backbone) -> None:
    part = tunable(network, "all")
    groups = Tail(network, part, 3).groups(0.5)
    shares = [share for share, _ in groups]
    assert shares[:2] == [1.0, 1.0]  # the new top, the last stage
    assert shares[1:] == sorted(shares[1:], reverse=True)
    assert len(set(shares)) == 1 + max(part.stages)
    learn = [p for _, some in groups for p in some]
    assert len(learn) == len(set(learn))
    assert sum(p.numel() for p in learn) == part.n_parameters + 3 * network.last_channels + 3


def test_a_learning_rate_is_found_and_nothing_of_it_is_kept(network: Backbone) -> None:
    plan = replace(tuning(network, "last"), find=True)
    found = tuned(plan, material(network, Y), ROWS)
    tried = above(found).rates_tried
    assert tried is not None
    assert [rate for rate, _ in tried] == sorted(rate for rate, _ in tried)
    assert tried[0][0] == pytest.approx(1e-6)
    assert 1e-6 < above(found).rate < 1
    fixed = tuned(
        replace(plan, find=False, training=replace(plan.training, rate=above(found).rate)),
        material(network, Y),
        ROWS,
    )
    assert alike(found, fixed)


def test_the_range_test_sees_no_image_that_compares(network: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def rate(design: Design, examples: Examples, *rest: Any) -> tuple[float, list[tuple[float, float]]]:
        seen.extend(examples.rows)
        return 1e-4, []

    monkeypatch.setattr("headstart.finetune.above.find_rate", rate)
    plan, labels = replace(tuning(network, "last"), find=True), material(network, Y)
    tuned(plan, labels, ROWS)
    held = Job(plan, labels, ROWS, Session()).held
    assert len(held) > 0
    assert sorted([*seen, *held]) == list(ROWS)


def test_the_recipe_knows_the_kind_of_network() -> None:
    """Ordinary convolutions learn by SGD, depthwise ones and attention by AdamW; from scratch all by AdamW."""
    kinds = {name: kind_of(open_backbone(name, "none")) for name in ("resnet18", "mobilenetv3_small_050", "test_vit")}
    assert kinds == {"resnet18": "plain", "mobilenetv3_small_050": "depthwise", "test_vit": "normalised"}
    found = {kind: recipe.tuning(500, kind=kind) for kind in kinds.values()}
    assert [found[kind].optimizer for kind in ("plain", "depthwise", "normalised")] == ["sgd", "adamw", "adamw"]
    assert found["normalised"].rate < found["depthwise"].rate < found["plain"].rate
    scratch = recipe.tuning(500, random=True, kind="plain")
    assert (scratch.optimizer, scratch.frozen_statistics, scratch.stage_decay) == ("adamw", False, 1.0)
    assert all(how.frozen_statistics for how in found.values())


@pytest.mark.parametrize(("n", "held"), [(30, 0), (1000, 150), (5000, 750), (10_000, 750), (50_000, 2500)])
def test_a_larger_set_holds_out_a_smaller_share(n: int, held: int) -> None:
    assert round(n * recipe.tuning(n).held_out) == held


def test_few_images_are_seen_more_often() -> None:
    epochs = [recipe.tuning(n).epochs for n in (100, 1000, 2250, 3000, 5000, 9999, 10_000, 1_000_000)]
    assert epochs == sorted(epochs, reverse=True)
    assert epochs == [24, 24, 21, 16, 12, 12, 8, 8]  # 1,500 batches of 32, within bounds
    assert recipe.tuning(100, epochs=3).epochs == 3


def test_mixup_mixes_pictures_and_labels_alike(network: Backbone) -> None:
    how = replace(recipe.tuning(N, 1, 8), mixup=0.2)
    loop = Loop(torch.nn.Linear(4, 4), how, 10, CROSS_ENTROPY)
    x, y = torch.eye(4), torch.eye(4)
    mixed, target = loop._mixed(x, y, 4)
    assert torch.allclose(mixed, target)  # each picture is the code of its label, and stays so
    assert torch.allclose(target.sum(1), torch.ones(4))
    assert not torch.equal(target, torch.eye(4))
    again, _ = loop._mixed(x, y, 4)
    assert torch.equal(mixed, again)  # drawn from the seed and the step alone
    loop.step += 1
    assert not torch.equal(loop._mixed(x, y, 4)[0], mixed)


def test_a_budget_buys_epochs(network: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recipe.epochs_within(None, 12, 1000, 100.0) == 12
    assert recipe.epochs_within(35.0, 12, 1000, 100.0) == 3
    assert recipe.epochs_within(1.0, 12, 1000, 100.0) == 1
    found = tuned(replace(tuning(network, "last", 9), seconds=1e-6), material(network, Y), ROWS)
    assert len(found.epochs) == 1
    for name, value in (("TUNABLE_IMAGES", 2), ("DISCORDANT", 0)):
        monkeypatch.setattr(recipe, name, value)
    found = tuned(replace(tuning(network, "auto"), seconds=1e-6), material(network, np.roll(Y, 1)), ROWS)
    assert [one.epochs for one in found.record.pilot or ()] == [0, 1, 1]  # the trial is paid from the budget too


@pytest.mark.parametrize(
    ("low", "high", "tune", "said"),
    [
        (0.01, 0.05, "last", None),
        (
            -0.05,
            0.01,
            "last",
            r"No gain of tuning is shown on 1,500 judged images: frozen 82.4 %, tuned 80.4 % "
            r"\(change -2.0 points, -5.0 to \+1.0\).*--tune auto",
        ),
        (-0.05, 0.01, "auto", "No gain of tuning is shown.*again without --tune.$"),
        (-0.05, -0.01, "all", "Tuning made it worse .*change -2.0 points.*with --tune auto"),
    ],
)
def test_a_tuned_model_without_a_gain_on_the_judged_images_says_so(
    low: float, high: float, tune: str, said: str | None
) -> None:
    gain = Gain(n=1500, difference=Interval(value=-0.02, low=low, high=high))
    one, other = ({"accuracy": Interval(value=value, low=0.78, high=0.85)} for value in (0.8236, 0.8036))
    frozen = evidence.Baseline("frozen", 1500, "accuracy", one, other, gain)
    fitted: Any = SimpleNamespace(baselines=[frozen], tuned=True, options=Options(tune=tune))
    found = no_gain_line(fitted)
    assert re.match(said, found) if said and found else found is said
    fitted.tuned = False
    assert no_gain_line(fitted) is None


@pytest.mark.usefixtures("tuned_in_torch")
def test_the_command_tunes_saves_and_the_model_is_timms_own(run: Run, parted: Path, tmp_path: Path) -> None:
    options = [*TINY, "--tune", "last", "--epochs", "2", "--cache", tmp_path / "c"]
    said = run("fit", parted, "-o", tmp_path / "m", *options)
    assert said.code == 0, said.err
    bundle = read_bundle(tmp_path / "m")
    assert bundle.metrics["tuning"]["kept"]
    assert "frozen" in bundle.metrics["baselines"]
    assert bundle.metrics["timm_view"]["same_model"] == (bundle.metrics["tuning"]["head"] == LINEAR)
    assert bundle.manifest["backbone"]["chain"][-1].startswith("tuned above ")
    again = run("fit", parted, "-o", tmp_path / "n", *options)
    assert " 0 images went through the network" in again.out
    other = read_bundle(tmp_path / "n")
    assert all(np.array_equal(t, other.tensors()[name]) for name, t in bundle.tensors().items())
    model, images = load(tmp_path / "m"), list_images([parted])
    ours = predict(model, images).answers
    network = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True).eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.backbone.preprocess.mean, model.backbone.preprocess.std))
    for k in range(3):
        array = torch.from_numpy(decode(images.read(k), model.backbone.preprocess).array).permute(2, 0, 1) / 255
        with torch.inference_mode():
            theirs = network(((array - mean) / std)[None]).softmax(1)[0].numpy()
        assert ours[k] == pytest.approx(theirs, abs=1e-3)  # its features are kept in float16


def test_what_an_epoch_takes_is_said_once_before_the_first_and_not_of_a_trial(network: Backbone) -> None:
    said: list[str] = []
    plan, data, heard = tuning(network, "last"), material(network, Y), Session(say=said.append)
    pilot(Job(plan, data, ROWS, heard))
    assert not said
    tuned(plan, data, ROWS, heard, progress=lambda epoch: said.append(""))
    assert re.fullmatch(r"\d+ images/s learned in float32.* measured here: about \d+ (s|min) an epoch", said[0])
    assert not any(said[1:])


@pytest.mark.parametrize("size", [16, 50])
def test_every_batch_moves_the_bar_of_its_epoch(network: Backbone, size: int) -> None:
    """To the end, where a last batch of one joins the one before (51 images learn), and with the held-out images."""
    told: dict[str, list[int]] = {}

    def bar(stage: str, total: int) -> Callable[[int], None]:
        told[stage] = [total]
        return told[stage].append

    plan = tuning(replace(network, weights_source="a file"), "last", 3)
    plan = replace(plan, training=replace(plan.training, batch_size=size))
    found = tuned(plan, material(network, Y), ROWS, Session(bar=bar))
    assert list(told) == [f"epoch {k}" for k in range(1, 4 + (found.record.more_epochs or 0))]
    assert all(total == sum(done) for total, *done in told.values())
    assert [told[stage][0] for stage in ("epoch 1", "epoch 4")] == [51, N]
    assert len(told["epoch 1"]) == 2 + (4 if size == 16 else 1)


def test_the_live_table_tells_of_each_epoch_what_the_held_out_images_are_worth(last_tuned: Tuned) -> None:
    """Loss, accuracy with its interval, pace and time left; a blank where nothing is held out."""
    said: list[str] = []
    line_of = epoch_table(said.append, None, 5, N)
    for epoch in (*last_tuned.epochs, Epoch(0.5, None, None, 1e-4)):
        line_of(epoch)
    heading, *lines = said
    assert heading.split() == ["epoch", "loss", "held-out", "accuracy", "rate", "images/s", "left,", "s"]
    assert len({len(line) for line in (heading, *lines)}) == 1
    n = int((~np.isnan(last_tuned.head.left_out[:, 0])).sum())
    for epoch, line in zip(last_tuned.epochs, lines, strict=False):
        assert epoch.held_out_accuracy is not None
        low, high = wilson(epoch.held_out_accuracy, n)
        assert f" {epoch.held_out_accuracy:.1%} [{100 * low:.1f}, {100 * high:.1f}] " in line
    assert len(lines[-1].split()) == 5


@pytest.mark.usefixtures("tuned_in_torch")
@pytest.mark.parametrize(
    ("head", "data"), [(LINEAR, "parted"), (CLOSED, "parted"), (MEAN, "pictures"), (BELOW, "parted")]
)
def test_what_is_saved_answers_as_what_was_judged(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str, data: str
) -> None:
    """With each kind of head: the same probabilities from the folder."""
    monkeypatch.setattr("headstart.finetune.choice._least", lambda *given: head)
    monkeypatch.setattr(recipe, "training", partial(small_training, recipe.training))
    monkeypatch.setattr(recipe, "cross_validation", lambda n: (2, 1))
    table = read_table(request.getfixturevalue(data))
    options = Options("test_efficientnet", "none", tune="last", epochs=1, size=32, cache=str(tmp_path / "c"))
    learned = pipeline.learn(table, options)
    assert learned.tuned is not None
    assert above(learned.tuned).head == head
    fitted = pipeline.prove(learned)
    publish.save(fitted, tmp_path / "m", "t", "t")
    ours = np.exp(fitted.head.outputs(learned.material.blocks))
    assert predict(load(tmp_path / "m"), table).answers == pytest.approx(ours, abs=2e-3)
    assert fitted.view is fitted.head or fitted.view.parts == plain().parts


def small_training(full: Callable[..., recipe.Training], n_images: int, *given: object) -> recipe.Training:
    """Some images held out, however few there are."""
    return replace(full(n_images, *given), held_out=0.3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--tune", "lst"], "tune 'lst' is not known"),
        (["--tune", "last", "--head", "gap"], "--tune learns in the network itself"),
        (["--tune", "last", "--augment", "photos"], "photos"),
    ],
)
def test_wrong_words_are_named(run: Run, pictures: Path, tmp_path: Path, options: list[str], said: str) -> None:
    found = run("fit", pictures, "-o", tmp_path / "m", *TINY, "--cache", tmp_path / "c", *options)
    assert found.code == 2
    assert said in found.err.splitlines()[-1]


def test_a_closed_form_trusts_the_layers_that_have_not_learned_the_labels() -> None:
    """A last layer that knows its own images by heart and little of others, below it one that knows all alike."""
    rng, n = np.random.default_rng(0), 600
    y, held = np.arange(n) % 4, np.arange(0, n, 5)
    signs = np.eye(4)[y]
    heart = np.where(np.isin(np.arange(n), held), 0.7, 4.0)[:, None] * signs
    blocks = {"low/mean": signs + rng.normal(size=(n, 4)), "pre_logits": heart + rng.normal(size=(n, 4))}
    data = Material(blocks, ClassNumbers(y, tuple("abcd")), np.arange(n), tuple(f"{k:04d}" for k in range(n)), 0)
    every = TapSet("all", tuple(Part(block, root=False, unit=True) for block in blocks))
    linear = Probe(plain().parts, np.eye(4), np.zeros(4), (), np.empty((0, 4)))
    found, alone = (
        choose(linear, data, held, layer_sets((last(), every), below), fit_closed, CROSS_ENTROPY)
        for below in (("low/mean",), ())
    )
    assert found.name == BELOW
    assert alone.name in (LINEAR, CLOSED, MEAN)
    assert best_scale(found.scores, y[held])[1] < 0.9 * best_scale(alone.scores, y[held])[1]
    head, top = build(found, linear, lambda: data, fit_closed)
    assert [part.block for part in head.parts] == ["pre_logits", "low/mean"]
    assert np.allclose(head.coef[:, :4], found.whole * top.coef / 3)
    assert best_scale(found.scores, y[held])[0] == pytest.approx(1, abs=0.02)
    assert (head.candidates[0].head, head.candidates[0].weight) == (BELOW, 1)
    assert {c.head for c in head.candidates} == {LINEAR, CLOSED, MEAN, BELOW}
    assert head.candidates[0].accuracy == (found.scores.argmax(axis=1) == y[held]).mean()
    assert [c.log_loss for c in head.candidates] == sorted(c.log_loss for c in head.candidates)


@pytest.mark.parametrize("name", [LINEAR, CLOSED, MEAN])
def test_the_comparison_is_of_what_is_handed_over(
    network: Backbone, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """What the held-out images are said to get is what the model gave them before its head learned from them too."""
    monkeypatch.setattr("headstart.finetune.choice._least", lambda *given: name)
    monkeypatch.setattr(recipe, "FINISH", 0.0)
    plan, data = tuning(network, "all", epochs=12), material(network, Y)
    seen: list[Epoch] = []
    found = tuned(plan, data, ROWS, progress=seen.append)
    assert list(found.epochs) == seen
    held = np.flatnonzero(~np.isnan(found.head.left_out[:, 0]))
    head, linear = answers(plan, found, data, held, Session())
    left_out = found.head.left_out[held]
    assert comparison(found).tuned["value"] == pytest.approx((left_out.argmax(axis=1) == Y[held]).mean())
    assert comparison(found).n == len(held)
    assert above(found).head == name
    assert (name == LINEAR) == (found.head is found.top) == np.allclose(left_out, head, atol=1e-4)
    assert linear.shape == head.shape
    if name == CLOSED:
        assert found.backbone is not None
        blocks = plan.reader.features(found.backbone, ROWS, Session())
        without = fit_closed(replace(data, blocks=blocks), np.delete(ROWS, held), plan.sets)
        apart = without.outputs({key: block[held] for key, block in blocks.items()})
        assert np.array_equal(left_out.argmax(axis=1), apart.argmax(axis=1))
        whole = fit_closed(replace(data, blocks=blocks), ROWS, plan.sets)
        assert np.allclose(found.head.coef / np.linalg.norm(found.head.coef), whole.coef / np.linalg.norm(whole.coef))


def test_held_out_images_teach_what_is_kept_and_only_after_it_was_compared(
    network: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same images, some of them with other labels: before they teach they change nothing but what they show."""
    known = replace(network, weights_source="a file")
    plan = tuning(known, "last", 6)
    monkeypatch.setattr("headstart.finetune.tune.ALPHAS", (1.0,))  # the share of the tuned weights is theirs to say
    held = Job(plan, material(known, Y), ROWS, Session()).held
    is_held = np.isin(np.arange(N), held)
    monkeypatch.setattr("headstart.finetune.design.hold_out", lambda *given: is_held)
    other = Y.copy()
    other[held] = (other[held] + 1) % 3
    seen: list[Epoch] = []
    right, wrong = (tuned(plan, material(known, y), ROWS, progress=seen.append) for y in (Y, other))
    assert right.record.more_epochs == wrong.record.more_epochs == 2
    assert [epoch.held_out_loss is None for epoch in seen] == 2 * [*6 * [False], *2 * [True]]
    assert [e.loss for e in right.epochs] == [e.loss for e in wrong.epochs]
    assert (comparison(right).tuned["value"] or 0) > (comparison(wrong).tuned["value"] or 0)
    assert not alike(right, wrong)
    monkeypatch.setattr(recipe, "FINISH", 0.0)
    shorter = tuned(plan, material(known, Y), ROWS)
    assert (shorter.record.more_epochs, shorter.record.compared) == (0, right.record.compared)
    assert not alike(right, shorter)


@pytest.mark.parametrize(("n_images", "epochs", "more"), [(30, 12, 0), (5000, 12, 4), (10_000, 12, 2), (50_000, 9, 1)])
def test_the_end_is_as_long_as_what_was_held_out_is_large(n_images: int, epochs: int, more: int) -> None:
    how = recipe.tuning(n_images, epochs)
    end = recipe.finish(how, n_images)
    assert (end.epochs, end.held_out) == (more, 0.0)
    assert end.rate < how.rate


def test_the_frozen_weights_are_handed_over_whole_where_they_answer_best(
    network: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share of 0 of the tuned weights: the frozen model of all images, and it is said."""
    monkeypatch.setattr("headstart.finetune.tune.ALPHAS", (0.0,))
    known = replace(network, weights_source="a file")  # those of random weights are not mixed
    plan, data = tuning(known, "last", 2), material(network, Y)
    found = tuned(plan, data, ROWS)
    assert (found.backbone, found.record.kept) == (None, False)
    assert comparison(found).n > 0
    assert not np.isnan(found.head.left_out).any()  # it has learned from all images


def test_half_of_the_way_is_half_of_the_change(network: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    monkeypatch.setattr(recipe, "FINISH", 0.0)
    for alpha in (1.0, 0.5):
        monkeypatch.setattr("headstart.finetune.tune.ALPHAS", (alpha,))
        known = replace(network, weights_source="a file")
        states.append(weights(tuned(tuning(known, "last", 4), material(network, Y), ROWS)))
    whole, half = states
    for name, start in network.module.state_dict().items():
        if start.is_floating_point():
            assert torch.allclose(half[name], (start + whole[name]) / 2, atol=1e-6)


def test_what_is_written_of_a_tuning_has_what_applies_and_no_more() -> None:
    """The keys of metrics.json, in each case that a tuning can come to."""
    sure = Interval(value=0.5, low=0.4, high=0.6)
    epoch, versus = Epoch(1.0, None, None, 0.1), Compared(9, "accuracy", True, sure, sure, sure, sure)
    part = TunedPart("blocks.1", 3, 10, "float32", 0.1, None, (epoch,), 1.0, LINEAR)
    trained = {"arithmetic", "rate", "cut", "modules", "parameters", "kept", "epochs", "alpha", "head", "compared"}
    tried = (DepthTried("none", 0.5, 0),)
    cases: list[tuple[TuningRecord, set[str]]] = [
        (TuningRecord(False, "too few", pilot=tried), {"kept", "why", "compared", "pilot", "epochs"}),
        (TuningRecord(False, "no better", tried, "last", part, versus), trained | {"why", "pilot", "depth"}),
        (TuningRecord(True, part=part, compared=versus, more_epochs=0), trained | {"more_epochs"}),
        (TuningRecord(True, part=replace(part, rates_tried=((0.1, 2.0),))), trained | {"rates_tried"}),
    ]
    for record, keys in cases:
        found = record.to_json()
        assert set(found) == keys
        assert json.loads(json.dumps(found)) == found  # lists and no tuples, so that what is read back is the same
    assert cases[0][0].to_json()["pilot"] == [{"depth": "none", "log_loss": 0.5, "epochs": 0}]
    assert set(cases[1][0].to_json()["compared"]) == {"n", "tuned", "frozen", "difference", "loss_difference"}
    assert replace(versus, measure="r2").to_json()["measure"] == "r2"
