"""The page of `serve` for models of masks and boxes, in a browser: what is found is drawn, named and listed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asking import Server, running
from browsing import NEEDS, Open, drag, faint, finished, nameless, reach, too_wide
from conftest import Run
from headstart.data.table import list_images
from headstart.files.cells import csv_bytes
from headstart.serve.bounds import Bounds
from headstart.serve.served import Served, load
from headstart.ship import placed
from headstart.ship.placed import Said
from headstart.tasks.known import PLACED
from headstart.tasks.segmentation import rows
from scenes import SIZE, Fit

pytestmark = NEEDS
PLACES = "all => all.map((e) => e.getBoundingClientRect()).map((b) => [b.x, b.y, b.width, b.height])"
EDGES = "all => all.map((e) => ['x', 'y', 'width', 'height'].map((name) => +e.getAttribute(name)))"
SEEN = "document.getElementById('mask').getContext('2d').getImageData(0, 0, {1}, {0}).data"


@pytest.fixture(scope="module")
def loaded(fitted: Fit) -> Iterator[dict[str, Served]]:
    found = {task: load(fitted(task)[1], task, Bounds().limits) for task in PLACED}
    yield found
    for one in found.values():
        one.close()


@pytest.fixture(scope="module")
def server(loaded: dict[str, Served]) -> Iterator[Server]:
    with running(list(loaded.values())) as found:
        yield found


def said(model: Any, files: list[Path]) -> list[Said]:
    found: list[Said] = []
    placed.predict(model, list_images(files), found.append)
    return found


def asked(page: Any, task: str, files: list[Path]) -> None:
    page.wait_for_selector("#about:not(:empty)")
    page.get_by_label("Model").select_option(task)
    page.set_input_files("#files", files)
    finished(page, len(files))


def test_boxes_are_drawn_where_they_are_listed_and_can_be_hidden_by_class(
    opened: Open, server: Server, loaded: dict[str, Served], scenes: Path
) -> None:
    file = sorted((scenes / "test" / "images").iterdir())[0]
    model = loaded["detect"].model
    [record] = [placed.record(model, file.name, one) for one in said(model, [file])]
    boxes = record["boxes"]
    assert boxes
    page = opened(server.url)
    asked(page, "detect", [file])
    page.wait_for_selector("#boxes .edge")
    edges = page.eval_on_selector_all("#boxes .edge", EDGES)
    assert edges == [pytest.approx([a, b, c - a, d - b]) for a, b, c, d in (one["box"] for one in reversed(boxes))]
    assert page.get_attribute("#boxes", "viewBox") == f"0 0 {SIZE[1]} {SIZE[0]}"
    listed = page.locator("#things bdi").all_inner_texts()
    assert listed == [one["label"] for one in boxes]
    assert all(f"{sum(one == name for one in listed)} {name}" in page.inner_text("#status") for name in set(listed))

    # a pixel of the overlay lies over the same pixel of the picture, which fills its box without being distorted
    stage, drawn = page.eval_on_selector_all("#picture, #boxes .halo", PLACES)[:2]  # at one moment: the page glides
    scale = min(stage[2] / SIZE[1], stage[3] / SIZE[0])
    corner = [stage[0] + (stage[2] - scale * SIZE[1]) / 2, stage[1] + (stage[3] - scale * SIZE[0]) / 2]
    assert drawn[:2] == pytest.approx([corner[0] + scale * edges[0][0], corner[1] + scale * edges[0][1]], abs=4)

    reach(page, page.locator("#things button").first.evaluate("e => e.textContent"))
    assert page.locator("#boxes .near .edge").count() == 1
    assert page.eval_on_selector("#boxes g.near", "e => +e.dataset.k") == 0
    page.keyboard.press("Enter")
    assert page.locator("#things [aria-pressed=true]").count() == 1

    name = boxes[0]["label"]
    page.get_by_role("checkbox", name=name).uncheck()
    assert page.locator("#boxes .edge").count() == sum(one["label"] != name for one in boxes)


def test_a_mask_is_painted_in_the_colours_of_its_classes(
    opened: Open, server: Server, loaded: dict[str, Served], scenes: Path
) -> None:
    file = sorted((scenes / "test" / "images").iterdir())[0]
    served = loaded["segment"]
    answer = said(served.model, [file])[0].answer
    assert answer is not None
    page = opened(server.url)
    asked(page, "segment", [file])
    page.wait_for_selector("#mask:not([hidden])")

    def pixels() -> np.ndarray[Any, Any]:
        found = page.evaluate(f"[...{SEEN.format(*SIZE)}]")
        return np.array(found).reshape(*SIZE, 4)

    page.locator("#strength").fill("100")
    colours = np.array([list(bytes.fromhex(one[1:])) for one in served.described()["colours"]])
    assert np.array_equal(pixels()[..., :3], colours[answer])
    assert (pixels()[..., 3] == 255).all()
    for k, name in enumerate(served.model.names):
        if (answer == k).any():
            page.get_by_role("checkbox", name=name).uncheck()
            assert (pixels()[answer == k] == 0).all()
            page.get_by_role("checkbox", name=name).check()
    page.locator("#strength").fill("0")
    assert (pixels()[..., 3] == 0).all()
    largest = served.model.names[int(np.bincount(answer.ravel()).argmax())]
    assert largest in page.inner_text("#said")


def test_a_mask_of_a_picture_that_the_browser_cannot_show_is_shown_alone(
    opened: Open, server: Server, scenes: Path, tmp_path: Path
) -> None:
    with Image.open(sorted((scenes / "test" / "images").iterdir())[0]) as picture:
        picture.save(tmp_path / "a.tif")
    page = opened(server.url)
    asked(page, "segment", [tmp_path / "a.tif"])
    page.wait_for_selector("#unseen:not([hidden])")
    page.wait_for_selector("#mask:not([hidden])")
    _, _, width, height = page.eval_on_selector_all("#mask", PLACES)[0]
    assert width / height >= 0.99 * SIZE[1] / SIZE[0]
    assert height > 200


@pytest.mark.parametrize("task", PLACED)
def test_a_folder_becomes_a_table_and_the_csv_of_predict(
    task: str, opened: Open, server: Server, fitted: Fit, scenes: Path, tmp_path: Path, run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """To the byte; a picture of which nothing is known beside one that cannot be read. Opened, each is drawn."""
    new = tmp_path / "new"
    new.mkdir()
    for k, file in enumerate(sorted((scenes / "test" / "images").iterdir())[:3]):
        (new / f"={k}.png").write_bytes(file.read_bytes())
    Image.new("RGB", (90, 60), (120, 115, 110)).save(new / "a, grey.png")
    (new / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    page = opened(server.url)
    page.wait_for_selector("#about:not(:empty)")
    page.get_by_label("Model").select_option(task)
    drag(page, [new])
    finished(page, 5)
    assert page.locator("#sums li").count() >= 1
    page.get_by_role("button", name="file").click()
    with page.expect_download() as whole:
        page.get_by_role("button", name="Download as CSV").click()
    found = Path(whole.value.path()).read_bytes()
    monkeypatch.chdir(tmp_path)
    lines = list(csv.reader(io.StringIO(found.decode(), newline="")))[1:]
    order = list(dict.fromkeys(row[0].removeprefix("'") for row in lines))
    assert len(order) == 5
    assert run("predict", fitted(task)[1], *order, "-o", "all.csv").code == 0
    assert found == (tmp_path / "all.csv").read_bytes()

    page.locator("tbody button", has_text="=1.png").click()
    page.wait_for_selector({"segment": "#mask:not([hidden])", "detect": "#boxes .edge"}[task])
    page.locator("tbody button", has_text="broken.png").click()
    assert not page.is_visible("#places")
    assert not page.is_visible("#mask")
    assert not page.is_visible("#boxes")


@pytest.mark.parametrize(("width", "scheme", "task"), [(1200, "dark", "segment"), (400, "light", "detect")])
def test_every_control_has_a_name_and_all_text_can_be_read(
    opened: Open, server: Server, scenes: Path, width: int, scheme: str, task: str
) -> None:
    page = opened(server.url, viewport={"width": width, "height": 860}, color_scheme=scheme)
    asked(page, task, sorted((scenes / "test" / "images").iterdir())[:2])
    page.locator("tbody button").first.click()
    page.wait_for_selector({"segment": "#mask:not([hidden])", "detect": "#boxes .edge"}[task])
    assert (nameless(page), faint(page), too_wide(page)) == ([], [], 0)


def test_the_csv_of_any_numbers_is_that_of_python(opened: Open, server: Server) -> None:
    page = opened(server.url)
    numbers = [0.0, 1.0, 0.5, 0.123456, 1e-4, 1.2e-5, 1e-6, 9.9e-5, 1234.56, 100.0]
    records = [{"path": "a", "classes": {"b": n, "1": n / 3, "0": 0.25}, "error": None} for n in numbers]
    code = "(r) => import('/cells.js').then((m) => m.csv(r, 1, {task: 'segment', classes: ['b', '1', '0']}))"
    assert page.evaluate(code, records).encode() == csv_bytes(*rows(records, ["b", "1", "0"]))
