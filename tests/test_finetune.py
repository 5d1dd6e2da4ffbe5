"""Fine-tuning: what is frozen stays, what is cached equals what is live, what judges has no part in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch

from conftest import TINY, Run
from headstart.bundle import read_bundle
from headstart.data.images import load as decode
from headstart.data.table import list_images
from headstart.errors import OptionError
from headstart.learn import recipe
from headstart.learn.finetune import Tuning, tune, tuned_backbone
from headstart.learn.material import Material
from headstart.learn.taps import last
from headstart.learn.trained import SpecHead
from headstart.pipeline import load
from headstart.ship.predict import predict
from headstart.trunk.backbone import open_backbone
from headstart.trunk.cut import find_cuts
from headstart.trunk.network import Backbone
from headstart.trunk.tunable import Tail, tunable

N = 60


@pytest.fixture(scope="module")
def network() -> Backbone:
    found = open_backbone("test_efficientnet", "none")
    return found.resized(replace(found.preprocess, size=(32, 32)))


def pixels(n: int = N, seed: int = 0) -> npt.NDArray[np.float32]:
    """Normalised pixels (image, 3, 32, 32) of three classes: a bright third of the rows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3, 32, 32)).astype(np.float32)
    for k in range(n):
        x[k, :, 10 * (k % 3) : 10 * (k % 3) + 10] += 1.5
    return x


