"""Laws of the saved model: what was written is read, what was damaged is refused, what was there is never lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from headstart.errors import BundleError, OutputError
from headstart.files import bundle
from headstart.files.bundle import (
    CHECKSUMS,
    CONFIG,
    DEFINING,
    GALLERY,
    HEAD,
    MANIFEST,
    MODEL,
    NOVELTY,
    ODDITY,
    REFERENCE,
    check_writable,
    read_bundle,
)
from saved import DESCRIBED, METRICS, RUN, save


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Syncing matters when the power fails, not when a process is killed: note what is synced, and save the time."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    return synced


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save(tmp_path / "model")
    return tmp_path / "model"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# What was written is read


def test_json_parts_are_read_as_written(model: Path) -> None:
    read = read_bundle(model)
    assert read.manifest == DESCRIBED | {"number": 1, "format_version": 1}
    assert read.config == {"architecture": "resnet18", "number": 1}
    assert read.metrics == METRICS | {"number": 1}
    assert read.run == RUN
    assert (model / "README.md").read_bytes() == b"# model\n"


numeric = st.sampled_from(["f2", "f4", "f8", "i1", "u1", "i4", "i8", "?", ">f4", ">i8"]).map(np.dtype)
tensor = numeric.flatmap(
    lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
layout: st.SearchStrategy[Callable[[NDArray[Any]], NDArray[Any]]] = st.sampled_from(
    [np.asarray, np.transpose, np.asfortranarray, lambda array: array[..., ::-1] if array.ndim else array]
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tensors=st.dictionaries(st.text(min_size=1, max_size=8).filter(lambda name: name != "__metadata__"), tensor),
    view=layout,
)
def test_tensors_are_read_bit_for_bit_whatever_their_layout(
    tmp_path: Path, tensors: dict[str, NDArray[Any]], view: Callable[[NDArray[Any]], NDArray[Any]]
) -> None:
    given_arrays = {name: view(array) for name, array in tensors.items()}
    save(tmp_path / "model", tensors={MODEL: given_arrays})
    read = read_bundle(tmp_path / "model").tensors()
    assert read.keys() == given_arrays.keys()
    for name, array in given_arrays.items():
        assert read[name].shape == array.shape
        assert read[name].dtype == array.dtype.newbyteorder("=")
        assert read[name].tobytes() == array.astype(array.dtype.newbyteorder("=")).tobytes()


def test_a_read_model_saved_again_is_the_same_model(model: Path, tmp_path: Path) -> None:
    read = read_bundle(model)
    again = {name: read.tensors(name) for name in (MODEL, HEAD, GALLERY, REFERENCE, NOVELTY, ODDITY)}
    save(tmp_path / "again", manifest=read.manifest, config=read.config, tensors=again)
    assert contents(tmp_path / "again") == contents(model)


def test_the_head_is_part_of_the_model_only_where_it_was_written(model: Path, tmp_path: Path) -> None:
    assert read_bundle(model).has_head
    save(tmp_path / "plain", tensors={MODEL: {}})
    plain = read_bundle(tmp_path / "plain")
    assert not plain.has_head
    with pytest.raises(BundleError, match="not part of this model"):
        plain.tensors(HEAD)


def test_files_can_be_given_by_path(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"PAR1")
    save(tmp_path / "model", files={"split.parquet": tmp_path / "rows"})
    assert (tmp_path / "model" / "split.parquet").read_bytes() == b"PAR1"


@pytest.mark.parametrize(
    "changed",
    [
        {"files": {"weights.pkl": b""}},
        {"files": {"../escaped": b""}},
        {"files": {CHECKSUMS: b"{}"}},
        {"tensors": {HEAD: {}}},
        {"metrics": {"accuracy": float("nan")}},
    ],
    ids=["unknown file", "path", "checksums", "no model", "NaN"],
)
def test_what_is_no_part_of_the_format_is_not_written(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"saved model needs|Out of range float"):
        save(tmp_path / "model", **changed)
    assert names(tmp_path) == []


# What was damaged is refused


@pytest.mark.parametrize("file", [*DEFINING, CHECKSUMS])
def test_a_flipped_bit_at_any_byte_is_refused(model: Path, file: str) -> None:
    intact = (model / file).read_bytes()
    for position in range(len(intact)):
        damaged = bytearray(intact)
        damaged[position] ^= 1 << (position % 8)
        (model / file).write_bytes(damaged)
        with pytest.raises(BundleError) as caught:
            read_bundle(model)
        if file != CHECKSUMS:
            assert file in str(caught.value)
        assert "headstart fit" in str(caught.value)
    (model / file).write_bytes(intact)
    assert read_bundle(model).manifest["number"] == 1


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("file", [*DEFINING, CHECKSUMS])
def test_a_truncated_file_is_named(model: Path, file: str, kept: float) -> None:
    content = (model / file).read_bytes()
    (model / file).write_bytes(content[: int(kept * len(content))])
    with pytest.raises(BundleError, match=file):
        read_bundle(model)


@pytest.mark.parametrize("file", [*DEFINING, CHECKSUMS])
def test_a_missing_file_is_named(model: Path, file: str) -> None:
    (model / file).unlink()
    with pytest.raises(BundleError, match=rf"{file} is missing"):
        read_bundle(model)


def test_a_head_from_another_model_is_refused(model: Path, tmp_path: Path) -> None:
    save(tmp_path / "plain", tensors={MODEL: {}})
    (tmp_path / "plain" / HEAD).write_bytes((model / HEAD).read_bytes())
    with pytest.raises(BundleError, match="not part of this model"):
        read_bundle(tmp_path / "plain")


@pytest.mark.parametrize(
    "crafted", ["[]", "{}", '{"../../secret": {"bytes": 1, "sha256": ""}}', '{"config.json": 1}', "[" * 10**5]
)
def test_checksums_that_no_save_wrote_are_refused(model: Path, crafted: str) -> None:
    (model / CHECKSUMS).write_text(crafted)
    with pytest.raises(BundleError, match=CHECKSUMS):
        read_bundle(model)


def test_what_is_about_the_model_may_be_edited(model: Path) -> None:
    (model / "README.md").unlink()
    (model / "metrics.json").write_text("{oh")
    (model / "notes.txt").write_text("mine")
    read = read_bundle(model)
    assert read.tensors()["weight"].tolist() == [[1, 1, 1], [1, 1, 1]]
    with pytest.raises(BundleError, match=r"metrics\.json cannot be read as JSON"):
        _ = read.metrics


def test_what_was_read_stays_one_model_whatever_becomes_of_its_folder(model: Path) -> None:
    first = read_bundle(model)
    save(model, 2)
    shutil.rmtree(model)
    for file in (MODEL, HEAD):
        assert first.tensors(file)["weight"].tolist() == [[1, 1, 1], [1, 1, 1]]
    assert first.metrics["number"] == first.manifest["number"] == 1
    assert first.run == RUN


@pytest.mark.parametrize("what", ["missing", "file", "photos", "below a file"])
def test_other_things_are_not_models(tmp_path: Path, what: str) -> None:
    (tmp_path / "photos" / "ant").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    place = {"below a file": Path("file/model")}.get(what, Path(what))
    with pytest.raises(BundleError, match="headstart fit DATA -o MODEL"):
        read_bundle(tmp_path / place)


def test_a_misspelt_model_is_found(model: Path) -> None:
    with pytest.raises(BundleError, match="did you mean model"):
        read_bundle(model.with_name("modle"))


# Newer formats


def test_a_newer_format_is_said_before_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as later:
        later.setattr(bundle, "FORMAT_VERSION", 7)
        save(tmp_path / "model")
    (tmp_path / "model" / MODEL).unlink()
    with pytest.raises(BundleError, match=r"format version 7.*up to 1: upgrade headstart") as caught:
        read_bundle(tmp_path / "model")
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("version", [2, 9, 10**30])
def test_a_version_that_its_checksum_does_not_confirm_may_be_damage(model: Path, version: int) -> None:
    manifest = json.loads((model / MANIFEST).read_bytes()) | {"format_version": version}
    (model / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=rf"format version {version}.*up to 1: upgrade headstart.*may be damaged"):
        read_bundle(model)


# What was there is never lost


def test_a_model_is_replaced_whole(model: Path) -> None:
    save(model, 2, tensors={MODEL: {"weight": np.zeros(1)}}, files={})
    assert read_bundle(model).manifest["number"] == 2
    assert names(model) == sorted([CHECKSUMS, CONFIG, MANIFEST, MODEL, "metrics.json", "run.json"])
    assert names(model.parent) == ["model"]


def test_a_damaged_model_can_be_replaced(model: Path) -> None:
    (model / MODEL).write_bytes(b"")
    save(model, 2)
    assert read_bundle(model).manifest["number"] == 2


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", tmp_path / "a" / "b" / "model"):
        before = sorted(tmp_path.rglob("*"))
        check_writable(place)
        assert sorted(tmp_path.rglob("*")) == before
        save(place)
        assert read_bundle(place).manifest["number"] == 1


def test_everything_is_synced_before_it_takes_the_name(
    model: Path, monkeypatch: pytest.MonkeyPatch, fast_disk: list[int]
) -> None:
    checked: list[Path] = []
    rename = Path.rename

    def checking(source: Path, target: Path) -> Path:
        if target == model:
            parts = [source, *source.iterdir()]
            assert {path.stat().st_ino for path in parts} <= set(fast_disk)
            checked.extend(parts)
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", checking)
    fast_disk.clear()
    save(model, 2)
    assert len(checked) == 1 + len(names(model))
    assert fast_disk[-1] == model.parent.stat().st_ino


def test_a_link_to_a_model_stays_a_link(model: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to(model)
    save(tmp_path / "latest", 2)
    assert (tmp_path / "latest").is_symlink()
    assert read_bundle(model).manifest["number"] == 2


@pytest.mark.parametrize("kind", ["photos", "one hidden file", "model and notes", "model and a folder", "file"])
def test_a_place_that_holds_anything_else_is_left_alone(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "file":
        place.write_text("mine")
    elif kind.startswith("model"):
        save(place)
    mine = {
        "photos": "ant/1.jpg",
        "one hidden file": ".keep",
        "model and notes": "notes.txt",
        "model and a folder": "split.parquet/x",
    }.get(kind)
    if mine:
        (place / mine).parent.mkdir(parents=True, exist_ok=True)
        (place / mine).write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for attempt in (check_writable, save):
        with pytest.raises(OutputError, match="name a new folder"):
            attempt(place)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("place", ["/dev/null/model", "/proc/headstart/model", "/", "file/model", "n" * 250])
def test_a_place_that_cannot_be_written_is_said_in_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    for attempt in (check_writable, save):
        with pytest.raises(OutputError) as caught:
            attempt(tmp_path / place)
        assert "name a folder" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_model_from_before_a_save_that_was_cut_short_is_moved_back(model: Path) -> None:
    model.rename(model.with_name(".model.old-999999999-0123abcd"))
    assert read_bundle(model).manifest["number"] == 1
    assert names(model.parent) == ["model"]


STEPS = """
import itertools, os, shutil, signal, sys
os.fsync = lambda handle: None  # a killed process loses nothing that it has written
from pathlib import Path
import numpy as np
from headstart.files.bundle import read_bundle, write_bundle
from headstart.errors import OutputError

