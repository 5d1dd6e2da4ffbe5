"""Laws of models and weights that somebody made up: one line says what is wrong; no code runs, no memory is taken."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import os
import pickle
import shutil
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import safetensors.numpy
import timm
import torch
from safetensors.torch import save_file

from conftest import Run
from headstart.errors import BackboneError, BundleError, OutputError
from headstart.files import forms
from headstart.files.bundle import CHECKSUMS, DEFINING, HEAD, MANIFEST, MODEL, read_bundle
from headstart.finetune.trained_head import TrainedHead
from headstart.heads.probe import Probe
from headstart.ship.package import unpack
from headstart.trunk import hub, weights
from headstart.trunk.backbone import open_backbone
from saved import DESCRIBED, METRICS, RUN, save


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder without a network, to be changed."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    save(tmp_path / "model")
    return tmp_path / "model"


def all_of(folder: Path) -> None:
    found = read_bundle(folder)
    _ = found.metrics, found.run


def refusal(folder: Path) -> str:
    """What is said of a model that is refused."""
    try:
        all_of(folder)
    except BundleError as error:
        return str(error)
    return ""


def wrong(content: bytes, form: forms.Check) -> str:
    """What is said of the content of a JSON file."""
    try:
        forms.parse(content, form)
    except ValueError as error:
        return str(error)
    return ""


# Files that are no files


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes")
@pytest.mark.parametrize("kind", ["pipe", "endless", "process", "socket", "folder"])
@pytest.mark.parametrize("file", [*DEFINING, CHECKSUMS, "metrics.json", "run.json"])
def test_what_is_no_ordinary_file_is_named_and_never_waited_for(made: Path, file: str, kind: str) -> None:
    (made / file).unlink()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        if kind == "pipe":
            os.mkfifo(made / file)
        elif kind == "folder":
            (made / file).mkdir()
        elif kind == "socket":
            with contextlib.chdir(made):  # the name of a socket is short
                listening.bind(file)
        else:
            (made / file).symlink_to("/dev/zero" if kind == "endless" else "/proc/self/maps")
        with pytest.raises(BundleError, match=file) as caught:
            all_of(made)
    assert "\n" not in str(caught.value)


def test_a_file_of_text_larger_than_any_is_not_read(made: Path) -> None:
    for file in ("metrics.json", MANIFEST, CHECKSUMS):
        with (made / file).open("r+b") as holes:
            holes.truncate(2**40)  # takes no room on the disk
        with pytest.raises(BundleError, match=rf"{file}.*bytes"):
            all_of(made)


# What the files say is checked before it is used


def signed(folder: Path, file: str, content: bytes) -> None:
    """Put a file into a model as somebody would who knows the format: with its checksum."""
    (folder / file).write_bytes(content)
    recorded = json.loads((folder / CHECKSUMS).read_bytes())
    recorded[file] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / CHECKSUMS).write_text(json.dumps(recorded))


FULL: dict[str, Any] = DESCRIBED | {
    "format_version": 1,
    "precision": "f32",
    "layer": {"name": "layer1", "module": "layer1", "pooling": "avg"},
    "data_fingerprint": "0f",
    "calibration": {"method": "none"},
    "versions": {"torch": "2"},
}
TRAINED: dict[str, Any] = FULL | {
    "head": {
        "kind": forms.TRAINED,
        "spec": "dense",
        "shape": [3],
        "scale": 0.5,
        "parts": DESCRIBED["head"]["parts"],
        "training": {
            "epochs": 1,
            "batch_size": 2,
            "optimizer": "adam",
            "rate": 1e-3,
            "warm_up": 0.1,
            "patience": 5,
            "held_out": 0.0,
        },
    }
}
RAW = ["NaN", "-Infinity", "1e400", "null", "true", "-1", "1e308", "[]", "{}", "[[]]", "0.5"]
NASTY = [*RAW, '""', '"\\u202e\\u001b[2J"', f'"{"x" * 200_000}"', "[" * 10_000 + "]" * 10_000, "7" * 5000, "[null]"]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON document, as the keys that lead to it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*path, key)
        yield from places(below, (*path, key))


def changed(document: dict[str, Any], path: tuple[Any, ...], put: str | None) -> bytes:
    """The document with other JSON at one place; without it for None."""
    mark, copy_of = "@@here@@", copy.deepcopy(document)
    holder = functools.reduce(lambda value, key: value[key], path[:-1], copy_of)
    if put is None:
        del holder[path[-1]]
    else:
        holder[path[-1]] = mark
    return json.dumps(copy_of).replace(f'"{mark}"', put or "").encode()


@pytest.mark.parametrize("document", [FULL, TRAINED], ids=["linear", "trained"])
def test_whatever_stands_in_the_manifest_it_is_read_or_refused_in_one_line(
    made: Path, document: dict[str, Any]
) -> None:
    signed(made, MANIFEST, json.dumps(document).encode())
    read_bundle(made)
    refused = 0
    for path in places(document):
        for put in (*NASTY, None):
            said = wrong(changed(document, path, put), forms.manifest(1))
            assert said or put not in ("NaN", "-Infinity", "1e400")
            assert not said or (said.isprintable() and len(said) < 300)
            refused += bool(said)
    for put in NASTY:  # the same through the door
        signed(made, MANIFEST, changed(document, ("classes",), put))
        assert MANIFEST in refusal(made)
    assert refused > 200


@pytest.mark.parametrize("version", ["null", "0", "-1", "true", "1.0", "2.0", '"2"', "[1]", "{}", "1e400", "NaN", None])
def test_a_format_version_that_no_save_wrote_is_refused(made: Path, version: str | None) -> None:
    signed(made, MANIFEST, changed(FULL, ("format_version",), version))
    with pytest.raises(BundleError, match=MANIFEST) as caught:
        read_bundle(made)
    assert version in ("1e400", "NaN") or "format_version" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "put", "said"),
    [
        (("classes",), '["ant", "ant"]', "classes holds 'ant' twice"),
        (("classes",), '["ant", null]', "entry 2 of classes is null"),
        (("classes",), '["ant", ""]', "entry 2 of classes is empty"),
        (("head", "parts"), "[]", "head.parts is a list with 0 entries"),
        (("head", "parts"), json.dumps(DESCRIBED["head"]["parts"] * 2), "head.parts holds entry 2 twice"),
        (("head", "kind"), '"magic"', "head.kind is 'magic'"),
        (("backbone",), "{}", "backbone.name is missing"),
    ],
)
def test_what_is_wrong_in_the_manifest_is_said(made: Path, path: tuple[str, ...], put: str, said: str) -> None:
    signed(made, MANIFEST, changed(FULL, path, put))
    with pytest.raises(BundleError) as caught:
        read_bundle(made)
    assert said in str(caught.value)


@pytest.mark.parametrize(("file", "document"), [("metrics.json", METRICS), ("run.json", RUN)])
def test_broken_words_about_a_model_are_refused_where_they_are_asked_for(
    made: Path, file: str, document: dict[str, Any]
) -> None:
    for path in places(document):
        for put in (*NASTY, None):
            said = wrong(changed(document, path, put), forms.METRICS if file == "metrics.json" else forms.RUN)
            assert said or put not in ("NaN", "-Infinity", "1e400")
            assert not said or (said.isprintable() and len(said) < 300)
    for put in NASTY:
        (made / file).write_text(put)
        read_bundle(made)  # enough to predict
        said = refusal(made)
        assert file in said or put == "{}"


def test_nothing_is_saved_that_could_not_be_read_again(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="'ant' twice"):
        save(tmp_path / "model", manifest=DESCRIBED | {"classes": ["ant", "ant"]})
    assert not list(tmp_path.iterdir())


# What a model says of its network is compared with its tensors before anything takes memory


@pytest.fixture
def mine(model: Path, tmp_path: Path) -> Path:
    """A copy of a fitted model, to be changed."""
    shutil.copytree(model, tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of more than ten million numbers may be planned, never made."""
    create = timm.create_model

    def watched(name: str, **options: Any) -> Any:
        network = create(name, **options)
        assert sum(p.numel() for p in network.parameters() if not p.is_meta) < 10_000_000, name
        return network

    monkeypatch.setattr(timm, "create_model", watched)


