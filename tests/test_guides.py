"""The guides run from top to bottom as they stand, and on every page of docs/ each command is one that there is.

So that a guide takes seconds: a small network, two folds, no logistic heads. What is drawn and typed is the page's own.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from safetensors.torch import save_file

from conftest import TINY, Run
from headstart import recipe
from headstart.cli import teaching
from headstart.cli.arguments import parser
from headstart.data import demo
from headstart.story import by_group
from headstart.trunk.backbone import open_backbone

DOCS = Path(__file__).resolve().parents[1] / "docs"
GUIDES = ("first_five_minutes", "field_biology", "factory", "clinic", "satellite", "teaching")
NETWORK = {"backbone": "test_efficientnet", "weights": "none", "size": 64, "precision": "f32"}  # what TINY says
SETTINGS = ", ".join(f"{name}={value!r}" for name, value in NETWORK.items())
MORE = ("how_it_works", "upgrading")
# Pages whose Python runs in another test file, which reads the page by its name.
ELSEWHERE = {
    "anomalies": "test_oddities",
    "cluster": "test_feature_folder",
    "detection": "test_placed_estimators",
    "edge": "test_litert",
    "exports": "test_export",
    "interoperability": "test_interoperability",
    "many": "test_batch",
    "recognition": "test_docs",
    "segmentation": "test_masks",
    "serving": "test_docs",
    "tasks": "test_docs",
    "tutorials": "test_examples",
}
FENCE = re.compile(r"^```(\{?[\w-]*\}?)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """What somebody types, without the prompt."""
        prompted = self.language == "console"
        lines = self.text.splitlines()
        return [line.removeprefix("$ ") for line in lines if line.startswith("$ " if prompted else "headstart ")]


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in FENCE.findall((DOCS / f"{page}.md").read_text(encoding="utf-8"))]


PAGES = sorted(path.stem for path in DOCS.glob("*.md"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn ones in a file, for `compare`, which refuses a network that never learned."""
    file = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(open_backbone("test_efficientnet", "none", seed=5).module.state_dict(), file)
    return file


@pytest.fixture
def lighter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same steps with less in them."""
    options_of, write_digits = teaching.options_of, demo.write_digits

    def few_digits(folder: Path) -> int:
        n = write_digits(folder)
        spare = [file for file in folder.glob("*/*.png") if int(file.stem) >= 60]
        for file in spare:
            file.unlink()
        return n - len(spare)

    monkeypatch.setattr(recipe, "heads", lambda images, classes: ("ridge", "lda"))
    monkeypatch.setattr(recipe, "cross_validation", lambda images: (2, 1))
    monkeypatch.setattr(by_group, "MOST", 0)  # each group left out in turn is tested in test_by_group.py
    monkeypatch.setattr(teaching, "options_of", lambda given, **own: replace(options_of(given, **own), **NETWORK))
    monkeypatch.setattr(demo, "write_digits", few_digits)
    return


def run_command(line: str, run: Run, monkeypatch: pytest.MonkeyPatch, weights: Path) -> None:
    program, *words = shlex.split(line)
    if program == "python":  # what lies beside an export
        monkeypatch.setattr(sys, "argv", words)
        runpy.run_path(words[0], run_name="__main__")
        return
    assert program == "headstart", line
    parser().parse_args(words)
    if words[0] == "serve":  # does not end by itself: answered in test_docs.py
        return
    if words[0] == "compare":
        monkeypatch.setitem(NETWORK, "weights", str(weights))
        monkeypatch.setitem(NETWORK, "size", 32)
        words += ["--epochs", "1", "--augment", "none"]
    elif words[0] in ("inspect", "features"):
        words += TINY
    found = run(*words)
    assert found.code == 0, (line, found.err)


@pytest.mark.parametrize("page", GUIDES)
@pytest.mark.usefixtures("lighter")
def test_a_guide_runs_from_top_to_bottom(
    page: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    for block in blocks(page):
        if block.language == "python":
            code = re.sub(r"(Transfer\w+|AnomalyDetector)\(", rf"\1({SETTINGS}, ", block.text)
            exec(compile(code, f"{page}.md", "exec"), known)
        elif block.language == "console":
            assert block.commands
            for line in block.commands:
                run_command(line, run, monkeypatch, weights)
        else:  # what is installed
            assert block.language == "sh"
            assert re.fullmatch(r"(pip install \S+\n)+", block.text), block.text


def test_a_guide_is_short() -> None:
    for page in GUIDES:
        assert len((DOCS / f"{page}.md").read_text(encoding="utf-8").splitlines()) <= 150, page


@pytest.mark.parametrize("page", MORE)
def test_the_lines_of_a_page_about_a_saved_model_run(
    page: str, model: Path, pictures: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is `model`, that of its pictures `pictures`."""
    monkeypatch.chdir(tmp_path)
    for name, place in (("model", model), ("pictures", pictures)):
        Path(name).symlink_to(place)
    known: dict[str, Any] = {}
    for block in blocks(page):
        if block.language == "python":
            exec(compile(block.text, f"{page}.md", "exec"), known)
        for line in block.commands:
            found = run(*shlex.split(line)[1:])
            assert found.code == 0, (line, found.err)


@pytest.mark.usefixtures("lighter")
def test_the_notebook_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cell after cell in one namespace, on fewer digits. It is stored as it was before anybody ran it."""
    text = (DOCS.parent / "examples" / "first_five_minutes.ipynb").read_text(encoding="utf-8")
    book = json.loads(text)
    assert (book["nbformat"], book["metadata"]["kernelspec"]["language"]) == (4, "python")
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    monkeypatch.chdir(tmp_path)
    known: dict[str, Any] = {}
    for cell in book["cells"]:
        code = "".join(cell["source"])
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
            few = code.replace("order[:300], order[300:500]", "order[:60], order[300:330]")
            exec(compile(few.replace("Classifier(", f"Classifier({SETTINGS}, "), "notebook", "exec"), known)
    assert len(known["teach"]) == 60
    assert "known: False" in capsys.readouterr().out  # of noise
    assert (tmp_path / "digits-model" / "report.html").is_file()


@pytest.mark.parametrize("page", [page for page in PAGES if page != "commands"])
def test_every_command_on_a_page_is_one_that_there_is(page: str) -> None:
    """Its options too."""
    for block in blocks(page):
        for line in block.commands if block.language not in ("text", "python") else ():
            if line.startswith("headstart "):
                parser().parse_args(shlex.split(line.partition("      ")[0])[1:])


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_every_page_is_run_somewhere(page: str) -> None:
    """Here, or by the test file that is named above, which must read the page."""
    if page in (*GUIDES, *MORE, "python") or not any(block.language == "python" for block in blocks(page)):
        assert page not in ELSEWHERE
        return
    text = (Path(__file__).parent / f"{ELSEWHERE[page]}.py").read_text(encoding="utf-8")
    assert f"{page}.md" in text or f'"{page}"' in text


def test_the_python_of_the_page_on_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks("python"):
        if block.language == "python":
            exec(compile(block.text, "python.md", "exec"), {})
    assert "TransferClassifier" in capsys.readouterr().out
