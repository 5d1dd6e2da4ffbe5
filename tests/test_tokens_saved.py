"""Models on vision transformers, saved, exported and asked again; licences wherever a network is told of."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models import _registry
from timm.models._registry import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, _cfg, _create_vision_transformer

from conftest import Run
from headstart.cli.main import main
from headstart.data.images import load as load_image
from headstart.data.table import list_images
from headstart.export import agreement
from headstart.export.about import about
from headstart.export.answers import plain_of
from headstart.files.bundle import CHECKSUMS, HEAD, MANIFEST, read_bundle
from headstart.report.card import render_card
from headstart.report.page import _network
from headstart.ship.package import network_described, unpack
from headstart.ship.predict import predict
from headstart.story.account import network_told
from headstart.trunk import catalog
from headstart.trunk.backbone import open_backbone
from headstart.trunk.engine import OpenVinoEngine
from headstart.trunk.layers import LAST
from headstart.trunk.module import Trunk
from headstart.trunk.network import Backbone, block_names
from test_report import sample

NAME, SIDE = "headstart_test_vit14", 70  # px of its own
TINY = ("--weights", "none", "--precision", "f32")


def headstart_test_vit14(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """DINOv2 with registers in small: patches of 14 px, three narrow blocks."""
    shape = {"patch_size": 14, "embed_dim": 48, "depth": 3, "num_heads": 3, "init_values": 0.5}
    tokens = {"reg_tokens": 4, "no_embed_class": True}
    return _create_vision_transformer(NAME, pretrained=pretrained, **shape, **tokens, **kwargs)


default_cfgs = generate_default_cfgs({f"{NAME}.mine": _cfg(input_size=(3, SIDE, SIDE), license="mit")})  # for timm


@pytest.fixture(scope="module", autouse=True)
def known_to_timm() -> Iterator[None]:
    """A user's own network: timm knows it until these tests are through."""
    register_model(headstart_test_vit14)
    yield
    for names in (_registry._model_entrypoints, _registry._model_to_module, _registry._model_default_cfgs):
        names.pop(NAME, None)
    for kept in (_registry._model_pretrained_cfgs, _registry._model_with_tags):
        for name in [n for n in kept if n.partition(".")[0] == NAME]:
            del kept[name]
    _registry._module_to_models[__name__].discard(NAME)


