"""Served answers are those of `predict`, for every task and however an image is sent; and what each path says."""

from __future__ import annotations

import io
import json
import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from asking import BYTES, JPEG, Server, form, running
from conftest import Run, picture
from headstart import TransferRegressor, TransferTagger
from headstart.cli.serving import TOKEN, token_of
from headstart.data.table import list_images
from headstart.errors import OptionError, OutputError
from headstart.serve.bounds import Bounds
from headstart.serve.counts import Counts
from headstart.serve.gate import Gate
from headstart.serve.models import names_of
from headstart.serve.page import FILES
from headstart.serve.refusals import Refusal
from headstart.serve.running import bound
from headstart.serve.served import Served, load
from headstart.ship.predict import predict, records
from headstart.story.options import Options
from headstart.trunk.asked import Direct

SMALL: dict[str, Any] = {"backbone": "test_efficientnet", "weights": "none", "size": 64, "precision": "f32"}
TASKS = ("classify", "tag", "regress", "recognise")


@pytest.fixture(scope="module")
def folders(model: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small saved model of each task."""
    from headstart.data.table import read_table
    from headstart.story import pipeline, publish

    place, rng = tmp_path_factory.mktemp("tasks"), np.random.default_rng(5)
    has = np.array([[k >> c & 1 for c in range(3)] for k in rng.permutation(np.arange(24) % 8)])
    images = (rng.integers(0, 90, (24, 40, 40, 3)) + 150 * has[:, None, None, :]).astype(np.uint8)
    TransferTagger(**SMALL, taps="last").fit(images, has).save(place / "tag")
    TransferRegressor(**SMALL, taps="last").fit(images, images.mean(axis=(1, 2))[:, :2]).save(place / "regress")
    found = pipeline.fit(read_table(pictures, task="recognise"), Options(**SMALL))
    publish.save(found, place / "recognise", "pictures", "headstart fit pictures")
    shutil.copytree(model, place / "classify")
    return {task: place / task for task in TASKS}


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> Iterator[dict[str, Served]]:
    found = {task: load(folder, task, Bounds().limits) for task, folder in folders.items()}
    yield found
    for one in found.values():
        one.close()


@pytest.fixture(scope="module")
def server(loaded: dict[str, Served]) -> Iterator[Server]:
    with running(list(loaded.values())) as found:
        yield found


def encoded(pixels: Any, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A turned photograph, CMYK, greyscale, a palette, alpha, 16 bits, a huge one, and a plain one."""
    place, rng = tmp_path_factory.mktemp("odd"), np.random.default_rng(2)
    pixels, turned = picture(1, rng, 90), Image.Exif()
    turned[0x0112] = 6
    huge = np.repeat(np.repeat(picture(2, rng, 50), 60, axis=0), 80, axis=1)
    files = {
        "turned é.jpg": encoded(pixels[:50], "JPEG", exif=turned),
        "cmyk.jpg": encoded(pixels, "JPEG", "CMYK"),
        "grey.jpg": encoded(pixels, "JPEG", "L"),
        "palette.png": encoded(pixels, "PNG", "P"),
        "alpha.png": encoded(pixels, "PNG", "RGBA"),
        "deep.png": encoded(pixels[..., 0].astype(np.int32) * 200, "PNG", "I;16"),
        "huge.jpg": encoded(huge, "JPEG"),
        "plain.webp": encoded(pixels, "WEBP"),
    }
    for name, content in files.items():
        (place / name).write_bytes(content)
    return [place / name for name in files]


@pytest.mark.parametrize("task", TASKS)
def test_an_answer_is_that_of_predict_to_the_digit(
    task: str, server: Server, loaded: dict[str, Served], odd: list[Path], pictures: Path
) -> None:
    """Alone as raw bytes, many at once as a form, and from many clients at the same time."""
    files = odd + sorted(pictures.glob("*/[0-3].png"))
    model = loaded[task].model
    expected = records(model, predict(model, list_images(files)), 2)
    for record, file in zip(expected, files, strict=True):
        record["path"] = file.name
    asked = f"/predict?model={task}&top=2"
    body, headers = form([(file.name, file.read_bytes()) for file in files])
    at_once = server.ask(asked, body, headers)
    assert (at_once.status, at_once.json) == (200, json.loads(json.dumps(expected)))

    def alone(file: Path) -> Any:
        return server.ask(asked, file.read_bytes(), BYTES | {"X-Filename": quote(file.name)}).json

    with ThreadPoolExecutor(8) as clients:
        assert [record for [record] in clients.map(alone, files)] == at_once.json


def test_who_waits_is_answered_alone_or_in_a_batch_with_the_same_digits_and_who_left_is_not(
    folders: dict[str, Path], odd: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue goes in batches; a picture that cannot be read, and one that nobody waits for, hold nobody up. Where
    the network fails, all who were in the batch learn of it."""
    one, sizes, fails = load(folders["classify"], "classify", Bounds().limits), [], []
    right, holds = Direct.ask, threading.Event()

    def ask(self: Direct, pixels: Any) -> Any:
        holds.wait(20)
        sizes.append(len(pixels))
        if fails:
            raise RuntimeError("the driver is gone")
        return right(self, pixels)

    monkeypatch.setattr(Direct, "ask", ask)
    sent = [(file.name, file.read_bytes()) for file in odd * 6]
    sent[30] = ("broken.jpg", sent[30][1][:40])
    waiting = [one.submit(name, content, 2) for name, content in sent]
    assert waiting[20].cancel()
    holds.set()
    found = [None if future.cancelled() else future.result(20) for future in waiting]
    assert {1, 8} <= set(sizes)  # the first of each thread, and the batch of 64 px
    assert sum(sizes) == len(sent) - 2
    monkeypatch.setattr(Direct, "ask", right)
    alone = {name: one.submit(name, content, 2).result(20) for name, content in sent[:8]}
    for k, (name, _) in enumerate(sent):
        if k not in (20, 30):
            assert found[k] == alone[name]
    assert found[30] is not None
    assert found[30]["error"]
    monkeypatch.setattr(Direct, "ask", ask)
    fails.append(True)
    for future in [one.submit(name, content, 2) for name, content in sent[:20]]:
        with pytest.raises(RuntimeError, match="driver"):
            future.result(20)
    one.close()


def test_the_command_gives_the_same_records(
    server: Server, folders: dict[str, Path], odd: list[Path], run: Run
) -> None:
    ran = run("predict", folders["classify"], *odd, "--json")
    body, headers = form([(file.name, file.read_bytes()) for file in odd])
    expected = [record | {"path": Path(record["path"]).name} for record in json.loads(ran.out)]
    assert server.ask("/predict", body, headers).json == expected


def test_an_image_that_cannot_be_read_is_a_row_among_others_and_a_refusal_alone(
    server: Server, loaded: dict[str, Served], odd: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(odd[0].read_bytes()[:300])
    model = loaded["classify"].model
    [reason] = [r["error"] for r in records(model, predict(model, list_images([broken, odd[0]])), 3) if r["error"]]
    body, headers = form([(odd[0].name, odd[0].read_bytes()), (broken.name, broken.read_bytes())])
    both = server.ask("/predict", body, headers)
    assert both.status == 200
    assert [record["error"] for record in both.json] == [None, reason]
    assert both.json[1]["label"] is None
    alone = server.ask("/predict", broken.read_bytes(), JPEG | {"X-Filename": "broken.jpg"})
    assert (alone.status, alone.error) == (422, f"broken.jpg: {reason}")
    body, headers = form([("a.jpg", b"no"), ("b.jpg", b"no")])
    none = server.ask("/predict", body, headers)
    assert none.status == 422
    assert none.error.startswith("none of 2 images can be read; the first, a.jpg: ")


def test_what_each_path_says(server: Server, loaded: dict[str, Served], odd: list[Path]) -> None:
    models = server.ask("/models").json
    assert [one["name"] for one in models] == list(TASKS)
    for one in models:
        model = loaded[one["name"]].model
        assert one["classes"] == list(model.names)
        assert (one["task"], one["network"]) == (model.task.name, "test_efficientnet")
        score = one["score"]
        assert score["low"] <= score["value"] <= score["high"]
    assert models[0]["score"]["measure"] == "accuracy"
    assert server.ask("/health").json == {"status": "alive"}
    assert server.ask("/ready").json == {"status": "ready", "models": list(TASKS)}
    assert server.ask("/predict", odd[0].read_bytes(), JPEG).status == 200
    told = server.ask("/metrics")
    assert told.headers["content-type"].startswith("text/plain")
    lines = told.content.decode().splitlines()
    assert 'headstart_requests_total{path="/health",status="200"} 1.0' in lines
    assert "headstart_queue_images 0.0" in lines
    version = models[0]["version"]
    assert any(line.startswith("headstart_model_info{") and version in line for line in lines)
    assert any(line.startswith('headstart_predict_seconds_bucket{le="+Inf"}') for line in lines)


def test_every_answer_tells_a_browser_to_guess_nothing(server: Server) -> None:
    for reply in (server.ask("/health"), server.ask("/nothing"), server.ask("/predict", b"x", JPEG)):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-security-policy"].startswith("default-src 'none'")
        assert "access-control-allow-origin" not in reply.headers
        assert "server" not in reply.headers


def test_the_page_is_all_there_and_runs_its_own_scripts_and_no_other(server: Server) -> None:
    """What its files name is served as it lies on the disk, below the same policy, and nothing else is."""
    text = ""
    for path, file in FILES.items():
        found = server.ask(path)
        assert (found.status, found.content) == (200, file.read_bytes())
        assert found.headers["content-type"].startswith(
            {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}[file.suffix]
        )
        text += file.read_text(encoding="utf-8") if file.suffix in (".html", ".js") else ""
    named = set(re.findall(r'(?:href|src|from)[= ]"(?:\./)?([^"#]+)"', text))
    assert {f"/{name}" for name in named} == set(FILES) - {"/"}
    policy = server.ask("/").headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "unsafe" not in policy
    for other in ("/review.js", "/review.html", "/index.html", "/page.py", "/pages/page.js"):
        assert server.ask(other).status == 404


def test_with_a_token_only_health_ready_and_the_page_are_open(loaded: dict[str, Served], odd: list[Path]) -> None:
    content = odd[0].read_bytes()
    with running([loaded["classify"]], token="s\u00e9cret".encode()) as one:
        assert {one.ask(path).status for path in ("/health", "/ready", *FILES)} == {200}
        right = "Bearer sécret".encode().decode("latin-1")
        for wrong in ({}, {"Authorization": "Bearer secret"}, {"Authorization": right.replace("Bearer", "Basic")}):
            reply = one.ask("/predict", content, JPEG | wrong)
            assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert "token" in reply.error
        for path in ("/models", "/metrics", "/openapi.json", "/nothing"):
            assert one.ask(path).status == 401
        assert one.ask("/predict", content, JPEG | {"Authorization": right}).status == 200
        assert one.ask("/openapi.json", headers={"Authorization": right}).json["components"]["securitySchemes"]


def test_models_go_by_the_names_of_their_folders(tmp_path: Path) -> None:
    assert list(names_of([tmp_path / "b", tmp_path / "a"])) == ["b", "a"]
    with pytest.raises(OptionError, match="two models are named a,"):
        names_of([tmp_path / "a", tmp_path / "other" / "a"])


def test_a_port_that_is_taken_and_an_address_of_another_machine_are_one_line() -> None:
    with bound("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OutputError, match=f"port {port} of 127.0.0.1 cannot be had"):
            bound("127.0.0.1", port)
    with pytest.raises(OutputError, match="cannot be had"):
        bound("192.0.2.1", 0)
    with pytest.raises(OptionError, match="--port 70000"):
        bound("127.0.0.1", 70000)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "-1"], "--port -1"),
        (["--max-images", "0"], "--max-images 0"),
        (["--max-images", "9", "--queue", "8"], "--queue 8"),
        (["--max-mb", "0"], "--max-mb"),
        (["--timeout", "nan"], "--timeout"),
        (["--max-megapixels", "500"], "max_pixels"),
        (["--token-file", "/nowhere/token"], "--token-file /nowhere/token"),
    ],
)
def test_what_cannot_be_served_is_one_line_before_anything_is_loaded(run: Run, words: list[str], said: str) -> None:
    ran = run("serve", "nowhere", *words)
    assert ran.code in (1, 2)
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


def test_a_gate_lets_in_what_fits_and_tells_the_rest_when_to_come() -> None:
    gate = Gate(Bounds(queue=10, images=10))
    with gate.inside(7):
        with pytest.raises(Refusal) as refused, gate.inside(4):
            pass
        assert refused.value.status == 429
        assert int(refused.value.headers["retry-after"]) >= 1
        with gate.inside(3):
            assert gate.full
    assert gate.images == 0
    held = Bounds().held
    gate.hold(held)
    with pytest.raises(Refusal):
        gate.hold(1)
    gate.drop(held)
    assert b"headstart_body_bytes 0.0" in Counts(gate).text()


def test_a_token_comes_from_a_file_or_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    monkeypatch.delenv(TOKEN, raising=False)
    assert token_of(None) is None
    file.write_text("s\u00e9cret\n", encoding="utf-8")
    monkeypatch.setenv(TOKEN, "other")
    assert token_of(str(file)) == "sécret".encode()
    assert token_of(None) == b"other"
    for content in (b"", b"\n", b"one\ntwo\n", b"x" * 5000):
        file.write_bytes(content)
        with pytest.raises(OptionError, match="one line with a secret"):
            token_of(str(file))
    monkeypatch.setenv(TOKEN, " ")
    with pytest.raises(OptionError, match="is set and empty"):
        token_of(None)
