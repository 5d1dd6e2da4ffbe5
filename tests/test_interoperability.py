"""A saved model in other people's programs: transformers, scikit-learn and NumPy, the hub's own reading of the card."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from conftest import TINY, Run, picture
from headstart.cli.main import main
from headstart.data.images import write_png

ROOT = Path(__file__).resolve().parents[1]
SHADES = 24  # pictures


@pytest.fixture(scope="module")
def shaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with a class, labels and a value each, in three lists."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(4)
    lists: dict[str, list[list[object]]] = {"classify": [["path", "label"]], "tag": [["path", "labels"]]}
    lists["regress"] = [["path", "brightness"]]
    for k in range(SHADES):
        write_png(picture(k % 3 if k % 5 else (k + 1) % 3, rng), folder / f"{k}.png")
        lists["classify"].append([f"{k}.png", ("moss", "sand", "sea")[k % 3]])
        lists["tag"].append([f"{k}.png", ("green", "dry|warm", "wet")[k % 3]])
        lists["regress"].append([f"{k}.png", k % 3 + 0.25 * (k % 4)])
    for task, rows in lists.items():
        with (folder / f"{task}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def models(shaded: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each task whose head is the network's top."""
    folder = tmp_path_factory.mktemp("saved")
    for task in ("classify", "tag", "regress"):
        words = ["fit", str(shaded / f"{task}.csv"), "-o", str(folder / task), "--task", task, "--taps", "last"]
        main([*words, *TINY])
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

    files = [str(shaded / f"{k}.png") for k in range(SHADES)]
    made = pipeline("image-classification", model=str(models[task]))
    theirs = [{one["label"]: one["score"] for one in found} for found in made(files, top_k=99)]
    ours = [scores_of(r, task) for r in json.loads(run("predict", models[task], *files, "--json", "--top", 9).out)]
    assert [set(one) for one in theirs] == [set(one) for one in ours]
    values = np.array([[[one[name] for name in ours[0]] for one in all_] for all_ in (ours, theirs)])
    assert np.ptp(values[0], axis=0).min() > 0.01
    assert np.abs(values[0] - values[1]).max() <= 1e-3 * max(1.0, np.abs(values).max())  # features were float16
    if task == "classify":
        assert (values[0].argmax(axis=1) == values[1].argmax(axis=1)).all()


def test_the_hub_reads_the_card(models: dict[str, Path]) -> None:
    for task, folder in models.items():
        text = (folder / "README.md").read_text()
        card = ModelCard(text)
        data = card.data
        assert data.library_name == "headstart"
        assert data.pipeline_tag == {"regress": None}.get(task, "image-classification")
        assert data.license is None  # of random weights there is none
        metrics = json.loads((folder / "metrics.json").read_text())["cross_validation"]
        results = {result.metric_type: result.metric_value for result in data.eval_results}
        assert len(results) >= 3
        for kind, key in {
            "accuracy": "accuracy",
            "r_squared": "r2",
            "mean_average_precision": "mean_average_precision",
        }.items():
            if kind in results and task != "tag":
                assert results[kind] == metrics[key]["value"]
        assert all(result.task_type and result.dataset_type and result.dataset_name for result in data.eval_results)
        again = ModelCard(f"---\n{data.to_yaml()}\n---\n").data
        assert again.to_dict() == data.to_dict()
        assert set(data.to_dict()["model-index"][0]) == {"name", "results"}
