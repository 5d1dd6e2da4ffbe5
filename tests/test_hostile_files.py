"""Pipes, devices and files that unpack to more than they should: named and set aside, at once and within bounds."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import headstart
from headstart.data.images import Preprocess, load, write_png
from headstart.data.splits import read_split, write_split
from headstart.data.table import Table, list_images, read_table
from headstart.errors import DataError, HeadstartError, ImageError, OutputError
from headstart.files import parquet
from headstart.files.bundle import read_bundle, write_bundle
from headstart.files.pages import HEADERS
from headstart.files.parquet import RATIO, open_parquet, read_columns
from headstart.files.whole import probe, sweep, write_whole

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and limits are POSIX's")

PATIENCE = 60  # s: a guard against a hang, no measure of speed
ROOM = 3 * 2**30  # bytes of address space beside what the process has: a guard against endless reading
SOURCES = Path(headstart.__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Whatever waits is interrupted, and whatever reads without end gets a MemoryError."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"waited for {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(PATIENCE)
    with limited(resource.RLIMIT_AS, _address_space() + ROOM):
        yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _address_space() -> int:
    found = Path("/proc/self/statm")
    return int(found.read_text().split()[0]) * resource.getpagesize() if found.exists() else 2**40


@contextmanager
def limited(what: int, most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(what)
    resource.setrlimit(what, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(what, (soft, hard))


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        place = Path.cwd()
        os.chdir(path.parent)  # its address has room for 107 bytes
        end.bind(path.name)
        os.chdir(place)


def linked(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


NO_FILES: dict[str, Callable[[Path], None]] = {
    "pipe": pipe,
    "socket": listening,
    "endless device": linked("/dev/zero"),
    "silent device": linked("/dev/tty"),
    "link to itself": lambda path: path.symlink_to(path),
    "link to nothing": linked("/nowhere/at all"),
    "folder": Path.mkdir,
    "proc": linked("/proc/self/environ"),
    "proc that never answers": linked("/proc/kmsg"),
    "proc as large as memory": linked("/proc/kcore"),
}
kinds = pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)


@kinds
def test_what_is_no_file_is_no_list_and_no_table(make: Callable[[Path], None], tmp_path: Path) -> None:
    for name in ("list.csv", "list.tsv", "set.parquet"):
        path = tmp_path / name
        make(path)
        with pytest.raises(DataError) as refused:
            read_table(path)
        assert name in str(refused.value)
        assert "\n" not in str(refused.value)


@kinds
def test_what_is_no_file_is_no_picture(make: Callable[[Path], None], tmp_path: Path) -> None:
    """In a folder, in a list, among the arguments, in the middle of a set of Parquet files, and beside its row."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2):
            write_png(rng.integers(0, 256, (8, 8, 3), np.uint8), tmp_path / name / f"{number}.png")
    odd = tmp_path / "a" / "odd.png"
    make(odd)
    (tmp_path / "list.csv").write_text("path,label\na/0.png,x\na/odd.png,x\nb/0.png,y\n")
    rows = [{"bytes": None, "path": "a/odd.png"}, {"bytes": (tmp_path / "a/0.png").read_bytes(), "path": "0.png"}]
    pq.write_table(pa.table({"image": rows, "label": ["x", "y"]}), tmp_path / "set.parquet")
    tables = [read_table(tmp_path / "list.csv"), read_table(tmp_path / "set.parquet")]
    if not odd.is_dir():
        tables += [read_table(tmp_path), list_images([odd, tmp_path / "b/0.png"])]
    for table in tables:
        read = [row for row in range(len(table)) if _readable(table, row)]
        assert read, "the good ones stay"
        odd_rows = [row for row, name in enumerate(table.names) if "odd" in name or str(name).endswith("#0")]
        assert not set(read) & set(odd_rows)
        assert odd_rows or "odd.png" in " ".join(table.notes)


