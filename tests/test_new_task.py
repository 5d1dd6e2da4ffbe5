"""A new task in one file: what CONTRIBUTING.md shows is run as it stands there, from the table to a saved model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.data.table import table_of
from headstart.files.bundle import read_bundle
from headstart.ship.package import unpack
from headstart.ship.predict import predict, records
from headstart.story import pipeline, publish
from headstart.story.options import Options

TINY = Options(backbone="test_efficientnet", weights="none", size=64, precision="f32")


@pytest.fixture(scope="module")
def code() -> str:
    text = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text[text.index("## A new task in one file") :]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def task(code: str) -> Any:
    known: dict[str, Any] = {}
    exec(compile(code, "<the new task>", "exec"), known)
    return known["GRADES"]


@pytest.fixture(scope="module")
def graded() -> tuple[Any, Any]:
    """Fifty pictures (image, 40, 40, 3) whose brightness is their grade, 1 to 5."""
    rng = np.random.default_rng(3)
    grades = rng.permutation(np.arange(50) % 5 + 1)
    return (rng.integers(0, 60, (50, 40, 40, 3)) + 35 * grades[:, None, None, None]).astype(np.uint8), grades


def test_it_is_short(code: str) -> None:
    assert len(code.splitlines()) < 60


def test_it_fits_judges_saves_and_predicts(task: Any, graded: tuple[Any, Any], tmp_path: Path) -> None:
    X, grades = graded
    fitted = pipeline.fit(table_of(X, grades, task="regress"), TINY, task=task)
    score = fitted.verdict.score
    assert list(score.estimates) == ["within_one", "distance"]
    assert score.value("within_one") > 0.9
    constant = next(b for b in fitted.baselines if b.kind == "constant")
    assert constant.scores["within_one"]["value"] == pytest.approx(0.6)  # grades 2 to 4 are at most one off 3
    assert fitted.curve[-1]["accuracy"]["value"] > 0.9
    metrics = publish.save(fitted, tmp_path / "model", "grades", "a test")
    assert metrics["cross_validation"]["within_one"] == score["within_one"]
    assert "middle_grade" in metrics["baselines"]
    assert "a within one of " in (tmp_path / "model" / "report.html").read_text(encoding="utf-8")
    loaded = unpack(read_bundle(tmp_path / "model"), task=task)
    found = predict(loaded, table_of(X))
    assert np.abs(found.answers[:, 0] - grades).mean() < 0.5
    assert records(loaded, found, 3)[0] == {"path": "image 0", "grade": int(found.answers[0, 0]), "error": None}
    again, _ = pipeline.evaluate(loaded, table_of(X, grades, task="regress"))
    assert again.value("within_one") >= score.value("within_one")
