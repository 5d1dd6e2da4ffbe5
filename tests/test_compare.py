"""The arms of a comparison stand on the same images, and the verdict says no more than their differences do."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from conftest import Run
from headstart import recipe
from headstart.data.table import table_of
from headstart.data.targets import ClassNumbers
from headstart.finetune.job import Tuning
from headstart.finetune.objective import CROSS_ENTROPY
from headstart.finetune.tunable import tunable
from headstart.judge.intervals import accuracy_interval
from headstart.judge.marks import Marks
from headstart.story import compare as module
from headstart.story import evidence
from headstart.story.compare import ARMS, PIXELS, Arm, compare, flags, verdict
from headstart.story.freeze_depth import Curve, Depth, _drawn_anew, lines
from headstart.story.opening import Options
from headstart.story.plan import Plan
from headstart.tasks.classification import ACCURACY, BALANCED_ACCURACY, CLASSIFICATION
from headstart.trunk.backbone import open_backbone

pytestmark = pytest.mark.usefixtures("tuned_in_torch")
N = 400
NAMES = [name for name, *_ in ARMS] + [PIXELS]


def marked(right: NDArray[np.bool_], truth: NDArray[np.int64] | None = None) -> Marks:
    return Marks({"truth": np.zeros(len(right), int) if truth is None else truth, "right": right.astype(float)})


def arm(name: str, right: NDArray[np.bool_], truth: NDArray[np.int64] | None = None) -> Arm:
    marks, measure = marked(right, truth), ACCURACY if truth is None else BALANCED_ACCURACY
    return Arm(name, "", measure.of(marks, np.arange(N)), None, 0.0, marks, measure)


def arms(**shares: float) -> dict[str, Arm]:
    """Arms that get these shares of 400 images right, the easy ones first; what is not named gets a quarter."""
    found = {}
    for name in NAMES:
        right = np.arange(N) < round(N * shares.get(name.replace(" ", "_"), 0.25))
        found[name] = arm(name, right)
    return found


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        (
            {"frozen": 0.9, "last_stage_tuned": 0.9, "all_tuned": 0.9},
            "Transfer helps: .* frozen is enough, tuning changes",
        ),
        ({"frozen": 0.8, "last_stage_tuned": 0.81, "all_tuned": 0.95}, "tuning pays: all tuned gains another 15.0"),
        ({"frozen": 0.9, "last_stage_tuned": 0.8, "all_tuned": 0.7}, "frozen is enough, tuning made it worse"),
        ({"frozen": 0.5, "last_stage_tuned": 0.5, "all_tuned": 0.6, "from_scratch": 0.9}, "Transfer hurts here"),
        ({"frozen": 0.25, "last_stage_tuned": 0.25, "all_tuned": 0.25}, "Transfer does not help here"),
        (
            {"frozen": 0.9, "last_stage_tuned": 0.9, "all_tuned": 0.9, "raw_pixels": 0.9},
            "does not help .*raw pixels do as",
        ),
    ],
)
def test_the_verdict_follows_the_paired_differences(shares: dict[str, float], said: str) -> None:
    assert re.search(said, verdict(arms(**shares)))


def apart(found: dict[str, Arm], name: str) -> dict[str, Arm]:
    """The same shares, but this arm is right for the last images and not for the first: as few in common as can be."""
    return {**found, name: arm(name, found[name].marks["right"][::-1] > 0)}


@pytest.mark.parametrize(
    ("shares", "other", "paired", "unpaired"),
    [
        ({"last_stage_tuned": 0.83}, "last stage tuned", "pays: last stage tuned gains another 3.0", "changes nothing"),
        ({"all_tuned": 0.83}, "all tuned", "pays: all tuned gains another 3.0", "changes nothing"),
        ({"last_stage_tuned": 0.77, "all_tuned": 0.77}, "last stage tuned", "made it worse", "changes nothing"),
        ({"from_scratch": 0.77}, "from scratch", "Transfer helps", "training from scratch does as well"),
        ({"random_weights": 0.77}, "random weights", "Transfer helps", "random weights do as well"),
        ({"raw_pixels": 0.77}, "raw pixels", "Transfer helps", "raw pixels do as well"),
        ({"from_scratch": 0.83}, "from scratch", "Transfer hurts here", "training from scratch does as well"),
    ],
)
def test_the_same_scores_say_something_or_nothing_as_their_mistakes_are_paired(
    shares: dict[str, float], other: str, paired: str, unpaired: str
) -> None:
    """3 points of 400 images are beyond doubt where they are all that differs, and within it where 40 % differ."""
    found = arms(**{"frozen": 0.8, "last_stage_tuned": 0.8, "all_tuned": 0.8} | shares)
    assert paired in verdict(found)
    assert unpaired not in verdict(found)
    assert unpaired in verdict(apart(found, other))
    assert paired not in verdict(apart(found, other))


LEVEL = {
    ("from scratch",): "training from scratch does",
    ("random weights",): "random weights do",
    (PIXELS,): "raw pixels do",
    ("from scratch", "random weights"): "training from scratch and random weights do",
    ("from scratch", PIXELS): "training from scratch and raw pixels do",
    ("random weights", PIXELS): "random weights and raw pixels do",
    ("from scratch", "random weights", PIXELS): "training from scratch, random weights and raw pixels do",
}


@pytest.mark.parametrize("level", LEVEL)
def test_what_keeps_up_is_named_and_nothing_else(level: tuple[str, ...]) -> None:
    as_good = {name.replace(" ", "_"): 0.9 for name in ("frozen", "last stage tuned", "all tuned", *level)}
    assert verdict(arms(**as_good)) == (
        f"Transfer does not help here, as far as 400 images can tell: {LEVEL[level]} as well as the pre-trained network"
    )
    better = verdict(arms(**as_good | {"all_tuned": 0.95}))  # what tuning gains no other arm has
    assert better.startswith("Transfer helps: ")
    assert better.endswith("tuning pays: all tuned gains another 5.0 points (95.0 %)")


def test_every_arm_learns_with_its_own_options_and_is_held_against_the_frozen_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Planted answers: which images an arm gets right depends on nothing but the options that it was given."""
    planted = {("none", "auto"): 0.8, ("last", "auto"): 0.83, ("all", "auto"): 0.7, ("all", "none"): 0.6}
    planted |= {("none", "none"): 0.4}
    y = np.arange(N) % 2
    right = {options: marked(np.arange(N) < round(N * share), y) for options, share in planted.items()}
    seen = SimpleNamespace(targets=ClassNumbers(y, ("a", "b")), groups=np.arange(N), material=lambda seed: None)
    plan = Plan("test split", np.arange(N), np.arange(N), None, np.full(N, "test", dtype=object))
    monkeypatch.setattr(module, "start", lambda *given: (seen, plan))
    monkeypatch.setattr(module, "_seen_as", lambda first, options, watch: first)
    monkeypatch.setattr(module, "marks_with", lambda t, s, p, options, watch: right[options.tune, options.weights])
    monkeypatch.setattr(module, "_pixels", lambda *given: marked(np.arange(N) < 0.5 * N, y))
    monkeypatch.setattr(evidence, "single_layer_answers", lambda *given: np.eye(2)[y])
    found = compare(table_of([np.zeros((8, 8, 3), np.uint8)] * 2, list("ab")), Options()).to_json()
    shares = dict(zip(NAMES, [0.8, 0.83, 0.7, 0.6, 0.4, 0.5], strict=True))
    assert {arm["name"]: arm["accuracy"]["value"] for arm in found["arms"]} == pytest.approx(shares)
    gaps = [arm["difference"] and arm["difference"]["value"] for arm in found["arms"]]
    assert gaps == [None, *(pytest.approx(share - 0.8) for share in list(shares.values())[1:])]
    assert found["verdict"] == (
        "Transfer helps: the accuracy of the frozen network is 80.0 % on 400 images, that of training from scratch "
        "60.0 % (+20.0 points), and tuning pays: last stage tuned gains another 3.0 points (83.0 %)"
    )
    assert found["flags"] == ["all tuned is worse than frozen: fewer layers, a lower --lr, or more images"]