def manifest_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / MANIFEST).read_bytes()))


def put(folder: Path, path: tuple[Any, ...], json_text: str | None) -> None:
    """Change one place of a model's manifest, with its checksum."""
    signed(folder, MANIFEST, changed(manifest_of(folder), path, json_text))


def put_tensors(folder: Path, file: str, **tensors: Any) -> None:
    signed(folder, file, safetensors.numpy.save({k: np.asarray(v, np.float32) for k, v in tensors.items()}))


def unusable(folder: Path) -> str:
    """Why a model cannot be used, in one line."""
    with pytest.raises(BundleError) as caught:
        unpack(read_bundle(folder))
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 700
    return text


@pytest.mark.parametrize(
    ("path", "json_text", "said"),
    [
        (("backbone", "name"), '"eva_giant_patch14_224"', "do not fit eva_giant_patch14_224"),
        (("backbone", "name"), '"test_resnet"', "do not fit test_resnet"),
        (("backbone", "name"), '"no_network"', "unknown backbone"),
        (("backbone", "name"), '"local-dir:/tmp"', "unknown backbone"),
        (("backbone", "classifier"), '"conv_stem"', "is missing"),
        (("backbone", "classifier"), '""', "do not fit"),
        (("classes",), json.dumps([str(k) for k in range(4)]), "head has the shapes"),
        (("preprocess", "size"), "[4096, 4096]", "larger than 1024 px"),
        (("preprocess", "size"), "[-3, 64]", "size"),
        (("preprocess", "mean"), "[null, 0, 0]", "mean"),
        (("preprocess",), "{}", "preprocess"),
        (("head", "parts", 0, "block"), '"blocks.9/mean"', "blocks.9/mean, which the network does not give"),
        (("head", "parts", 0), None, "head has the shapes"),
        (("layer",), '{"name": "conv_stem", "pooling": "avg"}', "which the network does not give"),
        (("layer",), '{"name": "conv_stem", "pooling": "most"}', "pooling"),
        (("layer",), '{"name": "fc9", "pooling": "avg"}', "layer 'fc9'"),
    ],
)
def test_a_manifest_that_does_not_fit_the_tensors_is_refused(
    mine: Path, small: None, path: tuple[Any, ...], json_text: str | None, said: str
) -> None:
    put(mine, path, json_text)
    assert said in unusable(mine)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(mine: Path, value: float) -> None:
    found = read_bundle(mine)
    for file, name in ((HEAD, "coef"), (HEAD, "intercept"), (MODEL, "conv_stem.weight"), (MODEL, "bn1.running_var")):
        tensors = found.tensors(file)
        tensors[name].flat[0] = value
        intact = (mine / file).read_bytes()
        signed(mine, file, safetensors.numpy.save(tensors))
        assert name in unusable(mine)
        signed(mine, file, intact)
    tensors = found.tensors(MODEL)
    tensors["bn1.running_var"][:1] = -1
    signed(mine, MODEL, safetensors.numpy.save(tensors))
    assert "below zero" in unusable(mine)


