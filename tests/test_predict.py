"""A saved model answers as the fitted one did, alone or in company, in headstart and in timm."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch

from conftest import TINY, Run, picture
from headstart import TransferClassifier
from headstart.cli.main import main
from headstart.data.images import Preprocess, load, write_png
from headstart.data.table import list_images
from headstart.errors import OutputError
from headstart.files.cells import CONTROL, FORMULA, printable
from headstart.files.output import PREDICTIONS, check_output
from headstart.ship.answer_file import write_predictions
from headstart.ship.predict import predict
from headstart.ship.stretches import BUFFER
from headstart.story.pipeline import load as load_model


@pytest.fixture(scope="module")
def blurred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that overlap, so that probabilities lie between 0 and 1; one image in five is named wrongly."""
    folder, rng = tmp_path_factory.mktemp("data") / "blurred", np.random.default_rng(3)
    for k, name in enumerate(("dusk", "noon")):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            write_png(picture(k if number % 5 else 1 - k, rng), folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def last(blurred: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of `blurred` whose head is the network's own top."""
    folder = tmp_path_factory.mktemp("saved") / "last"
    main(["fit", str(blurred), "-o", str(folder), "--taps", "last", *TINY])
    return folder


def probabilities(folder: Path, images: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """(image, class) of all images below a folder, in the order of their names."""
    return predict(load_model(folder), list_images([images])).answers


def through_timm(folder: Path, images: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The same by timm alone, on the pixels that config.json asks for."""
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    preprocess = Preprocess.from_json(json.loads((folder / "headstart.json").read_text())["preprocess"])
    table = list_images([images])
    pixels = np.stack([load(table.read(k), preprocess).array for k in range(len(table))])
    mean, std = (np.array(network.pretrained_cfg[k], np.float32) for k in ("mean", "std"))
    batch = torch.from_numpy((pixels / np.float32(255) - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return np.asarray(network(batch).softmax(dim=1).numpy())


@pytest.mark.parametrize("taps", ["last", "all"])
def test_saved_equals_fitted(taps: str, blurred: Path, tmp_path: Path) -> None:
    fitted = TransferClassifier(*TINY[1::2][:2], taps=taps, size=64, precision="f32").fit(str(blurred))
    fitted.save(tmp_path / "model")
    files = [str(f) for f in sorted(blurred.rglob("*.png"))]
    before, after = fitted.predict_proba(files), probabilities(tmp_path / "model", blurred)
    assert np.abs(before - after).max() <= 1e-6
    assert np.abs(before - TransferClassifier.load(tmp_path / "model").predict_proba(files)).max() <= 1e-6
    assert before.min() < 0.4 < 0.6 < before.max()
    assert np.abs(before.sum(axis=1) - 1).max() < 1e-6


def test_with_the_last_tap_timm_loads_the_same_model(last: Path, blurred: Path) -> None:
    ours, theirs = probabilities(last, blurred), through_timm(last, blurred)
    assert np.abs(ours - theirs).max() <= 1e-4
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).all()
    assert np.ptp(ours[:, 0]) > 0.01
    metrics = json.loads((last / "metrics.json").read_text())
    assert metrics["timm_view"]["same_model"] is True
    assert metrics["timm_view"]["accuracy"] == metrics["cross_validation"]["accuracy"]
    assert not (last / "head.safetensors").exists()


def test_with_several_taps_timm_loads_the_best_linear_top_and_both_accuracies_are_stated(
    model: Path, pictures: Path
) -> None:
    metrics = json.loads((model / "metrics.json").read_text())
    assert metrics["timm_view"]["same_model"] is False
    assert 0 <= metrics["timm_view"]["accuracy"]["low"] <= metrics["timm_view"]["accuracy"]["value"] <= 1
    theirs = through_timm(model, pictures)
    truth = np.repeat([0, 1, 2], 8)
    assert (theirs.argmax(axis=1) == truth).mean() >= metrics["timm_view"]["accuracy"]["low"]
    card = (model / "README.md").read_text()
    assert "That is not the same model" in card


def test_an_answer_does_not_depend_on_its_company_or_place(model: Path, pictures: Path) -> None:
    loaded = load_model(model)
    files = [str(f) for f in sorted(pictures.rglob("*.png"))]
    found = predict(loaded, list_images(files))
    assert found.novelty is not None
    for file, novelty in zip(files[:3], found.novelty, strict=False):
        assert predict(loaded, list_images([file])).novelty == novelty
    together = found.answers
    backwards = predict(loaded, list_images(files[::-1])).answers[::-1]
    alone = np.concatenate([predict(loaded, list_images([f])).answers for f in files[:3]])
    assert (together == backwards).all()
    assert (together[:3] == alone).all()
    many = files * (BUFFER // len(files) + 2)  # more than one buffer of the head
    assert (predict(loaded, list_images(many)).answers == np.tile(together, (len(many) // len(files), 1))).all()


@pytest.fixture
def mixed(pictures: Path, tmp_path: Path) -> Path:
    """Three good images with a broken one between them, and a name that needs quoting in CSV."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    shutil.copy(pictures / "moss/0.png", folder / "a.png")
    (folder / "b.png").write_bytes(b"no picture")
    shutil.copy(pictures / "sand/0.png", folder / 'c, "d" é.png')
    shutil.copy(pictures / "sea/0.png", folder / "e.png")
    return folder


def test_an_unreadable_image_gets_an_error_and_no_answer(run: Run, model: Path, mixed: Path) -> None:
    found = run("predict", model, mixed, "--json")
    assert found.code == 0
    records = json.loads(found.out)
    assert [r["label"] for r in records] == ["moss", None, "sand", "sea"]
    assert records[1]["probability"] is None
    assert records[1]["top"] == []
    assert "not a picture" in records[1]["error"]
    assert all(r["error"] is None for k, r in enumerate(records) if k != 1)
    for record in records:
        assert list(record) == ["path", "label", "probability", "set", "known", "novelty", "top", "error"]
        ranked = [c["probability"] for c in record["top"]]
        assert ranked == sorted(ranked, reverse=True)
        if record["top"]:
            assert record["top"][0] == {"label": record["label"], "probability": record["probability"]}
            assert abs(sum(ranked) - 1) < 1e-6  # all three classes


@pytest.mark.parametrize("top", [1, 9])
def test_every_file_format_says_the_same(top: int, run: Run, model: Path, mixed: Path, tmp_path: Path) -> None:
    out = {ending: tmp_path / f"answers.{ending}" for ending in ("csv", "jsonl", "json", "parquet")}
    for path in out.values():
        found = run("predict", model, mixed, "-o", path, "--top", top)
        assert (found.code, found.out) == (0, "")
    said = json.loads(run("predict", model, mixed, "--json", "--top", top).out)
    assert json.loads(out["json"].read_text()) == said
    assert [json.loads(line) for line in out["jsonl"].read_text().splitlines()] == said
    assert pq.read_table(out["parquet"]).to_pylist() == said
    with out["csv"].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    n = min(top, 3)
    ranks = [f"{what}_{k}" for k in range(2, n + 1) for what in ("label", "probability")]
    assert list(rows[0]) == ["path", "label", "probability", "set", "known", "novelty", *ranks, "error"]
    for row, record in zip(rows, said, strict=True):
        assert row["path"] == record["path"]
        assert (row["label"] or None) == record["label"]
        assert (row["error"] or None) == record["error"]
        for k, choice in enumerate(record["top"], 1):
            label, p = ("label", "probability") if k == 1 else (f"label_{k}", f"probability_{k}")
            assert row[label] == choice["label"]
            assert abs(float(row[p]) - choice["probability"]) <= 5e-7
    assert not list(tmp_path.glob(".*"))


ORDERS = (
    "=cmd|' /C calc'!A0",
    "+1",
    "-1+2",
    "@SUM(1)",
    "\tx",
    "\x1b[31mred\x07",
    "a\u202egnp.exe",
    "a\u2028b\x85c",
    'q"uo,te',
)


@pytest.mark.parametrize("name", ORDERS)
def test_other_peoples_text_gives_no_orders_in_a_csv_file_and_is_whole_in_the_others(name: str, tmp_path: Path) -> None:
    failed = {"path": name, "label": None, "probability": None, "top": [], "error": f"{name} cannot be read"}
    top = [{"label": name, "probability": 0.75}, {"label": "b", "probability": 0.25}]
    said = [{"path": name, **top[0], "top": top, "error": None}, failed]
    out = {ending: tmp_path / f"answers.{ending}" for ending in ("csv", "jsonl", "json", "parquet")}
    for path in out.values():
        write_predictions(said, path, 2, failed)
    with out["csv"].open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    cells = [cell for row in rows for cell in row.values()]
    assert len(rows) == 2
    assert not any(cell.startswith(FORMULA) or CONTROL.search(cell) for cell in cells)
    assert {rows[0]["path"], rows[0]["label"]} <= {printable(name), printable(f"'{name}")}
    assert [json.loads(line) for line in out["jsonl"].read_text(encoding="utf-8").splitlines()] == said
    assert json.loads(out["json"].read_text(encoding="utf-8")) == said
    assert pq.read_table(out["parquet"]).to_pylist() == said


@pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes")
def test_a_place_that_cannot_be_written_is_one_line_before_any_work(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "device.csv").symlink_to("/dev/null")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("")
    names = (
        "pipe.csv",
        "device.csv",
        "folder.csv",
        "file/a.csv",
        "nowhere/a.csv",
        "x" * 300 + ".csv",
        "x" * 5000 + "/a.csv",
    )
    before = sorted(tmp_path.rglob("*"))
    for name in (*names, "/proc/a.csv"):
        with pytest.raises(OutputError, match="choose another -o") as refused:
            check_output(tmp_path / name, PREDICTIONS)
        assert "\n" not in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("ending", ["csv", "jsonl", "json", "parquet"])
def test_a_full_disk_leaves_the_answers_that_were_there(ending: str, tmp_path: Path) -> None:
    import resource

    path = tmp_path / f"answers.{ending}"
    path.write_text("old")
    record = {"path": "x", "label": "a", "probability": 1.0, "top": [{"label": "a", "probability": 1.0}], "error": None}
    many = [record | {"path": f"{number:x}" * 40} for number in range(999)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OutputError, match=r"choose another -o") as full:
            write_predictions(many, path, 1, record)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(full.value)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_evaluate_counts_only_what_can_be_read_and_names_the_rest(
    run: Run, model: Path, pictures: Path, tmp_path: Path
) -> None:
    shutil.copytree(pictures, tmp_path / "data")
    (tmp_path / "data/sea/0.png").write_bytes(b"no picture")
    found = run("evaluate", model, tmp_path / "data", "--json")
    scored = json.loads(found.out)
    assert (found.code, scored["n"]) == (0, 23)
    assert [Path(r["path"]).name for r in scored["set_aside"]] == ["0.png"]
    assert scored["accuracy"]["low"] <= scored["accuracy"]["value"] <= scored["accuracy"]["high"]