EVENTS = {"open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "os.listdir", "os.scandir", "shutil.rmtree"}
FAILURES = {"kill": None, "full": OSError(28, "No space left on device"), "interrupt": KeyboardInterrupt()}

def save(folder, number):
    tensors = {"model.safetensors": {"weight": np.full(8, number)}}
    write_bundle(folder, manifest=DESCRIBED | {"number": number}, config={}, metrics={}, run={}, tensors=tensors)

def fail_at(step, how, folder):
    count = itertools.count()
    def hook(event, arguments):
        if event in EVENTS and next(count) == step:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise FAILURES[how]
    sys.addaudithook(hook)
    try:
        save(folder, 2)
    except OutputError:
        os._exit(1)
    except KeyboardInterrupt:
        os._exit(2)
    os._exit(0 if next(count) > step else 3)

how, base = sys.argv[1], Path(sys.argv[2])
outcomes = set()
for step in itertools.count():
    folder = base / "model"
    save(folder, 1)
    child = os.fork()
    if child == 0:
        fail_at(step, how, folder)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    read = read_bundle(folder)
    number = read.manifest["number"]
    assert number == 2 if code in (0, 3) else number in (1, 2), (step, code, number)
    assert (read.tensors()["weight"] == number).all(), step
    if how != "kill":
        assert code == 2 or number == 2 or os.listdir(base) == ["model"], (step, os.listdir(base))
    assert all(read_bundle(old).manifest["number"] == 1 for old in base.glob(".model.old-*")), step  # never half of one
    save(folder, 3)
    assert os.listdir(base) == ["model"], (step, os.listdir(base))
    outcomes.add((code != 0, number))
    shutil.rmtree(folder)
    if code == 3:
        break
assert {(True, 1), (True, 2)} <= outcomes or how == "full", outcomes
print(step)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
@pytest.mark.parametrize("how", ["kill", "full", "interrupt"])
def test_a_save_that_ends_at_any_step_leaves_the_old_model_or_the_new(tmp_path: Path, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{DESCRIBED = }\n{STEPS}", how, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20  # the steps of one save


MOMENTS = """
import os, random, signal, sys, time
from itertools import count
from pathlib import Path
import numpy as np
from headstart.files.bundle import read_bundle, write_bundle

def save(folder, number):
    tensors = {"model.safetensors": {"weight": np.full(1000, number)}}
    write_bundle(folder, manifest=DESCRIBED | {"number": number}, config={}, metrics={}, run={}, tensors=tensors)

folder = Path(sys.argv[1]) / "model"
draw = random.Random(0)
save(folder, 0)
last = 0
for _ in range(10):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        for number in count(last + 1):
            save(folder, number)
            os.write(writer, b".")
    time.sleep(draw.uniform(0, 0.2))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(writer)
    finished = last + len(os.read(reader, 10**6))
    os.close(reader)
    read = read_bundle(folder)
    last = read.manifest["number"]
    assert last in (finished, finished + 1), (last, finished)
    assert (read.tensors()["weight"] == last).all()
assert last > 0
"""


@pytest.mark.skipif(os.name == "nt", reason="needs fork")
def test_a_kill_at_random_moments_never_loses_a_finished_save(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{DESCRIBED = }\n{MOMENTS}", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_reader_sees_the_old_model_or_the_new_while_others_save(model: Path) -> None:
    refused: list[OutputError] = []

    def keep_saving(start: int) -> None:
        for number in range(start, start + 100):
            try:
                save(model, number)
            except OutputError as error:
                refused.append(error)

    savers = [threading.Thread(target=keep_saving, args=(start,)) for start in (1000, 2000)]
    for saver in savers:
        saver.start()
    reads = 0
    while any(saver.is_alive() for saver in savers):
        read = read_bundle(model)
        numbers = {read.manifest["number"], read.config["number"], read.metrics["number"]}
        assert numbers == {int(read.tensors(file)["weight"][0, 0]) for file in (MODEL, HEAD)}
        reads += 1
    assert reads > 3
    assert len(refused) < 200  # some saves may be refused while another one is at it, never all
    assert refused or names(model.parent) == ["model"]


@pytest.mark.skipif(os.name == "nt", reason="needs links to folders")
@pytest.mark.parametrize("which", [CHECKSUMS, CONFIG, MODEL, HEAD, "metrics.json", "run.json"])
def test_a_model_that_is_replaced_between_two_files_is_read_anew(
    model: Path, which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next folder gets the number and the times of the one before: a system may give both again at once."""
    opened, one = bundle.read_regular, Path.stat(model)
    saved: list[int] = []

    def read(path: Path, most: int) -> bytes:
        if path.name == which and not saved:
            saved.append(2)
            save(model, 2, files={})
            os.utime(model, ns=(one.st_atime_ns, one.st_mtime_ns))
        return opened(path, most)

    monkeypatch.setattr(bundle, "read_regular", read)
    read_once = read_bundle(model)
    assert saved
    assert (read_once.manifest["number"], read_once.metrics["number"]) == (2, 2)
    assert read_once.tensors()["weight"][0, 0] == 2


def test_what_reads_more_of_the_folder_is_done_anew_where_it_was_replaced(model: Path) -> None:
    seen: list[int] = []

    def use(read: bundle.Bundle) -> bytes:
        seen.append(read.manifest["number"])
        if len(seen) == 1:
            save(model, 2, files={"split.parquet": b"2"})
        more = (model / "split.parquet").read_bytes()
        if more != str(seen[-1]).encode():
            raise BundleError("of another model")
        return more

    assert bundle.read_with(model, use) == b"2"
    assert seen == [1, 2]
    with pytest.raises(BundleError, match="for good"):
        bundle.read_with(model, lambda read: (_ for _ in ()).throw(BundleError("for good")))
