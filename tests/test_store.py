"""The store: what was put in comes out bit for bit, whatever else happens to its folder."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import headstart
from headstart.errors import OutputError
from headstart.trunk.store import Found, OnDisk, Store, cache_root, clear, usage

MADE_BY = {"backbone": "a", "blocks": ["one/mean", "pre_logits"]}


def names(start: int, stop: int) -> list[str]:
    return [f"{k:032x}" for k in range(start, stop)]


def content(hashes: list[str]) -> Found:
    """Features (image, 5) and (image, 3) that depend on the hash alone."""
    number = np.array([int(h, 16) for h in hashes])
    one = np.random.default_rng(0).standard_normal((4096, 5)).astype(np.float16)[number]
    last = (number[:, None] + np.arange(3)).astype(np.float16)
    thumbnails = np.broadcast_to((number % 256).astype(np.uint8)[:, None, None, None], (len(hashes), 16, 16, 3))
    return Found(thumbnails.copy(), {"one/mean": one, "pre_logits": last})


def fill(store: Store, start: int, stop: int) -> None:
    hashes = names(start, stop)
    found = content(hashes)
    store.add(hashes, found.thumbnails, found.blocks)


def check(store: Store, hashes: list[str]) -> None:
    found, expected = store.read(hashes), content(hashes)
    assert found is not None
    assert np.array_equal(found.thumbnails, expected.thumbnails)
    assert list(found.blocks) == list(expected.blocks)
    for name, block in expected.blocks.items():
        assert found.blocks[name].dtype == np.float16
        assert np.array_equal(found.blocks[name], block)


def test_rows_come_back_in_the_order_asked_for_from_any_process(tmp_path: Path) -> None:
    store = Store(tmp_path, MADE_BY)
    for start in (0, 40, 70):
        fill(store, start, start + 40)  # some rows are in two shards
    rng = np.random.default_rng(1)
    hashes = [names(0, 110)[k] for k in [*rng.permutation(110), 3, 3]]
    check(store, hashes)
    check(Store(tmp_path, MADE_BY), hashes)
    assert names(0, 1)[0] in store
    assert names(110, 111)[0] not in store


def test_extremes_and_bits_survive(tmp_path: Path) -> None:
    values = np.array([[65504, -65504, 6e-8, -0.0, 0, 1]], np.float16)
    store = Store(tmp_path, MADE_BY)
    store.add(names(0, 1), np.zeros((1, 16, 16, 3), np.uint8), {"b": values})
    found = Store(tmp_path, MADE_BY).read(names(0, 1))
    assert found is not None
    assert found.blocks["b"].tobytes() == values.tobytes()


def test_another_maker_has_another_place(tmp_path: Path) -> None:
    fill(Store(tmp_path, MADE_BY), 0, 4)
    assert names(0, 1)[0] not in Store(tmp_path, {**MADE_BY, "backbone": "b"})
    assert Store(tmp_path, dict(reversed(MADE_BY.items()))).folder == Store(tmp_path, MADE_BY).folder


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "empty":
        data = bytearray()
    elif how == "truncated":
        data = data[: len(data) // 2]
    elif how == "garbage":
        data = bytearray(os.urandom(len(data)))
    else:  # one bit of the features, which stand before the footer
        where = bytes(data).index(content(names(0, 20)).blocks["pre_logits"][3:6].tobytes())
        data[where] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["empty", "truncated", "garbage", "one bit"])
@pytest.mark.parametrize("when", ["before opening", "after opening"])
def test_a_damaged_shard_is_forgotten_and_the_others_stay(tmp_path: Path, how: str, when: str) -> None:
    first = Store(tmp_path, MADE_BY)
    fill(first, 0, 20)
    [shard] = first.folder.glob("*.parquet")
    fill(first, 20, 30)
    store = Store(tmp_path, MADE_BY)
    damage(shard, how)
    if when == "before opening":
        store = Store(tmp_path, MADE_BY)
    if names(0, 1)[0] in store:
        assert store.read(names(0, 30)) is None
    assert not [h for h in names(0, 20) if h in store]
    check(store, names(20, 30))
    fill(store, 0, 20)
    check(store, names(0, 30))
    check(Store(tmp_path, MADE_BY), names(0, 30))


def test_a_shard_that_another_process_deleted_is_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path, MADE_BY)
    fill(store, 0, 20)
    clear(tmp_path)
    assert store.read(names(0, 20)) is None
    assert names(0, 1)[0] not in store


def test_any_flipped_bit_of_a_shard_is_noticed(tmp_path: Path) -> None:
    """The footer too: what is read is what was written, or nothing."""
    fill(Store(tmp_path, MADE_BY), 0, 4)
    [shard] = Store(tmp_path, MADE_BY).folder.glob("*.parquet")
    data, noticed = shard.read_bytes(), 0
    for bit in np.random.default_rng(0).choice(8 * len(data), 700, replace=False):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(changed)
        store = Store(tmp_path, MADE_BY)
        known = [h for h in names(0, 4) if h in store]
        noticed += not known or store.read(known) is None
    assert noticed == 700


def test_many_damaged_shards_are_forgotten_at_once(tmp_path: Path) -> None:
    """`extract` tries three times: with more damaged shards than that it would give up."""
    store = Store(tmp_path, MADE_BY)
    for start in range(0, 50, 5):
        fill(store, start, start + 5)
    for shard in store.folder.glob("*.parquet"):
        damage(shard, "truncated")
    assert store.read(names(0, 50)) is None
    assert not [h for h in names(0, 50) if h in store]


def test_an_older_headstarts_shard_is_passed_over_and_what_is_no_file_does_not_stop_anything(tmp_path: Path) -> None:
    store = Store(tmp_path, MADE_BY)
    fill(store, 0, 5)
    [shard] = store.folder.glob("*.parquet")
    shard.rename(store.folder / f"{'0' * 32}.parquet")
    (store.folder / "a-00000000.parquet").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(store.folder / "b-00000000.parquet")
        (store.folder / "made-by.json").unlink()
        os.mkfifo(store.folder / "made-by.json")
    (store.folder / "c-00000000.parquet").symlink_to("/dev/zero")
    store = Store(tmp_path, MADE_BY)
    assert names(0, 1)[0] not in store
    fill(store, 0, 5)
    check(Store(tmp_path, MADE_BY), names(0, 5))
    assert len(usage(tmp_path).entries) == 1
    clear(tmp_path)
    assert usage(tmp_path).entries == ()


def test_two_add_and_read_while_a_third_clears(tmp_path: Path) -> None:
    """What was added is there, or was cleared; it is never wrong, and nothing fails."""
    over, wrong = threading.Event(), []

    def clearing() -> None:
        while not over.wait(0.02):
            clear(tmp_path)

    def adding(seed: int) -> None:
        for start in range(seed, 400, 10):
            store = Store(tmp_path, MADE_BY)
            fill(store, start, start + 20)
            hashes = [h for h in names(0, 420) if h in store]
            found = store.read(hashes)
            if found is not None and found.blocks["one/mean"].tobytes() != content(hashes).blocks["one/mean"].tobytes():
                wrong.append(hashes)
        usage(tmp_path)

    with ThreadPoolExecutor(3) as pool:
        third = pool.submit(clearing)
        others = [pool.submit(adding, seed) for seed in range(2)]
        try:
            for other in others:
                other.result()
        finally:
            over.set()
        third.result()
    assert not wrong
    clear(tmp_path)
    assert list((tmp_path / "features").iterdir()) == []


def test_a_disk_that_is_too_small_for_the_map_of_a_result_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes are claimed before they are written: a map over bytes that a disk lacks ends the process."""
    store = Store(tmp_path, MADE_BY)
    fill(store, 0, 20)
    monkeypatch.setattr("headstart.trunk.store.IN_MEMORY", 0)
    check(store, names(0, 20))

    def full(file: int, start: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(OutputError, match="No space left"):
        store.read(names(0, 20))


def test_what_is_read_from_a_file_is_a_copy_and_leaves_memory(tmp_path: Path) -> None:
    """Whole, by rows, by lists of them, and after another row was written."""
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        block = OnDisk(file, np.float16, "w+", shape=(40, 50_000))
    block[5:15] = np.arange(10)[:, None]
    block[np.array([20, 30])] = 7
    block[31] = 3
    assert block[5:15, 0].tolist() == list(range(10))
    assert block[np.array([30, 31, 20])][:, -1].tolist() == [7, 3, 7]
    assert type(block[5]) is np.ndarray
    block[5][:] = 9  # a copy: the file stays as it is
    assert block[5].max() == 0
    assert np.asarray(block).max(axis=1)[14] == 9
    if (smaps := Path("/proc/self/smaps")).exists():
        block.release()
        mapped = smaps.read_text().split(f" {tmp_path}")[1]
        assert re.search(r"Rss:\s+(\d+) kB", mapped)[1] == "0"  # type: ignore[index]


def work(root: Path, seed: int) -> None:
    """Adds what it does not find, in an order of its own, and reads it back, four times over."""
    rng = np.random.default_rng(seed)
    for start in rng.permutation(np.arange(0, 400, 20)):
        store = Store(root, MADE_BY)
        missing = [h for h in names(int(start), int(start) + 20) if h not in store]
        if missing:
            found = content(missing)
            store.add(missing, found.thumbnails, found.blocks)
        check(store, names(int(start), int(start) + 20))


def test_two_processes_on_one_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(tmp_path, seed)) for seed in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    store = Store(tmp_path, MADE_BY)
    check(store, names(0, 400))
    assert not list(store.folder.glob(".*.partial"))


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--cache") as error:
        Store(tmp_path / "file", MADE_BY)
    assert "\n" not in str(error.value)


