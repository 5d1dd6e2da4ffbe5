"""A server of its own in a thread of the tests, and requests to it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from headstart.serve import running as serving
from headstart.serve.bounds import Bounds
from headstart.serve.counts import Counts
from headstart.serve.gate import Gate
from headstart.serve.models import Models
from headstart.serve.page import read_pages
from headstart.serve.running import bound, run, url_of
from headstart.serve.served import Served
from headstart.serve.state import State

JPEG = {"Content-Type": "image/jpeg"}
BYTES = {"Content-Type": "application/octet-stream"}


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def error(self) -> str:
        """The one line of a refusal."""
        found = self.json
        assert list(found) == ["error"], found
        assert "\n" not in found["error"]
        return str(found["error"])


@dataclass(frozen=True)
class Server:
    url: str
    state: State
    told: list[tuple[str, bool, str]]  # of models that were replaced

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 0)

    def ask(
        self, path: str, body: bytes | None = None, headers: dict[str, str] | None = None, method: str = ""
    ) -> Reply:
        connection = http.client.HTTPConnection(*self.address, timeout=30)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
            return reply_of(connection.getresponse())
        finally:
            connection.close()

    def raw(self, data: bytes, timeout: float = 10) -> bytes:
        """What comes back for these bytes, until the server closes or is silent for so long."""
        with socket.create_connection(self.address, timeout=timeout) as connection:
            connection.sendall(data)
            return rest_of(connection)


def rest_of(connection: socket.socket) -> bytes:
    found = b""
    try:
        while some := connection.recv(65536):
            found += some
    except (TimeoutError, ConnectionResetError):
        pass
    return found


def reply_of(response: http.client.HTTPResponse) -> Reply:
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def form(files: Sequence[tuple[str, bytes]]) -> tuple[bytes, dict[str, str]]:
    """A form of these files, (body, headers)."""
    edge = "edge-of-a-part"
    parts = []
    for name, content in files:
        head = f'Content-Disposition: form-data; name="image"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
        parts.append(f"--{edge}\r\n{head}".encode() + content + b"\r\n")
    return b"".join(parts) + f"--{edge}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={edge}"}


@contextmanager
def running(loaded: Sequence[Served], bounds: Bounds | None = None, token: bytes | None = None) -> Iterator[Server]:
    """A server of these models, which stay loaded when it ends."""
    told: list[tuple[str, bool, str]] = []
    bounds = bounds or Bounds()
    gate, at = Gate(bounds), bound("127.0.0.1", 0)
    models = Models(loaded, bounds.limits, lambda *what: told.append(what))
    state = State(models, bounds, gate, Counts(gate), read_pages(), token)
    url, begun, stops = url_of(at), threading.Event(), []

    def listening(stop: Any) -> None:
        stops.append(stop)
        begun.set()

    thread = threading.Thread(target=run, args=(state, at, listening))
    thread.start()
    try:
        assert begun.wait(20)
        yield Server(url, state, told)
    finally:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(serving, "LAST_MOMENT", 0.0)  # nobody asks any more
            stops[0]()
            thread.join(30)
        assert not thread.is_alive()