def test_tensors_of_another_kind_are_refused(mine: Path) -> None:
    tensors = read_bundle(mine).tensors(MODEL)
    for strange in (tensors["conv_stem.weight"].astype(np.int64), np.empty((0,), np.float32)):
        signed(mine, MODEL, safetensors.numpy.save(tensors | {"conv_stem.weight": strange}))
        assert "conv_stem.weight" in unusable(mine)
    signed(mine, MODEL, safetensors.numpy.save({"\n\x1b[2J": np.zeros(1, np.float32)}))
    unusable(mine)
    signed(mine, MODEL, b"\xff" * 64)
    assert "safetensors" in unusable(mine)


OLD = Path(__file__).parent / "old"
"""Manifests as the first release wrote them."""


def trained(folder: Path, **changes: Any) -> None:
    """Make a model of one with layers of one's own, as the first release wrote it."""
    described = json.loads((OLD / "trained.json").read_bytes())
    described["head"] |= changes
    signed(folder, MANIFEST, json.dumps(described).encode())
    shapes = {"1.weight": (8, 1024), "1.bias": (8,), "3.weight": (3, 8), "3.bias": (3,)}
    put_tensors(folder, HEAD, **{name: np.full(shape, 0.5) for name, shape in shapes.items()})


def test_models_of_the_first_release_are_read(mine: Path) -> None:
    before = unpack(read_bundle(mine)).head
    signed(mine, MANIFEST, (OLD / "linear.json").read_bytes())
    old = unpack(read_bundle(mine))
    assert isinstance(before, Probe)
    assert isinstance(old.head, Probe)
    assert (old.head.parts, old.names) == (before.parts, ("moss", "sand", "sea"))
    assert (old.head.coef == before.coef).all()
    trained(mine)
    head = unpack(read_bundle(mine)).head
    assert isinstance(head, TrainedHead)
    answer = head.outputs({"last_map/map": np.ones((1, 1024), np.float16)})
    assert np.allclose(answer, np.log(1 / 3))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"spec": "flatten, dense 100000, dense 100000, dense"}, "not those of the layers"),
        ({"spec": "flatten, " + "dense 100000, " * 400 + "dense"}, "not those of the layers"),
        ({"spec": "flatten, dense 9, dense"}, "not those of the layers"),
        ({"spec": "gap, dance"}, "'dance' is not known"),
        ({"shape": [10**9, 2, 2]}, "reads maps of"),
        ({"shape": [1023]}, "reads maps of"),
        ({"scale": 0}, "head.scale is 0"),
        ({"scale": "1"}, "head.scale is '1'"),
        ({"training": {}}, "head.training.epochs is missing"),
    ],
)
def test_layers_in_words_that_do_not_fit_the_tensors_are_refused(
    mine: Path, changes: dict[str, Any], said: str
) -> None:
    trained(mine, **changes)
    assert said in unusable(mine)


