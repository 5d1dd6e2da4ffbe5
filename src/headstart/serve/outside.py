"""Around every endpoint: the token, headers that every answer has, counting, and the end of a server that stops."""

from __future__ import annotations

import hashlib
import hmac
import json

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headstart.serve.bodies import drain
from headstart.serve.page import ANYWHERE, FILES, NOTHING
from headstart.serve.state import State

OPEN = (*FILES, "/health", "/ready")  # without a token: what they say is known to whoever can reach the port
PATHS = (*FILES, "/predict", "/heat", "/models", "/health", "/ready", "/metrics", "/openapi.json")


class Outside:
    """The ASGI application that a server runs."""

    def __init__(self, inside: ASGIApp, state: State) -> None:
        self._inside, self._state = inside, state
        self._token = None if state.token is None else _digest(state.token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"] if scope["path"] in PATHS else "other"

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._state.counts.requests.labels(path, str(message["status"])).inc()
                message["headers"] = self._headers(message["headers"])
            await send(message)

        if self._allows(scope):
            await self._inside(scope, receive, sending)
        else:
            await drain(Request(scope, receive))
            await _unknown(sending)

    def _headers(self, given: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        names = {name for name, _ in given}
        more = ANYWHERE | {"content-security-policy": NOTHING, "cache-control": "no-store"}
        if self._state.stopping:
            more["connection"] = "close"
        added = [(name.encode(), value.encode()) for name, value in more.items() if name.encode() not in names]
        return [*given, *added]

    def _allows(self, scope: Scope) -> bool:
        """Whether the request brings the token, where one is needed; compared in constant time."""
        if self._token is None or scope["path"] in OPEN:
            return True
        kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        given = _digest(token.strip().encode("latin-1"))
        return hmac.compare_digest(given, self._token) and kind.lower() == "bearer"


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


async def _unknown(send: Send) -> None:
    content = json.dumps({"error": "a token is needed here: send the header Authorization: Bearer TOKEN"}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"www-authenticate", b"Bearer"),
    ]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": content})
