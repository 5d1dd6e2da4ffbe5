"""What is released: the wheel and what it holds, one version everywhere, the citation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

import headstart
from conftest import TINY

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_one_version_stands_everywhere() -> None:
    """In the package, pyproject.toml, the citation and at the top of the changes, whose day is that of the citation."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    newest = re.findall(r"^## \[([^]]+)\] - (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)[
        0
    ]
    assert newest == (headstart.__version__, str(cited["date-released"]))
    assert str(cited["version"]) == PROJECT["version"] == headstart.__version__


def test_the_citation_has_what_the_format_asks_for() -> None:
    """The keys that version 1.2.0 of the Citation File Format requires, and none that it does not know."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    needed = {"cff-version", "message", "title", "authors"}
    known = needed | {"abstract", "date-released", "keywords", "license", "type", "version"}
    assert needed <= cited.keys() <= known
    assert cited["cff-version"] == "1.2.0"
    assert cited["type"] == "software"
    assert cited["license"] == PROJECT["license"]
    assert cited["authors"] == [{"name": "The headstart developers"}]
    assert all(isinstance(word, str) for word in cited["keywords"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from this checkout, by the backend that pyproject.toml names."""
    pytest.importorskip("hatchling", reason="needs hatchling to build a wheel")
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    [found] = folder.glob("*.whl")
    assert found.name == f"headstart-{headstart.__version__}-py3-none-any.whl"
    return found


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every file of the package, also those that are no Python; no tests; the licence; no file twice."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        about = f"headstart-{headstart.__version__}.dist-info"
        metadata = Parser().parsestr(archive.read(f"{about}/METADATA").decode())
        entry = archive.read(f"{about}/entry_points.txt").decode()
    package = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "headstart").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(names) == len({*names})
    assert {name for name in names if not name.startswith(about)} == package
    for kind in (".csv", ".jinja", ".css", ".js", ".html", ".txt", "py.typed"):
        assert any(name.endswith(kind) for name in package), kind
    assert {name.rpartition("/")[2] for name in names if name.startswith(about)} == {
        "METADATA",
        "WHEEL",
        "RECORD",
        "LICENSE",
        "entry_points.txt",
    }
    assert (metadata["Name"], metadata["Version"]) == ("headstart", headstart.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    plain = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert len(plain) == len(PROJECT["dependencies"])
    assert {*(metadata.get_all("Provides-Extra") or [])} == {*PROJECT["optional-dependencies"]}
    assert "headstart = headstart.cli.main:main" in entry


def test_the_wheel_works_from_an_empty_folder(wheel: Path, parted: Path, tmp_path: Path) -> None:
    """Installed without this checkout in reach, it fits, writes its report, and answers."""
    place = tmp_path / "installed"
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-compile"]
    quiet = ["--disable-pip-version-check", "--target", str(place), str(wheel)]
    subprocess.run([*words, *quiet], check=True, capture_output=True)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PYTHONPATH": str(place)}

    image = str(parted / "test" / "moss" / "6.png")

    def said(*arguments: str) -> str:
        done = subprocess.run(arguments, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert said(sys.executable, "-m", "headstart", "--version") == f"headstart {headstart.__version__}\n"
    said(sys.executable, "-m", "headstart", "fit", str(parted), "-o", "model", *TINY)
    assert "<html" in (tmp_path / "model" / "report.html").read_text(encoding="utf-8")
    assert said(sys.executable, "-m", "headstart", "predict", "model", image).startswith(f"{image}: moss ")
    where = said(sys.executable, "-c", "import headstart; print(headstart.__file__)").strip()
    assert Path(where).is_relative_to(place)