def _readable(table: Table, row: int) -> bool:
    try:
        return bool(len(table.read(row)))
    except ImageError as error:
        return "\n" in str(error)


def test_a_list_without_an_end_of_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sparse.csv"
    for start in (b"", b"path,label\n"):
        with path.open("wb") as file:
            file.write(start)
            file.truncate(2**40)  # a terabyte of zeros that takes no room
        with pytest.raises(DataError, match=r"sparse\.csv"):
            read_table(path)


# Parquet


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def zeros(count: int) -> bytes:
    return bytes(count)


POOLS: list[pa.MemoryPool] = []  # what was taken from one may outlive its test
UNPACKED = 2**22  # bytes: a sixteenth of the real limit, so that the tests are quick


def shared(value: bytes, rows: int) -> pa.StructArray:
    cells = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value], pa.binary()))
    return pa.StructArray.from_arrays([cells, pa.nulls(rows, pa.string())], ["bytes", "path"])


def packed(path: Path, columns: dict[str, pa.Array]) -> None:
    pq.write_table(pa.table(columns), path, compression="zstd", write_statistics=False, store_schema=False)


def large_value(path: Path) -> None:
    packed(path, {"image": shared(zeros(UNPACKED + 1), 2), "label": pa.array(["a", "b"])})


def many_large_values(path: Path) -> None:
    values = pa.array([zeros(2**20)[:-8] + n.to_bytes(8, "big") for n in range(8)], pa.binary())
    columns = {"image": pa.StructArray.from_arrays([values], ["bytes"]), "label": pa.array(["a", "b"] * 4)}
    packed(path, columns)


def one_value_for_all(path: Path) -> None:
    packed(path, {"image": shared(zeros(2**21), 500), "label": pa.array(["a", "b"] * 250)})


def one_label_for_all(path: Path) -> None:
    label = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 500, pa.int32()), pa.array(["a" * 2**16, "b" * 2**16]))
    packed(path, {"image": shared(b"x", 1000), "label": label})


def one_path_for_all(path: Path) -> None:
    name = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 500, pa.int32()), pa.array(["a" * 2**16, "b" * 2**16]))
    packed(path, {"path": name, "label": pa.array(["a", "b"] * 500)})


def millions_of_rows(path: Path) -> None:
    packed(path, {"path": pa.nulls(1_500_000, pa.string()), "label": pa.nulls(1_500_000, pa.string())})


def a_footer_that_lies(path: Path) -> None:
    """The size that it states for the image is changed to 100 bytes, in as many bytes."""
    large_value(path)
    data, size = path.read_bytes(), UNPACKED + 1
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    with pq.ParquetFile(path) as file:
        size = file.metadata.row_group(0).column(0).total_uncompressed_size
    stated, small = varint(2 * size), bytearray(varint(2 * size))
    small[:] = bytes([200, 129]) + b"\x80" * (len(stated) - 3) + b"\0"
    assert data[footer:].count(stated) == 1
    path.write_bytes(data[:footer] + data[footer:].replace(stated, bytes(small)))


def varint(number: int) -> bytes:
    found = []
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


