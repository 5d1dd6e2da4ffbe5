"""The documents are run: README's Python, its commands, and the help texts in docs/commands.md.

`python tests/test_docs.py` writes docs/commands.md anew.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import TINY, Run, picture
from headstart.cli.arguments import parser

ROOT = Path(__file__).resolve().parents[1]


def commands() -> dict[str, argparse.ArgumentParser]:
    action = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def help_page() -> str:
    """docs/commands.md: the help of every command, 100 columns wide."""
    parts = ["# Commands\n"]
    for name, command in commands().items():
        command.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=100)
        parts.append(f"## headstart {name}\n\n```text\n{command.format_help()}```\n")
    return "\n".join(parts)


def blocks(language: str, page: str = "README.md") -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="argparse writes options in another way since Python 3.13")
def test_the_help_texts_in_the_docs_are_those_of_the_commands() -> None:
    assert (ROOT / "docs" / "commands.md").read_text() == help_page(), "run: python tests/test_docs.py"


def shape(line: str) -> str:
    """A line without its numbers, which another machine or network changes."""
    return re.sub(r" +", " ", re.sub(r"\d[\d,.]*", "#", line)).strip()


def test_the_sample_of_the_readme_is_what_a_fit_prints(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same folders, classes and commands: the same lines with the same words; only numbers may differ.

    `python tests/test_docs.py FILE` puts what a fit of the real ants and bees printed there.
    """
    from headstart.data.images import write_png

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(5)
    for part, n in (("train", 8), ("val", 20)):
        for colour, name in enumerate(("ants", "bees")):
            Path("hymenoptera", part, name).mkdir(parents=True)
            for k in range(n):
                write_png(picture(colour, rng), Path("hymenoptera", part, name, f"{k}.png"))
    command, *sample = blocks("console")[0].splitlines()
    assert command.startswith("$ headstart ")
    found = run(*command.split()[2:], *TINY)
    assert found.code == 0, found.err
    printed = [shape(line) for line in (found.err + found.out).splitlines()]
    remarks = (
        "weakest class",
        "labels",
        "duplicates",
        "set aside",
        "note",
        "random weights",
    )  # where there is a reason
    fixed = [shape(line) for line in sample if not line.startswith(remarks)]
    assert fixed == [line for line in printed if not line.startswith(remarks)]


def test_readme_names_every_command_and_no_other() -> None:
    named = set(
        re.findall(
            r"headstart ([a-z]+)", " ".join(re.findall(r"`(headstart [^`]*)`", (ROOT / "README.md").read_text()))
        )
    )
    assert named == set(commands())


def test_every_command_has_a_sentence_and_few_options() -> None:
    for name, command in commands().items():
        assert command.description, name
        # about 12 and --help; fit has groups for the data, heads and how sure they are, fine-tuning, the view; --ray is
        # of every command that sees many images, and new labels of features that are there
        assert len(command._actions) <= (46 if name == "fit" else 20), name


