"""A Ray cluster: what it says of images is what one process says, bit for bit, whatever dies on the way."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from clusters import WITH_RAY, two_nodes
from conftest import TINY, Run, Start, picture, smallest
from headstart.data import images
from headstart.data.archives import read_zip
from headstart.data.images import write_png
from headstart.data.sources import ArraySource, FileSource, PictureSource
from headstart.data.table import Table, list_images, read_table
from headstart.errors import DataError, HeadstartError, OptionError
from headstart.files.cores import LIMIT, n_cores
from headstart.heads.probe import fit_probe
from headstart.heads.spectrum import decompose
from headstart.heads.sums import in_threads
from headstart.heads.taps import Taken, tap_sets
from headstart.ship.batch import answered
from headstart.story import opening, options, pipeline
from headstart.story.feature_folder import feature_table
from headstart.story.feature_rows import Column, Files
from headstart.story.opening import Options
from headstart.trunk import cluster, pieces, scale
from headstart.trunk.engine import Engine, OpenVinoEngine
from headstart.trunk.features import Features, Passed, extract, pass_through, read_all, store_key
from headstart.trunk.network import Backbone
from headstart.trunk.store import Store

pytestmark = WITH_RAY
SIZE = 16  # images of a piece
N = 70


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with two_nodes() as found:
        yield found


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """N pictures, two of them broken, two the same, and one that is read with a remark."""
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(3)
    for k in range(N):
        (folder / "ab"[k % 2]).mkdir(exist_ok=True)
        write_png(picture(k % 3, rng), folder / "ab"[k % 2] / f"{k:03d}.png")
    (folder / "a" / "004.png").write_bytes(b"no picture")
    (folder / "b" / "033.png").write_bytes(b"")
    shutil.copy(folder / "a" / "000.png", folder / "b" / "061.png")
    pages = [Image.new("L", (30, 30), shade) for shade in (90, 200)]
    pages[0].save(folder / "b" / "069.tif", save_all=True, append_images=pages[1:])
    return read_table(folder)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return smallest()


@pytest.fixture(scope="module")
def engine(backbone: Backbone) -> Engine:
    return OpenVinoEngine(backbone, "f32")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "piece_rows", lambda backbone: SIZE)


@pytest.fixture
def alone(table: Table, backbone: Backbone, engine: Engine, tmp_path: Path) -> Features:
    """What this process says."""
    return extract(table, backbone, engine, Store(tmp_path, store_key(backbone, engine)))


def same(first: Features, second: Features) -> bool:
    return (
        first.hashes == second.hashes
        and first.set_aside == second.set_aside
        and first.remarks == second.remarks
        and np.array_equal(first.kept, second.kept)
        and np.array_equal(first.thumbnails, second.thumbnails)
        and list(first.blocks) == list(second.blocks)
        and all(first.blocks[name].tobytes() == second.blocks[name].tobytes() for name in first.blocks)
    )


def rows_of(store: Store) -> int:
    """Of all shards together, copies too."""
    return sum(pq.ParquetFile(path).metadata.num_rows for path in store.folder.glob("*.parquet"))


@dataclass(frozen=True)
class Deadly:
    """A picture that ends the process that reads it, the first time that a worker does."""

    path: str
    mark: str

    def read(self) -> bytes:
        if not Path(self.mark).exists() and LIMIT in os.environ:
            Path(self.mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return Path(self.path).read_bytes()


def test_two_workers_one_of_which_is_killed_say_what_one_process_says(
    address: str,
    table: Table,
    backbone: Backbone,
    engine: Engine,
    alone: Features,
    tmp_path: Path,
) -> None:
    """And no more than a piece goes through the network twice."""
    mark, sources, done = tmp_path / "mark", [*table.sources], list[int]()
    killing = sources[40]
    assert isinstance(killing, FileSource)
    sources[40] = Deadly(killing.path, str(mark))
    store = Store(tmp_path / "there", store_key(backbone, engine))
    through = partial(pieces.through_a_cluster, address=address)
    found = extract(replace(table, sources=tuple(sources)), backbone, engine, store, done.append, through=through)
    assert mark.exists()
    assert len(alone.set_aside) == 2
    assert len(alone.remarks) == 1
    assert same(alone, found)
    assert sum(done) == len(table)
    assert len(done) == -(-len(table) // SIZE)
    assert rows_of(store) <= len(set(found.hashes)) + SIZE
    assert not list(store.folder.glob(".*"))


def test_pixels_go_from_those_that_decode_to_those_that_have_an_accelerator(
    table: Table, backbone: Backbone, engine: Engine, tmp_path: Path, alone: Features
) -> None:
    """The two stages, as the workers of a cluster do them one after the other; what is known is not decoded again."""
    sight = pieces.Sight.of(backbone, engine, tmp_path / "apart")
    prepare, finish = pieces.prepare(sight), pieces.finish(sight)
    for piece in pieces.pieces_of(table, SIZE):
        report = finish(pickle.loads(pickle.dumps(prepare(piece))))
        expected = [h for h, row in zip(alone.hashes, alone.kept, strict=True) if 0 <= row - piece.start < SIZE]
        assert [h for h in report.passed.hashes if h is not None] == expected
        assert finish(piece) == report._replace(passed=replace(report.passed, n_new=0))
    store = Store(tmp_path / "apart", sight.key)
    assert rows_of(store) == len(set(alone.hashes))
    found = store.read(alone.hashes)
    assert found is not None
    assert all(found.blocks[name].tobytes() == block.tobytes() for name, block in alone.blocks.items())
    again = pieces.prepare(sight)(pieces.pieces_of(table, SIZE)[0])
    assert all(not isinstance(read[2], images.Pixels) for read in again.reads)


@pytest.mark.parametrize(
    ("nodes", "accelerated", "apart", "expected"),
    [
        ([(2, 0)], False, True, (None, (1, 2, 0))),
        ([(2, 0), (4, 0)], False, True, (None, (3, 2, 0))),
        ([(64, 0)], False, False, (None, (8, 8, 0))),
        ([(0, 0), (4, 0)], False, True, (None, (1, 4, 0))),
        ([(16, 1), (8, 0)], True, True, ((23, 1, 0), (1, 1, 1))),
        ([(16, 4)], True, False, (None, (4, 4, 1))),
    ],
)
def test_every_processor_is_used_once(
    nodes: list[tuple[int, int]], accelerated: bool, apart: bool, expected: tuple[Any, Any]
) -> None:
    described = [{"Resources": {"CPU": float(cpus), "GPU": float(gpus)}} for cpus, gpus in nodes]
    assert cluster.pools(described, accelerated, apart) == expected


def test_a_cluster_without_what_is_needed_is_refused() -> None:
    with pytest.raises(HeadstartError, match="no node with a processor"):
        cluster.pools([{"Resources": {}}], False, True)
    with pytest.raises(HeadstartError, match="CUDA_VISIBLE_DEVICES"):
        cluster.pools([{"Resources": {"CPU": 4.0}}], True, True)


def late(given: float) -> Callable[[int], tuple[int, int]]:
    """Pieces of low numbers take longest; one cannot be done."""

    def done(piece: int) -> tuple[int, int]:
        if piece == 5:
            raise DataError("the fifth cannot be done")
        time.sleep(given * (piece == 0))
        return piece, n_cores()

    return done


def test_pieces_come_in_order_until_one_cannot_be_done_which_is_said_as_it_was_raised(address: str) -> None:
    found = scale.spread(range(6), scale.Work(0.5, late), in_order=True)
    assert [next(found) for _ in range(5)] == [(k, 1) for k in range(5)]
    with pytest.raises(DataError, match="the fifth"):
        next(found)
    assert list(scale.spread([], scale.Work(0.5, late))) == []


def told(counted: list[int], stage: str, total: int) -> Callable[[int], None]:
    return counted.append


class Ending:
    """An engine that ends before its ninth batch, as a process does that is killed."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name, self.precision, self.batch = engine, engine.name, engine.precision, engine.batch

    def run(self, batches: Any, deliver: Any) -> None:
        def until() -> Iterator[Any]:
            for number, work in enumerate(batches):
                if number == 8:
                    raise KeyboardInterrupt
                yield work

        self.engine.run(until(), deliver)


