"""The page of `serve` and that of `review` in a browser: what is dropped is answered, what is pressed is saved."""

from __future__ import annotations

import csv
import io
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from asking import BYTES, Server, running
from browsing import NEEDS, Open, drag, faint, finished, give, nameless, reach, too_wide
from conftest import TINY, Run
from doubted import DEEP, ODD, SEEN, TURNED, write_model, write_pictures
from headstart import AnomalyDetector
from headstart.cli.main import main
from headstart.data.fixes import Fixes
from headstart.data.images import write_png
from headstart.data.relabel import read_fixes, relabelled
from headstart.data.table import Table, list_images, read_table
from headstart.serve.bounds import Bounds
from headstart.serve.local import serve_here
from headstart.serve.review import Review, app_of
from headstart.serve.served import Served, load
from headstart.ship.answer_file import write_predictions
from headstart.ship.predict import predict, record_of_none, records
from headstart.story.alike import LookAlikes
from headstart.story.doubts import doubts_of

pytestmark = NEEDS
TOLD = 5  # classes that the page asks for

# The page of serve


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> tuple[Path, dict[Path, str]]:
    """Satellite photographs of three kinds of land, in train and test, and what those of the test show; made pictures
    where there are no photographs."""
    real = Path(__file__).resolve().parents[2] / "shared" / "data" / "eurosat_3000"
    names = ("Forest", "Industrial", "SeaLake") if real.is_dir() else ("moss", "sand", "sea")
    folder = tmp_path_factory.mktemp("photos")
    held: dict[Path, str] = {}
    for name in names:
        files = sorted((real if real.is_dir() else pictures).joinpath(name).iterdir())[:24]
        for k, file in enumerate(files):
            place = folder / ("test" if k % 4 == 3 else "train") / name / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, place)
            if k % 4 == 3:
                held[place] = name
    return folder, held