def test_answers_that_are_no_numbers_are_an_error_and_never_nan_percent(run: Run, mine: Path, pictures: Path) -> None:
    trained(mine)
    tensors = read_bundle(mine).tensors(HEAD)
    signed(mine, HEAD, safetensors.numpy.save({name: np.full_like(t, 3e38) for name, t in tensors.items()}))
    found = run("predict", mine, pictures)
    assert found.code == 1
    assert "no number" in found.err
    assert "nan" not in found.out.lower()


def test_broken_words_about_a_model_end_report_and_growth_in_one_line(run: Run, mine: Path, pictures: Path) -> None:
    for file, content in (("metrics.json", '{"test": {"n": "x"}}'), ("run.json", '{"options": {"size": "x"}}')):
        good = (mine / file).read_bytes()
        (mine / file).write_text(content)
        command = ("report", mine) if file == "metrics.json" else ("fit", pictures, "--add-to", mine, "-o", mine / "n")
        found = run(*command)
        assert (found.code, found.err.count(file)) == (1, 1)
        assert "Traceback" not in found.err
        (mine / file).write_bytes(good)


# Weights files


class Code:
    """What a pickle runs when it is opened."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("open('ran', 'w').close()",)


@pytest.fixture
def loaders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """timm may read no file, and torch none with code in it."""

    def never(*what: object, **more: object) -> None:
        raise AssertionError("a weights file was read by another reader than headstart's own")

    for name in ("load_state_dict", "load_checkpoint"):
        monkeypatch.setattr(timm.models._helpers, name, never)
    for name in ("load_state_dict", "load_state_dict_from_hf", "load_state_dict_from_path", "load_state_dict_from_url"):
        monkeypatch.setattr(timm.models._builder, name, never)
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: load(*a, **k) if k.get("weights_only") is True else never())
    monkeypatch.chdir(tmp_path)


SMALL = "test_efficientnet"


def in_cache(root: Path, filename: str) -> Path:
    """Where the hub's cache has a file of the published weights of SMALL."""
    [name] = timm.list_pretrained(f"{SMALL}.*")
    folder = root / f"models--timm--{name}"
    place = folder / "snapshots" / ("0" * 40)
    place.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    return place / filename