BOMBS = [
    large_value,
    many_large_values,
    one_value_for_all,
    one_label_for_all,
    one_path_for_all,
    millions_of_rows,
    a_footer_that_lies,
]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_a_small_parquet_file_takes_little_memory(
    bomb: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert UNPACKED < parquet.UNPACKED
    monkeypatch.setattr(parquet, "UNPACKED", UNPACKED)
    path = tmp_path / "bomb.parquet"
    bomb(path)
    assert path.stat().st_size < 2**20
    before = pa.default_memory_pool()
    own = pa.proxy_memory_pool(before)
    POOLS.append(own)
    pa.set_memory_pool(own)
    refused = []
    try:
        table = read_table(path)
        for row in range(len(table)):
            table.read(row)
    except HeadstartError as error:
        refused.append(str(error))
    finally:
        pa.set_memory_pool(before)
    assert own.max_memory() < 3 * UNPACKED
    [line] = refused
    assert "bomb.parquet" in line
    assert re.search(r"more than the limit|more than its size allows|claims 1,500,000 rows", line)
    assert "\n" not in line


def test_ordinary_sets_are_far_from_the_limits(tmp_path: Path) -> None:
    """Labels of a word, blank pictures that pack a thousandfold, lists, numbers, and more pages than one."""
    rows = 5000
    blank = [{"bytes": zeros(3000) + bytes([n % 256]), "path": f"{n}.bmp"} for n in range(rows)]
    columns = {
        "image": blank,
        "label": [["cat"]] * rows,
        "words": [[f"w{k}" for k in range(n % 5)] for n in range(rows)],
        "number": list(range(rows)),
        "kind": pa.array(["long-haired"] * rows).dictionary_encode(),
        "map": pa.array([[("a", "b")]] * rows, pa.map_(pa.string(), pa.string())),
        "when": pa.array(range(rows), pa.timestamp("s")),
    }
    for settings in ({}, {"compression": "zstd", "data_page_version": "2.0"}, {"use_dictionary": False}):
        pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=1700, data_page_size=4096, **settings)
        names = list(columns)[1:]
        assert read_columns(tmp_path / "a.parquet", names).equals(pq.read_table(tmp_path / "a.parquet", columns=names))
        found = read_table(tmp_path / "a.parquet", min_classes=1)
        assert [found.read(row) for row in range(0, rows, 100)] == [cell["bytes"] for cell in blank[::100]]
    assert RATIO >= 100


def test_a_page_with_long_statistics_in_its_header_is_read(tmp_path: Path) -> None:
    value = b"x" * (2 * HEADERS[0])
    pq.write_table(pa.table({"a": [value, value]}), tmp_path / "a.parquet", use_dictionary=False)
    assert read_columns(tmp_path / "a.parquet", ["a"])["a"].to_pylist() == [value, value]


