"""What the commands print, where, and what they leave behind."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from conftest import TINY, Run, Start, picture
from headstart.cli import main as cli
from headstart.cli.console import tell
from headstart.cli.progress import watching
from headstart.data.images import write_png
from headstart.files.bundle import ABOUT, CHECKSUMS, DEFINING, EXPORT, GALLERY, ODDITY, REFERENCE


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_help_names_every_option_on_stdout(command: str, run: Run) -> None:
    found = run(*command.split(), "--help")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith(f"usage: headstart {command}".rstrip())
    if command:
        assert "--json" in found.out
    else:
        assert all(re.search(rf"^    {name}\s", found.out, re.MULTILINE) for name in cli.COMMANDS)


def test_fit_prints_one_document_and_the_folder_holds_what_it_says(run: Run, pictures: Path, tmp_path: Path) -> None:
    found = run("fit", pictures, "-o", tmp_path / "model", "--json", *TINY)
    assert found.code == 0, found.err
    said = json.loads(found.out)
    assert said.pop("model") == str(tmp_path / "model")
    assert said == json.loads((tmp_path / "model/metrics.json").read_text())
    assert {"validation", "test", "cross_validation", "baselines", "seconds"} <= set(said)
    assert (said["validation"], said["test"]) == (None, None)
    score = said["cross_validation"]
    assert (score["n"], score["source"]) == (24, "cross-validation")
    for name in ("accuracy", "balanced_accuracy", "log_loss", "macro_precision", "macro_recall", "macro_f1", "ece"):
        assert score[name]["low"] <= score[name]["value"] <= score[name]["high"], name
    assert [row["class"] for row in score["per_class"]] == ["moss", "sand", "sea"]
    assert sum(map(sum, score["confusion"])) == 24
    others = {GALLERY, REFERENCE, ODDITY, EXPORT}  # of other tasks, of more images, of an export
    assert {f.name for f in (tmp_path / "model").iterdir()} == {*DEFINING, *ABOUT, CHECKSUMS} - others
    assert found.err.splitlines() == [f"{pictures}: class folders, 24 images of 3 classes (moss 8, sand 8, sea 8)"]


def test_a_fit_with_the_users_own_parts_judges_on_them(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for part, n in (("train", 6), ("val", 3), ("test", 4)):
        for colour, name in enumerate(("a", "b")):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for k in range(n):
                write_png(picture(colour, rng), tmp_path / "data" / part / name / f"{k}.png")
    found = run("fit", tmp_path / "data", "-o", tmp_path / "model", "--json", *TINY)
    said = json.loads(found.out)
    assert (said["validation"]["n"], said["test"]["n"], said["cross_validation"]) == (6, 8, None)
    assert said["test"]["source"] == "test folder"
    again = run("evaluate", tmp_path / "model", tmp_path / "data", "--json")
    assert "test part alone" in again.err
    assert json.loads(again.out)["accuracy"]["value"] == said["test"]["accuracy"]["value"]


def test_on_the_terminal_the_result_is_short_and_says_what_to_do_next(run: Run, model: Path, pictures: Path) -> None:
    found = run("fit", pictures, "-o", model.parent / "another", *TINY)
    lines = found.out.splitlines()
    assert len(lines) <= 14
    assert max(map(len, lines)) <= 120 + len(str(model))
    assert lines[1].startswith("accuracy  ")
    assert "n = 24" in lines[1]
    assert any(f"report         {model.parent / 'another/report.html'}" in line for line in lines)
    assert any(line.startswith("next           headstart predict ") for line in lines)
    assert "0 images went through the network, features of 24 were stored before" in found.out
    shown = run("report", model)
    assert shown.out.splitlines()[1] == "classes        3: moss, sand, sea"
    assert json.loads(run("report", model, "--json").out)["report"] == str(model / "report.html")


def test_inspect_finds_copies_leaks_conflicts_and_broken_files(run: Run, tmp_path: Path) -> None:
    rng, data = np.random.default_rng(4), tmp_path / "data"
    for part in ("train", "test"):
        for colour, name in enumerate(("a", "b")):
            (data / part / name).mkdir(parents=True)
            for k in range(4):
                write_png(picture(colour, rng), data / part / name / f"{k}.png")
    (data / "test/a/0.png").write_bytes((data / "train/a/0.png").read_bytes())  # leak
    (data / "train/b/3.png").write_bytes((data / "train/a/1.png").read_bytes())  # conflict
    (data / "train/b/2.png").write_bytes(b"no picture")
    found = run("inspect", data, "--json", *TINY)
    said = json.loads(found.out)
    assert said["classes"] == {"a": {"test": 4, "train": 4}, "b": {"test": 4, "train": 3}}
    assert [r["path"] for r in said["set_aside"]] == ["train/b/2.png"]
    leak = {"kind": "exact", "paths": ["test/a/0.png", "train/a/0.png"]}
    conflict = {"kind": "exact", "paths": ["train/a/1.png", "train/b/3.png"]}
    listed = [{"kind": s["kind"], "paths": sorted(s["paths"])} for s in said["duplicates"]]
    assert sorted(listed, key=str) == sorted([leak, conflict], key=str)
    assert [sorted(s["splits"]) for s in said["leaks"]] == [["test", "train"]]
    assert [sorted(s["labels"]) for s in said["conflicts"]] == [["a", "b"]]
    shown = run("inspect", data, *TINY).out
    assert "train/b/2.png: a text, not a picture" in shown
    assert "duplicates     2 sets" in shown


def test_features_are_a_table_of_every_block(run: Run, pictures: Path, tmp_path: Path) -> None:
    found = run("features", pictures, "-o", tmp_path / "f.parquet", "--json", *TINY)
    said = json.loads(found.out)
    table = pq.read_table(tmp_path / "f.parquet")
    assert said["images"] == table.num_rows == 24
    assert table.column_names == ["path", "label", "split", "content_hash", *said["blocks"]]
    widths = {name: table.schema.field(name).type.list_size for name in said["blocks"]}
    assert widths == said["blocks"]
    one = run("features", pictures / "sea", "-o", tmp_path / "one.parquet", "--layer", "pre_logits", "--json", *TINY)
    assert list(json.loads(one.out)["blocks"]) == ["pre_logits"]
    whole = dict(zip(*(table[c].to_pylist() for c in ("content_hash", "pre_logits")), strict=True))
    part = pq.read_table(tmp_path / "one.parquet")
    assert part.num_rows == 8
    assert all(
        whole[h] == v for h, v in zip(*(part[c].to_pylist() for c in ("content_hash", "pre_logits")), strict=True)
    )


def test_features_of_a_list_without_labels_are_those_of_its_pictures(run: Run, pictures: Path, tmp_path: Path) -> None:
    paths = sorted(str(path) for path in pictures.rglob("*.png"))[:3]
    (tmp_path / "paths.csv").write_text("\n".join(["path", *paths]))
    found = run("features", tmp_path / "paths.csv", "-o", tmp_path / "f.parquet", "--layer", "pre_logits", *TINY)
    assert (found.code, found.err.count("note: no labels are written: ")) == (0, 1)
    table = pq.read_table(tmp_path / "f.parquet")
    assert table.num_rows == 3
    assert set(table["label"].to_pylist()) == {""}
    with tarfile.open(tmp_path / "pictures.tar", "w") as tar:
        for k, path in enumerate(paths):
            tar.add(path, f"{k}.png")
    found = run("features", tmp_path / "pictures.tar", "-o", tmp_path / "t.parquet", "--layer", "pre_logits", *TINY)
    assert (found.code, found.err.count("note: no labels are written: ")) == (0, 1)
    assert pq.read_table(tmp_path / "t.parquet")["pre_logits"] == table["pre_logits"]
    (tmp_path / "labelled.txt").write_text("\n".join(["path,label", *(f"{path},sea" for path in paths)]))
    assert run("features", tmp_path / "labelled.txt", "-o", tmp_path / "l.parquet", *TINY).code == 0
    assert set(pq.read_table(tmp_path / "l.parquet")["label"].to_pylist()) == {"sea"}
    (tmp_path / "torn.csv").write_text("name of nothing\n1\n")
    assert "no column 'path'" in run("features", tmp_path / "torn.csv", "-o", tmp_path / "g.parquet", *TINY).err


def test_cache_shows_what_is_stored_and_clears_it(run: Run, pictures: Path, tmp_path: Path) -> None:
    place = tmp_path / "store"
    run("inspect", pictures, "--cache", place, *TINY)
    (place / "precious.txt").write_text("mine")
    said = json.loads(run("cache", "--cache", place, "--json").out)
    assert said["folder"] == str(place)
    assert said["bytes"] == said["networks"] + sum(e["bytes"] for e in said["entries"]) > said["networks"] > 0
    assert said["entries"][0]["made_by"]["backbone"] == "test_efficientnet"
    assert "test_efficientnet, 64 px, f32" in run("cache", "--cache", place).out
    found = run("cache", "--cache", place, "--clear", "--json")
    assert json.loads(found.out)["bytes"] == 0
    assert (place / "precious.txt").read_text() == "mine"
    assert [p for p in place.rglob("*") if p.is_file()] == [place / "precious.txt"]


def test_a_fit_leaves_nothing_in_the_home_folder(start: Start, home: Path, pictures: Path, tmp_path: Path) -> None:
    out, err = tmp_path / "out.txt", tmp_path / "err.txt"
    assert start(out, err, "fit", pictures, "-o", tmp_path / "model", *TINY).code() == 0, err.read_text()
    assert (tmp_path / "model").is_dir()
    assert list(home.rglob("*")) == []
    assert err.read_text().count("\n") == 1
    assert "\r" not in err.read_text(), "a progress bar, and no terminal"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_progress_is_shown_on_a_terminal_and_an_interrupt_is_one_line(
    start: Start, model: Path, tmp_path: Path
) -> None:
    """The network was compiled before, for `model`: nothing slow comes before its bar."""
    import fcntl
    import pty
    import struct
    import termios

    rng = np.random.default_rng(6)
    for colour, name in enumerate(("a", "b")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(60):
            write_png(picture(colour, rng, 160), tmp_path / "data" / name / f"{k}.png")
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    options = ["fit", tmp_path / "data", "-o", tmp_path / "model", *TINY]  # a second of work after the bar is seen
    process, shown = start(tmp_path / "out.txt", os.ttyname(follower), *options), b""
    os.close(follower)
    with contextlib.suppress(OSError):  # the other end is closed
        while part := os.read(leader, 4096):
            seen, shown = b"network:" in shown, shown + part
            if b"network:" in shown and not seen:
                os.kill(process.number, signal.SIGINT)
    os.close(leader)
    text = shown.decode()
    assert (tmp_path / "out.txt").read_bytes() == b"", text
    assert process.code() == 130, text
    assert "img" in text
    assert text.index("open the network ...") < text.index("network:")
    assert text.rstrip().splitlines()[-1].split("\x1b[K")[-1].startswith("headstart: interrupted: "), text
    assert "Traceback" not in text
    assert not (tmp_path / "model").exists()


def test_a_line_stands_beside_what_is_being_done_and_nothing_of_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    with watching(tell) as watch, watch.step("fit heads"):
        watch.say("note: a line")
    screen = [line.rsplit("\r", 1)[-1] for line in shown.getvalue().split("\n")]  # what a return overwrites is gone
    assert "fit heads ..." in shown.getvalue()
    assert screen == ["note: a line", ""]


def test_a_reader_that_closes_early_is_no_error(start: Start, model: Path, pictures: Path, tmp_path: Path) -> None:
    import fcntl

    out, err = tmp_path / "pipe", tmp_path / "err.txt"
    os.mkfifo(out)
    reader = os.open(out, os.O_RDONLY | os.O_NONBLOCK)
    times = 40
    if hasattr(fcntl, "F_SETPIPE_SZ"):  # a small pipe is full sooner
        times = 10
        fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    process = start(out, err, "predict", model, *[pictures] * times)
    os.set_blocking(reader, True)
    with os.fdopen(reader, "rb", buffering=0) as lines:
        assert lines.readline().startswith(bytes(pictures))
    assert process.code() == 141  # as if SIGPIPE had ended it: it had more to say
    assert err.read_text() == ""


def test_the_time_counts_from_the_start_of_the_process() -> None:
    """Not from the import of what tells it, and not from anything before the process."""
    code = (
        "import time; time.sleep(0.2); before = time.perf_counter(); "
        "from headstart.cli.elapsed import process_start; print(before - process_start())"
    )
    begun = time.perf_counter()
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(ran.stdout) <= time.perf_counter() - begun + 0.05
    if Path("/proc/self/stat").exists():
        assert float(ran.stdout) >= 0.15


def test_the_stages_of_a_fit_make_its_whole_time(run: Run, pictures: Path, tmp_path: Path) -> None:
    begun = time.perf_counter()
    found = json.loads(run("fit", pictures, "-o", tmp_path / "model", *TINY, "--json").out)
    assert 0 < sum(found["seconds"].values()) <= time.perf_counter() - begun
    assert next(iter(found["seconds"])) == "start the program"
