"""The hub through its real client, in processes of their own, against a server on this machine that answers like it.

The server redirects files to another host, as the hub does to its storage, where Range requests are answered. It
notes every request. What is in a repository's name says how it misbehaves.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import timm
import torch
from safetensors.torch import save as tensor_bytes

import hub_client
from served import served

NETWORK = "test_resnet.r160_in1k"  # 0.5 million parameters
REPOSITORY = f"timm/{NETWORK}"
LICENSED = "convnextv2_atto.fcmae_ft_in1k"  # not for commercial use
Ask = Callable[..., Any]  # the name of a function of hub_client, and its arguments


class Request(NamedTuple):
    verb: str
    path: str
    start: int  # of the bytes asked for
    authorised: str | None


class Hub(ThreadingHTTPServer):
    """A hub of a few repositories with one weights file each."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = files
        self.requests: list[Request] = []
        self.released = threading.Event()  # a slow answer waits for the end of the tests

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def seen(self, what: str = "") -> list[Request]:
        return [request for request in self.requests if what in request.path]


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.respond()

    def do_GET(self) -> None:
        self.respond()

    def log_message(self, *what: object) -> None:
        pass

    def respond(self) -> None:
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").split("-")[0])
        path = urlsplit(self.path).path  # a proxy is given the host as well
        self.server.requests.append(Request(self.command, self.path, start, self.headers["Authorization"]))
        if path.startswith("/storage/"):
            return self.storage(path.removeprefix("/storage/"), start)
        repository, _, filename = path.strip("/").partition("/resolve/main/")
        content = self.server.files.get(repository)
        if "slow" in repository:
            self.server.released.wait(20)
        if "401" in repository:
            return self.refuse(401, "")
        if "gated" in repository:
            return self.refuse(403, "GatedRepo")
        if "503" in repository:
            return self.refuse(503, "")
        if content is None:
            return self.refuse(404, "RepoNotFound")
        if filename != "model.safetensors":
            return self.refuse(404, "EntryNotFound")
        self.send_response(302)
        storage = "storage.test" if self.headers["Host"] == "hub.test" else f"localhost:{self.server.server_port}"
        self.send_header("Location", f"http://{storage}/storage/{repository}")
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

    def storage(self, repository: str, start: int) -> None:
        content = self.server.files[repository]
        if "corrupt" in repository:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"of the storage"')
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        broken = "broken" in repository and not start
        if self.command == "GET":
            self.wfile.write(content[start : start + 15_000_000] if broken else content[start:])

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        state: dict[str, torch.Tensor] = timm.create_model(NETWORK.split(".")[0]).state_dict()
    return state


@pytest.fixture(scope="module")
def server(tensors: dict[str, torch.Tensor]) -> Iterator[Hub]:
    content = tensor_bytes(tensors)
    large = random.Random(0).randbytes(22_000_000)  # the client writes in blocks of 10 MB
    files = {"me/broken": large, "me/corrupt": content, "me/corrupt-again": content, "me/proxied": content}
    hub = Hub(files | {REPOSITORY: content, f"timm/{LICENSED}": large[:3_000_000]})
    with served(hub):
        yield hub
        hub.released.set()


@contextmanager
def client(home: Path, **settings: str) -> Iterator[Ask]:
    """A process with the client, as long as the context lasts."""
    left = (
        "HF_",
        "HUGGING",
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "no_proxy",
        "NO_PROXY",
        "ALL_PR",
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(left)}
    environment |= {"HF_HOME": str(home), "HEADSTART_CACHE": str(home / "own")} | settings
    processes = get_context("forkserver")
    processes.set_forkserver_preload(hub_client.PRELOADED)
    mine, theirs = processes.Pipe()
    process = processes.Process(target=hub_client.serve, args=(theirs, environment))
    process.start()
    theirs.close()  # so that the end of the process ends the waiting for its answer

    def ask(*call: str) -> Any:
        mine.send(call)
        return mine.recv()

    try:
        yield ask
    finally:
        mine.close()
        process.join()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def online(server: Hub, home: Path) -> Iterator[Ask]:
    with client(home, HF_ENDPOINT=server.url, HF_HUB_ETAG_TIMEOUT="1", HF_TOKEN="hf_mine") as ask:
        yield ask


def refused(ask: Ask, repository: str) -> str:
    answer = ask("fetched", repository)
    assert set(answer) == {"refused"}
    text: str = answer["refused"]
    assert "\n" not in text
    assert len(text) < 900
    assert repository in text
    return text