def test_a_parquet_file_with_any_bit_flipped_is_read_or_refused(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    packed(whole, {"image": shared(b"picture", 3), "label": pa.array(["a", "b", "a"])})
    data, flipped = whole.read_bytes(), tmp_path / "flipped.parquet"
    for bit in np.random.default_rng(0).integers(0, 8 * len(data), 200):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        flipped.write_bytes(changed)
        with suppress(HeadstartError):
            table = read_table(flipped, min_classes=1)
            for row in range(len(table)):
                table.read(row)


DEEP = "[" * 100_000
DESCRIPTIONS = (
    DEEP,
    "7",
    "[]",
    '{"info": {"features": 3}}',
    '{"info": {"features": {"label": [1]}}}',
    '{"info": {"features": {"label": {"_type": ["ClassLabel"], "names": 5}}}}',
    '{"info": {"features": {"label": {"_type": "ClassLabel", "names": {"a": "cat", "b": "dog"}}}}}',
    '{"info": {"features": {"label": {"_type": "ClassLabel", "names": {"1": ["cat"], "0": null}}}}}',
    '{"info": {"features": {"label": {"_type": "ClassLabel", "names": [["cat"], {"a": 1}]}}}}',
)


@pytest.mark.parametrize("text", DESCRIPTIONS, ids=range(len(DESCRIPTIONS)))
def test_a_description_of_any_shape_is_read_or_refused(text: str, tmp_path: Path) -> None:
    columns = pa.table({"image": [{"bytes": b"x"}, {"bytes": b"y"}], "label": [0, 1]})
    pq.write_table(columns.replace_schema_metadata({"huggingface": text}), tmp_path / "a.parquet")
    with suppress(HeadstartError):
        assert len(read_table(tmp_path / "a.parquet")) == 2


# Writing


@kinds
def test_what_is_no_file_is_never_written_over(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    make(path)
    before = path.lstat()
    for attempt in (probe, lambda place: write_whole(place, lambda partial: partial.write_bytes(b"new"))):
        try:
            attempt(path)
        except OSError:
            continue
        pytest.fail("it was written over")
    assert path.lstat().st_ino == before.st_ino
    assert names_in(tmp_path) == ["out.csv"]


def test_a_link_to_a_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/real.csv").write_text("old")
    (tmp_path / "out.csv").symlink_to("there/real.csv")
    write_whole(tmp_path / "out.csv", lambda partial: partial.write_text("new"))
    assert (tmp_path / "out.csv").is_symlink()
    assert (tmp_path / "there/real.csv").read_text() == "new"
    assert names_in(tmp_path / "there") == ["real.csv"]


def test_a_name_of_any_length_can_be_written(tmp_path: Path) -> None:
    for name in ("é" * 120 + ".csv", "x" * 251 + ".csv"):
        write_whole(tmp_path / name, lambda partial: partial.write_text("new"))
        assert (tmp_path / name).read_text() == "new"


KILLED = """
import os, signal, sys
from pathlib import Path
from headstart.files import whole
path, when = Path(sys.argv[1]), sys.argv[2]
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def write(partial):
    with partial.open("wb") as file:
        file.write(b"new" * 1000)
        file.flush()
        if when == "while it is written":
            die()
        file.write(b"new" * 1000)
if when == "while it is flushed":
    os.fsync = die
if when == "before it is renamed":
    Path.replace = die
rename = Path.replace
if when == "after it was renamed":
    Path.replace = lambda *paths: (rename(*paths), die())
whole.write_whole(path, write)
"""


@pytest.mark.parametrize(
    "when", ["while it is written", "while it is flushed", "before it is renamed", "after it was renamed"]
)
def test_a_kill_leaves_the_old_or_the_new_and_what_it_leaves_beside_is_swept(when: str, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), when], env=environment, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == (b"new" * 2000 if when == "after it was renamed" else b"old")
    sweep(tmp_path, "out.csv")
    left = [file for file in tmp_path.iterdir() if file != path]
    assert len(left) <= 1
    for file in left:
        assert file.name.startswith(".")
        os.utime(file, (0, 0))
    sweep(tmp_path, "other.csv")
    assert all(file.exists() for file in left)
    probe(path)
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path, texts, over = tmp_path / "out.csv", [c * 100_000 for c in "ab"], threading.Event()
    path.write_text(texts[0])

    def write(text: str) -> None:
        for _ in range(50):
            write_whole(path, lambda partial: partial.write_text(text))

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    seen = set()

    def watch() -> None:
        while not over.is_set():
            seen.add(path.read_text())

    watcher = threading.Thread(target=watch)
    for thread in (*writers, watcher):
        thread.start()
    for writer in writers:
        writer.join()
    over.set()
    watcher.join()
    assert seen <= set(texts)
    assert list(tmp_path.iterdir()) == [path]


def bundle(folder: Path, size: int) -> None:
    write_bundle(
        folder / "model",
        manifest=json.loads((Path(__file__).parent / "old" / "linear.json").read_text()),
        config={},
        metrics={},
        run={},
        tensors={"model.safetensors": {"w": np.zeros(size, np.float32)}},
    )


def split(folder: Path, size: int) -> None:
    columns = [[f"{what}{n:032x}" for n in range(size // 10)] for what in "nhls"]
    write_split(folder / "split.parquet", *columns, np.zeros(size // 10, np.int64))


WRITERS: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], object]]] = {
    "bundle": (bundle, lambda folder: read_bundle(folder / "model").manifest),
    "split": (split, lambda folder: read_split(folder / "split.parquet").fingerprint),
}


@pytest.mark.parametrize(("write", "read"), WRITERS.values(), ids=WRITERS)
def test_a_full_disk_is_one_line_and_leaves_what_was_there(
    write: Callable[[Path, int], None], read: Callable[[Path], object], tmp_path: Path
) -> None:
    write(tmp_path, 100)
    before, names = read(tmp_path), names_in(tmp_path)
    with limited(resource.RLIMIT_FSIZE, 20_000), pytest.raises(OutputError) as full:
        write(tmp_path, 100_000)
    assert "\n" not in str(full.value)
    assert "None" not in str(full.value)
    assert read(tmp_path) == before
    assert names_in(tmp_path) == names


@pytest.mark.parametrize(("mode", "side"), [("RGB", 10900), ("RGBA", 8200), ("RGBA", 10900)])
def test_a_picture_whose_decoder_would_take_too_much_is_refused_by_its_header(mode: str, side: int) -> None:
    """JPEG 2000 takes 20 to 24 bytes a pixel: 2.8 GB from a file of 2 KB."""
    sink = io.BytesIO()
    Image.new(mode, (64, 64)).save(sink, "JPEG2000")
    data, size = sink.getvalue(), (64).to_bytes(4, "big") * 2
    assert data.count(size) >= 1
    with pytest.raises(ImageError, match=r"more than the limit of 1\.6"):
        load(
            data.replace(size, side.to_bytes(4, "big") * 2),
            Preprocess((8, 8), 1.0, "bilinear", "squash", (0,) * 3, (1,) * 3),
        )


# The machine


OTHER_USER = """
import os, sys
from pathlib import Path
from headstart.files.whole import probe, write_whole
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
for path in map(Path, sys.argv[1:]):
    for attempt in (probe, lambda place: write_whole(place, lambda partial: partial.write_text("new"))):
        try:
            attempt(path)
        except PermissionError:
            continue
        sys.exit(f"{path} was written")
"""


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become another user")
def test_another_user_without_rights_gets_an_error_and_changes_nothing() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "mine.csv").write_text("old")
        (folder / "private").mkdir(mode=0o700)
        command = [sys.executable, "-c", OTHER_USER, str(folder / "mine.csv"), str(folder / "private/new.csv")]
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(SOURCES)}, check=False, timeout=60)
        assert done.returncode == 0
        assert (folder / "mine.csv").read_text() == "old"
        assert names_in(folder) == ["mine.csv", "private"]


