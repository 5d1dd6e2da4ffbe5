"""Layers and heads of the user's own, from the command to the saved model and back; models as trunks of new ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch

from conftest import TINY, Run
from headstart.data.table import list_images
from headstart.files.bundle import read_bundle
from headstart.ship.predict import predict
from headstart.story.pipeline import load
from headstart.trunk.backbone import open_backbone

SPECS = ("conv 16 3x3 relu, gap", "gap, batchnorm, dense 32 relu, dropout 0.5")  # a map, a pooled row


@pytest.mark.parametrize("head", SPECS)
def test_a_head_in_words_is_trained_saved_and_used(run: Run, pictures: Path, tmp_path: Path, head: str) -> None:
    said = run("fit", pictures, "-o", tmp_path / "m", *TINY, "--head", head, "--epochs", "8", "--batch-size", "4")
    assert said.code == 0, said.err
    assert ("feature maps of 24 images" in said.err) == (not head.startswith("gap"))
    bundle = read_bundle(tmp_path / "m")
    assert bundle.manifest["head"]["spec"] == head
    assert bundle.metrics["baselines"]["closed_form"]["n"] == 24
    assert len(bundle.metrics["training"]) == 8
    assert "How it was trained" in (tmp_path / "m" / "report.html").read_text()
    found = json.loads(run("predict", tmp_path / "m", pictures, "--json").out)
    assert len(found) == 24
    assert all(sum(c["probability"] for c in f["top"]) == pytest.approx(1, abs=1e-4) for f in found)
    one = predict(load(tmp_path / "m"), list_images([found[0]["path"]]))
    assert one.answers.max() == pytest.approx(found[0]["probability"], abs=1e-5)


def test_one_pass_of_the_trunk_whatever_the_epochs(run: Run, pictures: Path, tmp_path: Path) -> None:
    cache = ["--epochs", "3", "--cache", tmp_path / "c"]
    first = run("fit", pictures, "-o", tmp_path / "m", *TINY, "--head", "flatten", *cache)
    assert "24 images went through the network" in first.out
    again = run("fit", pictures, "-o", tmp_path / "m", *TINY, "--head", "conv 4 1x1, gap", *cache)
    assert " 0 images went through the network, features of 24" in again.out


def test_a_layer_is_read_alone(run: Run, pictures: Path, tmp_path: Path) -> None:
    assert run("fit", pictures, "-o", tmp_path / "m", *TINY, "--layer", "blocks.1").code == 0
    manifest = read_bundle(tmp_path / "m").manifest
    assert manifest["layer"] == {"name": "blocks.1", "module": "blocks.1", "pooling": "avg"}
    assert [part["block"] for part in manifest["head"]["parts"]] == ["blocks.1/mean"]
    images, model = list_images([pictures]), load(tmp_path / "m")
    answers = predict(model, images).answers.argmax(axis=1)
    right = [Path(name).parent.name == model.names[k] for name, k in zip(images.names, answers, strict=True)]
    assert np.mean(right) > 0.8  # colour is plain to see in early layers


def test_features_of_a_layer(run: Run, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "f.parquet"
    said = run("features", pictures, "-o", out, *TINY, "--layer", "last_map", "--pool", "none")
    assert said.code == 0, said.err
    table = pq.read_table(out)
    about = json.loads(table.schema.field("last_map/map").metadata[b"headstart"])
    backbone = open_backbone("test_efficientnet", "none")
    backbone = backbone.resized(
        type(backbone.preprocess).from_json(backbone.preprocess.to_json() | {"size": [64, 64], "crop_fraction": 1.0})
    )
    own = backbone.features([pictures / "moss" / "0.png"], layer="last_map", pooling="none")
    assert tuple(about["shape"]) == own.shape[1:]
    row = table["path"].to_pylist().index("moss/0.png")
    stored = np.array(table["last_map/map"][row].as_py(), np.float32)
    assert stored == pytest.approx(own.values.ravel(), abs=2e-2)
    wrong = run("features", pictures, "-o", out, *TINY, "--layer", "last_map", "--pool", "mean")
    assert wrong.code == 2
    assert "pooling 'mean' is not known" in wrong.err
    assert "one of avg, max, token, none, flatten" in wrong.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--head", "dense 25o"], "character 7: '25o' is not allowed"),
        (["--head", "gap, conv 8 3x3"], "character 6: conv needs a feature map"),
        (["--head", "gap", "--epochs", "0"], "--epochs 0 is not allowed"),
        (["--head", "gap", "--optimizer", "adamm"], "optimizer 'adamm' is not known"),
        (["--head", "gap", "--taps", "all"], "--taps all says what --layer and --head say otherwise"),
        (["--layer", "blocks.99"], "layer 'blocks.99' is not known (did you mean"),
    ],
)
def test_wrong_words_are_named_before_any_work(
    run: Run, pictures: Path, tmp_path: Path, options: list[str], said: str
) -> None:
    found = run("fit", pictures, "-o", tmp_path / "m", *TINY, "--cache", tmp_path / "c", *options)
    assert found.code == 2
    assert said in found.err.splitlines()[-1]
    assert not list((tmp_path / "c").rglob("*.parquet"))


def test_a_saved_model_is_the_trunk_of_another(run: Run, pictures: Path, model: Path, tmp_path: Path) -> None:
    first = run("fit", pictures, "-o", tmp_path / "next", "--backbone", model, "--size", "64", "--precision", "f32")
    assert first.code == 0, first.err
    assert " 0 images went through the network" in first.out  # a frozen trunk is what it was
    manifest = read_bundle(tmp_path / "next").manifest
    assert manifest["backbone"]["chain"][0] == "random weights"
    assert manifest["backbone"]["chain"][1].startswith("model: 3 classes, data ")
    assert "model: 3 classes" in (tmp_path / "next" / "README.md").read_text()


def test_timms_own_folder_is_a_backbone_too(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(1)
    network = timm.create_model("test_efficientnet", num_classes=5)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    cfg = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "input_size": [3, 96, 96]}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_efficientnet", "pretrained_cfg": cfg}))
    backbone = open_backbone(str(tmp_path))
    assert backbone.preprocess.mean == (0.5, 0.5, 0.5)
    assert backbone.preprocess.size == (96, 96)
    assert all(torch.equal(t, network.state_dict()[name]) for name, t in backbone.module.state_dict().items())


def test_a_model_names_no_private_place(run: Run, pictures: Path, tmp_path: Path) -> None:
    """Absolute paths of the data, the weights, the cache and the model itself stay out of what is handed on."""
    from safetensors.torch import save_file

    weights = tmp_path / "own.safetensors"
    save_file(open_backbone("test_efficientnet", "none").module.state_dict(), weights)
    options = [*TINY[:2], "--weights", weights, *TINY[4:], "--cache", tmp_path / "secret-cache"]
    said = run("fit", pictures, "-o", tmp_path / "m", *options)
    assert said.code == 0, said.err
    for file in (tmp_path / "m").iterdir():
        content = file.read_bytes()
        for private in (tmp_path, pictures.parent):
            assert str(private).encode() not in content, file.name
    assert read_bundle(tmp_path / "m").run["options"]["weights"] == "own.safetensors"
