"""Many images: what a kill has left is gone on with, and the file is the one that an undisturbed run writes."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from conftest import Run
from headstart.cli.pace import EVERY, Paced
from headstart.data import images
from headstart.data.identity import identity
from headstart.data.table import list_images, table_of
from headstart.errors import OutputError
from headstart.files.json_lists import pieces
from headstart.files.output import PREDICTIONS
from headstart.files.unfinished import MAGIC, unfinished
from headstart.heads.reference import Reference
from headstart.ship import answer_file, answer_folder, stretches
from headstart.ship.answer_file import write_predictions
from headstart.ship.answer_folder import filed
from headstart.ship.batch import answered
from headstart.ship.package import Loaded
from headstart.ship.predict import Predictions, record_of_none, records
from headstart.story.pipeline import load
from headstart.tasks.known import TASKS
from headstart.trunk.engine import Bytes, Deliver, Engine, compile_trunk

SIZE = 8  # rows of a stretch, and images of a batch at 64 px
IN_FLIGHT = 5  # batches that an engine may work on at once here: they are lost with the process
N = 60


class KilledError(Exception):
    """Stands for the end of the process: what follows is the next one."""


class Killed:
    """An engine that ends before its batch number `at`, and counts those before."""

    def __init__(self, engine: Engine, at: int | None = None) -> None:
        self.engine, self.at, self.n = engine, at, 0
        self.name, self.precision, self.batch = engine.name, engine.precision, engine.batch

    def run(self, batches: Iterable[tuple[Any, Bytes]], deliver: Deliver) -> None:
        def until() -> Iterator[tuple[Any, Bytes]]:
            for work in batches:
                if self.n == self.at:
                    raise KilledError
                self.n += 1
                yield work

        self.engine.run(until(), deliver)


@pytest.fixture(scope="module")
def many(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """N pictures, some of them broken: one alone, all of a stretch, and the last."""
    folder = tmp_path_factory.mktemp("data") / "many"
    folder.mkdir()
    files = sorted(pictures.glob("*/*.png"))
    for k in range(N):
        if k == 3 or k == N - 1 or 16 <= k < 24:
            (folder / f"{k:03d}.png").write_bytes(b"no picture %d" % k)
        else:
            shutil.copy(files[k * 5 % len(files)], folder / f"{k:03d}.png")
    return folder


@pytest.fixture(scope="module")
def loaded(model: Path) -> Loaded:
    """With images that taught, so that later ones are compared with them."""
    found = load(model)
    rng = np.random.default_rng(0)
    part = found.head.parts[-1].block
    width = {tap.name: w for tap in found.backbone.taps for w in tap.widths}.get(part.partition("/")[0])
    rows = rng.normal(size=(64, width or found.backbone.last_channels)).astype(np.float16)
    return replace(found, reference=Reference(part, rows, np.arange(64, dtype=np.float32) % 3))


@pytest.fixture(scope="module")
def engine(loaded: Loaded) -> Engine:
    return compile_trunk(loaded.backbone, "f32")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretches, "BUFFER", SIZE)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures were decoded, in a list of one number."""
    count, decode = [0], images.load

    def counting(*given: Any) -> images.Pixels:
        count[0] += 1
        return decode(*given)

    monkeypatch.setattr("headstart.trunk.features.images.load", counting)
    return count


def quiet(stage: str, total: int) -> Callable[[int], None]:
    return lambda n: None


def written(
    model: Loaded, place: Path, output: Path, engine: Engine, said: list[str] | None = None
) -> tuple[bytes, Any, Any]:
    """The file, and what is said of all images."""
    with answered(
        model, list_images([place]), output, quiet, (said if said is not None else []).append, engine
    ) as all_:
        all_.write(output, 3)
    assert sorted(path.name for path in output.parent.iterdir()) == [output.name]
    return output.read_bytes(), all_.tally.notes(), all_.tally.apart()


def cut_short(model: Loaded, place: Path, output: Path, engine: Engine, at: int) -> Path:
    """The half-done work that an end before batch `at` leaves."""
    with pytest.raises(KilledError):
        written(model, place, output, Killed(engine, at))
    return output.with_name(f"{output.name}.part")