def cached_files(home: Path, repository: str) -> list[Path]:
    return [p for p in home.rglob(f"models--{repository.replace('/', '--')}/**/*") if p.is_file() or p.is_symlink()]


def test_a_network_is_fetched_checked_and_opened_and_a_second_time_no_server_is_asked(
    server: Hub, online: Ask, home: Path, tensors: dict[str, torch.Tensor]
) -> None:
    from headstart.trunk.weights import fingerprint

    answer = online("opened", "Test_ResNet")
    assert answer["weights_hash"] == fingerprint({k: v for k, v in tensors.items() if not k.startswith("fc.")})
    asked = server.seen(NETWORK)
    assert {r.verb for r in asked} == {"HEAD", "GET"}
    for request in asked:  # the token is the hub's alone
        assert request.authorised == (None if "/storage/" in request.path else "Bearer hf_mine")
    assert home.joinpath("hub", f"models--timm--{NETWORK}").is_dir()
    assert online("opened", "test_resnet") == answer
    assert online("downloaded", NETWORK)["fetched"] is False
    assert server.seen(NETWORK) == asked


def test_a_download_says_size_and_licence_before(server: Hub, online: Ask) -> None:
    answer = online("downloaded", LICENSED)
    assert answer["fetched"] is True
    assert Path(answer["path"]).read_bytes() == server.files[f"timm/{LICENSED}"]
    size, licence = answer["said"]
    assert "3.0 MB" in size
    assert "forbids commercial use" in licence


def test_a_download_that_breaks_goes_on_where_it_broke(server: Hub, online: Ask) -> None:
    path = Path(online("fetched", "me/broken"))
    assert path.read_bytes() == server.files["me/broken"]
    starts = [r.start for r in server.seen("/storage/me/broken") if r.verb == "GET"]
    assert len(starts) == 2
    assert starts[0] == 0
    assert 0 < starts[1] <= 15_000_000


def test_a_changed_file_of_the_same_length_is_refused_and_deleted(server: Hub, online: Ask, home: Path) -> None:
    for repository in ("me/corrupt", "me/corrupt-again"):
        text = refused(online, repository)
        assert hashlib.sha256(server.files[repository]).hexdigest()[:16] in text
        assert "deleted" in text
        assert not [p for p in cached_files(home, repository) if p.stat().st_size > 1000]
        assert online("cached", repository) == "None"


@pytest.mark.parametrize(
    ("repository", "reason"),
    [
        ("me/401", "HF_TOKEN"),
        ("me/gated", "accept the terms at"),
        ("me/absent", "HTTP 404"),
        ("me/503", "HTTP 503"),
        ("me/slow", "did not answer in time"),
    ],
)
def test_each_refusal_is_one_line_with_its_reason_and_what_helps(online: Ask, repository: str, reason: str) -> None:
    text = refused(online, repository)
    assert reason in text
    assert "weights at hand: efficientnet_lite0" in text
    assert "--import-weights" in text
    assert "--weights FILE" in text


def test_offline_what_is_here_is_used_and_the_rest_is_one_line(
    server: Hub, online: Ask, home: Path, tensors: dict[str, torch.Tensor]
) -> None:
    expected = online("opened", NETWORK)
    before = list(server.requests)
    with client(home, HF_ENDPOINT=server.url, HF_HUB_OFFLINE="1") as ask:
        assert ask("opened", NETWORK) == expected
        text = refused(ask, "timm/vgg16.tv_in1k")
    assert "HF_HUB_OFFLINE" in text
    assert NETWORK in text
    assert server.requests == before


def test_a_proxy_is_used_and_a_hub_out_of_reach_is_said(server: Hub, tmp_path: Path) -> None:
    with client(tmp_path, HF_ENDPOINT="http://hub.test", HTTP_PROXY=server.url, NO_PROXY="127.0.0.1,localhost") as ask:
        path = Path(ask("fetched", "me/proxied"))
    assert path.read_bytes() == server.files["me/proxied"]
    assert server.seen("http://hub.test/me/proxied/")
    assert server.seen("http://storage.test/storage/me/proxied")
    with client(tmp_path, HF_ENDPOINT="http://127.0.0.1:9") as ask:
        text = refused(ask, "me/any")
    assert "cannot be reached" in text
    assert "ConnectError" in text