def columns(network: Backbone, cut: str, x: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Material:
    cuts = find_cuts(network)
    with torch.inference_mode():
        at_cut = cuts.between("input", cut)(torch.from_numpy(x)) if cut != "input" else torch.from_numpy(x)
        top = network.module.forward_head(network.module.forward_features(torch.from_numpy(x)), pre_logits=True)  # type: ignore[operator]
    blocks = {f"cut at {cut}/map": at_cut.flatten(1).numpy(), "pre_logits": top.numpy()}
    keys = tuple(f"{k:04d}" for k in range(len(x)))
    return Material(blocks, labels, np.arange(len(x)), keys, ("a", "b", "c"), 0)


def tuning(network: Backbone, what: str, automatic: bool = False, epochs: int = 3) -> Tuning:
    part = tunable(network, what)
    shape = tuple(find_cuts(network).between("input", part.cut)(torch.zeros(1, 3, 32, 32)).shape[1:])
    how = recipe.tuning(N, epochs, 16)
    return Tuning(network, part, f"cut at {part.cut}/map", shape, how, automatic, (last(),), ("ridge", "lda"))


Y = np.arange(N) % 3


def state(network: Backbone) -> dict[str, torch.Tensor]:
    return {name: t.clone() for name, t in network.module.state_dict().items()}


@pytest.mark.parametrize("what", ["last", "10", "blocks.2", "all"])
def test_what_is_frozen_stays_bit_for_bit(network: Backbone, what: str) -> None:
    """The original network whole; of the tuned one all that was not to learn, and every BatchNorm statistic."""
    before, plan = state(network), tuning(network, what)
    found = tune(plan, columns(network, plan.what.cut, pixels(), Y), np.arange(N))
    assert isinstance(found.head, SpecHead)
    assert all(torch.equal(t, before[name]) for name, t in network.module.state_dict().items())
    tuned = tuned_backbone(found.head, network, plan.what.cut)
    moved = {name for name, t in tuned.module.state_dict().items() if not torch.equal(t, before[name])}
    assert moved
    assert all(any(name.startswith(f"{m}.") for m in plan.what.modules) for name in moved)
    assert not any(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in moved)
    learn = dict(network.module.named_modules())
    count = sum(p.numel() for m in plan.what.modules for p in learn[m].parameters(recurse=False))
    assert found.record["parameters"] == plan.what.n_parameters == count
    assert tuned.weights_hash != network.weights_hash


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


def test_cached_activations_learn_what_live_ones_learn(network: Backbone) -> None:
    """The last stage from its cached input in float32, and the same modules with everything before them run live."""
    cached, live = tuning(network, "last"), tuning(network, "last")
    whole = replace(live.what, cut="input")
    shape = (3, 32, 32)
    live = replace(live, what=whole, block="cut at input/map", shape=shape)
    heads = [tune(t, columns(network, t.what.cut, pixels(), Y), np.arange(N)) for t in (cached, live)]
    losses = [[epoch["loss"] for epoch in found.record["epochs"]] for found in heads]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    held = [[epoch["held_out_accuracy"] for epoch in found.record["epochs"]] for found in heads]
    assert held[0] == held[1]


def test_it_starts_from_the_fitted_head_and_learns(network: Backbone) -> None:
    plan = tuning(network, "all", epochs=25)
    found = tune(plan, columns(network, "input", pixels(), Y), np.arange(N))
    assert isinstance(found.head, SpecHead)
    first, final = found.head.epochs[0].loss, found.head.epochs[-1].loss
    assert final < first
    fresh = pixels(90, seed=5)
    answers = found.head.log_probabilities({"cut at input/map": fresh.reshape(90, -1)}).argmax(axis=1)
    assert (answers == np.arange(90) % 3).mean() > 0.8


def test_a_seed_gives_the_same_tuned_network(network: Backbone) -> None:
    plan, data = tuning(network, "last"), columns(network, tunable(network, "last").cut, pixels(), Y)
    one, two = (tune(plan, data, np.arange(N)).head for _ in range(2))
    other = tune(plan, replace(data, seed=1), np.arange(N)).head
    assert isinstance(one, SpecHead)
    assert isinstance(two, SpecHead)
    assert isinstance(other, SpecHead)
    a, b, c = (head.module.state_dict() for head in (one, two, other))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_auto_keeps_the_frozen_model_where_labels_mean_nothing(network: Backbone) -> None:
    y = np.random.default_rng(3).permutation(Y)
    plan = tuning(network, "last", automatic=True)
    found = tune(plan, columns(network, plan.what.cut, pixels(), y), np.arange(N))
    assert not found.record["kept"]
    assert not isinstance(found.head, SpecHead)
    assert found.record["compared"]["n"] >= 0.1 * N


def test_views_reach_training_alone(network: Backbone) -> None:
    """With nonsense for views the training loss tells, and what stops and judges is what it was with none."""
    plan, data = tuning(network, "last", epochs=4), columns(network, tunable(network, "last").cut, pixels(), Y)
    noise = np.random.default_rng(1).normal(size=data.blocks[plan.block].shape).astype(np.float32) * 9
    viewed = replace(plan, views=(noise,), view_rows=np.arange(N))
    plain, odd = (tune(t, data, np.arange(N)).record["epochs"] for t in (plan, viewed))
    assert plain[0]["loss"] == odd[0]["loss"]  # the first epoch sees the images themselves
    assert plain[0]["held_out_loss"] == odd[0]["held_out_loss"]
    assert odd[1]["loss"] > 3 * plain[1]["loss"]


def test_the_command_tunes_saves_and_the_model_is_timms_own(run: Run, pictures: Path, tmp_path: Path) -> None:
    options = [*TINY, "--tune", "last", "--epochs", "2", "--cache", tmp_path / "c"]
    said = run("fit", pictures, "-o", tmp_path / "m", *options)
    assert said.code == 0, said.err
    bundle = read_bundle(tmp_path / "m")
    assert bundle.metrics["tuning"]["kept"]
    assert "frozen" in bundle.metrics["baselines"]
    assert bundle.metrics["timm_view"]["same_model"]
    assert bundle.manifest["backbone"]["chain"][-1].startswith("tuned above ")
    again = run("fit", pictures, "-o", tmp_path / "n", *options)
    assert " 0 images went through the network" in again.out
    other = read_bundle(tmp_path / "n")
    assert all(np.array_equal(t, other.tensors()[name]) for name, t in bundle.tensors().items())
    model, images = load(tmp_path / "m"), list_images([pictures])
    ours = predict(model, images).probabilities
    network = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True).eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.backbone.preprocess.mean, model.backbone.preprocess.std))
    for k in range(3):
        array = torch.from_numpy(decode(images.read(k), model.backbone.preprocess).array).permute(2, 0, 1) / 255
        with torch.inference_mode():
            theirs = network(((array - mean) / std)[None]).softmax(1)[0].numpy()
        assert ours[k] == pytest.approx(theirs, abs=1e-3)  # its features are kept in float16


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


def test_the_comparison_is_of_the_weights_that_are_kept(network: Backbone) -> None:
    """What the held-out images are said to get is what the tuned model gives them: the best epoch's, not the last's."""
    plan, data = tuning(network, "all", epochs=12), columns(network, "input", pixels(), Y)
    head = tune(plan, data, np.arange(N)).head
    assert isinstance(head, SpecHead)
    held = np.flatnonzero(~np.isnan(head.left_out[:, 0]))
    again = head.log_probabilities({plan.block: data.blocks[plan.block][held]})
    assert np.allclose(head.left_out[held], again, atol=1e-5)
    assert -again[np.arange(len(held)), Y[held]].mean() == pytest.approx(head.candidates[0].log_loss, abs=1e-5)
