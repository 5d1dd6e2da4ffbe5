"""Images and classes added to a saved model: as if all had come together, at the cost of the new ones."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY, Run, picture
from headstart.data.images import write_png
from headstart.files.bundle import read_bundle


@pytest.fixture(scope="module")
def more(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of a fourth class, snow, and one that the model knows already."""
    folder, rng = tmp_path_factory.mktemp("data") / "more", np.random.default_rng(7)
    (folder / "snow").mkdir(parents=True)
    (folder / "sea").mkdir()
    for number in range(8):
        write_png(np.clip(picture(0, rng).astype(int) + 90, 0, 255).astype(np.uint8), folder / "snow" / f"{number}.png")
    shutil.copy(pictures / "sea" / "0.png", folder / "sea" / "known.png")
    return folder


def draw(folder: Path, colour: int, strength: int, rng: np.random.Generator) -> None:
    """Sixteen pictures of a colour so faint that a model errs: half in train to learn from, half in test."""
    for number in range(16):
        place = folder.parent / ("train" if number < 8 else "test") / folder.name
        place.mkdir(parents=True, exist_ok=True)
        write_png(picture(colour, rng, strength=strength), place / f"{number}.png")


@pytest.fixture(scope="module")
def faint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three classes again, which can be told apart in most pictures and not in all."""
    folder, rng = tmp_path_factory.mktemp("data") / "faint", np.random.default_rng(3)
    for colour, name in enumerate(("moss", "sand", "sea")):
        draw(folder / name, colour, 8, rng)
    return folder


def test_adding_equals_fitting_all_at_once(run: Run, faint: Path, tmp_path: Path) -> None:
    """Its snow looks nearly as its moss, so that the old classes lose by it: before and after are told apart."""
    options = [*TINY, "--cache", tmp_path / "cache"]
    draw(tmp_path / "more" / "snow", 0, 10, np.random.default_rng(7))
    (tmp_path / "more/train/sea").mkdir()
    shutil.copy(faint / "train/sea/0.png", tmp_path / "more/train/sea/known.png")
    assert run("fit", faint, "-o", tmp_path / "old", *options).code == 0
    said = run(
        "fit", tmp_path / "more", "-o", tmp_path / "new", "--add-to", tmp_path / "old", "--cache", tmp_path / "cache"
    )
    assert said.code == 0, said.err
    assert "16 images went through the network, features of 48 were stored before" in said.out
    assert "16 images, 1 new class (snow) added" in said.out
    shutil.copytree(faint, tmp_path / "all")
    for part in ("train", "test"):
        shutil.copytree(tmp_path / "more" / part / "snow", tmp_path / "all" / part / "snow")
    assert run("fit", tmp_path / "all", "-o", tmp_path / "whole", *options).code == 0
    old, new, whole = (read_bundle(tmp_path / name) for name in ("old", "new", "whole"))
    assert new.manifest["classes"] == whole.manifest["classes"] == ["moss", "sand", "sea", "snow"]
    ours, theirs = new.tensors("head.safetensors"), whole.tensors("head.safetensors")
    assert all(ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6) for name in theirs)
    assert new.metrics["test"]["confusion"] == whole.metrics["test"]["confusion"]
    added = new.metrics["added"]
    assert added["images"] == 16
    assert added["old_classes"]["n"] == 24
    before, after = (added["old_classes"][when]["value"] for when in ("before", "after"))
    assert before == old.metrics["test"]["accuracy"]["value"]
    assert after == pytest.approx(sum(whole.metrics["test"]["confusion"][k][k] for k in range(3)) / 24)
    assert added["old_classes"]["difference"]["value"] == pytest.approx(after - before)
    assert 0.4 < after < before < 1
    assert new.manifest["backbone"]["chain"][-1].startswith("old: 3 classes")


def test_a_corrected_label_replaces_the_old_one(run: Run, faint: Path, tmp_path: Path) -> None:
    cache = ["--cache", tmp_path / "cache"]
    assert run("fit", faint / "train", "-o", tmp_path / "old", *TINY, *cache).code == 0
    (tmp_path / "corrected" / "sand").mkdir(parents=True)
    shutil.copy(faint / "train" / "moss" / "0.png", tmp_path / "corrected" / "sand" / "a.png")
    said = run("fit", tmp_path / "corrected", "-o", tmp_path / "new", "--add-to", tmp_path / "old", *cache)
    assert said.code == 0, said.err
    new = read_bundle(tmp_path / "new").metrics
    assert {row["class"]: row["n"] for row in new["cross_validation"]["per_class"]} == {"moss": 7, "sand": 9, "sea": 8}
    of_old = new["added"]["old_classes"]
    assert of_old["n"] == 23
    crossed = read_bundle(tmp_path / "old").metrics["cross_validation"]["accuracy"]["value"]
    assert of_old["before"]["value"] == pytest.approx(crossed, abs=0.1)  # 1 image of 24 less, and a repeat or more
    assert 0.4 < crossed < 1


def test_what_cannot_be_added_says_so(run: Run, pictures: Path, model: Path, more: Path, tmp_path: Path) -> None:
    lost = run("fit", more, "-o", tmp_path / "new", "--add-to", model, "--cache", tmp_path / "empty")
    assert lost.code == 1
    assert "24 of the 24 images of model have no features in the cache" in lost.err.splitlines()[-1]
    known = run("fit", pictures, "-o", tmp_path / "new", "--add-to", model)
    assert known.code == 1
    assert "nothing to add" in known.err.splitlines()[-1]
    other = run("fit", more, "-o", tmp_path / "new", "--add-to", model, "--backbone", "resnet18")
    assert other.code == 2
    assert "--backbone cannot be set with --add-to" in other.err
    gone = run("fit", more, "-o", tmp_path / "new", "--add-to", tmp_path / "nowhere")
    assert gone.code == 1
    assert not (tmp_path / "new").exists()


def test_a_tuned_model_grows_on_its_own_network(run: Run, parted: Path, more: Path, tmp_path: Path) -> None:
    """The tuned network is the frozen one of the larger model; its old images do not go through it again."""
    cache = ["--cache", tmp_path / "c"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headstart.finetune.tune.ALPHAS", (1.0,))
        said = run("fit", parted, "-o", tmp_path / "m", *TINY, "--tune", "last", "--epochs", "1", *cache)
    assert said.code == 0, said.err
    said = run("fit", more, "-o", tmp_path / "n", "--add-to", tmp_path / "m", *cache)
    assert said.code == 0, said.err
    assert " 8 images went through the network" in said.out
    old, larger = read_bundle(tmp_path / "m"), read_bundle(tmp_path / "n")
    assert larger.manifest["classes"] == sorted([*old.manifest["classes"], "snow"])
    assert larger.manifest["backbone"]["weights_hash"] == old.manifest["backbone"]["weights_hash"]
    assert larger.metrics["tuning"] is None