def test_predict_goes_on_and_writes_the_file_that_one_process_writes(
    address: str, model: Path, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.ship import stretches

    monkeypatch.setattr(stretches, "BUFFER", SIZE)
    loaded = pipeline.load(model)
    written = []
    engine = Ending(OpenVinoEngine(loaded.backbone, "f32"))
    cut = answered(loaded, table, tmp_path / "b.jsonl", partial(told, []), print, engine)
    with pytest.raises(KeyboardInterrupt), cut:
        pass
    for where, output in ((None, tmp_path / "a.jsonl"), (address, tmp_path / "b.jsonl")):
        counted = list[int]()
        with answered(loaded, table, output, partial(told, counted), print, ray=where) as found:
            found.write(output, 3)
        assert len(table) - sum(counted) in ({SIZE, 2 * SIZE, 3 * SIZE} if where else {0})
        written.append((output.read_bytes(), found.tally.notes(), found.tally.first_failed, found.tally.apart()))
    assert written[0] == written[1]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_fit_asks_the_cluster_and_its_model_does_not_name_it(
    pictures: Path, model: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def here(table: Table, backbone: Backbone, engine: Engine, store: Store, progress: Any, address: str) -> Passed:
        asked.append(address)
        return pass_through(read_all(table.sources, backbone, store), len(table), backbone, engine, store, progress)

    monkeypatch.setattr(opening, "through_a_cluster", here)
    monkeypatch.setattr(scale, "joined", lambda address: nullcontext())
    monkeypatch.setattr(scale, "described", lambda: "Ray: 2 nodes")
    words = ["fit", pictures, "-o", tmp_path / "m", *TINY, "--cache", tmp_path / "cache", "--ray", "10.0.0.5:6379"]
    found = run(*words)
    assert found.code == 0, found.err
    assert "Ray: 2 nodes" in found.err
    assert asked == ["10.0.0.5:6379"]
    sums = [json.loads((folder / "checksums.json").read_text()) for folder in (tmp_path / "m", model)]
    assert sums[0] == sums[1]
    assert not [path for path in (tmp_path / "m").iterdir() if b"10.0.0.5" in path.read_bytes()]


def test_a_node_that_does_not_see_the_same_is_refused_in_one_line(
    address: str, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = str(table.names[0])
    pieces.check_nodes(table, {})
    monkeypatch.setattr(pieces, "probes", lambda table: [(first, table.sources[0], "another")])
    with pytest.raises(HeadstartError, match=rf"does not see {first} as this machine does"):
        pieces.check_nodes(table, {})
    monkeypatch.setattr(scale, "release", lambda: "headstart 0.0.1")
    with pytest.raises(HeadstartError, match=r"and this machine headstart 0\.0\.1: install the same"):
        pieces.check_nodes(table, {})


def unhappy() -> None:
    raise ZeroDivisionError("cut into none")


def test_what_ray_raises_is_one_line_with_what_to_do(address: str) -> None:
    with pytest.raises(HeadstartError) as error:
        scale.ask_each_node(unhappy)
    assert "cut into none" in str(error.value)
    assert "install the same headstart there" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_a_node_lacks_is_named(tmp_path: Path, table: Table) -> None:
    mark = tmp_path / "a" / "b" / "mark"
    mark.parent.mkdir(parents=True)
    assert "--cache" in pieces.lacking({"--cache": mark}, [])
    mark.write_text("mark")
    wanted = pieces.probes(table)
    assert len(wanted) == 3
    assert pieces.lacking({"--cache": mark}, wanted) == ""
    name, source, _ = wanted[0]
    assert name in pieces.lacking({}, [(name, source, "another")])


def test_a_worker_with_other_releases_is_refused() -> None:
    key = {"backbone": "resnet18", "versions": {"pillow": "13.0"}}
    pieces.check_same(key, dict(key))
    with pytest.raises(HeadstartError, match=r"versions: .*12\.3.* there, .*13\.0.* here"):
        pieces.check_same(key, key | {"versions": {"pillow": "12.3"}})


def test_every_source_says_the_same_elsewhere(table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = table.read(0)
    assert isinstance(content, bytes)
    pq.write_table(pa.table({"image": [content] * 5}), "p.parquet", row_group_size=2)
    with zipfile.ZipFile("z.zip", "w") as archive:
        archive.writestr("x.png", content)
    Path("x.png").write_bytes(content)
    rows = [*list_images(["p.parquet", "z.zip", "x.png"]).sources]
    rows += [ArraySource(np.zeros((4, 4, 3), np.uint8)), PictureSource(Image.new("RGB", (3, 3)))]
    sent = pickle.dumps([pieces.everywhere(source) for source in rows])
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    there = pickle.loads(sent)
    assert len(there) == 9
    assert all(source.read() == content for source in there[:7])
    assert there[0].groups is there[4].groups
    assert pickle.loads(sent)[0].groups is there[0].groups
    assert np.array_equal(there[7].read(), rows[7].read())
    assert np.array_equal(there[8].read(), rows[8].read())
    assert read_zip(tmp_path / "z.zip").rows[0].source.read() == content


def test_a_worker_has_a_part_of_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMIT, raising=False)
    all_ = n_cores()
    for said, expected in (("1", 1), ("0", 1), ("100000", all_), ("many", all_), ("", all_)):
        monkeypatch.setenv(LIMIT, said)
        assert n_cores() == expected


@pytest.mark.parametrize(
    ("ray", "said"),
    [
        ("nowhere", "local (this machine), auto"),
        ("ray://10.0.0.5:10001", "ray job submit"),
        ("", "names no cluster"),
        ("10.0.0.5:port", "names no cluster"),
    ],
)
def test_what_names_no_cluster_is_refused_in_one_line(ray: str, said: str) -> None:
    with pytest.raises(OptionError) as error:
        options.check(Options(ray=ray))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r'pip install "headstart\[ray\]"'):
        cluster.check_address("local")


def test_an_address_where_no_cluster_answers_is_one_line_within_seconds(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.listen()
        port = silent.getsockname()[1]
        monkeypatch.setattr(cluster, "REACHED", 0.2)
        with pytest.raises(HeadstartError, match=rf"no cluster answers at --ray 127.0.0.1:{port}"):
            cluster.check_reached(f"127.0.0.1:{port}")
    with pytest.raises(HeadstartError, match="Connection refused"):
        cluster.check_reached(f"127.0.0.1:{port}")
    cluster.check_reached(address)


def test_a_cluster_of_this_machine_leaves_nothing_when_it_is_interrupted(
    start: Start, table: Table, tmp_path: Path
) -> None:
    cache, err, place = tmp_path / "cache", tmp_path / "err", Path(tempfile.gettempdir())
    folder = os.path.commonpath([source.path for source in table.sources if isinstance(source, FileSource)])
    before = set(place.glob("hs-*"))
    words = ["features", folder, "-o", tmp_path / "f.csv", *TINY, "--cache", cache, "--ray", "local"]
    process = start(tmp_path / "out", err, *words)
    while "Ray: 1 node" not in err.read_text():
        time.sleep(0.05)
    new = set(place.glob("hs-*")) - before
    assert [title for title in titles() if any(str(one) in title for one in new)]
    os.kill(process.number, signal.SIGINT)
    assert process.code() == 130
    assert "interrupted" in err.read_text().splitlines()[-1]
    assert len(err.read_text().splitlines()) == 3
    assert not any(one.exists() for one in new)
    assert not [title for title in titles() if any(str(one) in title for one in new)]
    assert not list(cache.rglob("*.partial"))


def titles() -> list[str]:
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(place.read_text(errors="replace"))
        except OSError:
            continue
    return found


def test_heads_of_features_in_files_are_the_same_bits_whoever_adds_them_up(address: str, tmp_path: Path) -> None:
    """Two stretches of rows, most of which teach; copies are left out together."""
    n, widths = 45_000, {"a/mean": 3, "pre_logits": 5}
    rng, paths = np.random.default_rng(0), []
    y = rng.integers(0, 3, n)
    blocks = {
        name: (rng.random((n, width)) + (y[:, None] == np.arange(width))).astype(np.float16)
        for name, width in widths.items()
    }
    ends = (11_000, 11_000, 40_000, n)
    for k, (start, end) in enumerate(zip((0, *ends), ends, strict=False)):
        paths.append(tmp_path / f"{k}.parquet")
        pq.write_table(feature_table({}, {name: block[start:end] for name, block in blocks.items()}, {}), paths[-1])
    rows, groups = np.flatnonzero(rng.random(n) < 0.9), np.arange(n)
    groups[1:100:2] = groups[:100:2]
    files, sets, probes = Files(tuple(paths), ends, widths), tap_sets("auto", tuple(widths)), []
    for each in (in_threads, scale.each):
        columns: Any = {name: Taken(Column(files, name, each), rows) for name in widths}
        probes.append(fit_probe(columns, y[rows], groups[rows], sets, ("ridge", "lda")))
    assert probes[0].candidates == probes[1].candidates
    for name in ("coef", "intercept", "left_out"):
        assert np.array_equal(getattr(probes[0], name), getattr(probes[1], name))
    paths[2].unlink()
    with pytest.raises(DataError, match=r"2.parquet cannot be read .*: make the features again"):
        decompose(cast(Any, Taken(Column(files, "pre_logits", scale.each), rows)))
