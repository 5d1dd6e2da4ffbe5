"""The standard output closed or full, no memory, and a model that would be lost: one line each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import headstart
from conftest import TINY, Run, picture
from headstart.counted import counted
from headstart.data.images import write_png
from headstart.errors import lacks_memory

ENV = os.environ | {"PYTHONPATH": str(Path(headstart.__file__).parents[1])}


def shell(line: str, place: Path) -> subprocess.CompletedProcess[str]:
    """A line of the shell in which `headstart` is this one."""
    told = f'headstart() {{ "{sys.executable}" -m headstart "$@"; }}\n{line}'
    return subprocess.run(
        ["sh", "-c", told], capture_output=True, text=True, env=ENV, cwd=place, timeout=120, check=False
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["--help", "cache --cache none", "cache --cache none --json", "--version"])
def test_a_full_standard_output_is_one_line(command: str, tmp_path: Path) -> None:
    done = shell(f"headstart {command} > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("headstart: the result cannot be written to the standard output (No space left")


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_closed_streams_are_one_line_or_silent(tmp_path: Path) -> None:
    done = shell("headstart cache --cache none >&-", tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "cannot be written to the standard output" in done.stderr
    done = shell("headstart fit nowhere 2>&-", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    done = shell("headstart cache --cache none 2>&-", tmp_path)
    assert done.returncode == 0
    assert "MB" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of the address space")
@pytest.mark.parametrize("megabytes", [400, 700])
def test_little_address_space_is_one_line(megabytes: int, tmp_path: Path, pictures: Path) -> None:
    line = f"ulimit -v {megabytes * 1024}; OPENBLAS_NUM_THREADS=1 headstart inspect {pictures}"
    done = shell(line, tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("headstart: out of memory"), done.stderr


def test_no_memory_is_known_by_its_words() -> None:
    assert lacks_memory(MemoryError())
    assert lacks_memory(ImportError("libtorch_cpu.so: failed to map segment from shared object"))
    assert lacks_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert lacks_memory(RuntimeError("std::bad_alloc"))
    assert not lacks_memory(ImportError("No module named 'torch'"))


def test_help_alone(run: Run) -> None:
    found = run()
    assert (found.code, found.err) == (0, "")
    assert found.out == run("--help").out


def test_a_number_and_its_noun_agree() -> None:
    assert counted(0, "image") == "0 images"
    assert counted(1, "image") == "1 image"
    assert counted(1797, "image") == "1,797 images"
    assert counted(2, "class", "classes") == "2 classes"


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Other pictures of the same classes as `pictures`, in parts, so that they are judged once."""
    rng = np.random.default_rng(99)
    for colour, name in enumerate(("moss", "sand", "sea")):
        for part, many in (("train", 6), ("test", 2)):
            (tmp_path / "other" / part / name).mkdir(parents=True)
            for k in range(many):
                write_png(picture(colour, rng), tmp_path / "other" / part / name / f"{k}.png")
    return tmp_path / "other"


def test_a_model_of_other_data_is_not_replaced_unasked(
    run: Run, model: Path, pictures: Path, other: Path, tmp_path: Path
) -> None:
    here = tmp_path / "model"
    shutil.copytree(model, here)
    before = {f.name: f.read_bytes() for f in here.iterdir()}
    found = run("fit", other, "-o", here, *TINY)
    assert found.code == 1
    assert "holds a model of other data (3 classes: moss, sand, sea; saved 2" in found.err.splitlines()[-1]
    assert "add --force" in found.err
    assert {f.name: f.read_bytes() for f in here.iterdir()} == before
    grown = tmp_path / "grown"  # one image more, one label corrected, one taken away: the same data
    shutil.copytree(pictures, grown)
    shutil.copy(other / "train/sea/0.png", grown / "sea/new.png")
    (grown / "sand/1.png").rename(grown / "moss/101.png")
    (grown / "sand/2.png").unlink()
    assert run("fit", grown, "-o", here, *TINY).code == 0
    assert run("fit", other, "-o", here, "--force", *TINY).code == 0
    shutil.rmtree(here)
    shutil.copytree(model, here)
    assert run("fit", other / "train", "--add-to", here, "-o", here).code == 0  # it is extended


def test_the_python_class_does_not_replace_either(model: Path, other: Path, tmp_path: Path) -> None:
    from headstart import OutputError, TransferClassifier

    here = tmp_path / "model"
    shutil.copytree(model, here)
    fitted = TransferClassifier("test_efficientnet", weights="none", size=64, precision="f32").fit(other)
    with pytest.raises(OutputError, match="other data"):
        fitted.save(here)
    fitted.save(here, force=True)


def test_demo_keeps_a_model_that_is_not_its_own(run: Run, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "d/model")
    found = run("demo", "-o", tmp_path / "d")
    assert found.code == 1
    assert "other data" in found.err
    assert found.err.count("\n") == 1
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["model"]


def test_the_column_that_networks_are_sorted_by_is_named_and_shown() -> None:
    from headstart.story import backbones

    for column in backbones.COLUMNS:
        records = backbones.listing(sort=column)
        lines = backbones.lines(records, column)
        assert column in lines[0].split(), column
        assert max(map(len, lines)) <= backbones.WIDTH, column
        assert any(line.startswith(f"sorted by {column},") for line in lines)


def test_no_network_of_that_name_is_a_failure(run: Run) -> None:
    for more in ((), ("--json",)):
        found = run("backbones", "--search", "nonsense", *more)
        assert (found.code, found.out) == (1, "")
        assert "'nonsense'" in found.err


def test_features_are_the_same_in_every_format(run: Run, pictures: Path, tmp_path: Path) -> None:
    import csv
    import json

    import pyarrow.parquet as pq

    for ending in ("parquet", "csv", "jsonl"):
        done = run("features", pictures, "-o", tmp_path / f"f.{ending}", *TINY)
        assert done.code == 0, done.err
    table = pq.read_table(tmp_path / "f.parquet")
    lines = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    rows = list(csv.DictReader((tmp_path / "f.csv").read_text().splitlines()))
    assert len(lines) == len(rows) == table.num_rows == 24
    for name in table.column_names:
        whole = table[name].to_pylist()
        if name in rows[0]:
            assert [line[name] for line in lines] == [row[name] for row in rows] == whole
            continue
        assert (np.float16([line[name] for line in lines]) == np.float16(whole)).all()
        cells = [[float(row[f"{name} {k}"]) for k in range(len(whole[0]))] for row in rows]
        assert (np.float16(cells) == np.float16(whole)).all()