def test_a_difference_in_the_verdict_stands_beside_what_it_is_of() -> None:
    said = verdict(arms(frozen=0.8036, last_stage_tuned=0.81, all_tuned=0.9489))
    found = re.search(r"network is ([\d.]+) % on 400 images, .*scratch ([\d.]+) % \(\+([\d.]+) points\)", said)
    assert found
    assert float(found[1]) - float(found[2]) == pytest.approx(float(found[3]))
    more = re.search(r"another ([\d.]+) points \(([\d.]+) %\)", said)
    assert more
    assert float(more[2]) - float(found[1]) == pytest.approx(float(more[1]))


def test_with_a_rare_class_each_class_counts_the_same() -> None:
    """Right for all of the 380 and none of the 20, or for 360 and 20: by images the first is ahead."""
    y = np.repeat([0, 1], [380, 20])
    found = arms(frozen=0.9, last_stage_tuned=0.9, all_tuned=0.9)
    for name in found:
        right = (np.arange(N) >= 20) if name in ("frozen", "last stage tuned", "all tuned") else y == 0
        found[name] = arm(name, right, y)
    assert re.search(
        r"Transfer helps: the balanced accuracy of the frozen network is 97\.4 % .* 50\.0 %", verdict(found)
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """A network that passes for a pre-trained one, small pictures, and a cache that the tests share."""
    folder = tmp_path_factory.mktemp("tiny")
    save_file(open_backbone("test_efficientnet", "none", seed=5).module.state_dict(), folder / "w.safetensors")
    named = ["--backbone", "test_efficientnet", "--weights", folder / "w.safetensors", "--size", "32"]
    return [*named, "--precision", "f32", "--epochs", "1", "--augment", "none", "--cache", folder]


def test_the_command_judges_every_arm_by_the_same_images(run: Run, pictures: Path, tiny: list[object]) -> None:
    said = run("compare", pictures, *tiny, "--curve", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert [arm["name"] for arm in found["arms"]] == NAMES
    assert found["train"] + found["n"] == 24
    assert found["n"] == 6
    for arm in found["arms"]:
        value = arm["accuracy"]["value"] * found["n"]
        assert value == pytest.approx(round(value))
        assert [point["n"] for point in arm["curve"]] == [6, 9, found["train"]]
        assert arm["curve"][-1]["accuracy"] == arm["accuracy"]["value"]
    first, *others = found["arms"]
    assert first["difference"] is None
    for arm in others:
        gap = arm["accuracy"]["value"] - first["accuracy"]["value"]
        assert arm["difference"]["value"] == pytest.approx(gap, abs=1e-9)
    level = {arm["name"] for arm in others[2:] if arm["difference"]["high"] >= 0}  # not beaten by the frozen one
    said = {name for name in NAMES[3:] if name.removeprefix("from ") in found["verdict"]}
    assert found["verdict"].startswith("Transfer does not help here")
    assert level == said != set()


def test_nothing_to_compare_without_pre_trained_weights(run: Run, pictures: Path) -> None:
    said = run("compare", pictures, "--weights", "none")
    assert said.code == 2
    assert "compare needs pre-trained weights" in said.err


def test_the_curve_of_frozen_stages(run: Run, pictures: Path, tiny: list[object]) -> None:
    """A point for each stage; with nothing frozen what is drawn anew is a network of random weights."""
    said = run("compare", pictures, *tiny, "--freeze-depth", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    depths = found["depths"]
    assert [depth["frozen"] for depth in depths] == list(reversed(range(found["stages"])))
    assert depths[-1]["cut"] == "input"
    assert len({depth["cut"] for depth in depths}) == len(depths)
    for depth in depths:
        gap = depth["tuned"]["value"] - depth["drawn"]["value"]
        assert depth["difference"]["value"] == pytest.approx(gap, abs=1e-9)
        assert depth["difference"]["low"] <= gap <= depth["difference"]["high"]
    assert 0 <= found["all_frozen"]["value"] <= 1


@pytest.mark.parametrize(("tuned", "said"), [(17, "best: 1 of 2 stages frozen, 85.0%"), (16, "no depth is better")])
def test_the_head_alone_is_a_depth_too(tuned: int, said: str) -> None:
    """The deeper the better only where it is better than no tuning at all."""
    alone, low, high = (accuracy_interval(np.arange(20) < right, None) for right in (16, 15, tuned))
    gain = {"value": 0.0, "low": -0.1, "high": 0.1}
    depths = (Depth(1, "layer1", high, low, gain, 1.0), Depth(0, "input", low, low, gain, 1.0))
    found = lines(Curve(60, 20, "test split", 2, alone, depths))
    assert found[-1].startswith(said)
    assert found[3].startswith("            2  80.0%")


def test_signs_of_negative_transfer() -> None:
    def said(single: float = 0.25, **shares: float) -> str:
        single_right = np.arange(N) < round(N * single)
        return " | ".join(flags(list(arms(**shares).values()), marked(single_right)))

    assert said(0.9, frozen=0.9, last_stage_tuned=0.9, all_tuned=0.9) == ""
    assert "all tuned is worse than frozen" in said(0.9, frozen=0.9, last_stage_tuned=0.9, all_tuned=0.8)
    assert "no better than raw pixels" in said(0.9, frozen=0.9, last_stage_tuned=0.9, all_tuned=0.9, raw_pixels=0.9)
    assert "several layers gain 10.0 points" in said(0.8, frozen=0.9, last_stage_tuned=0.9, all_tuned=0.9)


def test_what_is_drawn_anew_lies_above_the_cut_alone() -> None:
    """Below it the pre-trained weights, above it those of the random network, and no frozen model to fall back on."""
    network, random = (open_backbone("test_efficientnet", "none", seed=seed) for seed in (1, 2))
    trained = replace(network, weights_source="a file")
    part = tunable(trained, "last")
    task, training, unread = CLASSIFICATION, recipe.tuning(100), cast(Any, None)  # no image is read here
    tuning = Tuning(trained, "last", training, (), unread, unread, CROSS_ENTROPY, unread, task.judging.headline)
    drawn = _drawn_anew(tuning, random, part.modules, Options(), 100)
    old, new, fresh = (b.module.state_dict() for b in (trained, drawn.backbone, random))
    for name, value in new.items():
        above = any(name.startswith(f"{module}.") for module in part.modules)
        assert torch.equal(value, (fresh if above else old)[name]), name
    assert drawn.backbone.random
    assert drawn.backbone.weights_hash != trained.weights_hash
    assert not drawn.training.frozen_statistics
