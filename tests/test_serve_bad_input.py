"""Whatever is sent, the answer is a clear refusal, never a failure of the server, which then answers on."""

from __future__ import annotations

import contextlib
import io
import re
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asking import BYTES, JPEG, Server, form, rest_of, running
from headstart.data.images import write_png
from headstart.serve import running as serving
from headstart.serve.bounds import Bounds
from headstart.serve.served import Served, load

MANY = 12  # files of each folder of odd ones; the benchmark sends them all


@pytest.fixture(scope="module")
def served(model: Path) -> Iterator[Served]:
    found = load(model, "model", Bounds().limits)
    yield found
    found.close()


@pytest.fixture(scope="module")
def server(served: Served) -> Iterator[Server]:
    """It answers as before when all of these tests are done, and it never failed."""
    with running([served], Bounds(images=8, queue=16, body=2**20)) as found:
        yield found
        assert found.ask("/predict", GOOD, BYTES).status == 200
        told = found.ask("/metrics").content.decode()
        assert not re.findall(r'headstart_requests_total\{.*status="5', told)
        assert "headstart_queue_images 0.0" in told
        assert "headstart_body_bytes 0.0" in told


def encoded(kind: str, width: int = 30, height: int = 20) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


GOOD = encoded("JPEG")


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it is so large and holds a few lines."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    lines = zlib.compress(bytes(3 * width + 1) * 3)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def test_odd_files_are_answered_or_refused_as_predict_does(server: Server, shared: Path, served: Served) -> None:
    from headstart.data.table import list_images
    from headstart.ship.predict import predict

    files: list[Path] = []
    for folder in sorted((shared / "data" / "messy").iterdir()):
        some = sorted(path for path in folder.iterdir() if path.is_file() and path.stat().st_size < 300_000)
        files += some[:: max(1, len(some) // MANY)]
    expected = predict(served.model, list_images(files))
    reasons = [str(error) for error in expected.errors]
    assert sum(map(bool, reasons)) > 5
    assert not all(reasons)
    with ThreadPoolExecutor(4) as clients:
        replies = list(clients.map(lambda file: server.ask("/predict", file.read_bytes(), BYTES), files))
    for file, reply, reason in zip(files, replies, reasons, strict=True):
        assert reply.status == (422 if reason else 200), file
        if reason:
            assert reply.error == reason or file.stat().st_size == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the body is empty"),
        (b"no picture", "not a picture"),
        (GOOD[:200], ""),
        (png_of(10_000, 10_000), "10000 x 10000 px, more than the limit of 80,000,000 pixels"),
        (png_of(60_000, 60_000), "pixels"),  # said by headstart, or by Pillow before
        (encoded("PNG")[:60], ""),
    ],
    ids=["empty", "text", "cut", "hundred megapixels", "bomb", "cut png"],
)
def test_what_is_no_picture_is_refused_with_its_reason(server: Server, content: bytes, said: str) -> None:
    reply = server.ask("/predict", content, BYTES)
    assert reply.status == 422
    assert said in reply.error


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "text/html"},
        {"Content-Type": "application/json"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/mixed; boundary=x"},
        {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"},
    ],
)
def test_another_type_of_body_is_refused_and_the_right_ones_are_named(server: Server, headers: dict[str, str]) -> None:
    reply = server.ask("/predict", GOOD, headers)
    assert reply.status == 415
    assert "send" in reply.error


def test_damaged_forms_are_refused(server: Server) -> None:
    body, headers = form([("a.jpg", GOOD), ("b.jpg", GOOD)])
    edge = {"Content-Type": "multipart/form-data; boundary=edge-of-a-part"}
    field = b'--edge-of-a-part\r\nContent-Disposition: form-data; name="url"\r\n\r\nhttp://127.0.0.1/\r\n'
    unnamed = b"--edge-of-a-part\r\nContent-Disposition: form-data\r\n\r\nx\r\n--edge-of-a-part--\r\n"
    wrong = {
        "cut short": (body[:-40], headers),
        "no boundary": (body, {"Content-Type": "multipart/form-data"}),
        "another boundary": (body, {"Content-Type": "multipart/form-data; boundary=other"}),
        "empty": (b"", headers),
        "no file": (field + b"--edge-of-a-part--\r\n", edge),
        "without a name": (unnamed, edge),
        "no form": (GOOD, headers),
    }
    for what, (content, given) in wrong.items():
        reply = server.ask("/predict", content, given)
        assert reply.status == 422, what
        assert "form" in reply.error, what


