"""Exports: one graph says what `predict` says, in its own runtime, and what disagrees is never left behind."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from conftest import TINY, Run
from curated_odd import odd_pictures
from headstart.cli.exporting import lines
from headstart.cli.main import main
from headstart.data import images
from headstart.data.preprocess import Preprocess
from headstart.data.table import list_images
from headstart.errors import DataError, HeadstartError, OptionError, OutputError
from headstart.export import agreement, loader
from headstart.export.agreement import bound_of, differences
from headstart.export.answers import answers_of, plain_of
from headstart.export.folder import check_folder
from headstart.export.format import Exportable
from headstart.export.formats import FORMATS, check_installed
from headstart.files.bundle import read_bundle
from headstart.heads.probe import Probe
from headstart.heads.taps import Part
from headstart.report.exports import BEFORE, with_exports
from headstart.ship.package import Loaded, unpack
from headstart.ship.predict import predict
from headstart.story.held_out import held_out
from headstart.story.whereabouts import forget
from headstart.tasks.known import TASKS
from headstart.trunk.engine import OpenVinoEngine
from headstart.trunk.layers import LAST
from headstart.trunk.network import block_names, block_widths, tap_at

Pixels = npt.NDArray[np.uint8]
Exported = tuple[Path, Path, dict[str, Any]]


@pytest.fixture(scope="module")
def loaded(model: Path) -> Loaded:
    return unpack(read_bundle(model))


@pytest.fixture(scope="module")
def seen(pictures: Path, loaded: Loaded) -> tuple[list[Path], Pixels]:
    """Nine of the pictures, and their pixels."""
    files = sorted(pictures.glob("*/[0-2].png"))
    return files, np.stack([images.load(f.read_bytes(), loaded.backbone.preprocess).array for f in files])


def with_head(loaded: Loaded, task: str, parts: tuple[Part, ...], rule: dict[str, tuple[float, ...]]) -> Loaded:
    """The network under a head of drawn numbers, whose answers are in the middle of what they can be."""
    names, rng = ("moss", "sand", "sea"), np.random.default_rng(3)
    widths = dict(zip(block_names(loaded.backbone), block_widths(loaded.backbone), strict=True))
    coef = rng.normal(size=(3, sum(widths[part.block] for part in parts)))
    link = "softmax" if task == "classify" else "none"
    head = Probe(parts, coef, rng.normal(size=3), (), np.empty((0, 3)), link)
    return replace(loaded, task=TASKS[task], head=head, rule=rule, names=names, novelty=None, reference=None)


def kinds(loaded: Loaded) -> dict[str, Loaded]:
    every = tuple(Part(block, False, True) for block in block_names(loaded.backbone))
    rooted, plain = (Part(LAST, True, True),), (Part(LAST, False, False),)
    return {
        "several layers": with_head(loaded, "classify", every, {}),
        "last layer": with_head(loaded, "classify", plain, {}),
        "rooted": with_head(loaded, "classify", rooted, {}),
        "labels": with_head(loaded, "tag", rooted, {"thresholds": (0.4, 0.5, 0.6)}),
        "values": with_head(loaded, "regress", every, {"half_widths": (1.0, 2.0, np.inf)}),
        "trained": trained(loaded),
        "mirrored": mirrored(with_head(loaded, "classify", every, {})),
    }


def mirrored(model: Loaded) -> Loaded:
    """The model that sees the mirror image of each picture too."""
    backbone = model.backbone
    return replace(model, backbone=replace(backbone, preprocess=replace(backbone.preprocess, views=2)))


def trained(loaded: Loaded) -> Loaded:
    """A head of layers on the last feature map."""
    from headstart.finetune.design import Design
    from headstart.finetune.own_layers import build_head
    from headstart.finetune.spec import parse
    from headstart.finetune.trained_head import TrainedHead
    from headstart.recipe import Training

    words = "conv 8 3x3 relu, gap, batchnorm, dropout 0.5, dense"
    tap = tap_at(loaded.backbone, "last_map", "none")
    backbone = replace(loaded.backbone, taps=(tap,), ends=())
    design = Design(
        words=words,
        layers=parse(words),
        block=tap.blocks[0],
        shape=tap.shape,
        training=Training(1, 1, "adam", 0.1, 0, 1, 0.1),
    )
    module = build_head(design, 3, seed=1).eval().requires_grad_(False)
    module[-1].weight *= 30  # as if it had learned: drawn weights leave all images alike
    head = TrainedHead(design, module, 0.7, (), np.empty((0, 3)))
    task = TASKS["classify"]
    return replace(loaded, backbone=backbone, task=task, head=head, rule={}, novelty=None, reference=None)


KINDS = ("several layers", "last layer", "rooted", "labels", "values", "trained", "mirrored")


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_says_what_predict_says_and_of_one_image_what_it_says_of_eight(
    kind: str, loaded: Loaded, seen: tuple[list[Path], Pixels]
) -> None:
    import torch

    from headstart.export.graph import graph_of

    one = kinds(loaded)[kind]
    table = list_images(seen[0])
    ours = plain_of(predict(one, table, OpenVinoEngine(one.backbone, "f32")).answers)
    graph = graph_of(one)
    with torch.inference_mode():
        theirs = graph(torch.from_numpy(seen[1])).numpy()
        alone = np.concatenate([graph(torch.from_numpy(seen[1][k : k + 1])).numpy() for k in range(len(seen[1]))])
    assert (ours.std(axis=0) > 1e-4).all()  # the images are told apart: a constant would agree with anything
    assert differences(one, ours, theirs).largest < bound_of(one, False)
    assert differences(one, theirs, alone).largest < bound_of(one, False)
    back = predict(one, table, OpenVinoEngine(one.backbone, "f32")).answers
    np.testing.assert_allclose(answers_of(one, ours), back, atol=1e-6)


@pytest.fixture(scope="module")
def exported(model: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """(a copy of the model, the folder of its OpenVINO file, what the command said of it)."""
    place = tmp_path_factory.mktemp("exported")
    mine = place / "mine"
    shutil.copytree(model, mine)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main(["export", str(mine), "--to", "openvino", "--data", str(pictures), "--json"])
    return mine, place / "mine-openvino", json.loads(out.getvalue())


def test_an_export_is_checked_in_its_own_runtime_and_noted_in_the_model(exported: Exported) -> None:
    mine, folder, record = exported
    assert sorted(f.name for f in folder.iterdir()) == ["export.json", "model.bin", "model.xml", "predict.py"]
    assert record["label_agreement"] == record["loader"]["labels"] == 1.0
    assert 0 <= record["largest_difference"] <= agreement.BOUND
    assert record["score"]["exported"] == record["score"]["predict"]
    assert record["bytes"] == sum((folder / name).stat().st_size for name in ("model.bin", "model.xml"))
    assert json.loads((mine / "export.json").read_text()) == {
        "openvino": {k: v for k, v in record.items() if k != "folder"}
    }
    assert "| `openvino` |" in (mine / "README.md").read_text()
    page = (Path(__file__).parents[1] / "docs" / "exports.md").read_text()
    shown = re.findall(r"```console\n(.*?)```", page, re.DOTALL)[0].splitlines()[3:-1]
    assert [line.split()[0] for line in shown] == [line.split()[0] for line in lines(record)]
    own = json.loads((folder / "export.json").read_text())
    manifest = read_bundle(mine).manifest
    assert own["about"]["names"] == manifest["classes"]
    assert own["about"]["licence"] == manifest["backbone"]["licence"]
    assert own["about"]["preprocess"] == manifest["preprocess"]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return odd_pictures(tmp_path_factory.mktemp("odd"))


def test_the_loader_reads_odd_pictures_as_predict_does(exported: Exported, odd: list[Path], tmp_path: Path) -> None:
    mine, folder, _ = exported
    files = [*odd, tmp_path / "broken.jpg", tmp_path / "gone.jpg"]
    files[-2].write_bytes(files[0].read_bytes()[:700])
    model = unpack(read_bundle(mine))
    said = predict(model, list_images(files[:-1]), OpenVinoEngine(model.backbone, "f32"))
    command = [sys.executable, "-I", str(folder / "predict.py"), *map(str, files)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert [record["path"] for record in found] == [str(f) for f in files]
    assert [bool(record["error"]) for record in found] == [False] * (len(files) - 2) + [True, True]
    for record, answer in zip(found, said.answers[:-1], strict=False):
        if not record["error"]:
            named = {one["label"]: one["probability"] for one in record["top"]}
            np.testing.assert_allclose(
                [named[n] for n in model.names], answer, atol=agreement.BOUND, err_msg=record["path"]
            )
            assert record["label"] == model.names[answer.argmax()]


def pixels_of(text: str, file: Path, preprocess: Preprocess) -> Pixels:
    """As the loader of this text decodes a file."""
    space: dict[str, Any] = {"__name__": "loader", "__file__": "predict.py"}
    exec(compile(text, "predict.py", "exec"), space)
    return np.asarray(space["pixels"](file.read_bytes(), {"preprocess": preprocess.to_json()}))


SIZES = {
    "shortest": Preprocess((40, 56), 0.875, "bicubic", "shortest", (0.5,) * 3, (0.5,) * 3),
    "squash": Preprocess((64, 48), 1.0, "bilinear", "squash", (0.5,) * 3, (0.5,) * 3),
    "pad": Preprocess((64, 47), 1.0, "bicubic", "pad", (0.485, 0.456, 0.406), (0.5,) * 3),
    "lanczos": Preprocess((33, 33), 1.0, "lanczos", "shortest", (0.5,) * 3, (0.5,) * 3, (("unsigned", 900.0, 4e4),)),
    "nearest": Preprocess((32, 32), 0.9, "nearest", "shortest", (0.5,) * 3, (0.5,) * 3),
}
LOADER = loader.program(FORMATS["onnx"]).replace("import onnxruntime", "")


@pytest.mark.parametrize("rule", SIZES)
def test_the_loader_gives_the_pixels_of_the_decoder_under_every_rule(rule: str, odd: list[Path]) -> None:
    for file in odd:
        ours = images.load(file.read_bytes(), SIZES[rule]).array
        np.testing.assert_array_equal(pixels_of(LOADER, file, SIZES[rule]), ours, err_msg=file.name)


def test_without_simplejpeg_the_loader_is_near(odd: list[Path]) -> None:
    text = LOADER.replace("import simplejpeg", "raise ImportError")
    for file in odd:
        ours = images.load(file.read_bytes(), SIZES["shortest"]).array.astype(int)
        off = np.abs(pixels_of(text, file, SIZES["shortest"]) - ours)
        assert off.mean() < 1.0, file.name
        if file.suffix != ".jpg":
            assert not off.any()


def test_an_export_that_says_something_else_is_refused_and_leaves_nothing(
    model: Path, pictures: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.export import graph

    before = sorted(f.name for f in model.iterdir())

    def other_mean(loaded: Loaded) -> Any:
        wrong = replace(loaded.backbone.preprocess, mean=(0.3, 0.5, 0.5))
        return graph.Graph(replace(loaded, backbone=replace(loaded.backbone, preprocess=wrong))).eval()

    monkeypatch.setattr(graph, "graph_of", other_mean)
    said = run("export", model, "--to", "openvino", "--data", pictures, "-o", tmp_path / "out")
    assert said.code == 1
    assert "does not say what predict says" in said.err
    assert not list(tmp_path.iterdir())
    assert sorted(f.name for f in model.iterdir()) == before


def test_a_full_disk_is_said_and_leaves_nothing(
    model: Path, pictures: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.export import openvino

    def full(found: Exportable, path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(openvino, "convert", full)
    said = run("export", model, "--to", "openvino", "--data", pictures, "-o", tmp_path / "out")
    assert said.code == 1
    assert "cannot be written" in said.err.splitlines()[-1]
    assert "No space left" in said.err.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_the_process_of_the_check_imports_neither_headstart_nor_torch(
    exported: Exported, seen: tuple[list[Path], Pixels], tmp_path: Path
) -> None:
    _, folder, _ = exported
    np.save(tmp_path / "pixels.npy", seen[1])
    of = FORMATS["openvino"]
    assert {"headstart", "torch"} <= set(of.alone)
    ran = agreement.run(folder, of, tmp_path / "pixels.npy", seen[0][:1])  # raises where one of them is imported
    assert ran.answers is not None
    np.testing.assert_array_equal(ran.read, ran.answers[:1])
    with pytest.raises(HeadstartError, match="needs numpy to run"):
        agreement.run(folder, replace(of, alone=("numpy",)), None, ())
    with pytest.raises(HeadstartError, match="cannot run"):
        agreement.run(tmp_path, of, None, ())


def small_graph() -> Any:
    """A graph that is made at once: grey levels -> three probabilities."""
    from torch import nn

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, pixels: Any) -> Any:
            return self.linear(pixels.float().mean((1, 2)) / 255).softmax(dim=1)

    return Small().eval().requires_grad_(False)


@pytest.mark.parametrize("name", ["onnx", "openvino", "torch"])
def test_a_file_holds_what_it_is_and_takes_any_number_of_images(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    module, about = small_graph(), {"names": ["ant", "bée", "猫"], "licence": "cc0-1.0", "rule": {"set_from": [0.5]}}
    of = FORMATS[name]
    of.convert(Exportable(module, (8, 6), about), tmp_path)
    space: dict[str, Any] = {"json": json}
    exec(compile(loader.text(of.opener), of.opener, "exec"), space)
    answer, said = space["open_model"](tmp_path / of.file)
    assert said == about
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 6, 3), dtype=np.uint8)
    eight = np.array(answer(pixels))
    np.testing.assert_allclose(eight, module(torch.from_numpy(pixels)).numpy(), atol=1e-6)
    np.testing.assert_allclose([np.array(answer(one[None]))[0] for one in pixels], eight, atol=1e-6)
    assert str(Path(__file__).parent).encode() not in (tmp_path / of.file).read_bytes()  # no private folder
    if name == "onnx":
        (tmp_path / "model-onnx").mkdir()
        (tmp_path / of.file).rename(tmp_path / "model-onnx" / of.file)
        monkeypatch.chdir(tmp_path)
        page = (Path(__file__).parents[1] / "docs" / "exports.md").read_text()
        exec(compile(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], "docs/exports.md", "exec"), {})
        assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[-3:]] == about["names"]
        return


@pytest.mark.parametrize("rule", [rule for rule in SIZES if rule != "nearest"])
def test_a_graph_of_any_size_resizes_as_the_decoder_does(rule: str) -> None:
    import torch

    from headstart.export.any_size import AnySize

    resized = AnySize(torch.nn.Identity(), SIZES[rule])
    rng = np.random.default_rng(1)
    for size in ((70, 130), (301, 97), (20, 15), (64, 64)):
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        picture = np.asarray(small.resize(size[::-1], Image.Resampling.BICUBIC))
        ours = images.load(picture, SIZES[rule]).array.astype(int)
        theirs = resized(torch.from_numpy(picture.copy())[None])[0].numpy()
        assert np.abs(theirs - ours).max() <= 1
        assert (theirs != ours).mean() < 0.03  # sums that end on a half


def test_features_are_rounded_as_they_are_stored() -> None:
    import torch

    from headstart.export.graph import as_stored

    x = np.concatenate([np.exp(np.linspace(-30, 12, 50_001)), [0, 65504, 65519, 7e4, 6e-8, 2.9e-8]]).astype(np.float32)
    x = np.concatenate([x, -x])
    ours = np.clip(x, -65504, 65504).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(as_stored(torch.from_numpy(x)).numpy(), ours)


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("MODEL", "--to", "onx"), "did you mean onnx?", 2),
        (("nowhere", "--to", "onnx"), "there is no model at", 1),
        (("MODEL", "--to", "onnx", "--data", "nowhere"), "nowhere", 1),
        (("MODEL", "--to", "openvino", "-o", "TAKEN"), "holds notes.txt", 1),
        (("MODEL", "--to", "openvino", "-o", "TAKEN/notes.txt"), "which is a file", 1),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(
    words: tuple[str, ...], said: str, code: int, model: Path, tmp_path: Path, run: Run
) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    found = run("export", *(w.replace("MODEL", str(model)).replace("TAKEN", str(taken)) for w in words))
    assert found.code == code
    assert said in found.err.strip().splitlines()[-1]
    assert (taken / "notes.txt").read_text() == "mine"


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.export import formats

    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    with pytest.raises(
        OptionError, match=r"needs onnx and onnxscript and onnxruntime: pip install 'headstart\[export\]'"
    ):
        check_installed(FORMATS["onnx"])


def test_a_task_without_a_graph_is_not_exported(loaded: Loaded) -> None:
    from headstart.export.answers import check_exportable

    with pytest.raises(OptionError, match="--task other, which is not exported yet: export is of the tasks classify,"):
        check_exportable(replace(loaded, task=replace(TASKS["classify"], name="other")), "moss")


def test_an_export_takes_the_place_of_one_of_its_model_alone(exported: Exported, tmp_path: Path) -> None:
    mine, folder, _ = exported
    data = str(read_bundle(mine).manifest["data_fingerprint"])
    check_folder(folder, data, False)
    check_folder(tmp_path / "new", data, False)
    with pytest.raises(OutputError, match="another model"):
        check_folder(folder, "others", False)
    check_folder(folder, "others", True)
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"holds mine\.txt"):
        check_folder(copy, data, True)


def test_images_that_check_an_export_are_those_held_out_to_the_byte(
    parted: Path, model: Path, tmp_path: Path, run: Run
) -> None:
    assert run("fit", parted, "-o", tmp_path / "model", *TINY).code == 0
    bundle = read_bundle(tmp_path / "model")
    held = held_out(bundle, str(parted))
    assert {str(name).partition("/")[0] for name in held.table.names} == {"test"}
    assert len(held.table) == 6
    assert held.said == "6 of your test images"
    assert {str(name).partition("/")[0] for name in held.teaching.names} == {"train"}
    assert len(held_out(bundle, str(parted), most=4).table) == 4
    changed = tmp_path / "changed"
    shutil.copytree(parted, changed)
    for file in (changed / "test").glob("*/*.png"):
        file.write_bytes(next((changed / "train" / file.parent.name).glob("*.png")).read_bytes())
    with pytest.raises(DataError, match="not in"):
        held_out(bundle, str(changed))


def test_a_models_own_images_are_found_again_by_their_bytes_and_no_file_of_it_says_where(
    parted: Path, tmp_path: Path, run: Run, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the model other images of the same names are passed over; moved images are found beside the model."""
    place = tmp_path / "far" / "away" / "pictures"
    shutil.copytree(parted, place)
    assert run("fit", place, "-o", tmp_path / "model", *TINY).code == 0
    bundle = read_bundle(tmp_path / "model")
    assert not [f.name for f in bundle.folder.iterdir() if b"far/away" in f.read_bytes()]
    other = tmp_path / place.name
    shutil.copytree(parted, other)
    for k, file in enumerate(sorted(other.rglob("*.png"))):
        Image.fromarray(np.full((40, 40, 3), k, np.uint8)).save(file)
    monkeypatch.chdir(tmp_path)
    held = held_out(bundle, None)
    assert held.said == "6 of your test images"
    assert {Path(source.path).parents[2] for source in held.table.sources} == {place}  # type: ignore[attr-defined]
    forget(cache)
    with pytest.raises(DataError, match=rf"not found here \(tried: pictures, {other}, .*--data"):
        held_out(bundle, None)
    shutil.rmtree(other)
    place.rename(other)
    assert held_out(bundle, None).said == held.said
    other.rename(place)
    told = bundle.folder / "run.json"  # an absolute path, which no fit writes there, leads nowhere
    told.write_text(told.read_text().replace("headstart fit pictures ", f"headstart fit {place} "))
    assert str(place) in told.read_text()
    with pytest.raises(DataError, match=r"not found here, .*--data"):
        held_out(read_bundle(bundle.folder), None)


def test_images_that_the_fit_has_not_seen_can_check_it(model: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.random.default_rng(ord(name)).integers(0, 256, (50, 50, 3), dtype=np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    held = held_out(read_bundle(model), str(tmp_path))
    assert not held.labelled
    assert len(held.table) == 2
    assert not len(held.teaching)


def test_a_card_tells_of_its_exports_once() -> None:
    card = f"# model\n\ntext\n{BEFORE}\nlast\n"
    entry = {"bytes": 4_200_000, "images": 12, "largest_difference": 1e-6, "label_agreement": 1.0, "latency_ms": 3.25}
    once = with_exports(card, {"onnx": entry})
    assert "| `onnx` | 4.2 | 12 | 1e-06 | 100.0 % | - | - | 3.2 |" in once
    assert once.startswith("# model\n\ntext\n")
    assert once.endswith(f"{BEFORE}\nlast\n")
    assert with_exports(once, {"onnx": entry}) == once
    both = with_exports(once, {"onnx": entry, "openvino": entry})
    assert both.count("## Exports") == 1
    assert "`openvino`" in both
    assert "## Exports" in with_exports("# other", {"onnx": entry})