def test_the_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from headstart.data.images import write_png

    rng = np.random.default_rng(0)
    for part, count in (("photos", 12), ("test", 4)):
        for k, name in enumerate(("dark", "light")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                picture = rng.integers(0, 100, (24, 24, 3)) + 120 * k
                write_png(picture.astype(np.uint8), tmp_path / part / name / f"{i}.png")
    for k, name in enumerate("ab"):
        write_png(np.full((24, 24, 3), 40 + 150 * k, np.uint8), tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {})
    assert "['dark' 'light']" in capsys.readouterr().out
    assert (tmp_path / "model" / "report.html").exists()


def test_the_commands_of_the_page_on_recognition_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command ends well, and a fit prints the lines that the page explains."""
    from headstart.data.images import write_png

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    places = [(f"faces/s{k}", 4, k) for k in range(6)] + [("new", 2, 6), ("later/s0", 2, 0), ("later/s40", 2, 6)]
    for place, n, who in places:
        Path(place).mkdir(parents=True)
        for number in range(n):
            write_png(picture(who % 3, rng, 30 + 10 * (who // 3)), Path(place, f"{number}.png"))
    for name, who in (("visitor", 6), ("again", 6), ("known", 0)):
        write_png(picture(who % 3, rng), Path(f"{name}.png"))
    page = "".join(re.findall(r"```console\n(.*?)```", (ROOT / "docs" / "recognition.md").read_text(), re.DOTALL))
    for block in re.split(r"^\$ headstart ", page, flags=re.MULTILINE)[1:]:
        command, *told = block.splitlines()
        found = run(*command.split(), *(TINY if command.startswith("fit") else ()))
        assert found.code == 0, found.err
        if command.startswith("fit"):
            named = {line[:15] for line in told[2:] if not line.startswith("random weights")}
            assert named <= {line[:15] for line in found.out.splitlines()}
    shutil.copy("faces/s0/0.png", "a.png")
    shutil.copy("faces/s1/0.png", "b.png")
    shutil.rmtree("people")
    [code] = blocks("python", "docs/recognition.md")
    small = code.replace("Recogniser()", "Recogniser('test_efficientnet', 'none', size=64, precision='f32')")
    assert small != code
    exec(compile(small, "recognition.md", "exec"), {})
    assert Path("people", "gallery.safetensors").exists()


def test_the_python_of_the_page_on_tasks_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from headstart.data.images import write_png

    rng = np.random.default_rng(0)
    known: dict[str, Any] = {"paths": [], "labels": [], "values": []}
    for k in range(24):
        has = [k % 2, 0, k // 2 % 2]
        pixels = rng.integers(0, 90 + k, (24, 24, 3)) + 130 * np.array(has)
        known["paths"].append("ab"[k] + ".png" if k < 2 else f"{k}.png")
        known["labels"].append({name for name, here in zip(("red", "", "blue"), has, strict=True) if here})
        known["values"].append(float(pixels.mean()))
        write_png(pixels.astype(np.uint8), tmp_path / known["paths"][-1])
    monkeypatch.chdir(tmp_path)
    small = "('test_efficientnet', 'none', size=64, precision='f32')"  # the README's has run with the default network
    for block in blocks("python", "docs/tasks.md"):
        code = re.sub(r"(?<=Tagger)\(\)|(?<=Regressor)\(\)", small, block)
        assert code != block
        exec(compile(code, "tasks.md", "exec"), known)
    said = capsys.readouterr().out
    assert said.startswith("['blue' 'red']")
    assert "['value'] {'value': " in said


def commands_and_links_hold(page: str, least: int) -> None:
    """A page of docs: so many of its commands are such, and what it points to is there."""
    lines = re.findall(r"^headstart .*$", page, re.MULTILINE)
    assert len(lines) >= least
    for line in lines:
        parser().parse_args(shlex.split(line)[1:])
    for link in re.findall(r"\]\(([^)#]+)\)", page):
        assert (ROOT / "docs" / link).exists(), link


def test_the_commands_of_the_page_on_tasks_are_such() -> None:
    page = (ROOT / "docs" / "tasks.md").read_text()
    commands_and_links_hold(page, 6)


def test_the_requests_of_the_page_on_serving_are_answered(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines for curl, the Python, and the commands' words."""
    from asking import running
    from headstart.serve.bounds import Bounds
    from headstart.serve.served import load

    page = (ROOT / "docs" / "serving.md").read_text()
    commands_and_links_hold(page, 2)
    for name, file in (("ant", "moss/0.png"), ("bee", "sea/0.png")):
        shutil.copy(pictures / file, tmp_path / f"{name}.jpg")
    monkeypatch.chdir(tmp_path)
    served = load(model, "insects-model", Bounds().limits)
    try:
        with running([served]) as server:
            requests = "".join(blocks("sh", "docs/serving.md")).replace("http://127.0.0.1:8000", server.url)
            for line in requests.splitlines() if shutil.which("curl") else ():
                asked = ["curl", "-sSf", *shlex.split(line)[1:]]
                done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60)
                [first, *_] = json.loads(done.stdout)
                assert {"path", "error"} <= first.keys() or first["name"] == "insects-model"
            [block, _] = blocks("python", "docs/serving.md")  # the second, of masks: in test_serve_places.py
            exec(compile(block.replace("http://127.0.0.1:8000", server.url), "serving.md", "exec"), {})
    finally:
        served.close()
    assert "moss" in capsys.readouterr().out


def write_sample(printed: str) -> None:
    """Put what `headstart fit hymenoptera -o model` printed into the README."""
    readme = ROOT / "README.md"
    block = f"```console\n$ headstart fit hymenoptera -o model\n{printed.strip()}\n```"
    text, old = readme.read_text(), blocks("console")[0]
    readme.write_text(text.replace(f"```console\n{old}```", block, 1))


if __name__ == "__main__":
    if sys.argv[1:]:  # a file with what it printed
        write_sample(Path(sys.argv[1]).read_text())
    (ROOT / "docs" / "commands.md").write_text(help_page())