@pytest.fixture(scope="module")
def saved(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model on all taps, one on the plain last layer, one on a class token; at sides that are not the network's."""
    folder = tmp_path_factory.mktemp("saved")
    for name, more in {
        "all": ["--taps", "all", "--size", "56"],
        "last": ["--taps", "last", "--size", "84"],
        "token": ["--layer", "blocks.1/token", "--size", "56"],
    }.items():
        main(["fit", str(pictures), "-o", str(folder / name), "--backbone", NAME, *TINY, *more])
    return {path.name: path for path in folder.iterdir()}


def asked(model: Path, pictures: Path, some: slice = slice(None)) -> Any:
    loaded, files = unpack(read_bundle(model)), sorted(pictures.glob("*/*.png"))[some]
    return plain_of(predict(loaded, list_images(files), OpenVinoEngine(loaded.backbone, "f32")).answers)


@pytest.mark.parametrize("name", ["all", "last", "token"])
def test_a_saved_model_reads_what_the_fit_read_at_its_size(name: str, saved: dict[str, Path], pictures: Path) -> None:
    model = unpack(read_bundle(saved[name]))
    assert model.backbone.preprocess.size == ((84, 84) if name == "last" else (56, 56))
    files = sorted(pictures.glob("*/*.png"))
    pixels = np.stack([load_image(f.read_bytes(), model.backbone.preprocess).array for f in files])
    with torch.inference_mode():
        blocks = dict(zip(block_names(model.backbone), Trunk(model.backbone)(torch.from_numpy(pixels)), strict=True))
    halves = {block: values.numpy().astype(np.float16) for block, values in blocks.items()}
    live = model.task.answers(model.head.outputs(halves), model.rule)
    assert np.abs(live - asked(saved[name], pictures)).max() < 1e-4
    wanted = {"last": {LAST}, "token": {"blocks.1/token"}}.get(name)
    assert wanted is None or {part.block for part in model.head.parts} == wanted
    if name == "all":
        every = [f"blocks.{k}/{pool}" for k in (0, 1, 2) for pool in ("token", "mean", "std")]
        every.remove("blocks.2/token")  # the last layer itself
        assert [part.block for part in model.head.parts] == [*every, LAST]


def test_one_image_is_answered_as_among_eight(saved: dict[str, Path], pictures: Path) -> None:
    together = asked(saved["all"], pictures, slice(8))
    alone = np.concatenate([asked(saved["all"], pictures, slice(k, k + 1)) for k in (0, 5, 7)])
    assert np.abs(alone - together[[0, 5, 7]]).max() < 1e-5


def test_a_second_fit_reads_the_store_and_gives_the_same_model(pictures: Path, tmp_path: Path, run: Run) -> None:
    words = ["fit", pictures, "--backbone", NAME, *TINY, "--size", "56", "--cache", tmp_path / "cache"]
    for name in ("first", "second"):
        assert run(*words, "-o", tmp_path / name).code == 0
    heads = [read_bundle(tmp_path / name).tensors(HEAD) for name in ("first", "second")]
    assert all(np.array_equal(heads[0][key], heads[1][key]) for key in heads[0])


def test_timm_alone_reads_the_model_at_its_size(saved: dict[str, Path], pictures: Path) -> None:
    """Its own positions are resampled there as they are here."""
    network = timm.create_model(f"local-dir:{saved['last']}", pretrained=True).eval()
    assert network.patch_embed.img_size == (84, 84)
    model = unpack(read_bundle(saved["last"]))
    files, steps = sorted(pictures.glob("*/*.png")), model.backbone.preprocess
    pixels = np.stack([load_image(f.read_bytes(), steps).array for f in files]).astype(np.float32) / 255
    x = torch.from_numpy((pixels - np.float32(steps.mean)) / np.float32(steps.std)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        theirs = network(x).softmax(1).numpy()
    assert np.abs(theirs - asked(saved["last"], pictures)).max() < 1e-3  # features are float16 here


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_an_export_says_what_predict_says(
    runtime: str, saved: dict[str, Path], pictures: Path, tmp_path: Path, run: Run
) -> None:
    said = run("export", saved["all"], "--to", runtime, "-o", tmp_path / "to", "--data", pictures, "--json")
    record = json.loads(said.out)
    assert record["label_agreement"] == 1.0
    assert record["largest_difference"] <= agreement.BOUND
    own = json.loads((tmp_path / "to" / "export.json").read_text())
    assert own["about"]["licence"] == read_bundle(saved["all"]).manifest["backbone"]["licence"]


def test_a_wrong_size_is_refused_in_one_line(pictures: Path, tmp_path: Path, run: Run) -> None:
    said = run("fit", pictures, "-o", tmp_path / "m", "--backbone", NAME, *TINY, "--size", "64")
    assert said.code == 2  # as for every option that cannot be
    assert "its patches are 14 px, and the side is a multiple of that: 56 or 70" in said.err
    assert "Traceback" not in said.err


def test_a_model_whose_size_was_changed_by_hand_is_refused(
    saved: dict[str, Path], pictures: Path, tmp_path: Path, run: Run
) -> None:
    folder = changed(saved["all"], tmp_path / "m", preprocess=lambda steps: steps | {"size": [100, 100]})
    said = run("predict", folder, pictures)
    assert said.code == 1
    assert "does not take an input of 100 x 100 px: its patches are 14 px" in said.err


def changed(model: Path, folder: Path, **fields: Callable[[Any], Any]) -> Path:
    """A copy of a model whose manifest says something else, with the checksum that belongs to it."""
    shutil.copytree(model, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    content = json.dumps(manifest | {name: change(manifest[name]) for name, change in fields.items()}).encode()
    (folder / MANIFEST).write_bytes(content)
    sums = json.loads((folder / CHECKSUMS).read_text())
    sums[MANIFEST] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / CHECKSUMS).write_text(json.dumps(sums))
    return folder


# Licences


def of_licence(backbone: Backbone, licence: str) -> Backbone:
    return replace(backbone, licence=licence, weights_source="hub timm/somebody.s_own")


@pytest.mark.parametrize(
    ("licence", "told"),
    [
        ("apache-2.0", ""),
        ("unknown", ""),
        ("dinov3-license", "read its terms before you use what comes of it"),
        ("cc-by-nc-4.0", "forbids commercial use"),
        ("fair-noncommercial-research-license", "forbids commercial use"),
    ],
)
def test_a_licence_goes_with_the_model_and_its_terms_are_said(
    licence: str, told: str, saved: dict[str, Path], tmp_path: Path, run: Run
) -> None:
    model = unpack(read_bundle(saved["all"]))
    model = replace(model, backbone=of_licence(model.backbone, licence))
    assert about(model, "m", False)["licence"] == licence
    assert network_described(model.backbone)["licence"] == licence
    network = network_told(model.backbone, OpenVinoEngine(model.backbone, "f32"), (), False)
    data = sample(network=network)
    row = dict(_network(data))["Licence of the weights"]
    card = render_card(data)
    if licence != "unknown":
        assert row.startswith(licence)
        assert licence in card
    assert told in row
    assert told in card
    if not told:
        assert "read its terms" not in card
        assert "forbids" not in card
    own = {"licence": licence, "weights_source": "hub timm/somebody.s_own"}
    folder = changed(saved["all"], tmp_path / "m", backbone=lambda said: said | own)
    lines = run("report", folder).out
    assert licence in lines
    assert told in lines
    again = open_backbone(str(folder), say=(said := []).append)
    assert again.licence == licence
    assert [told in line for line in said] == ([True] if told else [])


def test_before_a_download_each_network_says_its_terms_in_one_line() -> None:
    for entry in catalog.entries():
        found = [line for line in catalog.notices(catalog.published(entry.network), 0) if entry.licence in line]
        assert len(found) == (0 if entry.licence in catalog.OPEN_LICENCES else 1)
        assert all("\n" not in line for line in found)
    assert any(entry.licence == "dinov3-license" for entry in catalog.entries())
