"""The endpoints: requests in, what `predict` says out."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from headstart.errors import HeadstartError, ImageError
from headstart.serve.bodies import Sent, drain, received
from headstart.serve.counts import CONTENT_TYPE
from headstart.serve.openapi import document
from headstart.serve.outside import Outside
from headstart.serve.refusals import TOO_SLOW, Refusal
from headstart.serve.served import Served
from headstart.serve.state import State
from headstart.tasks.task import Record

TOP = 3  # best classes where nothing is asked, as predict has it
MOST_TOP = 1000
Answer = TypeVar("Answer")


class Json(Response):
    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()


class Endpoints:
    """What each path answers."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._spec = json.dumps(document(state.bounds, state.token is not None)).encode()

    async def predict(self, request: Request) -> Response:
        begun = time.perf_counter()
        found = Json(await _predicted(request, self._state))
        self._state.counts.seconds.observe(time.perf_counter() - begun)
        return found

    async def heat(self, request: Request) -> Response:
        return Response(await _heat(request, self._state), media_type="image/jpeg")

    async def models(self, request: Request) -> Response:
        return Json(self._state.models.described())

    async def health(self, request: Request) -> Response:
        return Json({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        if self._state.stopping:
            return Json({"status": "stopping"}, 503, {"retry-after": "1"})
        return Json({"status": "ready", "models": [one.name for one in self._state.models.at_work]})

    async def metrics(self, request: Request) -> Response:
        self._state.counts.now.models = self._state.models.at_work
        return Response(self._state.counts.text(), headers={"content-type": CONTENT_TYPE})

    async def openapi(self, request: Request) -> Response:
        return Response(self._spec, media_type="application/json")

    async def page(self, request: Request) -> Response:
        page = self._state.pages[request.url.path]
        return Response(page.content, headers=page.headers)


def app_of(state: State) -> Outside:
    """The whole application: routes, and what is the same for all of them around it."""
    at = Endpoints(state)
    asked = dict.fromkeys(state.pages, at.page) | {
        "/models": at.models,
        "/health": at.health,
        "/ready": at.ready,
        "/metrics": at.metrics,
        "/openapi.json": at.openapi,
    }
    inside = Starlette(
        routes=[
            Route("/predict", at.predict, methods=["POST"]),
            Route("/heat", at.heat, methods=["POST"]),
            *(Route(path, endpoint, methods=["GET"]) for path, endpoint in asked.items()),
        ],
        exception_handlers={
            Refusal: _refused,
            HTTPException: _no_such,
            HeadstartError: _failed,
            ClientDisconnect: _gone,
            Exception: _failed,
        },
    )
    inside.router.redirect_slashes = False
    return Outside(inside, state)


async def _predicted(request: Request, state: State) -> list[Record]:
    """The records of the images of a request. Raises Refusal."""
    top, masks = _top(request), _masks(request)
    with state.models.using(request.query_params.get("model")) as served:
        if masks and not served.masks:
            raise Refusal(422, f"{served.name} gives no masks: they are of --task segment; leave masks=1 out")
        if state.gate.full:
            raise state.gate.busy()
        async with received(request, state.bounds, state.gate) as sent:
            with state.gate.inside(len(sent)):
                most = state.bounds.body // len(sent) if masks else 0
                found = await _records(served, sent, top, most, state)
        if all(record["error"] for record in found):
            raise _none_read(found)
        return found


def _top(request: Request) -> int:
    given = request.query_params.get("top", str(TOP))
    if not (given.isascii() and given.isdecimal() and 1 <= int(given[:9]) <= MOST_TOP):
        raise Refusal(
            422, f"top={given[:20]!r}: a whole number from 1 to {MOST_TOP:,} is needed, how many classes to list"
        )
    return int(given[:9])


def _masks(request: Request) -> bool:
    given = request.query_params.get("masks", "0")
    if given not in ("0", "1"):
        raise Refusal(422, f"masks={given[:20]!r}: 1 for the mask of each image in base64, or 0")
    return given == "1"


async def _records(served: Served, sent: Sequence[Sent], top: int, mask: int, state: State) -> list[Record]:
    """What the model says of each image. Raises Refusal where that takes too long or a mask more than `mask` bytes."""
    found = await _finished([served.submit(one.name, one.content, top, mask) for one in sent], state)
    for record in found:
        state.counts.images.labels(served.name, "unreadable" if record["error"] else "answered").inc()
    return found


async def _finished(asked: Sequence[Future[Answer]], state: State) -> list[Answer]:
    """What the threads answer. Raises Refusal where that takes too long."""
    waiting = [asyncio.wrap_future(one) for one in asked]
    for one in waiting:
        one.add_done_callback(lambda _: state.gate.done())
    try:
        async with asyncio.timeout(state.bounds.seconds):
            return list(await asyncio.gather(*waiting))
    except TimeoutError:
        raise Refusal(
            503,
            f"no answer within {state.bounds.seconds:g} s (--timeout): send fewer images at once, or try again",
            {"retry-after": str(state.gate.seconds())},
        ) from None


async def _heat(request: Request, state: State) -> bytes:
    """The picture of a request with its heat. Raises Refusal."""
    with state.models.using(request.query_params.get("model")) as served:
        if not served.draws:
            raise Refusal(422, f"{served.name} does not know where a picture is odd: that is of --task anomaly")
        if state.gate.full:
            raise state.gate.busy()
        async with received(request, state.bounds, state.gate) as sent:
            if len(sent) > 1:
                raise Refusal(422, f"{len(sent)} images: /heat takes one at a time")
            with state.gate.inside(1):
                try:
                    return (await _finished([served.submit_heat(sent[0].content)], state))[0]
                except ImageError as error:
                    raise Refusal(422, str(error)) from None


def _none_read(found: Sequence[Record]) -> Refusal:
    """What is said where no image of a request can be read."""
    first = found[0]
    named = f"{first['path'][:100]}: " if first["path"] else ""
    beside = "" if len(found) == 1 else f"none of {len(found)} images can be read; the first, "
    return Refusal(422, f"{beside}{named}{first['error']}")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    if error.status != TOO_SLOW:
        await drain(request)
    return Json({"error": error.line}, error.status, error.headers)


async def _no_such(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    lines = {404: "there is nothing here: see /openapi.json", 405: f"{request.method[:20]} is not what this path takes"}
    await drain(request)
    return Json({"error": lines.get(error.status_code, error.detail)}, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    line = str(error) if isinstance(error, HeadstartError) else "something failed here, which the terminal tells"
    return Json({"error": line}, 500)


async def _gone(request: Request, error: Exception) -> Response:
    """Nobody reads it; it is counted."""
    return Json({"error": "the client went away"}, 400)
