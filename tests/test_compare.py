"""The arms of a comparison stand on the same images, and the verdict says no more than their differences do."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from conftest import Run
from headstart import recipe
from headstart.finetune.job import Tuning
from headstart.finetune.objective import CROSS_ENTROPY
from headstart.finetune.tunable import tunable
from headstart.judge.intervals import accuracy_interval
from headstart.judge.marks import Marks
from headstart.story.compare import ARMS, PIXELS, Arm, flags, verdict
from headstart.story.freeze_depth import Curve, Depth, _drawn_anew, lines
from headstart.story.opening import Options
from headstart.tasks.classification import ACCURACY, BALANCED_ACCURACY, CLASSIFICATION
from headstart.trunk.backbone import open_backbone

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
    assert found["verdict"].startswith("Transfer ")


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
