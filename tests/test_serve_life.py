"""A server is stopped and its models are replaced while it is asked: nothing that it took in is lost."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from asking import BYTES, Reply, reply_of
from conftest import Process, Run, Start
from headstart.files import swap
from headstart.files.bundle import read_bundle, write_bundle

CLIENTS = 4
NAMES, OTHERS = ["moss", "sand", "sea"], ["lichen", "loess", "lagoon"]


class Client:
    """Asks the same again and again on one connection, and opens another where it is told to."""

    def __init__(self, url: str, content: bytes) -> None:
        self.replies: list[Reply] = []
        self.lost: list[BaseException] = []  # of requests that were sent and not answered
        self.ended = threading.Event()
        self._url, self._content = urlsplit(url), content
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self.ended.is_set():
            if connection is None:
                connection = http.client.HTTPConnection(str(self._url.hostname), self._url.port, timeout=30)
                try:
                    connection.connect()
                except OSError:
                    return  # nobody there any more
            try:
                connection.request("POST", "/predict", self._content, BYTES)
                reply = reply_of(connection.getresponse())
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(error)
                connection = None
                continue
            self.replies.append(reply)
            time.sleep(0.005)  # one of the processors is the server's
            if reply.headers.get("connection") == "close":
                connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def end(self) -> None:
        self.ended.set()
        self._thread.join(30)


@contextmanager
def clients(url: str, content: bytes) -> Iterator[list[Client]]:
    found = [Client(url, content) for _ in range(CLIENTS)]
    try:
        yield found
    finally:
        for one in found:
            one.end()


@contextmanager
def command(start: Start, place: Path, *words: object) -> Iterator[tuple[Process, dict[str, Any]]]:
    """`headstart serve` in a process of its own, and what it says when it listens."""
    out = place / "out.json"
    process = start(out, place / "err.txt", "serve", *words, "--port", "0", "--json")
    try:
        wait_for(lambda: out.exists() and out.read_text().rstrip().endswith("}"))
        yield process, json.loads(out.read_text())
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.number, signal.SIGKILL)


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture(scope="module")
def other(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, with other names for what it knows."""
    place, bundle = tmp_path_factory.mktemp("other") / "model", read_bundle(model)
    tensors = {file: bundle.tensors(file) for file in bundle.checksums if file.endswith(".safetensors")}
    manifest = bundle.manifest | {"classes": OTHERS}
    write_bundle(
        place, manifest=manifest, config=bundle.config, metrics=bundle.metrics, run=bundle.run, tensors=tensors
    )
    return place


def photograph(pictures: Path) -> bytes:
    return (pictures / "sea" / "0.png").read_bytes()


def test_a_server_that_is_stopped_answers_what_it_took_in(
    start: Start, model: Path, pictures: Path, tmp_path: Path
) -> None:
    with command(start, tmp_path, model) as (process, said):
        assert said["models"] == ["model"]
        with clients(said["url"], photograph(pictures)) as asking:
            wait_for(lambda: all(len(one.replies) > 3 for one in asking))
            os.kill(process.number, signal.SIGTERM)
            assert process.code() == 0
    assert [one.lost for one in asking] == [[]] * CLIENTS
    assert {reply.status for one in asking for reply in one.replies} == {200}
    assert any(reply.headers.get("connection") == "close" for one in asking for reply in one.replies)
    assert (tmp_path / "err.txt").read_text() == ""


def test_a_model_that_takes_the_place_of_another_answers_without_an_error(
    start: Start, model: Path, other: Path, pictures: Path, tmp_path: Path
) -> None:
    """The folder is replaced whole; then by one that is damaged, which is not taken, and by a good one again."""
    place = tmp_path / "served"
    shutil.copytree(model, place)

    def put(new: Path, spoil: bool = False) -> None:
        def fill(folder: Path) -> None:
            shutil.copytree(new, folder, dirs_exist_ok=True)
            if spoil:
                (folder / "headstart.json").write_text("{}")

        swap.replace(place, fill, approve=lambda at: None)

    def label(one: Client) -> set[str]:
        return {best["label"] for best in one.replies[-1].json[0]["top"]}

    def classes(url: str) -> Any:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
        connection.request("GET", "/models")
        [found] = reply_of(connection.getresponse()).json
        connection.close()
        return found["classes"], found["refused"]

    with command(start, tmp_path, place) as (process, said), clients(said["url"], photograph(pictures)) as asking:
        wait_for(lambda: all(one.replies for one in asking))
        assert classes(said["url"]) == (NAMES, None)
        put(other)
        wait_for(lambda: all(label(one) == set(OTHERS) for one in asking))
        put(model, spoil=True)
        wait_for(lambda: classes(said["url"])[1])
        assert classes(said["url"])[0] == OTHERS
        assert "is not taken, the one before answers on" in classes(said["url"])[1]
        put(model)
        wait_for(lambda: all(label(one) == set(NAMES) for one in asking))
        assert classes(said["url"]) == (NAMES, None)
        for one in asking:
            one.end()
        os.kill(process.number, signal.SIGTERM)
        assert process.code() == 0
    assert [one.lost for one in asking] == [[]] * CLIENTS
    assert Counter(reply.status for one in asking for reply in one.replies).keys() == {200}
    told = (tmp_path / "err.txt").read_text().splitlines()
    assert [("took the place of" in line, "is not taken" in line) for line in told] == [
        (True, False),
        (False, True),
        (True, False),
    ]


def test_where_nobody_listens_for_a_model_the_command_says_why(run: Run, tmp_path: Path, model: Path) -> None:
    ran = run("serve", tmp_path / "nothing", "--port", "0")
    assert (ran.code, len(ran.err.splitlines())) == (1, 1)
    assert "there is no model at" in ran.err
    ran = run("serve", model, shutil.copytree(model, tmp_path / "model"), "--port", "0")
    assert ran.code == 2
    assert "two models are named model" in ran.err