def test_too_many_bytes_or_images_are_refused(server: Server) -> None:
    for sent in (bytes(2**20 + 1), iter([bytes(2**20), b"x"])):  # with its length, and in chunks without
        reply = server.ask("/predict", sent, BYTES)
        assert reply.status == 413
        assert "1,048,576 bytes" in reply.error
    body, headers = form([(f"{k}.jpg", GOOD) for k in range(9)])
    reply = server.ask("/predict", body, headers)
    assert reply.status == 413
    assert "more than 8 files" in reply.error
    body, headers = form([(f"{k}.jpg", GOOD) for k in range(8)])
    assert server.ask("/predict", body, headers).status == 200
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 99999999999\r\n"
    found = server.raw(head + b"Expect: 100-continue\r\nConnection: close\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 413")  # and never 100: the client need not send it


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/predict?top=0", 422),
        ("/predict?top=1e9", 422),
        ("/predict?top=%D9%A3", 422),
        ("/predict?model=", 404),
        ("/predict?model=../model", 404),
        ("/predict?model=%2Fetc%2Fpasswd", 404),
        ("/predict?model=modle", 404),
        ("/predict/", 404),
        ("//predict", 404),
        ("/%00", 404),
    ],
)
def test_parameters_and_paths_are_names_and_nothing_else(server: Server, path: str, status: int) -> None:
    reply = server.ask(path, GOOD, BYTES)
    assert reply.status == status
    if "modle" in path:
        assert "did you mean model?" in reply.error


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/..%2f..%2fetc/passwd", "/pages/index.html", "/models/../", "/*"]
)
def test_no_path_leads_to_a_file(server: Server, path: str) -> None:
    found = server.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert found.startswith(b"HTTP/1.1 404")
    assert b"root:" not in found


def test_other_methods_are_refused(server: Server) -> None:
    for method, path in (("PUT", "/predict"), ("DELETE", "/models"), ("GET", "/predict"), ("BREW", "/health")):
        reply = server.ask(path, b"", BYTES, method=method)
        assert reply.status == 405
        assert reply.headers["allow"]


@pytest.mark.parametrize(
    "head",
    [
        b"\x00\xff\xfe\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",  # no Host
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"GET /health HTTP/1.1\r\nHost: x\r\nname : value\r\n\r\n",
    ],
    ids=["binary", "no host", "negative length", "two lengths", "space"],
)
def test_what_is_not_http_is_refused(server: Server, head: bytes) -> None:
    assert server.raw(head, timeout=3).split(b" ", 2)[1] in (b"400", b"431")


def test_headers_of_a_proxy_change_nothing(server: Server) -> None:
    tricks = {"X-Forwarded-Host": "evil", "X-Forwarded-Proto": "gopher", "X-Original-URL": "/metrics", "Host": "evil"}
    tricks |= {
        "X-HTTP-Method-Override": "DELETE",
        "Range": "bytes=0-1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
    }
    assert server.ask("/health", headers=tricks).json == {"status": "alive"}


def test_a_name_is_a_name_whatever_it_says(server: Server) -> None:
    for name in ("../../etc/passwd", "a\\b.jpg", "<script>.png", "x" * 2000):
        body, headers = form([(name, GOOD)])
        [record] = server.ask("/predict", body, headers).json
        assert record["path"] == name[:1024]
        assert record["error"] is None


def test_slow_clients_are_sent_away_and_hold_nobody_up(served: Served) -> None:
    """Some say nothing, some half a head, some half a body, some a byte at a time."""
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n"
    with running([served], Bounds(images=2, queue=2, patience=0.4)) as one, contextlib.ExitStack() as held:
        slow = [held.enter_context(socket.create_connection(one.address, timeout=10)) for _ in range(16)]
        for k, connection in enumerate(slow):
            connection.sendall((b"", head, head + b"\r\n", head + b"\r\n" + GOOD[:100])[k % 4])
        assert one.ask("/predict", GOOD, BYTES).status == 200
        for _ in range(3):
            time.sleep(0.1)
            with contextlib.suppress(OSError):
                slow[3].sendall(b"x")
        ends = [rest_of(connection) for connection in slow]
        assert [end[:12] for end in ends] == [(b"", b"", b"HTTP/1.1 408", b"HTTP/1.1 408")[k % 4] for k in range(16)]
        assert b"at least 16,000 bytes a second" in ends[2]
        with socket.create_connection(one.address, timeout=10) as again:  # a second head that never ends
            again.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert again.recv(65536).startswith(b"HTTP/1.1 200")
            again.sendall(b"GET /he")
            assert b"HTTP" not in rest_of(again)
        assert one.ask("/predict", GOOD, BYTES).status == 200


def test_an_idle_connection_is_kept_longer_than_proxies_keep_theirs(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 s is what they do; it ends when the server says, and not before."""
    assert serving.IDLE > 60
    for idle, ends in ((serving.IDLE, False), (0.2, True)):
        monkeypatch.setattr(serving, "IDLE", idle)
        with running([served]) as one, socket.create_connection(one.address, timeout=1) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            said = b""
            while not said.endswith(b"}"):  # head and body may come apart
                said += connection.recv(65536)
            assert said.startswith(b"HTTP/1.1 200")
            try:
                assert connection.recv(65536) == b""
                assert ends
            except TimeoutError:
                assert not ends


def test_more_than_the_queue_holds_is_told_to_come_again_and_all_else_is_answered(
    served: Served, tmp_path: Path
) -> None:
    write_png(np.random.default_rng(0).integers(0, 255, (500, 500, 3), dtype=np.uint8), tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    with running([served], Bounds(images=2, queue=2)) as one, ThreadPoolExecutor(16) as clients:
        replies = list(clients.map(lambda _: one.ask("/predict", content, BYTES), range(40)))
        assert one.state.gate.images == one.state.gate.bytes == 0
    assert {reply.status for reply in replies} == {200, 429}
    answered = [reply.json for reply in replies if reply.status == 200]
    assert len(answered) >= 2
    assert all(found == answered[0] for found in answered)
    for reply in replies:
        if reply.status == 429:
            assert 1 <= int(reply.headers["retry-after"]) <= 60
            assert "come again" in reply.error


def test_an_answer_that_takes_too_long_is_given_up(served: Served) -> None:
    with running([served], Bounds(seconds=1e-4)) as one:
        reply = one.ask("/predict", GOOD, BYTES)
    assert reply.status == 503
    assert "--timeout" in reply.error
    assert reply.headers["retry-after"]


def test_a_client_that_goes_away_leaves_nothing_behind(server: Server) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"
    for sent in (head + GOOD[:50], head[:-2], head.replace(b"100000", str(len(GOOD)).encode()) + GOOD):
        with socket.create_connection(server.address) as connection:
            connection.sendall(sent)
    assert server.ask("/predict", GOOD, JPEG).status == 200


@pytest.mark.parametrize("locked", [False, True])
def test_schemathesis_finds_nothing_that_the_document_does_not_say(served: Served, locked: bool) -> None:
    """Requests that the OpenAPI document allows, and some that it does not, each held against what it says."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from schemathesis import GenerationMode
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    unsaid = [positive_data_acceptance]  # which bytes are a picture no schema can say
    with running([served], Bounds(images=4, queue=8, body=2**16), token=b"secret" if locked else None) as one:
        headers = {"Authorization": "Bearer secret"} if locked else {}
        schema = schemathesis.openapi.from_dict(one.ask("/openapi.json", headers=headers).json)
        for found in schema.get_all_operations():
            operation = found.ok()
            for mode in GenerationMode if operation.path == "/predict" else [GenerationMode.POSITIVE]:

                @settings(
                    max_examples=6,
                    deadline=None,
                    database=None,
                    derandomize=True,
                    phases=[Phase.explicit, Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @given(case=operation.as_strategy(generation_mode=mode))
                def asks(case: schemathesis.Case) -> None:
                    case.call_and_validate(base_url=one.url, headers=headers, excluded_checks=unsaid)

                asks()
