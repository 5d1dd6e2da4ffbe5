"""The benchmarks take minutes and are not run here; what they import from headstart is there under its name."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = sorted(path for folder in ("benchmarks", "examples") for path in (ROOT / folder).rglob("*.py"))


@cache
def names_of(module: str) -> frozenset[str]:
    """What a module of headstart defines or imports at its top, and the modules inside it; nothing is executed."""
    place = ROOT / "src" / Path(*module.split("."))
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.is_file():
        return frozenset()
    found = {inner.stem for inner in place.iterdir()} if place.is_dir() else set()
    pending: list[ast.stmt] = list(ast.parse(file.read_text(encoding="utf-8")).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        elif isinstance(node, ast.If):  # of types alone
            pending += node.body + node.orelse
    return frozenset(found)


def missing(code: str) -> list[str]:
    """What code imports from headstart that is not there."""
    tree = ast.parse(code)
    asked = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return [
        f"{node.module}.{alias.name}"
        for node in asked
        if str(node.module).partition(".")[0] == "headstart"
        for alias in node.names
        if alias.name not in names_of(str(node.module))
    ]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_a_program_imports_what_is_there(program: Path) -> None:
    assert missing(program.read_text(encoding="utf-8")) == []


def test_what_is_not_there_is_found() -> None:
    code = "def f():\n    from headstart.story.pipeline import learn, unlearn\nfrom headstart.nowhere import x\n"
    assert missing(code) == ["headstart.nowhere.x", "headstart.story.pipeline.unlearn"]
