"""A saved model in other people's programs: transformers, scikit-learn and NumPy, the hub's own reading of the card."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from conftest import TINY, Run, picture
from headstart.cli.main import main
from headstart.data.images import write_png
from headstart.files.bundle import read_bundle, write_bundle
from headstart.heads.probe import Probe
from headstart.heads.taps import plain
from headstart.report import ReportData
from headstart.report.card import render_card
from headstart.ship.package import pack
from headstart.story.pipeline import load
from headstart.tasks.known import TASKS
from headstart.trunk.backbone import open_backbone, timm_config
from test_report import sample
from test_report_tasks import measured, recognised, tagged

ROOT = Path(__file__).resolve().parents[1]
SHADES = 24  # pictures


@pytest.fixture(scope="module")
def shaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two classes that overlap, in a folder each."""
    folder, rng = tmp_path_factory.mktemp("data") / "shaded", np.random.default_rng(4)
    for k in range(SHADES):
        place = folder / ("moss", "sea")[k % 2] / f"{k}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        write_png(picture(2 * (k % 2) if k % 5 else 1, rng), place)
    return folder


@pytest.fixture(scope="module")
def models(shaded: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each task whose head is the network's top: of classes a fitted one, of others the same network with a
    top that is drawn."""
    folder, rng = tmp_path_factory.mktemp("saved"), np.random.default_rng(0)
    main(["fit", str(shaded), "-o", str(folder / "classify"), "--taps", "last", *TINY])
    backbone, bundle = load(folder / "classify").backbone, read_bundle(folder / "classify")
    names = ("wet", "green", "dry")
    for task, rule in (("tag", "thresholds"), ("regress", "half_widths")):
        coef = rng.normal(size=(3, backbone.last_channels))
        head = Probe(plain().parts, coef, rng.normal(size=3), (), np.empty((0, 3)), TASKS[task].link)
        packed = pack(TASKS[task], backbone, head, head, names, {rule: (0.5,) * 3}, "f32")
        manifest, config, tensors = packed
        write_bundle(
            folder / task, manifest=manifest, config=config, metrics=bundle.metrics, run=bundle.run, tensors=tensors
        )
    return {task: folder / task for task in ("classify", "tag", "regress")}


def scores_of(record: dict[str, Any], task: str) -> dict[str, float]:
    """What `predict` says of each output."""
    if task == "classify":
        return {one["label"]: one["probability"] for one in record["top"]}
    return dict(record["probabilities" if task == "tag" else "values"])


@pytest.mark.parametrize("task", ["classify", "tag", "regress"])
def test_the_pipeline_of_transformers_gives_the_answers_of_predict(
    task: str, models: dict[str, Path], shaded: Path, run: Run
) -> None:
    from transformers import pipeline

    files = [str(file) for file in sorted(shaded.glob("*/*.png"))]
    made = pipeline("image-classification", model=str(models[task]))
    theirs = [{one["label"]: one["score"] for one in found} for found in made(files, top_k=99)]
    ours = [scores_of(r, task) for r in json.loads(run("predict", models[task], *files, "--json", "--top", 9).out)]
    assert [set(one) for one in theirs] == [set(one) for one in ours]
    values = np.array([[[one[name] for name in ours[0]] for one in all_] for all_ in (ours, theirs)])
    assert np.ptp(values[0], axis=0).min() > 0.01
    assert np.abs(values[0] - values[1]).max() <= 1e-3 * max(1.0, np.abs(values).max())  # features were float16
    if task == "classify":
        assert (values[0].argmax(axis=1) == values[1].argmax(axis=1)).all()


def test_the_hub_reads_the_card_of_a_model(models: dict[str, Path]) -> None:
    data = ModelCard((models["classify"] / "README.md").read_text()).data
    assert (data.library_name, data.pipeline_tag) == ("headstart", "image-classification")
    assert data.license is None  # of random weights there is none
    metrics = json.loads((models["classify"] / "metrics.json").read_text())["cross_validation"]
    results = {result.metric_type: result for result in data.eval_results}
    assert results["accuracy"].metric_value == metrics["accuracy"]["value"]
    assert len(results) == 4
    for result in results.values():
        assert (result.task_type, result.dataset_type) == ("image-classification", "imagefolder")
        assert result.dataset_name
        assert 0 <= result.metric_value <= 1
    again = ModelCard(f"---\n{data.to_yaml()}\n---\n").data
    assert again.to_dict() == data.to_dict()


@pytest.mark.parametrize("made", [tagged, measured, recognised])
def test_the_hub_reads_the_card_of_every_task(made: Callable[[], ReportData]) -> None:
    data = ModelCard(render_card(made())).data
    assert data.eval_results
    assert all(np.isfinite(result.metric_value) for result in data.eval_results)
    assert ModelCard(f"---\n{data.to_yaml()}\n---\n").data.to_dict() == data.to_dict()


@pytest.mark.parametrize(
    ("licence", "weights", "expected"),
    [
        ("Apache-2.0", "hub timm/resnet18.a1_in1k", {"license": "apache-2.0", "base_model": "timm/resnet18.a1_in1k"}),
        ("unknown", "file mine.pth", {"license": "unknown"}),
        ("dinov3-license", "package x", {"license": "other", "license_name": "dinov3-license"}),
    ],
)
def test_licence_and_origin_in_the_words_of_the_hub(licence: str, weights: str, expected: dict[str, str]) -> None:
    data = sample()
    assert data.network is not None
    network = replace(data.network, licence=licence, weights=weights, chain=())
    card = render_card(replace(data, network=network))
    found = ModelCard(card).data.to_dict()
    assert {key: found[key] for key in ("license", "license_name", "base_model") if found.get(key)} == expected
    assert ("not known**" in card) == (licence == "unknown")


def test_the_licence_of_a_weights_file_is_not_that_of_its_architecture(models: dict[str, Path], tmp_path: Path) -> None:
    tensors = timm.create_model("test_efficientnet").state_dict()
    save_file({name: t.contiguous() for name, t in tensors.items()}, tmp_path / "mine.safetensors")
    mine = open_backbone("test_efficientnet", str(tmp_path / "mine.safetensors"))
    assert (mine.licence, mine.weights_source) == ("unknown", "file mine.safetensors")
    assert open_backbone("test_efficientnet", "none").licence != "unknown"
    config = timm_config(mine, 2, ("a", "b"))
    assert config["pretrained_cfg"]["license"] == "unknown"
    of_ours = open_backbone(str(models["classify"])).licence
    assert of_ours == read_bundle(models["classify"]).manifest["backbone"]["licence"]


PAGE = (ROOT / "docs" / "interoperability.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("which", ["the network's top, two classes", "several layers, three classes"])
def test_the_head_alone_gives_the_probabilities_of_predict(
    which: str, models: dict[str, Path], model: Path, shaded: Path, run: Run, tmp_path: Path, monkeypatch: Any
) -> None:
    """As the page has it, in NumPy and in scikit-learn."""
    folder = models["classify"] if which.startswith("the network's") else model
    shutil.copytree(folder, tmp_path / "model")
    shutil.copytree(shaded, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    code = next(block for block in PYTHON if "LogisticRegression" in block)
    assert len(code.split("head = LogisticRegression")[0].splitlines()) <= 27
    found = run(*next(line for line in PAGE.splitlines() if line.startswith("$ headstart features")).split()[2:])
    assert found.code == 0, found.err
    known: dict[str, Any] = {}
    exec(compile(code, "interoperability.md", "exec"), known)
    said = json.loads(run("predict", "model", "photos", "--json", "--top", 9).out)
    assert [Path(r["path"]).name for r in said] == [Path(p).name for p in known["table"]["path"].to_pylist()]
    names = known["about"]["classes"]
    assert len(names) == (2 if which.endswith("two classes") else 3)
    ours = np.array([[scores_of(record, "classify")[name] for name in names] for record in said])
    assert np.ptp(ours[:, 0]) > 0.1
    assert np.abs(known["probabilities"] - ours).max() <= 1e-5
    assert np.abs(known["head"].predict_proba(known["features"]) - ours).max() <= 1e-5


def test_the_blocks_for_timm_and_transformers_run(
    models: dict[str, Path], shaded: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    shutil.copytree(models["classify"], tmp_path / "model")
    shutil.copy(shaded / "moss" / "0.png", tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    for block in PYTHON:
        if "import pipeline" in block or "import timm" in block:
            exec(compile(block, "interoperability.md", "exec"), {})
    assert "['moss', 'sea']" in capsys.readouterr().out


def test_features_as_a_model_sees_them_take_no_other_network(models: dict[str, Path], shaded: Path, run: Run) -> None:
    found = run("features", shaded, "--model", models["tag"], "--size", 64, "-o", "f.parquet")
    assert (found.code, "leave --size out" in found.err) == (2, True)
