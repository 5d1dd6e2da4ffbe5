"""A served model of masks or boxes answers as `predict` does, to the digit, however an image is sent."""

from __future__ import annotations

import base64
import json
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from asking import BYTES, JPEG, Server, form, running
from conftest import Run
from headstart.serve.bounds import Bounds
from headstart.serve.served import Served, load
from headstart.tasks.known import PLACED
from scenes import Fit


@pytest.fixture(scope="module")
def folders(fitted: Fit) -> dict[str, Path]:
    return {task: fitted(task)[1] for task in PLACED}


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


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> list[Path]:
    """Pictures of the test, one that is stored lying, a JPEG, and one that cannot be read."""
    place = tmp_path_factory.mktemp("sent")
    plain = sorted((scenes / "test" / "images").iterdir())[:3]
    turned = Image.Exif()
    turned[0x0112] = 6
    with Image.open(plain[0]) as picture:
        picture.transpose(Image.Transpose.ROTATE_90).save(place / "turned é.png", exif=turned)
        picture.resize((150, 70)).save(place / "small.jpg")
    (place / "broken.jpg").write_bytes((place / "small.jpg").read_bytes()[:300])
    return [*plain, place / "turned é.png", place / "small.jpg", place / "broken.jpg"]


def sent(files: list[Path]) -> tuple[bytes, dict[str, str]]:
    return form([(file.name, file.read_bytes()) for file in files])


@pytest.mark.parametrize("task", PLACED)
def test_an_answer_is_that_of_predict_to_the_digit(
    task: str, server: Server, folders: dict[str, Path], files: list[Path], run: Run
) -> None:
    """Many at once as a form, and alone from many clients at the same time."""
    ran = run("predict", folders[task], *files, "--json")
    expected = [record | {"path": Path(record["path"]).name} for record in json.loads(ran.out)]
    assert sum(record["error"] is None for record in expected) == len(files) - 1
    at_once = server.ask(f"/predict?model={task}", *sent(files))
    assert (at_once.status, at_once.json) == (200, expected)

    def alone(file: Path) -> Any:
        return server.ask(f"/predict?model={task}", file.read_bytes(), BYTES | {"X-Filename": quote(file.name)}).json

    with ThreadPoolExecutor(6) as clients:
        assert [record for [record] in clients.map(alone, files[:-1])] == at_once.json[:-1]
    broken = server.ask(f"/predict?model={task}", files[-1].read_bytes(), JPEG | {"X-Filename": "broken.jpg"})
    assert (broken.status, broken.error) == (422, f"broken.jpg: {expected[-1]['error']}")


def test_a_mask_is_the_file_that_predict_writes(
    server: Server, folders: dict[str, Path], files: list[Path], run: Run, tmp_path: Path
) -> None:
    ran = run("predict", folders["segment"], *files, "--masks", tmp_path, "--json")
    written = [one["mask"] for one in json.loads(ran.out)]
    reply = server.ask("/predict?model=segment&masks=1", *sent(files))
    assert reply.status == 200
    assert reply.json[-1]["mask"] is written[-1] is None
    for file, record in zip(written[:-1], reply.json, strict=False):
        assert base64.b64decode(record["mask"]) == Path(file).read_bytes()
    plain = server.ask("/predict?model=segment&masks=0", *sent(files))
    assert plain.json == [{name: value for name, value in one.items() if name != "mask"} for one in reply.json]


def test_the_page_on_serving_gets_a_mask(
    server: Server, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
    [block] = [part for part in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "masks=1" in part]
    shutil.copy(files[4], tmp_path / "street.jpg")
    monkeypatch.chdir(tmp_path)
    code = block.replace("http://127.0.0.1:8000", server.url).replace("streets-model", "segment")
    exec(compile(code, "serving.md", "exec"), {})
    with Image.open(tmp_path / "street-mask.png") as mask:
        assert (mask.mode, mask.size) == ("P", (150, 70))


def test_masks_are_refused_where_there_are_none_and_where_they_hold_too_much(
    server: Server, loaded: dict[str, Served], files: list[Path]
) -> None:
    content = files[0].read_bytes()
    for asked, said in (("model=detect&masks=1", "detect gives no masks"), ("masks=yes", "masks='yes'")):
        reply = server.ask(f"/predict?{asked}", content, BYTES)
        assert reply.status == 422
        assert said in reply.error
    rng = np.random.default_rng(0)
    speckled = rng.integers(0, 3, (300, 400)).astype(np.uint8)  # a mask of 30 KB, of a picture of 1 KB
    small, says = files[4].read_bytes(), loaded["segment"]._says
    task = replace(says.model.task, answer=lambda *given: speckled)
    other = replace(loaded["segment"], _says=replace(says, model=replace(says.model, task=task)))
    with running([other], Bounds(body=20_000)) as one:
        reply = one.ask("/predict?masks=1", small, JPEG | {"X-Filename": "small.jpg"})
        assert reply.status == 413
        assert reply.error.startswith("small.jpg: its mask takes ")
        assert one.ask("/predict", small, JPEG).status == 200


def test_what_the_paths_say_of_such_a_model(server: Server, loaded: dict[str, Served], files: list[Path]) -> None:
    models = {one["name"]: one for one in server.ask("/models").json}
    for task, one in models.items():
        assert (one["task"], one["classes"]) == (task, list(loaded[task].model.names))
        assert one["masks"] == (task == "segment")
        assert (one["heat"], one["novelty"]) == (False, False)
        assert len(set(one["colours"])) == len(one["classes"])
        assert one["score"]["measure"] == {"segment": "miou", "detect": "map50"}[task]
    heat = server.ask("/heat?model=detect", files[0].read_bytes(), BYTES)
    assert heat.status == 422
    assert "does not know where a picture is odd" in heat.error
    told = server.ask("/metrics").content.decode()
    assert 'headstart_images_total{model="segment",result="unreadable"}' in told
    assert 'task="detect"' in told


def test_another_model_takes_the_place(folders: dict[str, Path], files: list[Path], tmp_path: Path) -> None:
    """One of boxes that of one of masks: what is asked next is answered by it."""
    place = tmp_path / "model"
    shutil.copytree(folders["segment"], place)
    one = load(place, "model", Bounds().limits)
    with running([one]) as served:
        assert "classes" in served.ask("/predict", files[0].read_bytes(), BYTES).json[0]
        shutil.copytree(folders["detect"], tmp_path / "new")
        place.rename(tmp_path / "old")
        (tmp_path / "new").rename(place)
        end = time.monotonic() + 30
        while not served.told and time.monotonic() < end:
            time.sleep(0.1)
        assert "boxes" in served.ask("/predict", files[0].read_bytes(), BYTES).json[0]