@pytest.fixture(scope="module")
def land(photos: tuple[Path, dict[Path, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served") / "land-model"
    main(["fit", str(photos[0]), "-o", str(folder), *TINY])
    found = load(folder, "land-model", Bounds().limits)
    yield found
    found.close()


@pytest.fixture(scope="module")
def server(land: Served) -> Iterator[Server]:
    with running([land]) as found:
        yield found


def column(page: Any, k: int) -> list[str]:
    found: list[str] = page.locator(f"#many tbody tr > *:nth-child({k})").all_inner_texts()
    return found


def test_a_photograph_that_is_dropped_or_pasted_is_called_what_it_is(
    opened: Open, server: Server, land: Served, photos: tuple[Path, dict[Path, str]]
) -> None:
    files = list(photos[1])
    said = records(land.model, predict(land.model, list_images(files)), TOLD)
    right = [k for k, record in enumerate(said) if record["label"] == photos[1][files[k]]]
    assert len(right) > 0.7 * len(files)  # of a network of random weights
    page = opened(server.url)
    assert "Tells apart" in page.inner_text("#about")
    for kind, k in (("drop", right[0]), ("paste", right[-1])):
        page.reload()
        page.wait_for_selector("#about:not(:empty)")
        give(page, kind, [files[k]])
        page.wait_for_selector("#bars li")
        record = said[k]
        words = page.inner_text("#answer")
        assert photos[1][files[k]] in words
        assert page.locator("#bars .what").all_inner_texts() == [one["label"] for one in record["top"]]
        if record["known"] and not record.get("abstain"):
            assert page.inner_text("#said") == record["label"]
        assert record["label"] in page.inner_text("#status")


def test_a_folder_becomes_a_table_to_sort_filter_and_take_away(
    opened: Open, server: Server, photos: tuple[Path, dict[Path, str]], tmp_path: Path, run: Run, land: Served,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The CSV is that of `predict -o`, to the byte."""
    folder = tmp_path / "new"
    for file in list(photos[1])[::2]:
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / file.parent.name)
    first = next(folder.glob("*/*"))
    shutil.copy(first, folder / '=1+1,"a".png')
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    for passed in ("notes.txt", ".hidden.png", "Thumbs.db"):
        (folder / passed).write_bytes(first.read_bytes())
    n = sum(1 for _ in folder.rglob("*.*")) - 3
    page = opened(server.url)
    page.wait_for_selector("#about:not(:empty)")
    drag(page, [folder])
    finished(page, n)
    assert "3 files of the folder are no pictures" in page.inner_text("#failed")
    assert f"{n - 1} pictures answered, 1 error" in page.inner_text("#status")

    page.get_by_role("button", name="probability").click()
    shown = [text for text in column(page, 4) if text]
    assert shown == sorted(shown, key=lambda text: -float(text.strip("<> %")))
    assert page.locator("th[aria-sort=descending]").inner_text() == "probability"
    assert column(page, 5)[-1].startswith("the file is"), "what has no answer stands last"
    page.get_by_role("button", name="probability").click()
    assert [text for text in column(page, 4) if text] == sorted(shown, key=lambda text: float(text.strip("<> %")))
    assert column(page, 4)[-1] == ""

    page.get_by_role("button", name="file").click()
    with page.expect_download() as whole:
        page.get_by_role("button", name="Download as CSV").click()
    monkeypatch.chdir(tmp_path)
    table = list_images(["new"])
    found = records(land.model, predict(land.model, table), TOLD)
    expected = {str(record["path"]): record for record in found}
    lines = list(csv.reader(io.StringIO(Path(whole.value.path()).read_text(encoding="utf-8"), newline="")))
    order = [row[0].removeprefix("'") for row in lines[1:]]
    assert sorted(order) == sorted(expected)
    top = min(TOLD, len(land.model.names))
    write_predictions([expected[path] for path in order], tmp_path / "all.csv", top, record_of_none(land.model, TOLD))
    assert Path(whole.value.path()).read_bytes() == (tmp_path / "all.csv").read_bytes()

    label = next(iter(photos[1].values()))
    page.get_by_label("Find").fill(label)
    assert column(page, 3)
    rows = zip(column(page, 2), column(page, 3), column(page, 5), strict=True)
    assert all(label in " ".join(row) for row in rows)
    with page.expect_download() as part:
        page.get_by_role("button", name="Download these").click()
    assert len(Path(part.value.path()).read_text().splitlines()) == 1 + len(column(page, 2))
    page.get_by_label("Find").fill("")
    page.locator("#which").select_option("error")
    assert [Path(name).name for name in column(page, 2)] == ["broken.png"]


def test_all_of_it_by_keyboard(opened: Open, server: Server, photos: tuple[Path, dict[Path, str]]) -> None:
    page = opened(server.url)
    page.wait_for_selector("#about:not(:empty)")
    page.on("filechooser", lambda chooser: None)  # else a first one may open before it is awaited
    reach(page, "Choose pictures")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([str(file) for file in list(photos[1])[:5]])
    finished(page, 5)
    reach(page, "probability")
    page.keyboard.press("Enter")
    assert page.locator("th[aria-sort=descending]").count() == 1
    assert page.evaluate("document.activeElement.textContent") == "probability", "the focus stays"
    while not page.evaluate("document.activeElement.closest('tbody')"):
        page.keyboard.press("Tab")
    name = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "answer"
    assert page.inner_text("#file") == name
    assert page.locator("tr[aria-current=true]").count() == 1


@pytest.mark.parametrize(("width", "scheme"), [(1200, "dark"), (400, "light")])
def test_every_control_has_a_name_and_all_text_can_be_read(
    opened: Open, server: Server, reviewed: str, photos: tuple[Path, dict[Path, str]], scheme: str, width: int,
    tmp_path: Path,
) -> None:  # fmt: skip
    touch = width < 500
    how = {"viewport": {"width": width, "height": 860}, "color_scheme": scheme, "has_touch": touch}
    page = opened(server.url, **how)
    page.wait_for_selector("#about:not(:empty)")
    assert page.get_by_role("button", name="Take a photograph").is_visible() == touch
    assert page.get_by_role("button", name="Choose a folder").is_visible() != touch
    assert page.get_attribute("#photo", "capture") == "environment"
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page.set_input_files("#files", [*list(photos[1])[:3], tmp_path / "broken.png"])
    finished(page, 4)
    page.locator("tbody button").first.click()
    assert page.locator("#answer").is_visible()
    assert (nameless(page), faint(page), too_wide(page)) == ([], [], 0)

    page = opened(reviewed, **how)
    page.wait_for_selector("#walk:not([hidden])")
    page.get_by_role("button", name="Another label").click()
    assert (nameless(page), faint(page), too_wide(page)) == ([], [], 0)


@pytest.fixture(scope="module")
def stripes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Served, Path]:
    """A model of striped pictures, and one with a bright square."""
    rng, place = np.random.default_rng(3), tmp_path_factory.mktemp("stripes")
    images = (rng.integers(90, 130, (25, 64, 64, 3)) + 40 * (np.arange(64)[:, None] // 8 % 2)[:, :, None]).astype("u1")
    small = {"backbone": "test_efficientnet", "weights": "none", "size": 64, "precision": "f32"}
    AnomalyDetector(**small).fit(images[:24]).save(place / "stripes")
    images[24, 20:44, 20:44] = 255 * rng.integers(0, 2, (24, 24, 1))
    write_png(images[24], place / "odd.png")
    return load(place / "stripes", "stripes", Bounds().limits), place / "odd.png"


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (400, "dark")])
def test_where_a_picture_is_odd_is_shown_where_asked(
    opened: Open, stripes: tuple[Served, Path], width: int, scheme: str
) -> None:
    model, file = stripes
    with running([model]) as served:
        page = opened(served.url, viewport={"width": width, "height": 860}, color_scheme=scheme)
        page.wait_for_selector("#about:not(:empty)")
        assert not page.is_visible("#where")
        page.set_input_files("#files", file)
        button = page.get_by_role("button", name="Show where")
        button.wait_for()
        assert page.inner_text("#said") == "odd"
        before = page.get_attribute("#picture", "src")
        button.click()
        page.wait_for_selector("#picture[alt*=orange]")
        assert page.get_attribute("#where", "aria-pressed") == "true"
        assert page.get_attribute("#picture", "src") != before
        assert "Orange" in page.inner_text("#told")
        assert (nameless(page), faint(page), too_wide(page)) == ([], [], 0)
        button.click()
        assert "orange" not in page.get_attribute("#picture", "alt")
        drawn = served.ask("/heat", file.read_bytes(), BYTES)
        assert (drawn.status, drawn.headers["content-type"]) == (200, "image/jpeg")
        pixels = np.asarray(Image.open(io.BytesIO(drawn.content)), np.float64)
        redder = pixels[..., 0] - pixels[..., 2]
        assert redder[20:44, 20:44].mean() > redder[:8].mean() + 10  # where the square is
        assert served.ask("/heat", b"none", BYTES).status == 422


def test_a_model_that_knows_no_places_draws_none(server: Server, photos: tuple[Path, dict[Path, str]]) -> None:
    said = server.ask("/heat", next(iter(photos[1])).read_bytes(), BYTES)
    assert said.status == 422
    assert "does not know where a picture is odd" in said.error


ANSWER = {"label": "ant", "probability": 0.9, "top": [{"label": "ant", "probability": 0.9}], "error": None}
RECORDS: list[tuple[dict[str, Any], str, str]] = [  # a record, what is said first, what is among the words
    ({**ANSWER, "set": ["ant"], "known": True}, "ant", "90.0 %"),
    ({**ANSWER, "set": ["ant", "bee", "wasp"], "known": True}, "ant", "It can also be bee or wasp."),
    ({**ANSWER, "abstain": True, "known": True}, "I don’t know", "If it has to be one: ant"),
    ({**ANSWER, "known": False}, "none of my classes, it seems", "Unlike anything I know"),
    ({**ANSWER, "probability": 0.9999}, "ant", "> 99.9 %"),
    ({"labels": ["red", "blue"], "probabilities": {"red": 0.9, "blue": 0.6, "green": 0.1}}, "red + blue", "Labels"),
    ({"labels": [], "probabilities": {"red": 0.1}}, "none of them", "Labels"),
    ({"values": {"mm": 12.345}, "low": {"mm": 10.0}, "high": {"mm": 15.0}}, "12.35", "Between 10 and 15."),
    ({"values": {"a": 1.0, "b": 2e3}, "low": {"a": None, "b": 1.0}, "high": {"a": None, "b": 9.0}}, "1, 2,000", "Values"),  # noqa: E501
    ({"identity": "ann", "score": 0.9, "nearest": [{"identity": "ann", "score": 0.9}]}, "ann", "0.900"),
    ({"identity": None, "score": 0.2, "nearest": [{"identity": "ann", "score": 0.2}]}, "unknown", "Most like ann"),
    ({"verdict": "odd", "score": 1.25}, "odd", "Score 1.25"),
    ({"error": "the file is cut short"}, "This picture cannot be read", "The file is cut short."),
]  # fmt: skip


def test_every_kind_of_answer_has_its_words(opened: Open, server: Server) -> None:
    page = opened(server.url)
    code = (
        "records => import('/answers.js').then((m) => records.map((r) => [m.words(r), m.spoken(r), m.bars(r).length]))"
    )
    found = page.evaluate(code, [{"error": None, "path": "a.jpg", **record} for record, *_ in RECORDS])
    for (record, first, among), (words, spoken, bars) in zip(RECORDS, found, strict=True):
        assert words["said"] == first
        assert among in " ".join([words["kicker"], *words["told"]])
        assert first in spoken
        listed = record.get("top") or record.get("probabilities") or record.get("nearest") or record.get("values", [])
        assert bars == (0 if len(record.get("values", "12")) == 1 else len(listed))


def test_the_csv_of_any_records_is_that_of_predict(opened: Open, server: Server, tmp_path: Path) -> None:
    """Whatever stands in names and labels: nothing that a spreadsheet runs, nothing that breaks a line."""
    page = opened(server.url)
    signs = [
        "=1+1",
        "+a",
        "-a",
        "@a",
        "\ta",
        "\ra",
        "\na",
        'a"b',
        "a,b",
        "a\nb",
        "a\u2028b",
        "\x7f\x1b",
        "é猫",
        "'",
        "",
    ]
    every = [{**record, "path": sign, "label": sign} for sign in signs for record, *_ in RECORDS if "top" in record]
    every += [{**every[0], "top": [{"label": sign, "probability": k / 7} for k, sign in enumerate(signs)]}]
    for some in [every, *([record] for record, *_ in RECORDS)]:
        rows = [{"path": "a", **record, "error": record.get("error")} for record in some]
        for top in (1, 3):
            code = "([records, top]) => import('/cells.js').then((m) => m.csv(records, top))"
            found = page.evaluate(code, [json.loads(json.dumps(rows)), top])
            write_predictions(rows, tmp_path / "rows.csv", top, {name: row[name] for row in rows for name in row})
            assert found.encode() == (tmp_path / "rows.csv").read_bytes()


def test_a_full_server_is_waited_for_and_nothing_is_lost(
    opened: Open, server: Server, photos: tuple[Path, dict[Path, str]]
) -> None:
    page, asked = opened(server.url), []
    page.wait_for_selector("#about:not(:empty)")

    def answer(route: Any) -> None:
        asked.append(route.request.url)
        if len(asked) in (2, 3, 5):
            route.fulfill(status=429, headers={"retry-after": "1"}, body='{"error": "full"}')
        elif len(asked) == 4:
            route.abort()
        else:
            route.continue_()

    page.route("**/predict*", answer)
    files = list(photos[1])[:6]
    page.set_input_files("#files", files)
    page.wait_for_function("() => document.getElementById('count').textContent.includes('full')")
    finished(page, 6)
    assert len(asked) == 6 + 4
    assert sorted(column(page, 2)) == sorted(file.name for file in files)
    assert all(column(page, 3))


def test_a_token_is_asked_for_and_another_model_answers_anew(
    opened: Open, land: Served, photos: tuple[Path, dict[Path, str]]
) -> None:
    twin = load(land.folder, "twin", Bounds().limits)
    try:
        with running([land, twin], token=b"secret") as one:
            page = opened(one.url)
            page.get_by_label("This server asks for a token").fill("wrong")
            page.keyboard.press("Enter")
            page.wait_for_selector("#denied:not(:empty)")
            page.get_by_label("This server asks for a token").fill("secret")
            page.keyboard.press("Enter")
            page.wait_for_selector("#about:not(:empty)")
            assert not page.locator("#entry").is_visible()
            give(page, "drop", list(photos[1])[:2])
            finished(page, 2)
            assert page.locator("tbody td.mood.bad").count() == 0
            with page.expect_response(lambda answer: "model=twin" in answer.url):
                page.get_by_label("Model").select_option("twin")
            finished(page, 2)
            assert page.inner_text("#name") == "twin"
    finally:
        twin.close()


# The page of review


class Walk:
    """A review behind the page: its address, its table and where it saves."""

    def __init__(self, folder: Path) -> None:
        data, model = folder / "insects", folder / "insects-model"
        write_pictures(data)
        write_model(model, "insects")
        self.table: Table = read_table(data, min_classes=1)
        every = doubts_of(model, self.table).every
        about = {doubt.path: (doubt.label, "") for doubt in every}
        self.fixes = Fixes(folder / "fixes.csv", about, frozenset({"ant", "bee"}))
        self.url = ""
        begun = threading.Event()

        def make(end: Callable[[], None]) -> Any:
            self.end = end
            alike = LookAlikes(model, self.table)
            return app_of(
                Review(
                    "insects-model",
                    self.table,
                    every,
                    ("ant", "bee"),
                    self.fixes,
                    SEEN,
                    alike,
                    lambda: "headstart relabel",
                    end,
                )
            )

        def started(address: str, once: str) -> None:
            self.url = address
            begun.set()

        self.thread = threading.Thread(target=serve_here, args=(make, 0, started))
        self.thread.start()
        assert begun.wait(20)

    def listed(self) -> dict[str, tuple[str, str]]:
        return {fix.path: (fix.action, fix.label) for fix in read_fixes(self.fixes.file)}

    def close(self) -> None:
        self.end()
        self.thread.join(20)


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    found = Walk(tmp_path)
    yield found
    found.close()


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one in which nothing is decided."""
    found = Walk(tmp_path_factory.mktemp("walk"))
    yield found.url
    found.close()


def place(page: Any, k: int) -> None:
    page.wait_for_function("k => document.getElementById('place').textContent.startsWith(`Image ${k} `)", arg=k)


def test_one_key_a_label_and_relabel_applies_what_was_pressed(opened: Open, walk: Walk, tmp_path: Path) -> None:
    page = opened(walk.url)
    place(page, 1)
    assert page.inner_text("#asked") == "Is it bee?"
    assert "the model says ant" in page.inner_text("#status").lower() or "The model says ant" in page.inner_text(
        "#status"
    )
    page.wait_for_function("() => document.getElementById('picture').naturalWidth > 0")
    assert page.evaluate("(i => i.naturalHeight > i.naturalWidth)(document.getElementById('picture'))"), "upright"
    page.keyboard.press("s")
    place(page, 2)
    assert walk.listed() == {TURNED: ("relabel", "ant")}, "saved before the next is shown"
    page.keyboard.press("k")
    place(page, 3)
    page.keyboard.press("d")
    place(page, 4)
    assert page.locator("#beside").inner_text().startswith("The same picture again")
    page.keyboard.press("1")  # of two classes, where nothing is suggested
    place(page, 5)
    made = {TURNED: ("relabel", "ant"), ODD: ("keep", ""), "train/bee/0.png": ("drop", "")}
    assert walk.listed() == {**made, "train/bee/1.png": ("relabel", "ant")}
    page.keyboard.press("u")
    place(page, 4)
    page.wait_for_function("() => document.getElementById('status').textContent.startsWith('Undone')")
    assert walk.listed() == made

    page.reload()
    place(page, 4)
    page.keyboard.press("l")
    page.keyboard.type("wasp")
    page.keyboard.press("Enter")  # is no class yet
    assert page.evaluate("document.activeElement.textContent") == "New class wasp"
    page.keyboard.press("Enter")
    place(page, 5)
    page.keyboard.press("l")
    page.keyboard.type("an")
    page.keyboard.press("Enter")
    page.wait_for_selector("#finished:not([hidden])")
    assert "1 kept, 3 changed, 1 dropped." in page.inner_text("#finished")
    found = relabelled(walk.table, read_fixes(walk.fixes.file), "fixes.csv", new_labels=True)
    labels = {Path(file).relative_to(tmp_path / "insects").as_posix(): label for label, *_, file in found.rows}
    assert labels[TURNED] == labels[DEEP] == labels[ODD] == "ant"
    assert labels["train/bee/1.png"] == "wasp"
    assert "train/bee/0.png" not in labels


def test_keys_do_nothing_where_they_are_not_meant(opened: Open, walk: Walk) -> None:
    page = opened(walk.url)
    place(page, 1)
    page.evaluate("""for (const repeat of [false, true, true]) document.body.dispatchEvent(
        new KeyboardEvent('keydown', {key: 'k', repeat, bubbles: true, cancelable: true}))""")  # held down
    place(page, 2)
    page.keyboard.press("Control+d")
    page.get_by_label("Single keys decide").uncheck()
    page.keyboard.press("k")
    page.keyboard.press("ArrowRight")
    assert list(walk.listed()) == [TURNED]
    page.get_by_role("button", name="Drop the image").focus()
    page.keyboard.press("Enter")
    place(page, 3)
    assert walk.listed() == {TURNED: ("keep", ""), ODD: ("drop", "")}
    assert page.evaluate("document.activeElement.id") == "drop", "the focus stays"


def test_what_could_not_be_saved_is_said_and_not_passed_over(opened: Open, walk: Walk) -> None:
    page = opened(walk.url)
    place(page, 1)
    walk.fixes.file.write_text("path,action,label\nelse.png,drop,\n")
    page.keyboard.press("k")
    page.wait_for_selector("#failed:not([hidden])")
    assert "changed by another program" in page.inner_text("[role=alert]")
    assert page.inner_text("#place") == "Image 1 of 5"
    assert page.locator("#made").is_hidden()