def not_opened(name: str, weights: str = "auto") -> str:
    with pytest.raises(BackboneError) as caught:
        open_backbone(name, weights)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 800
    return str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_the_hub_its_cache_or_a_folder_never_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaders: None, zipped: bool
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    file = in_cache(tmp_path / "cache", "pytorch_model.bin")
    torch.save({"a": Code()}, file) if zipped else file.write_bytes(pickle.dumps(Code()))
    assert "could run code" in not_opened(SMALL)
    folder = tmp_path / "timm"
    folder.mkdir()
    shutil.copy(file, folder)
    (folder / "config.json").write_text(json.dumps({"architecture": SMALL}))
    assert "could run code" in not_opened(str(folder))
    assert "could run code" in not_opened(SMALL, str(file))
    assert not (tmp_path / "ran").exists()


def test_published_weights_are_read_by_headstart_and_adapted_by_timm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaders: None
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    file = in_cache(tmp_path / "cache", "pytorch_model.bin")
    state = timm.create_model(SMALL).state_dict()
    torch.save(state, file)
    backbone = open_backbone(SMALL)
    own = backbone.module.state_dict()
    assert all(torch.equal(own[name], t) for name, t in state.items())
    cfg: Any = backbone.module.pretrained_cfg
    assert "state_dict" not in cfg  # a second copy of the weights
    torch.save({**state, "more": torch.zeros(1)}, file)
    assert "does not fit" in not_opened(SMALL)
    torch.save({**state, "conv_stem.weight": state["conv_stem.weight"] * torch.nan}, file)
    assert "no finite number" in not_opened(SMALL)


