"""The documents are run: README's Python, its commands, and the help texts in docs/commands.md.

`python tests/test_docs.py` writes docs/commands.md anew.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.arguments import parser

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


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="argparse writes options in another way since Python 3.13")
def test_the_help_texts_in_the_docs_are_those_of_the_commands() -> None:
    assert (ROOT / "docs" / "commands.md").read_text() == help_page(), "run: python tests/test_docs.py"


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
        # about 12 and --help; fit has groups of its own for heads of the user's layers and for fine-tuning
        assert len(command._actions) <= (25 if name == "fit" else 15), name


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


if __name__ == "__main__":
    (ROOT / "docs" / "commands.md").write_text(help_page())
