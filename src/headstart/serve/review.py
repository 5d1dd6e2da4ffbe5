"""The application behind `headstart review`: doubts, their pictures, and decisions that are saved at once.

A request names images by their rows alone, and only rows of the model's lists are shown: no path comes from outside.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from headstart.data import images
from headstart.data.fixes import Decision, Fixes
from headstart.data.preprocess import Preprocess
from headstart.data.table import Table
from headstart.errors import ImageError, OptionError, OutputError
from headstart.serve.page import PAGES, STYLE
from headstart.story.alike import LookAlikes
from headstart.story.doubts import Doubt, listed_as

FILES = {name: PAGES / name for name in ("review.css", "review.js", "icon.svg")} | {"style.css": STYLE}
LARGE, SMALL = 1600, 320  # px, the longer side: a large screen, and a copy beside it
MOST_BODY = 2**14  # bytes of a decision
MOST_DIGITS = 10  # of a row
SECRET = {"cache-control": "no-store"}


@dataclass(frozen=True, eq=False)
class Review:
    """What is walked through. `command()`: what to type next; `end()`: ends the server."""

    model: str
    table: Table
    doubts: Sequence[Doubt]
    classes: tuple[str, ...]
    fixes: Fixes
    preprocess: Preprocess
    alike: LookAlikes
    command: Callable[[], str]
    end: Callable[[], None]

    @cached_property
    def shown(self) -> set[int]:
        """The rows whose pictures may be asked for; look-alikes join them when they are named."""
        return {row for doubt in self.doubts for row in (doubt.row, *doubt.copies)}

    def _state(self) -> dict[str, Any]:
        """What every answer says of how far it has come."""
        return {"done": dict(self.fixes.done()), "command": self.command()}

    def to_json(self) -> dict[str, Any]:
        """All that the page shows but pictures."""
        listed = [self._doubt(number, doubt) for number, doubt in enumerate(self.doubts)]
        head = {"model": self.model, "classes": self.classes, "file": str(self.fixes.file)}
        return {**head, "doubts": listed, **self._state()}

    def _doubt(self, number: int, doubt: Doubt) -> dict[str, Any]:
        made = self.fixes.of(doubt.path)
        return {
            "id": number,
            "picture": doubt.row,
            "path": doubt.path,
            "label": doubt.label,
            "suggested": doubt.suggested,
            "reasons": [{"kind": r.kind, "said": r.said, "suggested": r.suggested} for r in doubt.reasons],
            "copies": [self._shown_as(row) | {"split": str(self.table.splits[row])} for row in doubt.copies],
            "made": made and made._asdict(),
        }

    def _shown_as(self, row: int) -> dict[str, Any]:
        """An image beside a doubt."""
        return {"picture": row, "path": listed_as(self.table, row), "label": str(self.table.labels[row])}

    # Answers to requests

    def doubt(self, number: object) -> Doubt:
        """Raises HTTPException for a number that is none."""
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(self.doubts):
            raise HTTPException(404, "no such image")
        return self.doubts[number]

    def all(self, request: Request) -> Response:
        return JSONResponse(self.to_json(), headers=SECRET)

    def picture(self, request: Request) -> Response:
        """As JPEG, upright, in the range and bands of the model."""
        row = _number(request.path_params["row"])
        if row not in self.shown:
            raise HTTPException(404, "no such picture")
        side = LARGE if "large" in request.query_params else SMALL
        try:
            content = images.preview(self.table.read(row), side, preprocess=self.preprocess)
        except ImageError as error:
            raise HTTPException(422, str(error)) from error
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=600"})

    def near(self, request: Request) -> Response:
        doubt = self.doubt(_number(request.path_params["id"]))
        found = self.alike.of(doubt.row, doubt.copies)
        self.shown.update(one.row for one in found)
        told = [self._shown_as(one.row) | {"label": one.label, "similarity": one.similarity} for one in found]
        return JSONResponse(told, headers=SECRET)

    async def decide(self, request: Request) -> Response:
        said = await _body(request)
        doubt = self.doubt(said.get("id"))
        made = Decision(str(said.get("action", "")), str(said.get("label", "")))
        await run_in_threadpool(self.fixes.decide, doubt.path, made)
        return self._changed(said["id"], made)

    async def undo(self, request: Request) -> Response:
        path = await run_in_threadpool(self.fixes.undo)
        number = next((k for k, doubt in enumerate(self.doubts) if doubt.path == path), None)
        return self._changed(number, self.fixes.of(path) if path else None)

    def ended(self, request: Request) -> Response:
        self.end()
        return JSONResponse(self._state(), headers=SECRET)

    def _changed(self, number: int | None, made: Decision | None) -> Response:
        return JSONResponse({"id": number, "made": made and made._asdict(), **self._state()}, headers=SECRET)


def app_of(review: Review) -> Starlette:
    """The application, below a first part of the path that `Guard` checks."""
    found = Starlette(
        routes=[
            Route("/{token}/", lambda request: FileResponse(PAGES / "review.html", headers=SECRET)),
            *(_file(name, place) for name, place in FILES.items()),
            Route("/{token}/doubts", review.all),
            Route("/{token}/picture/{row}", review.picture),
            Route("/{token}/alike/{id}", review.near),
            Route("/{token}/decide", review.decide, methods=["POST"]),
            Route("/{token}/undo", review.undo, methods=["POST"]),
            Route("/{token}/end", review.ended, methods=["POST"]),
        ],
        exception_handlers={OptionError: _said(422), OutputError: _said(409), HTTPException: _refused},
    )
    found.router.redirect_slashes = False
    return found


def _number(text: str) -> int | None:
    """A row or an id as a path has it; None for anything else. Starlette's own fails over 5,000 digits."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < MOST_DIGITS else None


def _file(name: str, place: Path) -> Route:
    return Route(f"/{{token}}/{name}", lambda request: FileResponse(place, headers={"cache-control": "no-cache"}))


async def _body(request: Request) -> dict[str, Any]:
    """The object that a request brings. Raises HTTPException."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > MOST_BODY:
            raise HTTPException(413, f"more than {MOST_BODY:,} bytes")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HTTPException(400, "a JSON object is needed: id, action, label")
    return found


def _said(status: int) -> Callable[[Request, Exception], Response]:
    return lambda request, error: JSONResponse({"error": str(error)}, status, SECRET)


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, SECRET)
