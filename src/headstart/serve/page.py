"""The page of GET / and the files that it is made of, with the headers that let a browser run just these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PAGES = Path(__file__).parent / "pages"
STYLE = Path(__file__).parents[1] / "report" / "style.css"  # colours and type of every page; report itself is slow
ANYWHERE = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}  # with every answer
NOTHING = "default-src 'none'; frame-ancestors 'none'"  # of answers that are no page
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
SCRIPTS = ("page.js", "answers.js", "cells.js", "found.js", "overlay.js", "sending.js", "table.js", "taken.js")
FILES: Mapping[str, Path] = {
    "/": PAGES / "index.html",
    "/style.css": STYLE,
    **{f"/{name}": PAGES / name for name in ("page.css", "icon.svg", *SCRIPTS)},
}


@dataclass(frozen=True)
class Page:
    """One file, and its headers."""

    content: bytes
    headers: Mapping[str, str]


def read_pages() -> dict[str, Page]:
    """path -> file. The page runs these scripts and no other, and sends nothing anywhere else."""
    return {path: _read(file) for path, file in FILES.items()}


def _read(file: Path) -> Page:
    headers = {"content-type": f"{MEDIA[file.suffix]}; charset=utf-8", "cache-control": "no-cache"}
    if file.suffix == ".html":
        headers |= {"content-security-policy": POLICY, "permissions-policy": "camera=(self)"}
    return Page(file.read_bytes(), headers)
