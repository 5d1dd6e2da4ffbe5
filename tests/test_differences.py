"""Every difference on the page of a real fit is the subtraction of two numbers beside it, of the same images."""

from __future__ import annotations

import csv
import json
import re
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from conftest import Run, picture
from headstart.data.images import write_png
from headstart.report import numbers
from headstart.trunk.backbone import open_backbone
from test_report import Page

BESIDE = re.compile(r"n the same ([\d,]+) images?: ([\d.]+) %; difference ([+\u2212]?[\d.]+) points")
VERDICT = re.compile(
    r"([\d.]+) %[^%:]*, with random weights ([\d.]+) %: ([+\u2212]?[\d.]+) points.* same ([\d,]+) image"
)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """A network that passes for a pre-trained one: random weights from a file."""
    folder = tmp_path_factory.mktemp("weights")
    save_file(open_backbone("test_efficientnet", "none", seed=5).module.state_dict(), folder / "w.safetensors")
    named = ["--backbone", "test_efficientnet", "--weights", folder / "w.safetensors", "--size", "32"]
    return [*named, "--precision", "f32", "--cache", folder]


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures of sand and four of sea in each of train and test, with a picture of the one in the other."""
    folder, rng = tmp_path_factory.mktemp("rare") / "rare", np.random.default_rng(7)
    for part in ("train", "test"):
        for colour, name, count in ((1, "sand", 40), (2, "sea", 4)):
            (folder / part / name).mkdir(parents=True)
            for number in range(count):
                write_png(picture(colour, rng), folder / part / name / f"{number}.png")
    shutil.copy(folder / "train/sand/0.png", folder / "test/sand/again.png")
    return folder


def number(text: str) -> Decimal:
    return Decimal(text.replace(numbers.MINUS, "-").replace(",", ""))


def check(folder: Path) -> dict[str, Any]:
    """The page and the record of a saved model agree with themselves; returns the record's baselines."""
    read = Page((folder / "report.html").read_text())
    (first, *rows) = read.table("results")
    headline = re.search(r"([\d.]+) %.*n = ([\d,]+)\)", first[1])
    assert headline
    for name, text, _ in rows:
        own, beside = re.search(r"^([\d.]+) %.*?n = ([\d,]+)\)", text), BESIDE.search(text)
        assert own, text
        assert beside, text
        assert number(beside[2]) - number(own[1]) == number(beside[3]), text
        assert beside[1] == own[2], text
        if "random weights" not in name:
            assert (beside[2], beside[1]) == (headline[1], headline[2]), text
    said = VERDICT.search(read.text)
    assert said, read.text[:2000]
    assert number(said[1]) - number(said[2]) == number(said[3])
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    score = found["test"] or found["cross_validation"]
    for kind, line in found["baselines"].items():
        rival, measure = line["compared_with"], line["measure"]
        gap = rival[measure]["value"] - line[measure]["value"]
        assert line["difference"]["difference"]["value"] == pytest.approx(gap, abs=1e-9), kind
        assert line["n"] == rival["n"] == line["difference"]["n"]
        if rival["what"] == "this model":
            assert rival[measure] == score[measure], kind
    return dict(found["baselines"])


@pytest.mark.parametrize("fit", ["crossed", "frozen", "tuned", "head"])
def test_the_differences_of_every_kind_of_fit(
    run: Run, pictures: Path, parted: Path, network: list[object], tmp_path: Path, fit: str
) -> None:
    ways: dict[str, tuple[Path, list[str]]] = {
        "crossed": (pictures, []),
        "frozen": (parted, []),
        "tuned": (parted, ["--tune", "last", "--epochs", "1", "--augment", "none"]),
        "head": (parted, ["--head", "gap, dense", "--epochs", "1"]),
    }
    data, options = ways[fit]
    assert run("fit", data, "-o", tmp_path / "model", *network, *options).code == 0
    kinds = {"tuned": {"frozen"}, "head": {"closed_form"}}.get(fit, set())
    assert set(check(tmp_path / "model")) == {"most_frequent", "raw_pixels", "random_weights", *kinds}


def test_with_a_rare_class_the_balanced_accuracy_compares(
    run: Run, rare: Path, network: list[object], tmp_path: Path
) -> None:
    """And copies across the parts are listed with what they are."""
    said = run("fit", rare, "-o", tmp_path / "model", *network)
    assert said.code == 0
    lines = check(tmp_path / "model")
    assert {line["measure"] for line in lines.values()} == {"balanced_accuracy"}
    assert lines["most_frequent"]["balanced_accuracy"]["value"] == 0.5
    assert re.search(r"^balanced +[\d.]+%.*\n.*each class counts the same.*\naccuracy +[\d.]+%", said.out, re.MULTILINE)
    assert "balanced accuracy" in (tmp_path / "model/README.md").read_text()
    assert "1 is an exact copy of another" in said.out
    assert "stored before" not in said.out
    with (tmp_path / "model/duplicates.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    exact = [(row["set"], row["path"], row["split"], row["label"]) for row in listed if row["kind"] == "exact"]
    assert sorted(exact) == [("1", "test/sand/again.png", "test", "sand"), ("1", "train/sand/0.png", "train", "sand")]