def test_a_full_disk_is_one_line_and_loses_nothing_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, MADE_BY)
    fill(store, 0, 20)

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="No space left") as error:
            fill(store, 20, 40)
    assert "\n" not in str(error.value)
    assert names(20, 21)[0] not in store
    assert sorted(f.suffix for f in store.folder.iterdir()) == [".json", ".parquet"]
    check(Store(tmp_path, MADE_BY), names(0, 20))


def test_remains_of_killed_writers_go_after_an_hour(tmp_path: Path) -> None:
    folder = Store(tmp_path, MADE_BY).folder
    old, new = (folder / f".{name}.parquet.{uuid.uuid4().hex}.partial" for name in "ab")
    stranger = folder / ".mine.partial"
    for path in (old, new, stranger):
        path.write_bytes(b"half")
    for path in (old, stranger):
        os.utime(path, (0, 0))
    Store(tmp_path, MADE_BY)
    assert not old.exists()
    assert new.exists()
    assert stranger.exists()


def test_usage_and_clear(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("not the store's")
    clear(tmp_path / "nowhere")
    fill(Store(tmp_path, MADE_BY), 0, 20)
    fill(Store(tmp_path, MADE_BY), 20, 30)
    fill(Store(tmp_path, {"backbone": "b"}), 0, 5)
    found = usage(tmp_path)
    assert sorted((made_by["backbone"], shards) for _, made_by, shards, _ in found.entries) == [("a", 2), ("b", 1)]
    assert found.total_bytes == sum(p.stat().st_size for p in tmp_path.rglob("*.parquet"))
    clear(tmp_path)
    assert usage(tmp_path).entries == ()
    assert (tmp_path / "mine.txt").exists()


def test_the_cache_is_the_argument_else_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    assert cache_root() == tmp_path
    assert cache_root("other") == Path("other")
    monkeypatch.delenv("HEADSTART_CACHE")
    assert "headstart" in str(cache_root())


# In a process that ends without tracemalloc.stop(): a thread of Arrow's that lets go of bytes at that moment would
# bring the interpreter down (CPython 3.11).
READING = """
import os, sys, tracemalloc
from pathlib import Path
import numpy as np
import pyarrow as pa
from headstart.trunk.store import Store

folder = Path(sys.argv[1])
names = [f"{k:032x}" for k in range(8192)]
store = Store(folder, {})
for start in range(0, 8192, 256):
    rows = np.ones((256, 500), np.float16)
    store.add(names[start : start + 256], np.zeros((256, 16, 16, 3), np.uint8), {"b": rows})
store = Store(folder, {})
tracemalloc.start()
found = store.read(names)
peak = tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().bytes_allocated()
print(peak, found.blocks["b"].nbytes + found.thumbnails.nbytes, flush=True)
os._exit(0)
"""


def test_reading_takes_little_more_memory_than_the_result(tmp_path: Path) -> None:
    """Shards are read one by one: a few of them are held beside the result, not all."""
    source = str(Path(headstart.__file__).resolve().parents[1])
    ended = subprocess.run(
        [sys.executable, "-c", READING, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=True,
    )
    peak, size = map(int, ended.stdout.split())
    assert size == 8192 * (1000 + 768)
    assert peak <= 1.5 * size