HUGE = 10**6


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (lambda: torch.zeros(1).expand(HUGE, HUGE), "more than 4 times"),
        (lambda: torch.zeros(1).as_strided((HUGE, HUGE), (0, 0)), "more than 4 times"),
        (lambda: torch.sparse_coo_tensor(size=(HUGE, HUGE)), "sparse_coo tensor"),
        (lambda: torch.empty(HUGE, HUGE, device="meta"), "meta tensor"),
        (lambda: torch.quantize_per_tensor(torch.zeros(8), 1.0, 0, torch.qint8), "quantized tensor"),
        (lambda: torch.zeros(8, dtype=torch.complex64), "complex tensor"),
    ],
    ids=["expanded", "strided", "sparse", "meta", "quantized", "complex"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_would_take_more_than_their_file_are_refused(tmp_path: Path, tensor: Any, said: str) -> None:
    torch.save({"classifier.weight": tensor()}, tmp_path / "x.pth")
    assert said in not_opened(SMALL, str(tmp_path / "x.pth"))


def test_the_shared_cases_are_refused(shared: Path) -> None:
    folder = shared / "cases" / "hostile"
    assert "5,124,000,000,000" in not_opened(SMALL, str(folder / "expand.pth"))
    assert "names a tensor 5" in not_opened(SMALL, str(folder / "keys.pth"))


def test_an_archive_that_unpacks_to_much_more_is_refused(tmp_path: Path) -> None:
    torch.save({"classifier.weight": torch.zeros(1_000_000)}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as given, zipfile.ZipFile(tmp_path / "bomb.pth", "w", 8) as packed:
        for entry in given.infolist():
            packed.writestr(entry.filename, given.read(entry))
    assert (tmp_path / "bomb.pth").stat().st_size < 100_000
    assert "more than 4 times" in not_opened(SMALL, str(tmp_path / "bomb.pth"))


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes")
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_that_are_no_file_are_named_and_never_waited_for(tmp_path: Path, ending: str) -> None:
    os.mkfifo(tmp_path / f"pipe.{ending}")
    (tmp_path / f"device.{ending}").symlink_to("/dev/zero")
    (tmp_path / f"process.{ending}").symlink_to("/proc/self/maps")
    (tmp_path / f"folder.{ending}").mkdir()
    for name in ("pipe", "device", "process", "folder"):
        path = tmp_path / f"{name}.{ending}"
        assert str(path) in not_opened(SMALL, str(path))


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes")
def test_a_pipe_in_the_hubs_cache_is_never_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    pipe = in_cache(tmp_path / "cache", "model.safetensors")
    os.mkfifo(pipe)
    assert "offline mode is on" in not_opened(SMALL)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *what: str(pipe))
    with pytest.raises(BackboneError, match="a named pipe, not a regular file"):
        hub.fetch(hub.Remote("me/pipe", "model.safetensors", 1, "a" * 64))


@pytest.mark.parametrize(
    "config",
    [
        "[" * 10_000,
        "[]",
        '{"architecture": null}',
        '{"architecture": "x", "pretrained_cfg": []}',
        '{"architecture": "eva_giant_patch14_224"}',
        '{"architecture": "/etc"}',
        f'{{"architecture": "{"x" * 9000}"}}',
        '{"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {"input_size": [3, 17, 9]}}',
        *(
            f'{{"architecture": "{SMALL}", "pretrained_cfg": {{{cfg}}}}}'
            for cfg in (
                '"num_classes": 1000000000',
                '"num_classes": 9999999',
                '"num_classes": "x"',
                '"input_size": [3, 100000, 100000]',
                '"input_size": [1000000, 64, 64]',
                '"input_size": 3',
                '"mean": [NaN, 0, 0]',
                '"std": [0, 1, 1]',
                '"crop_pct": 1e308',
                '"classifier": {}',
                '"input_size": [3, 1, 1]',
                '"input_size": [1, 64, 64]',
            )
        ),
    ],
)
def test_a_timm_folder_whose_description_is_nonsense_is_refused(tmp_path: Path, small: None, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    save_file({"a": torch.zeros(3)}, tmp_path / "model.safetensors")
    not_opened(str(tmp_path))


def test_a_timm_folder_names_no_other_weights(tmp_path: Path, loaders: None) -> None:
    state = timm.create_model(SMALL).state_dict()
    save_file(state, tmp_path / "model.safetensors")
    torch.save({"a": Code()}, tmp_path / "evil.bin")
    cfg = {
        "file": "evil.bin",
        "url": "http://127.0.0.1:9/x",
        "hf_hub_id": "me/evil",
        "source": "local-dir",
        "std": [1, 1, 1],
    }
    (tmp_path / "config.json").write_text(json.dumps({"architecture": SMALL, "pretrained_cfg": cfg}))
    backbone = open_backbone(str(tmp_path))
    assert backbone.preprocess.std == (1, 1, 1)
    known: Any = backbone.module.pretrained_cfg
    assert not {"evil.bin", "me/evil", "http://127.0.0.1:9/x"} & {str(v) for v in known.values()}
    assert not (tmp_path / "ran").exists()


def test_a_saved_model_names_no_other_folder_or_file(mine: Path, model: Path, tmp_path: Path) -> None:
    for name in (str(model), "x" * 9000, "local-dir:x", "hf-hub:me/evil", "\0", "../mine"):
        put(mine, ("backbone", "name"), json.dumps(name))
        assert "unknown backbone" in not_opened(str(mine))
        assert "unknown backbone" in not_opened(str(mine), "none")


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes")
def test_what_is_brought_from_another_machine_is_checked_too(tmp_path: Path) -> None:
    for ending in ("pth", "safetensors"):
        os.mkfifo(tmp_path / f"pipe.{ending}")
        with pytest.raises(BackboneError, match="pipe"):
            weights.bring(tmp_path / f"pipe.{ending}", str)
    about = {
        "network": SMALL,
        "source": "x",
        "licence": "x",
        "checksum": "x",
        "preprocess": {"input_size": [3, 9**9, 1]},
    }
    for told in ("[", "[]", json.dumps(about), json.dumps({"network": SMALL}), "[" * 10_000):
        save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", {"headstart": told})
        with pytest.raises(BackboneError, match="does not say which network"):
            weights.bring(tmp_path / "x.safetensors", str)
