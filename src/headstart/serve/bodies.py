"""The images of a request: its body as it is, or the files of a form. Sizes and the client's pace are watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import unquote

from starlette.requests import ClientDisconnect, Request

from headstart.serve.bounds import Bounds
from headstart.serve.forms import Form
from headstart.serve.gate import Gate
from headstart.serve.refusals import TOO_SLOW, Refusal

FORM = "multipart/form-data"
RAW = ("application/octet-stream", "application/dicom")
NAME_HEADER = "x-filename"
LONGEST_NAME = 1024  # characters
HOW = "send one image as image/jpeg, image/png ... or application/octet-stream, or several as multipart/form-data"
DRAINED = 8 * 2**20  # bytes of a refused body that are read and dropped, so that the client sees the answer
DRAIN_SECONDS = 2.0


@dataclass(frozen=True)
class Sent:
    """An image as it was sent, with its file's name as given."""

    name: str
    content: bytes


def kind_of(request: Request) -> str:
    """The media type of a body that is taken. Raises Refusal."""
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Refusal(415, "a packed body (Content-Encoding) is not taken: send the image files as they are")
    if kind != FORM and kind not in RAW and not kind.startswith("image/"):
        raise Refusal(415, f"Content-Type {given[:100] or 'is missing'}: {HOW}")
    return kind


@asynccontextmanager
async def received(request: Request, bounds: Bounds, gate: Gate) -> AsyncIterator[list[Sent]]:
    """The images of a request, while their bytes are counted as held. Raises Refusal."""
    kind = kind_of(request)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > bounds.body:
        raise _too_long(bounds)
    held = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal held
        async for chunk in _paced(request, bounds):
            if held + len(chunk) > bounds.body:
                raise _too_long(bounds)
            gate.hold(len(chunk))
            held += len(chunk)
            yield chunk

    try:
        yield await (_files(request, chunks(), bounds) if kind == FORM else _alone(request, chunks()))
    finally:
        gate.drop(held)


async def _paced(request: Request, bounds: Bounds) -> AsyncIterator[bytes]:
    """The chunks of a body. Raises Refusal where they come too slowly."""
    begun, received = asyncio.get_running_loop().time(), 0
    chunks = request.stream()
    while True:
        try:
            async with asyncio.timeout_at(begun + bounds.patience + received / bounds.pace):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise Refusal(
                TOO_SLOW,
                f"the body came too slowly ({received:,} bytes): at least {bounds.pace:,.0f} bytes a second are needed",
                {"connection": "close"},
            ) from None
        received += len(chunk)
        if chunk:
            yield chunk


def _too_long(bounds: Bounds) -> Refusal:
    return Refusal(
        413, f"the body has more than {bounds.body:,} bytes (--max-mb): send fewer images at once, or smaller ones"
    )


async def _alone(request: Request, chunks: AsyncIterator[bytes]) -> list[Sent]:
    content = b"".join([chunk async for chunk in chunks])
    if not content:
        raise Refusal(422, f"the body is empty: {HOW}")
    return [Sent(unquote(request.headers.get(NAME_HEADER, ""))[:LONGEST_NAME], content)]


async def _files(request: Request, chunks: AsyncIterator[bytes], bounds: Bounds) -> list[Sent]:
    form = Form(request.headers["content-type"], bounds.images)
    async for chunk in chunks:
        form.take(chunk)
    return [Sent(name[:LONGEST_NAME], content) for name, content in form.files()]


async def drain(request: Request) -> None:
    """Read and drop what a refused client still sends, within bounds; one that waits to be asked is not asked."""
    if request.headers.get("expect", "").lower() == "100-continue":
        return
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > DRAINED:
        return
    left = DRAINED
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            async for chunk in request.stream():
                left -= len(chunk)
                if left < 0:
                    return
    except (TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: the stream was read before
        return
