"""Extraction: each image goes through the network once, and the store changes no bit of what it says."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from conftest import smallest
from headstart.data import images
from headstart.data.images import write_png
from headstart.data.table import Table, read_table, table_of
from headstart.errors import DataError, ImageError, OutputError
from headstart.finetune.at_cut import Live
from headstart.trunk import features as module
from headstart.trunk.backbone import open_backbone
from headstart.trunk.engine import Bytes, Deliver, Engine, OpenVinoEngine
from headstart.trunk.features import (
    Features,
    by_block,
    extract,
    extract_again,
    finite,
    rounded,
    store_key,
    stream,
)
from headstart.trunk.network import Backbone, block_names, block_widths
from headstart.trunk.store import Halves, Store

N = 89  # images: eleven batches of eight and one image


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return smallest()


@pytest.fixture(scope="module")
def engine(backbone: Backbone) -> Engine:
    return OpenVinoEngine(backbone, "f32")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """N different pictures of two classes."""
    rng = np.random.default_rng(3)
    for k in range(N):
        place = tmp_path / "data" / "ab"[k % 2]
        place.mkdir(parents=True, exist_ok=True)
        write_png(rng.integers(0, 256, (40, 36, 3)).astype(np.uint8), place / f"{k:03d}.png")
    return tmp_path / "data"


class Counting:
    """An engine that counts its images and can fail before a batch."""

    def __init__(self, engine: Engine, fail_at: int | None = None, error: BaseException | None = None) -> None:
        self.engine, self.fail_at, self.error, self.n_batches = engine, fail_at, error, 0
        self.name, self.precision, self.batch = engine.name, engine.precision, engine.batch

    def run(self, batches: Iterable[tuple[Any, Bytes]], deliver: Deliver) -> None:
        def counted() -> Iterable[tuple[Any, Bytes]]:
            for work in batches:
                if self.n_batches == self.fail_at and self.error:
                    raise self.error
                self.n_batches += 1
                assert len(work[1]) == self.batch
                yield work

        self.engine.run(counted(), deliver)


def opened(cache: Path, backbone: Backbone, engine: Engine) -> Store:
    return Store(cache, store_key(backbone, engine))


def equal(first: Features, second: Features) -> bool:
    return (
        first.hashes == second.hashes
        and np.array_equal(first.kept, second.kept)
        and np.array_equal(first.thumbnails, second.thumbnails)
        and list(first.blocks) == list(second.blocks)
        and all(first.blocks[name].tobytes() == second.blocks[name].tobytes() for name in first.blocks)
    )


def streamed(table: Table, backbone: Backbone, engine: Engine) -> dict[int, dict[str, Halves]]:
    found: dict[int, dict[str, Halves]] = {}

    def deliver(rows: list[int], blocks: dict[str, Halves]) -> None:
        for k, row in enumerate(rows):
            found[row] = {name: block[k] for name, block in blocks.items()}

    def failed(row: int, error: ImageError) -> None:
        raise error

    stream(table, backbone, engine, deliver, failed)
    return found


def test_stored_equals_fresh_and_costs_no_forward_pass(
    folder: Path, tmp_path: Path, backbone: Backbone, engine: Engine
) -> None:
    table, cache = read_table(folder), tmp_path / "cache"
    counted, done = Counting(engine), [0, 0]
    first = extract(
        table, backbone, counted, opened(cache, backbone, engine), lambda n: done.__setitem__(0, done[0] + n)
    )
    again = extract(
        table, backbone, counted, opened(cache, backbone, engine), lambda n: done.__setitem__(1, done[1] + n)
    )
    assert (first.n_forward, again.n_forward, counted.n_batches) == (N, 0, -(-N // engine.batch))
    assert done == [N, N]
    assert equal(first, again)
    assert {name: block.shape for name, block in first.blocks.items()} == {
        name: (N, width) for name, width in zip(block_names(backbone), block_widths(backbone), strict=True)
    }
    for row, blocks in streamed(table, backbone, engine).items():
        assert all(first.blocks[name][row].tobytes() == block.tobytes() for name, block in blocks.items())


def test_a_row_does_not_depend_on_the_table_around_it(
    folder: Path, tmp_path: Path, backbone: Backbone, engine: Engine
) -> None:
    table = read_table(folder)
    whole = extract(table, backbone, engine, opened(tmp_path / "a", backbone, engine))
    order = np.random.default_rng(0).permutation(N)[:17]
    part = extract(table.take(order), backbone, engine, opened(tmp_path / "b", backbone, engine))
    assert part.hashes == tuple(whole.hashes[k] for k in order)
    assert all(part.blocks[name].tobytes() == whole.blocks[name][order].tobytes() for name in whole.blocks)


def test_added_images_cost_themselves_and_renamed_or_copied_ones_nothing(
    folder: Path, tmp_path: Path, backbone: Backbone, engine: Engine
) -> None:
    cache = tmp_path / "cache"
    extract(read_table(folder), backbone, engine, opened(cache, backbone, engine))
    (folder / "a" / "000.png").rename(folder / "a" / "renamed.png")
    shutil.copy(folder / "a" / "002.png", folder / "b" / "copy.png")
    moved = extract(read_table(folder), backbone, engine, opened(cache, backbone, engine))
    assert (len(moved), moved.n_forward) == (N + 1, 0)
    rng = np.random.default_rng(9)
    for k in range(10):
        write_png(rng.integers(0, 256, (40, 36, 3)).astype(np.uint8), folder / "a" / f"new{k}.png")
    more = extract(read_table(folder), backbone, engine, opened(cache, backbone, engine))
    assert (len(more), more.n_forward) == (N + 11, 10)
    assert equal(more, extract(read_table(folder), backbone, engine, opened(tmp_path / "other", backbone, engine)))


def test_copies_in_one_table_go_through_the_network_once(tmp_path: Path, backbone: Backbone, engine: Engine) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    found = extract(table_of([picture] * 9, None), backbone, engine, opened(tmp_path, backbone, engine))
    assert (len(found), found.n_forward) == (9, 1)
    assert all((block == block[0]).all() for block in found.blocks.values())


def test_unreadable_files_are_set_aside_and_shift_no_row(
    folder: Path, tmp_path: Path, backbone: Backbone, engine: Engine
) -> None:
    clean = extract(read_table(folder), backbone, engine, opened(tmp_path / "a", backbone, engine))
    (folder / "a" / "0000.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    (folder / "b" / "017x.png").write_bytes(b"")
    for cache in ("b", "b"):  # from the network, from the store
        table = read_table(folder)
        found = extract(table, backbone, engine, opened(tmp_path / cache, backbone, engine))
        assert len(found.set_aside) == len(table) - N == 2
        assert all(reason for _, reason in found.set_aside)
        assert found.hashes == clean.hashes
        assert all(found.blocks[name].tobytes() == clean.blocks[name].tobytes() for name in clean.blocks)


@pytest.mark.parametrize("shard", [1, 8, 512])
def test_an_interrupt_keeps_finished_work_and_the_rest_comes_out_the_same(
    folder: Path, tmp_path: Path, backbone: Backbone, engine: Engine, shard: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD_ROWS", shard)
    table, cache = read_table(folder), tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        extract(table, backbone, Counting(engine, 9, KeyboardInterrupt()), opened(cache, backbone, engine))
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]
    store = opened(cache, backbone, engine)
    kept = sum(pq.read_metadata(shard).num_rows for shard in store.folder.glob("*.parquet"))
    assert 4 * engine.batch <= kept <= 9 * engine.batch  # what was in flight is lost
    rest = extract(table, backbone, engine, store)
    assert rest.n_forward == N - kept
    assert equal(rest, extract(table, backbone, engine, opened(tmp_path / "other", backbone, engine)))


def test_a_lost_shard_is_computed_again(
    folder: Path, tmp_path: Path, backbone: Backbone, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD_ROWS", 8)
    table, cache = read_table(folder), tmp_path / "cache"
    first = extract(table, backbone, engine, opened(cache, backbone, engine))
    store = opened(cache, backbone, engine)
    shards = sorted(store.folder.glob("*.parquet"))
    lost = pq.read_metadata(shards[1]).num_rows
    shards[1].write_bytes(shards[1].read_bytes()[:-9])
    again = extract(table, backbone, engine, store)
    assert again.n_forward == lost
    assert equal(first, again)


def test_a_full_disk_is_one_output_error(
    folder: Path, tmp_path: Path, backbone: Backbone, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(tmp_path / "cache", backbone, engine)

    def full(*rest: object) -> None:
        raise OutputError("no space")

    monkeypatch.setattr(store, "add", full)
    monkeypatch.setattr(module, "SHARD_ROWS", 4)
    with pytest.raises(OutputError, match="no space"):
        extract(read_table(folder), backbone, engine, store)


def test_the_key_changes_with_everything_that_changes_a_row(tmp_path: Path, backbone: Backbone, engine: Engine) -> None:
    def key(network: Backbone, **other: object) -> Path:
        return Store(tmp_path, {**store_key(network, engine), **other}).folder

    fewer = replace(backbone, taps=backbone.taps[1:])
    sized = replace(backbone, preprocess=replace(backbone.preprocess, size=(64, 64)))
    scaled = replace(backbone, preprocess=replace(backbone.preprocess, mean=(0.0, 0.0, 0.0)))
    other = open_backbone("test_efficientnet", "none", seed=1)
    reseeded = replace(other, preprocess=backbone.preprocess)
    keys = [key(b) for b in (backbone, fewer, sized, scaled, reseeded)] + [key(backbone, precision="bf16")]
    ranged = replace(backbone, preprocess=replace(backbone.preprocess, ranges=(("unsigned", 0.0, 4095.0),)))
    banded = replace(backbone, preprocess=replace(backbone.preprocess, bands=(4, 3, 2)))
    keys += [key(ranged), key(banded), key(backbone, versions=images.versions() | {"pillow": "another"})]
    assert len(set(keys)) == 9
    same = open_backbone("test_efficientnet", "none", seed=0)
    assert key(replace(same, preprocess=backbone.preprocess)) == keys[0]


def test_float16_is_clipped_to_its_range() -> None:
    rows = np.array([[1e9, -1e9, np.inf, -np.inf, np.nan, 65519.0, 1.0, 6e-8]], np.float32)
    half: npt.NDArray[np.float16] = finite(rounded(rows))
    assert half.dtype == np.float16
    assert half[0].tolist() == [65504, -65504, 65504, -65504, 0, 65504, 1, np.float16(6e-8)]


def test_blocks_are_cut_at_their_widths(backbone: Backbone) -> None:
    rows = np.arange(sum(block_widths(backbone)), dtype=np.float16)[None]
    blocks = by_block(backbone, rows)
    assert list(blocks) == list(block_names(backbone))
    assert np.array_equal(np.concatenate(list(blocks.values()), axis=1), rows)


@pytest.mark.parametrize("how", ["gone", "a pipe", "cut short", "another picture", "two swapped"])
def test_a_picture_that_is_gone_or_another_when_it_is_read_again_stops_the_run_by_its_name(
    how: str, folder: Path, backbone: Backbone, engine: Engine, tmp_path: Path
) -> None:
    """Or its features would stand beside the label of another."""
    table = read_table(folder)
    rows = np.arange(12)
    some, store = table.take(rows), Store(tmp_path / "store", store_key(backbone, engine))
    first = extract(some, backbone, engine, store)
    again = extract_again(some, first.hashes, backbone, engine, store)
    assert all(np.array_equal(again.blocks[name], first.blocks[name]) for name in first.blocks)
    path, other = folder / "a/004.png", folder / "a/006.png"
    content = path.read_bytes()
    path.unlink()
    if how == "a pipe":
        os.mkfifo(path)
    elif how == "cut short":
        path.write_bytes(content[:200])
    elif how != "gone":
        path.write_bytes(other.read_bytes())
    if how == "two swapped":
        other.write_bytes(content)
    live = Live((3, 32, 32), some, first.hashes, backbone, None, None)
    for read in (lambda: extract_again(some, first.hashes, backbone, engine, store), lambda: live.still(rows)):
        with pytest.raises(DataError, match=r"a/004\.png.* start again") as stopped:
            read()
        assert "\n" not in str(stopped.value)


def test_how_odd_pictures_were_read_is_said_again_when_they_come_from_the_store(
    tmp_path: Path, backbone: Backbone, engine: Engine
) -> None:
    tifffile = pytest.importorskip("tifffile", reason="writes TIFFs; pip install headstart[science]")
    bands = np.random.default_rng(0).integers(0, 200, (3, 40, 40, 4), dtype=np.uint8)
    for number in range(2):
        tifffile.imwrite(tmp_path / f"{number}.tif", bands[number], photometric="rgb", extrasamples=["unassalpha"])
    tifffile.imwrite(tmp_path / "stack.tif", bands[2, :, :, :3][None].repeat(2, 0), photometric="rgb")
    table = table_of(sorted(tmp_path.glob("*.tif")))
    store = opened(tmp_path / "cache", backbone, engine)
    first, second = (extract(table, backbone, engine, store) for _ in range(2))
    assert (first.n_forward, second.n_forward) == (3, 0)
    assert first.remarks == second.remarks
    several, stack = first.remarks
    assert several.startswith("2 images, such as ")
    assert "no mask" in several
    assert "a stack of 2 pages: page 1 is the picture" in stack
    told: list[str] = []
    stream(table, backbone, engine, lambda *_: None, lambda *_: None, remarked=lambda row, remark: told.append(remark))
    assert len(told) == 3
