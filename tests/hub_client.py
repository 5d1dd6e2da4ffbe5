"""The hub's client in a process of its own: it reads its settings when it is imported."""

from __future__ import annotations

import os
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

PRELOADED = ["torch", "torchvision"]  # slow, and without the client


def serve(asked: Connection, environment: dict[str, str]) -> None:
    """Answer calls, (name of a function below, arguments); an answer is a value, or {"refused": why}."""
    os.environ.clear()
    os.environ.update(environment)
    from headstart.errors import HeadstartError

    known = {f.__name__: f for f in (opened, downloaded, fetched, cached)}
    with suppress(EOFError):  # there is no one left who asks
        while True:
            name, *arguments = asked.recv()
            try:
                asked.send(known[name](*arguments))
            except HeadstartError as error:
                asked.send({"refused": str(error)})


def opened(name: str) -> dict[str, str]:
    from headstart.trunk.backbone import open_backbone

    backbone = open_backbone(name)
    return {key: getattr(backbone, key) for key in ("name", "weights_hash", "weights_source")}


def downloaded(name: str) -> dict[str, Any]:
    from headstart.story.backbones import download

    said: list[str] = []
    return download(name, said.append) | {"said": said}


def fetched(repository: str) -> str:
    from headstart.trunk import hub

    return str(hub.fetch(hub.remote(repository)))


def cached(repository: str) -> str:
    from headstart.trunk import hub

    return str(hub.cached(repository))
