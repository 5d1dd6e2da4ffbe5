"""The site is built once, without a network and without a warning; its links and anchors lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest

import headstart

ROOT = Path(__file__).resolve().parents[1]
TAG = re.compile(r"<(\w+)\s([^>]*)>")
ATTRIBUTE = re.compile(r"""([\w-]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
LOADS = {"img": "src", "script": "src", "link": "href", "source": "src", "iframe": "src"}  # without a click


class Page(NamedTuple):
    """ids: what an address may end in; links: what is followed by a click; loads: what the page asks for by itself."""

    ids: set[str]
    links: list[str]
    loads: list[str]


def read_page(html: str) -> Page:
    ids, links, loads = set[str](), list[str](), list[str]()
    for tag, inside in TAG.findall(html):
        found = {name: unescape(double or single) for name, double, single in ATTRIBUTE.findall(inside)}
        ids |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            links.append(found["href"])
        if tag in LOADS and LOADS[tag] in found:
            loads.append(found[LOADS[tag]])
    return Page(ids, links, loads)


def broken(site: Path) -> list[str]:
    """Each link inside the site that leads nowhere, with the page that has it, and each address outside that a page
    loads without being asked."""
    files = [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]  # pieces of the theme
    pages = {path.resolve(): read_page(path.read_text(encoding="utf-8")) for path in files}
    wrong = []
    for path, page in pages.items():
        where = path.relative_to(site.resolve())
        for link in page.links + page.loads:
            parts = urlsplit(link)
            if parts.scheme == "data" or (parts.scheme and link not in page.loads):
                continue
            if parts.scheme or parts.netloc:
                wrong.append(f"{where} loads {link}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = target.is_file() and (
                not parts.fragment or target not in pages or _has(pages[target], parts.fragment)
            )
            if not there:
                wrong.append(f"{where}: {link}")
    return wrong


def _has(page: Page, fragment: str) -> bool:
    return unquote(fragment) in page.ids


def missing_names(page: Page) -> list[str]:
    """The public names, and methods of their classes with a docstring, that have no place on the page of Python."""
    wanted = []
    for name in sorted({*headstart.__all__} - {"__version__"}):
        kind = getattr(headstart, name)
        wanted.append(f"headstart.{name}")
        own = vars(kind).items() if isinstance(kind, type) else ()
        for method, value in own:
            shown = callable(value) or isinstance(value, classmethod)
            if shown and not method.startswith(("_", "set_")) and getattr(kind, method).__doc__:
                wanted.append(f"headstart.{name}.{method}")
    return [name for name in wanted if name not in page.ids]


def missing_numbers(site: Path) -> list[str]:
    """The cells of the tables in benchmarks/results that do not stand on the page of that result."""
    missing = []
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.md")):
        html = (site / "benchmarks" / "results" / f"{file.stem}.html").read_text(encoding="utf-8")
        told = re.sub(r"\W+", " ", unescape(re.sub(r"<[^>]*>", " ", html.partition("<article")[2])))
        for row in re.findall(r"^\| (.*) \|$", file.read_text(encoding="utf-8"), re.MULTILINE):
            for cell in re.split(r"(?<!\\) \| ", row):
                plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", cell)
                if re.sub(r"\W+", " ", plain).strip() not in told:
                    missing.append(f"{file.name}: {cell}")
    return missing


def test_the_site_is_built_without_a_warning_and_is_whole(tmp_path: Path) -> None:
    """As `make docs` builds it. One test, since a build takes most of the time of this file."""
    pytest.importorskip("sphinx", reason="needs the extra docs")
    pytest.importorskip("myst_parser", reason="needs the extra docs")
    site = tmp_path / "site"
    words = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-W", "--keep-going", "-d", str(tmp_path / "read")]
    env = os.environ | {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}  # nobody listens
    done = subprocess.run(
        [*words, "-c", "docs", ".", str(site)], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert broken(site) == []
    css = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", css)
    assert missing_names(read_page((site / "docs" / "python.html").read_text(encoding="utf-8"))) == []
    assert missing_numbers(site) == []


def test_a_broken_link_and_a_missing_name_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top">a</h1><a href="b.html#here">b</a><a href="#top">a</a><a href="https://example.org">elsewhere</a>'
        '<a href="b.html#nowhere">c</a><a href="gone.html">d</a><img src="gone.png"><script src="//cdn.example/x.js">'
    )
    (tmp_path / "b.html").write_text("<p id='here'>b</p>")
    wrong = ["a.html: b.html#nowhere", "a.html: gone.html", "a.html: gone.png", "a.html loads //cdn.example/x.js"]
    assert broken(tmp_path) == wrong
    assert "headstart.TransferClassifier.predict_set" in missing_names(Page({"headstart.TransferClassifier"}, [], []))