@pytest.mark.parametrize("ending", PREDICTIONS)
def test_work_that_was_cut_short_goes_on_to_the_same_file(
    ending: str, many: Path, loaded: Loaded, engine: Engine, tmp_path: Path, decoded: list[int]
) -> None:
    output = tmp_path / f"answers{ending}"
    expected = written(loaded, many, output, engine)
    assert expected[2] is not None
    everything = decoded[0]
    for at in (1, 5, 6):  # of 7 batches: one stretch of the eight holds no picture
        output.unlink(missing_ok=True)
        cut_short(loaded, many, output, engine, at)
        assert not output.exists()
        decoded[0], said = 0, list[str]()
        assert written(loaded, many, output, engine, said) == expected
        done = int(re.findall(r"part has (\d+) of 60 answers: it goes on from there$", said[0])[0]) if said else 0
        assert done >= SIZE * (at - IN_FLIGHT)
        assert decoded[0] == everything - done
    assert said


def test_many_ends_one_after_the_other_and_an_end_while_the_file_is_written(
    many: Path, loaded: Loaded, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "answers.csv"
    expected = written(loaded, many, output, engine)
    output.write_text("old")
    for _ in range(3):  # each time some batches more
        cut_short(loaded, many, output, engine, 3)

    def end(*given: Any) -> None:
        raise KilledError

    output.with_name("answers.csv.part.new").write_text("what a kill has left of a file that was being written")

    with monkeypatch.context() as broken:
        broken.setattr(answer_file, "_encode", end)
        with pytest.raises(KilledError):
            written(loaded, many, output, engine)
    assert output.read_text() == "old"
    done = Killed(engine)
    assert written(loaded, many, output, done) == expected
    assert done.n == 0


def test_what_is_torn_or_changed_is_done_again(many: Path, loaded: Loaded, engine: Engine, tmp_path: Path) -> None:
    output, rng = tmp_path / "answers.jsonl", random.Random(0)
    expected = written(loaded, many, output, engine)
    part = cut_short(loaded, many, output, engine, 5)
    whole = part.read_bytes()
    torn = [whole[: rng.randrange(len(MAGIC), len(whole))] for _ in range(4)] + [b"", MAGIC[:5]]
    for _ in range(6):
        at = rng.randrange(len(MAGIC), len(whole))
        torn.append(whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
    torn += [whole + b"\0" * 100, whole + whole[-200:], whole[:400] + b"\0" * 400 + whole[800:]]
    for content in torn:
        part.write_bytes(content)
        assert written(loaded, many, output, engine) == expected


def replaced(file: Path) -> None:
    """Another picture of the same size and date."""
    was = file.stat()
    file.write_bytes(file.read_bytes()[::-1])
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "another picture": lambda place: replaced(place / "001.png"),
    "one more": lambda place: shutil.copy(place / "001.png", place / "000b.png"),
    "one less": lambda place: (place / "050.png").unlink(),
    "another name": lambda place: (place / "050.png").rename(place / "050b.png"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_leftover_for_other_images_is_not_trusted(
    change: str, many: Path, loaded: Loaded, engine: Engine, tmp_path: Path
) -> None:
    place, output = shutil.copytree(many, tmp_path / "many"), tmp_path / "out" / "answers.csv"
    output.parent.mkdir()
    cut_short(loaded, place, output, engine, 5)
    CHANGES[change](place)
    said: list[str] = []
    found = written(loaded, place, output, engine, said)
    assert len(said) == 1
    assert "list of images" in said[0]
    assert found == written(loaded, place, output, engine)


def test_the_leftover_of_another_model_or_another_way_is_not_trusted(
    many: Path, loaded: Loaded, engine: Engine, tmp_path: Path
) -> None:
    output = tmp_path / "answers.csv"
    assert loaded.bundle is not None
    expected = written(loaded, many, output, engine)
    sums = {**loaded.bundle.checksums, "model.safetensors": {"bytes": 1, "sha256": "0"}}
    other = replace(loaded, bundle=replace(loaded.bundle, checksums=sums))
    for model, precision, what in ((other, "f32", "another model"), (loaded, "bf16", "another release or processor")):
        way = Killed(engine, 5)
        way.precision = precision
        with pytest.raises(KilledError):
            written(model, many, output, way)
        said: list[str] = []
        assert written(loaded, many, output, engine, said) == expected
        assert [what in line for line in said] == [True]


def test_other_peoples_files_stay_and_two_do_not_work_on_one(
    many: Path, loaded: Loaded, engine: Engine, tmp_path: Path
) -> None:
    output = tmp_path / "answers.csv"
    part = tmp_path / "answers.csv.part"
    part.write_text("half of a download")
    with pytest.raises(OutputError, match=r"answers.csv.part is no half-done work"):
        written(loaded, many, output, engine)
    assert part.read_text() == "half of a download"
    part.unlink()
    with unfinished(output, {"a": "b"}) as first:
        first.append(b"x")
        with pytest.raises(OutputError, match="another process is at work") as refused:
            written(loaded, many, output, engine)
        assert list(first) == [b"x"]
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())
    part.mkdir()
    with pytest.raises(OutputError, match="cannot be written"), unfinished(output, {}):
        pass


def test_nothing_is_left_where_nothing_was_done(many: Path, loaded: Loaded, engine: Engine, tmp_path: Path) -> None:
    cut_short(loaded, many, tmp_path / "answers.csv", engine, 0)
    assert not list(tmp_path.iterdir())
    long = tmp_path / f"{'x' * 248}.csv"
    with unfinished(long, {"a": "b"}) as work:
        work.append(b"y")
        assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the size of files")
def test_a_full_disk_is_one_line_and_what_was_done_stays(tmp_path: Path) -> None:
    import resource

    def fill() -> None:
        with unfinished(tmp_path / "a.csv", {"a": "b"}) as work:
            for _ in range(9):
                work.append(b"z" * 700)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(OutputError, match="make room") as full:
            fill()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(full.value)
    with unfinished(tmp_path / "a.csv", {"a": "b"}) as work:
        assert list(work) == [b"z" * 700] * 4


def zipped(folder: Path, place: Path) -> Path:
    return Path(shutil.make_archive(str(place), "zip", folder))


def test_the_identity_of_a_list_follows_each_place_of_a_picture(many: Path, tmp_path: Path) -> None:
    beside = shutil.copytree(many, tmp_path / "beside")
    cells = [{"bytes": b"1", "path": None}, {"bytes": None, "path": "beside/001.png"}]
    for name, column in (("one", cells), ("list", [[cell] for cell in cells])):
        pq.write_table(pa.table({"image": pa.array(column)}), tmp_path / f"{name}.parquet")
    (tmp_path / "list.csv").write_text("path\nbeside/001.png\nbeside/gone.png\n")
    packed = zipped(many, tmp_path / "packed")
    places = [beside, tmp_path / "one.parquet", tmp_path / "list.parquet", tmp_path / "list.csv", packed]
    before = [identity(list_images([place])) for place in places]
    assert len(set(before)) == len(places)
    assert [identity(list_images([place])) for place in places] == before
    replaced(beside / "001.png")
    after = [identity(list_images([place])) for place in places]
    assert [one == two for one, two in zip(before, after, strict=True)] == [False] * 4 + [True]
    os.utime(packed, ns=(0, 0))
    assert identity(list_images([packed])) != before[-1]
    assert identity(table_of([np.zeros((4, 4, 3), np.uint8)])) is None


def test_a_picture_that_was_not_there_and_is_is_noticed(many: Path, tmp_path: Path) -> None:
    names = [str(many / "000.png"), str(tmp_path / "late.png")]
    before = identity(list_images(names))
    shutil.copy(many / "000.png", tmp_path / "late.png")
    assert identity(list_images(names)) != before


SHAPES: dict[str, tuple[tuple[int, ...], dict[str, tuple[float, ...]]]] = {
    "classify": ((3,), {}),
    "tag": ((3, 2), {}),
    "regress": ((3, 2), {}),
    "recognise": ((3,), {"threshold": (0.5,)}),
    "anomaly": ((3,), {}),
}


def answers_of(task: str, n: int, rng: np.random.Generator) -> NDArray[np.float32]:
    values = rng.uniform(0.01, 1, (n, *SHAPES[task][0])).astype(np.float32)
    return np.log(values / values.sum(axis=1, keepdims=True)) if task == "classify" else values


@pytest.mark.parametrize("ending", PREDICTIONS)
@pytest.mark.parametrize("task", SHAPES)
def test_columns_are_those_of_the_model_whatever_the_images(task: str, ending: str, tmp_path: Path) -> None:
    kind = TASKS[task]
    rule = SHAPES[task][1]
    model = cast(Loaded, SimpleNamespace(task=kind, names=("a", "b", "c"), rule=rule, novelty=None))
    assert kind.extra == SHAPES[task][0][1:]
    answers = answers_of(task, 4, np.random.default_rng(0))
    errors = np.array(["", "", "gone", ""], dtype=object)
    answers[2] = np.nan
    path, heads = tmp_path / f"answers{ending}", set()
    for rows in ([0, 1, 2, 3], [2], [3], [2, 3], []):
        names = np.array([f"{k}.png" for k in rows], dtype=object)
        found = records(model, Predictions(names, answers[rows], errors[rows]), 2)
        write_predictions(found, path, 2, record_of_none(model, 2))
        if ending == ".csv":
            heads.add(path.read_text().splitlines()[0])
        elif ending == ".parquet":
            heads.add(str(pq.read_schema(path)))
            assert pq.read_table(path).to_pylist() == found
        else:
            text = path.read_text()
            said = [json.loads(line) for line in text.splitlines()] if ending == ".jsonl" else json.loads(text)
            assert said == found
            heads |= {tuple(record) for record in said}
    assert len(heads) == 1


@pytest.mark.parametrize("how", [{"ensure_ascii": False}, {"ensure_ascii": True, "allow_nan": False}])
def test_a_list_in_pieces_is_the_list(how: dict[str, bool]) -> None:
    entries = [{"a\n": ["x\n y", {"b": [], "c": {}}], "d": None}, [], {}, "\u2028é\n", 1.5, [[1, [2]], "\n"]]
    for some in ([], entries[:1], entries):
        assert "".join(pieces(iter(some), **how)) == json.dumps(some, indent=1, **how)


@pytest.mark.parametrize("ending", PREDICTIONS)
def test_eight_times_the_images_take_no_more_memory_to_write(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_file, "GROUP_BYTES", 2**16)
    best = {"label": "a", "probability": 0.5}

    def some(n: int) -> Iterator[dict[str, Any]]:
        return ({"path": f"{k}.png", **best, "top": [dict(best) for _ in range(3)], "error": None} for k in range(n))

    peaks = []
    for n in (500, 4000):
        tracemalloc.start()
        write_predictions(some(n), tmp_path / f"a{ending}", 3, next(some(1)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] <= 1.2 * peaks[0] + 2**16


def test_the_command_says_that_it_goes_on_and_what_it_wrote(
    run: Run, model: Path, many: Path, tmp_path: Path, loaded: Loaded, engine: Engine
) -> None:
    output = tmp_path / "answers.csv"
    plain = json.loads(run("predict", model, many, "--json").out)
    found = run("predict", model, many, "-o", output, "--json")
    assert found.code == 0
    assert json.loads(found.out) == plain
    whole = output.read_bytes()
    saved = load(model)
    cut_short(saved, many, output, compile_trunk(saved.backbone, saved.precision), 6)
    again = run("predict", model, many, "-o", output)
    assert output.read_bytes() == whole
    assert re.search(r"answers.csv.part has \d+ of 60 answers: it goes on from there", again.err)
    assert "50 predictions written" in again.err
    assert [path.name for path in tmp_path.iterdir()] == ["answers.csv"]


def test_files_of_several_runs_can_be_put_together_as_the_page_says(
    many: Path, loaded: Loaded, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for number, names in enumerate((["003.png", "004.png"], ["059.png"]), 1):
        with answered(
            loaded,
            list_images([many / n for n in names] + [many / "000.png"] * (number - 1)),
            None,
            quiet,
            print,
            engine,
        ) as found:
            found.write(tmp_path / f"part{number}.parquet", 3)
    page = (Path(__file__).resolve().parents[1] / "docs" / "many.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec(compile(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0], "many.md", "exec"), {})
    assert capsys.readouterr().out.endswith("'error'] 4\n")


def test_a_long_run_says_once_a_minute_how_long_it_still_takes() -> None:
    now, said = [0.0], list[str]()
    done = Paced("predict", 60_000, said.append, lambda: now[0])
    for _ in range(600):  # s, 100 images each
        now[0] += 1
        done(100)
    assert len(said) == 600 // EVERY - 1
    assert said[0] == "predict: 6,000 of 60,000, about 9 min left"
    assert said[-1] == "predict: 54,000 of 60,000, about 60 s left"


def read_folder(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("*.parquet"))
    return [record for file in files for record in pq.read_table(file).to_pylist()]


def filed_in(
    model: Loaded, place: Path, folder: Path, engine: Engine, said: list[str] | None = None
) -> tuple[Any, Any]:
    """What is said of all images; 3 stretches a file."""
    say = (said if said is not None else []).append
    found = filed(model, list_images([place]), folder, 3, quiet, say, engine)
    names = [path.name for path in found.paths]
    assert names == [f"answers-0000{k}-of-00003.parquet" for k in range(3)]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert list(found.records()) == read_folder(folder)
    return found.tally.notes(), found.tally.apart()


@pytest.fixture
def three_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_folder, "STRETCHES", 3)


def test_a_folder_of_files_holds_what_one_file_holds_whatever_cut_it_short(
    many: Path, loaded: Loaded, engine: Engine, tmp_path: Path, decoded: list[int], three_files: None
) -> None:
    one = tmp_path / "one" / "answers.parquet"
    one.parent.mkdir()
    _, *told = written(loaded, many, one, engine)
    everything = decoded[0]
    whole = tmp_path / "whole"
    assert filed_in(loaded, many, whole, engine) == tuple(told)
    assert read_folder(whole) == pq.read_table(one).to_pylist()
    for at, least in ((1, 0), (4, 0), (6, 1)):
        (tmp_path / f"cut{at}").mkdir()
        folder = tmp_path / f"link{at}"
        folder.symlink_to(tmp_path / f"cut{at}")
        with pytest.raises(KilledError):
            filed_in(loaded, many, folder, Killed(engine, at))
        kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
        assert len(kept) >= least
        decoded[0], said = 0, list[str]()
        assert filed_in(loaded, many, folder, engine, said) == tuple(told)
        assert {path: path.stat().st_mtime_ns for path in kept} == kept
        assert all((folder / path.name).read_bytes() == path.read_bytes() for path in whole.iterdir())
        start = 24 * len(kept)
        assert said == ([f"{folder} has {start} of 60 answers: it goes on from there"] if kept else [])
        assert decoded[0] == everything - start


def test_a_file_that_a_kill_left_before_it_was_noted_is_written_again(
    many: Path, loaded: Loaded, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, three_files: None
) -> None:
    folder = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(answer_folder, "_without_answers", lambda some: (_ for _ in ()).throw(KilledError))
        with pytest.raises(KilledError):
            filed_in(loaded, many, folder, engine)
    (folder / "answers-00000-of-00003.parquet").write_bytes(b"changed")
    (folder / "_answers.part").write_bytes(
        b""
    )  # a kill leaves it; an error that is raised removes it where it is empty
    filed_in(loaded, many, folder, engine)


def test_answers_that_lie_there_are_not_mixed_with_others(
    many: Path, loaded: Loaded, engine: Engine, tmp_path: Path, three_files: None
) -> None:
    folder = tmp_path / "out"
    filed_in(loaded, many, folder, engine)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(OutputError, match=r"holds answers-00000-of-00003.parquet already: choose another -o"):
        filed_in(loaded, many, folder, engine)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert loaded.bundle is not None
    sums = {**loaded.bundle.checksums, "model.safetensors": {"bytes": 1, "sha256": "0"}}
    other, half = replace(loaded, bundle=replace(loaded.bundle, checksums=sums)), tmp_path / "half"
    with pytest.raises(KilledError):
        filed_in(other, many, half, Killed(engine, 6))
    said: list[str] = []
    filed_in(loaded, many, half, engine, said)
    assert ["is of another model: all images are answered anew" in line for line in said] == [True]
    with pytest.raises(KilledError):
        filed_in(loaded, many, tmp_path / "gone", Killed(engine, 6))
    (tmp_path / "gone" / "answers-00000-of-00003.parquet").unlink()
    with pytest.raises(OutputError, match="is gone or was changed"):
        filed_in(loaded, many, tmp_path / "gone", engine)


def test_the_command_writes_a_folder_where_the_output_ends_with_a_slash(
    run: Run, model: Path, many: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    found = run("predict", model, many, "-o", f"{folder}/", "--json")
    assert found.code == 0
    assert f"50 predictions written to {folder}/ in 1 file, 10 images could not be read" in found.err
    assert json.loads(found.out) == json.loads(run("predict", model, many, "--json").out)
    again = run("predict", model, many, "-o", folder)
    assert (again.code, again.out) == (1, "")
    assert "holds answers-00000-of-00001.parquet already" in again.err
    (tmp_path / "file").write_text("x")
    for name, what in (("answers", "or in / for a folder"), ("no/out/", "does not exist"), ("file/", "is a file")):
        assert what in run("predict", model, many, "-o", f"{tmp_path}/{name}").err
