"""`headstart review`: what is doubted, what was decided, and who may ask. The page itself: test_pages.py."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import saved
from conftest import Process, Run, Start
from doubted import DEEP, JUDGED, LISTS, ODD, SEEN, TURNED, write_model, write_pictures
from headstart.cli.main import main
from headstart.data import images
from headstart.data.fixes import Decision, Fixes
from headstart.data.relabel import read_fixes, relabelled
from headstart.data.table import Table, read_table
from headstart.errors import DataError, OutputError
from headstart.files.cells import csv_bytes
from headstart.serve.guard import HEADERS, Guard
from headstart.serve.review import Review, app_of
from headstart.story.alike import LookAlikes
from headstart.story.doubts import Doubt, doubts_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos") / "insects"
    write_pictures(folder)
    return folder


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "insects-model"
    write_model(folder, data.name)
    return folder


@pytest.fixture(scope="module")
def table(data: Path) -> Table:
    return read_table(data, min_classes=1)


def about(doubts: tuple[Doubt, ...]) -> dict[str, tuple[str, str]]:
    return {doubt.path: (doubt.label, "") for doubt in doubts}


@pytest.fixture
def fixes(model: Path, table: Table, tmp_path: Path) -> Fixes:
    return Fixes(tmp_path / "fixes.csv", about(doubts_of(model, table).every), frozenset({"ant", "bee"}))


# What is doubted


def test_an_image_on_several_lists_is_one_doubt_with_every_reason(model: Path, table: Table) -> None:
    found = doubts_of(model, table).every
    kinds = [(doubt.path, [reason.kind for reason in doubt.reasons]) for doubt in found]
    assert kinds == [
        (TURNED, ["suspected", "mistake"]),
        (ODD, ["suspected", "conflict"]),
        ("train/bee/0.png", ["conflict"]),
        ("train/bee/1.png", ["leak"]),
        (DEEP, ["leak", "mistake"]),
    ]
    assert [doubt.suggested for doubt in found] == ["ant", "bee", "ant", "", "ant"]
    assert [[str(table.names[row]) for row in doubt.copies] for doubt in found] == [
        [], ["train/bee/0.png"], [ODD], [DEEP], ["train/bee/1.png"],
    ]  # fmt: skip


def test_what_is_mended_is_doubted_no_more(model: Path, table: Table, fixes: Fixes, tmp_path: Path) -> None:
    every = doubts_of(model, table).every
    for doubt in every:
        drop = not doubt.suggested or doubt.path == "train/bee/0.png"
        fixes.decide(doubt.path, Decision("drop") if drop else Decision("relabel", doubt.suggested))
    found = relabelled(table, read_fixes(fixes.file), "fixes.csv")
    rows = [str(source) for *_, source in found.rows]
    left = table.take([k for k, source in enumerate(table.sources) if str(getattr(source, "path", "")) in rows])
    left.labels[:] = [label for label, *_ in found.rows]
    again = doubts_of(model, left)
    assert again.every == ()
    assert again.notes == ("2 images of the lists are gone",)


def test_lists_of_other_images_are_refused_and_missing_ones_are_said(model: Path, table: Table, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="these data have none of"):
        doubts_of(model, table.take([0]))
    assert [note.partition(" is missing")[0] for note in doubts_of(tmp_path, table).notes] == [
        str(tmp_path / name) for name in ("suspected_labels.csv", "duplicates.csv", "mistakes.csv")
    ]


# What was decided

STEPS = [
    (TURNED, Decision("relabel", "ant")), (ODD, Decision("keep")), (DEEP, Decision("drop")),
    (TURNED, Decision("keep")), ("train/bee/0.png", Decision("relabel", "wasp")),
]  # fmt: skip


def test_after_each_decision_relabel_applies_what_stands_on_the_disk(table: Table, fixes: Fixes) -> None:
    done: dict[str, Decision] = {}
    for path, made in STEPS:
        fixes.decide(path, made)
        done[path] = made
        listed = {fix.path: Decision(fix.action, fix.label) for fix in read_fixes(fixes.file)}
        assert listed == done
        found = relabelled(table, read_fixes(fixes.file), "fixes.csv", new_labels=True)
        assert found.done == {a: n for a in ("keep", "relabel", "drop") if (n := fixes.done()[a])}
    assert fixes.new_labels() == ("wasp",)


def test_undo_takes_back_exactly_one_decision_and_a_new_start_goes_on_where_one_stopped(
    model: Path, table: Table, fixes: Fixes
) -> None:
    before = []
    for path, made in STEPS:
        before.append({p: fixes.of(p) for p, _ in STEPS})
        fixes.decide(path, made)
    again = Fixes(fixes.file, about(doubts_of(model, table).every), frozenset({"ant", "bee"}))
    assert {p: again.of(p) for p in before[0]} == {p: fixes.of(p) for p in before[0]}
    assert again.done() == fixes.done()
    for (path, _), old in zip(reversed(STEPS), reversed(before), strict=True):
        assert fixes.undo() == path
        assert {p: fixes.of(p) for p in old} == old
    assert fixes.undo() is None


def test_lines_of_other_images_stay_and_empty_actions_are_no_decision(
    model: Path, table: Table, tmp_path: Path
) -> None:
    file = tmp_path / "fixes.csv"
    file.write_bytes(csv_bytes(("path", "action", "label"), [("train/ant/2.png", "drop", ""), (TURNED, "", "ant")]))
    fixes = Fixes(file, about(doubts_of(model, table).every), frozenset({"ant", "bee"}))
    assert fixes.of(TURNED) is None
    assert not fixes.done()
    fixes.decide(DEEP, Decision("keep"))
    assert [(f.path, f.action) for f in read_fixes(file)] == [("train/ant/2.png", "drop"), (DEEP, "keep")]
    fixes.undo()
    assert fixes.undo() is None, "a line of another image is nobody's to take back"


def test_a_write_that_is_cut_off_leaves_the_list_and_the_decisions_as_they_were(
    fixes: Fixes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixes.decide(TURNED, Decision("keep"))
    whole = fixes.file.read_bytes()

    def killed(*given: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        for change in (lambda: fixes.decide(DEEP, Decision("drop")), fixes.undo):
            with pytest.raises(OutputError, match="No space left"):
                change()
            assert fixes.file.read_bytes() == whole
            assert (fixes.of(TURNED), fixes.of(DEEP)) == (Decision("keep"), None)
    fixes.decide(DEEP, Decision("drop"))
    assert len(read_fixes(fixes.file)) == 2


def test_what_another_program_wrote_is_never_overwritten(model: Path, table: Table, fixes: Fixes) -> None:
    other = Fixes(fixes.file, about(doubts_of(model, table).every), frozenset({"ant", "bee"}))
    fixes.decide(TURNED, Decision("keep"))
    whole = fixes.file.read_bytes()
    with pytest.raises(OutputError, match="changed by another program"):
        other.decide(DEEP, Decision("drop"))
    assert fixes.file.read_bytes() == whole


def test_many_at_once_lose_nothing(tmp_path: Path) -> None:
    paths = [f"{k}.png" for k in range(40)]
    fixes = Fixes(tmp_path / "fixes.csv", dict.fromkeys(paths, ("a", "")), frozenset("a"))

    def some(start: int) -> None:
        for path in paths[start::8]:
            fixes.decide(path, Decision("drop"))

    threads = [threading.Thread(target=some, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fix.path for fix in read_fixes(fixes.file)) == sorted(paths)


def test_names_and_labels_that_a_spreadsheet_would_run_come_through(tmp_path: Path) -> None:
    """A class =ant stands as '=ant in every list, and so do its images: found, decided, resumed and applied."""
    for label in ("=ant", "bee"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for k in range(2):
            images.write_png(np.full((8, 8, 3), 40 * k, np.uint8), tmp_path / "data" / label / f"{k}.png")
    table = read_table(tmp_path / "data", min_classes=1)
    lines = [("=ant/0.png", "", "bee", "=ant", "why"), ("bee/0.png", "", "=ant", "bee", "why")]
    (tmp_path / "suspected_labels.csv").write_bytes(csv_bytes(JUDGED, lines))
    every = doubts_of(tmp_path, table).every
    assert [(doubt.label, doubt.suggested) for doubt in every] == [("=ant", "bee"), ("bee", "=ant")]
    for doubt in every:  # each by a program of its own
        fixes = Fixes(tmp_path / "fixes.csv", about(every), frozenset({"=ant", "bee"}))
        fixes.decide(doubt.path, Decision("relabel", doubt.suggested))
    assert Fixes(fixes.file, about(every), fixes.labels).new_labels() == ()
    found = relabelled(table, read_fixes(fixes.file), "fixes.csv")
    assert {Path(file).relative_to(tmp_path / "data").as_posix(): label for label, *_, file in found.rows} == {
        "=ant/0.png": "bee", "=ant/1.png": "=ant", "bee/0.png": "=ant", "bee/1.png": "bee",
    }  # fmt: skip


# Who may ask


@pytest.fixture
def review(model: Path, table: Table, fixes: Fixes) -> Review:
    found = doubts_of(model, table).every
    alike = LookAlikes(model, table)  # of this model, which has no network, it says nothing
    return Review("m", table, found, ("ant", "bee"), fixes, SEEN, alike, lambda: "headstart relabel", lambda: None)


@pytest.fixture
def guard(review: Review) -> Guard:
    return Guard(app_of(review))


@pytest.fixture
def client(guard: Guard) -> Iterator[TestClient]:
    with TestClient(guard, base_url="http://127.0.0.1", follow_redirects=False) as found:
        yield found


OWN = {"origin": "http://127.0.0.1"}
KEEP = {"id": 0, "action": "keep", "label": ""}


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({}, 200),
        ({"host": "localhost:8080", "origin": "http://localhost:8080"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": ""}, 403),
        ({"host": "[::1"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_only_this_page_on_this_machine_decides(
    client: TestClient, guard: Guard, fixes: Fixes, changed: dict[str, str], status: int
) -> None:
    answer = client.post(f"/{guard.token}/decide", json=KEEP, headers=OWN | changed)
    assert answer.status_code == status
    assert fixes.file.exists() == (status == 200)


@pytest.mark.parametrize("token", ["", "wrong", "TOKEN2", "%2e%2e", "start", "é", "start/wrong"])
def test_without_the_token_there_is_nothing(client: TestClient, guard: Guard, fixes: Fixes, token: str) -> None:
    token = token.replace("TOKEN", guard.token)
    for path in ("", "doubts", "picture/0", "review.js", "../doubts"):
        assert client.get(f"/{token}/{path}").status_code in (403, 404)
    assert client.post(f"/{token}/decide", json=KEEP, headers=OWN).status_code in (403, 404)
    assert not fixes.file.exists()


def test_the_address_of_the_browser_works_once(client: TestClient, guard: Guard) -> None:
    first, second = client.get(f"/start/{guard.ticket}"), client.get(f"/start/{guard.ticket}")
    assert (first.status_code, first.headers["location"]) == (303, f"/{guard.token}/")
    assert second.status_code == 403
    assert guard.token not in second.text


def test_only_pictures_of_the_lists_are_shown(client: TestClient, guard: Guard, review: Review, table: Table) -> None:
    listed = {ODD, TURNED, DEEP, "train/bee/0.png", "train/bee/1.png"}
    for row, name in enumerate(table.names):
        assert client.get(f"/{guard.token}/picture/{row}").status_code == (200 if name in listed else 404)
    for trick in ("-1", "99", "1e1", "..%2f..%2fetc%2fpasswd", "%2e%2e/doubts", "0/../../x", "1" * 5000):
        assert client.get(f"/{guard.token}/picture/{trick}").status_code == 404
    for trick in ("../review.py", "pages/review.js", "..%2freview.py", "index.html"):
        assert client.get(f"/{guard.token}/{trick}").status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"[]", 400), (b"{", 400), (b"\xff\xfe", 400), (b"[" * 16000, 400), (b" " * 20000, 413),
        (b'{"id": true, "action": "keep"}', 404), (b'{"id": "0", "action": "keep"}', 404),
        (b'{"id": -1, "action": "keep"}', 404), (b'{"id": 1e9, "action": "keep"}', 404), (b"{}", 404),
        (b'{"id": 0}', 422), (b'{"id": 0, "action": "erase"}', 422), (b'{"id": 0, "action": "relabel"}', 422),
        (b'{"id": 0, "action": "keep", "label": "bee"}', 422), (b'{"id": 0, "action": ["keep"]}', 422),
        (b'{"id": 0, "action": "relabel", "label": " a"}', 422),
        (b'{"id": 0, "action": "relabel", "label": "a\\nb"}', 422),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_and_nothing_written(
    client: TestClient, guard: Guard, fixes: Fixes, body: bytes, status: int
) -> None:
    answer = client.post(f"/{guard.token}/decide", content=body, headers=OWN)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert not fixes.file.exists()


def test_every_answer_forbids_what_the_page_does_not_need(client: TestClient, guard: Guard) -> None:
    for path in ("/", f"/{guard.token}/", f"/{guard.token}/doubts", f"/{guard.token}/picture/99", "/start/x"):
        answer = client.get(path)
        assert HEADERS.items() <= dict(answer.headers).items(), path
    assert "no-store" in client.get(f"/{guard.token}/doubts").headers["cache-control"]


@pytest.mark.parametrize("name", [ODD, TURNED, DEEP])
def test_a_picture_is_what_the_one_decoder_makes_of_it(
    client: TestClient, guard: Guard, data: Path, table: Table, name: str
) -> None:
    row = list(table.names).index(name)
    answer = client.get(f"/{guard.token}/picture/{row}?large=1")
    assert answer.headers["content-type"] == "image/jpeg"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))
    expected = images.small((data / name).read_bytes(), 1600, preprocess=SEEN)
    assert shown.shape == expected.shape
    assert (shown.shape[:2] == (32, 24)) == (name == TURNED)
    assert np.abs(shown.astype(float) - expected).mean() < 5


def test_a_picture_that_is_gone_is_said_and_can_still_be_decided(
    client: TestClient, guard: Guard, review: Review, data: Path
) -> None:
    (data / TURNED).rename(data / "moved.jpg")
    try:
        answer = client.get(f"/{guard.token}/picture/{review.doubts[0].row}")
        assert (answer.status_code, answer.json()) == (422, {"error": "the file does not exist"})
    finally:
        (data / "moved.jpg").rename(data / TURNED)
    assert client.post(f"/{guard.token}/decide", json=KEEP | {"action": "drop"}, headers=OWN).status_code == 200


def test_undo_and_state_come_with_every_change(client: TestClient, guard: Guard) -> None:
    said = {"id": 1, "action": "relabel", "label": "bee"}
    made = client.post(f"/{guard.token}/decide", json=said, headers=OWN).json()
    what = {"action": "relabel", "label": "bee"}
    assert made == {"id": 1, "made": what, "done": {"relabel": 1}, "command": "headstart relabel"}
    assert client.get(f"/{guard.token}/doubts").json()["doubts"][1]["made"] == made["made"]
    undone = client.post(f"/{guard.token}/undo", headers=OWN).json()
    assert (undone["id"], undone["made"], undone["done"]) == (1, None, {})
    assert client.post(f"/{guard.token}/undo", headers=OWN).json()["id"] is None


# The command


@pytest.fixture
def reviewing(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[str, Callable[[], str]]]:
    """Starts `headstart review` beside the test: its address, and a function that waits for its last words."""
    monkeypatch.chdir(data.parent)

    def start(*more: str) -> tuple[str, Callable[[], str]]:
        said = ""
        words = ["review", str(model), "-o", str(tmp_path / "fixes.csv"), "--no-browser", *more]
        thread = threading.Thread(target=main, args=(words,), daemon=True)
        thread.start()
        while "open http" not in said and thread.is_alive():
            said += capfd.readouterr().err
        address = said.partition("open ")[2].split()[0]

        def ended() -> str:
            thread.join(20)
            assert not thread.is_alive()
            return capfd.readouterr().out

        return address, ended

    return start


def test_from_the_command_to_a_list_that_fit_reads(
    reviewing: Callable[..., tuple[str, Callable[[], str]]], data: Path, tmp_path: Path
) -> None:
    import httpx2

    address, ended = reviewing()
    origin = {"origin": address[: address.index("/", 8)]}
    with httpx2.Client(base_url=address, headers=origin) as browser:
        listed = browser.get("doubts").json()
        assert listed["doubts"][0]["path"] == TURNED
        assert browser.post("decide", json={"id": 0, "action": "relabel", "label": "wasp"}).status_code == 200
        assert browser.post("end").status_code == 200
    said = ended()
    assert "1 of 5 images decided: 0 kept, 1 relabelled, 0 dropped; next: headstart relabel" in said
    command = shlex.split(said.partition("next: ")[2])
    assert command[2:4] == [data.name, str(tmp_path / "fixes.csv")]
    assert command[-1] == "--new-labels"
    target = tmp_path / "new.csv"
    main([str(target) if word.startswith("relabelled") else word for word in command[1:]])
    with target.open(newline="") as file:
        rows = {Path(row["path"]).name: row["label"] for row in csv.DictReader(file)}
    assert rows[Path(TURNED).name] == "wasp"


def test_a_kill_loses_no_decision_and_ctrl_c_ends_it_well(
    start: Start, model: Path, data: Path, tmp_path: Path
) -> None:
    import httpx2

    fixes = tmp_path / "fixes.csv"

    def begun(name: str) -> tuple[Process, str]:
        out, err = (tmp_path / f"{name} {stream}" for stream in ("out", "err"))
        process = start(out, err, "review", model, "--data", data, "-o", fixes, "--no-browser", "--json")
        while "Ctrl-C" not in err.read_text():
            time.sleep(0.02)
        return process, err.read_text().partition("open ")[2].split()[0]

    for k, end in enumerate((signal.SIGKILL, signal.SIGINT)):
        process, address = begun(end.name)
        with httpx2.Client(base_url=address, headers={"origin": address[: address.index("/", 8)]}) as browser:
            made = [doubt["made"] for doubt in browser.get("doubts").json()["doubts"]]
            assert [one is not None for one in made] == [place < k for place in range(5)], "it goes on"
            assert browser.post("decide", json=KEEP | {"id": k}).status_code == 200
        os.kill(process.number, end)
        assert process.code() == (0 if end == signal.SIGINT else -end)
        assert len(read_fixes(fixes)) == k + 1
    said = json.loads((tmp_path / "SIGINT out").read_text())
    assert (said["images"], said["decided"], said["kept"], said["fixes"]) == (5, 2, 2, str(fixes))
    assert said["next"].startswith("headstart relabel")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "elsewhere"], "elsewhere does not exist"),
        (["-o", "fixes.txt"], "must end in .csv"),
        (["-o", "{model}/mistakes.csv"], "a list of the model's own"),
        (["--port", "70000"], "--port 70000"),
        (["-o", "broken.csv"], "has no column 'path'"),
    ],
)
def test_what_cannot_be_reviewed_is_said_in_one_line(
    run: Run, model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.csv").write_text("what,why\n1,2\n")
    given = [word.replace("{model}", str(model)) for word in words]
    ran = run("review", model, "--no-browser", *(["--data", data] if "--data" not in words else []), *given)
    assert ran.code in (1, 2)
    assert said in ran.err
    assert len(ran.err.splitlines()) == 1


def test_images_that_are_not_where_fit_found_them_are_asked_for(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("review", model, "--no-browser")
    assert (ran.code, ran.out) == (1, "")
    assert f"not found here (tried: insects, {model.parent / 'insects'}, " in ran.err
    assert ran.err.endswith("name them with --data DATA\n")


def test_other_tasks_are_refused(run: Run, model: Path, tmp_path: Path) -> None:
    other = tmp_path / "tags"
    manifest = saved.DESCRIBED | {"preprocess": SEEN.to_json(), "task": "tag"}
    saved.save(other, manifest=manifest)
    assert "one class an image" in run("review", other).err


def test_a_model_that_doubts_nothing_ends_at_once(run: Run, data: Path, tmp_path: Path) -> None:
    calm = tmp_path / "calm"
    empty = {name: content.partition(b"\n")[0] + b"\n" for name, content in LISTS.items()}
    saved.save(calm, manifest=saved.DESCRIBED | {"preprocess": SEEN.to_json()}, files=empty)
    ran = run("review", calm, "--data", data, "-o", tmp_path / "fixes.csv")
    assert (ran.code, ran.out) == (0, "nothing to review: the lists of this model doubt no image\n")
    assert not (tmp_path / "fixes.csv").exists()