def test_nothing_needs_shared_memory_or_a_second_process() -> None:
    """A machine without /dev/shm, as containers are, is one like any other."""
    modules = {"multiprocessing", "joblib", "concurrent.futures.process"}
    for path in SOURCES.joinpath("headstart").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        named = {
            name
            for node in ast.walk(ast.parse(text))
            for name in (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else []
            )
        }
        assert not {name for name in named if name in modules or name.startswith("multiprocessing.")}, path
        assert not any(word in text for word in ("/dev/shm", "DataLoader", "n_jobs")), path


def test_a_file_that_vanishes_or_turns_into_a_pipe_after_the_scan_is_set_aside(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(3):
            write_png(rng.integers(0, 256, (8, 8, 3), np.uint8), tmp_path / name / f"{number}.png")
    table = read_table(tmp_path)
    for path in (tmp_path / "a/0.png", tmp_path / "a/1.png", tmp_path / "b/0.png"):
        path.unlink()
    os.mkfifo(tmp_path / "a/1.png")
    (tmp_path / "b/0.png").mkdir()
    assert [_readable(table, row) for row in range(6)] == [False, False, True, False, True, True]


def test_a_parquet_file_that_vanishes_after_the_scan_is_set_aside(tmp_path: Path) -> None:
    path, sink = tmp_path / "set.parquet", io.BytesIO()
    for replace in (Path.unlink, lambda p: p.write_bytes(b"PAR1"), lambda p: (p.unlink(), os.mkfifo(p))):
        pq.write_table(pa.table({"image": [{"bytes": b"x"}, {"bytes": b"y"}], "label": ["a", "b"]}), path)
        table = read_table(path)
        replace(path)
        assert not _readable(table, 0)
        path.unlink(missing_ok=True)
    sink.close()
    with pytest.raises(OSError, match="No such file"), open_parquet(path):
        pass
