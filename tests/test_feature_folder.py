"""Features as a folder of Parquet files: what one file says, and no file is written twice."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from conftest import Run, picture
from headstart.data.images import write_png
from headstart.data.table import list_images, table_of
from headstart.errors import DataError
from headstart.story import feature_folder
from headstart.story.feature_folder import WHOLE, Place, rows_of, write_folder, writing
from headstart.trunk.backbone import open_backbone
from headstart.trunk.engine import OpenVinoEngine
from headstart.trunk.pieces import Sight

SMALL = ("--backbone", "test_efficientnet", "--weights", "none", "--size", "32", "--precision", "f32")
N, SIZE = 20, 6
PAGE = Path(__file__).resolve().parents[1] / "docs" / "cluster.md"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_folder, "piece_rows", lambda backbone: SIZE)


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """N pictures of two classes; one cannot be read, and none of those in the third file."""
    folder, rng = tmp_path / "many", np.random.default_rng(0)
    for k in range(N):
        place = folder / ("a" if k < 10 else "b") / f"{k:02d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        if k == 3 or 12 <= k < 18:
            place.write_bytes(b"no picture")
        else:
            write_png(picture(k % 3, rng), place)
    return folder


def written(folder: Path) -> dict[str, int]:
    """When each file was written."""
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}


def test_the_files_of_a_folder_are_parts_of_the_one_file(
    many: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    one, folder = tmp_path / "one.parquet", tmp_path / "out"
    assert run("features", many, "-o", one, *SMALL).code == 0
    found = run("features", many, "-o", f"{folder}/", *SMALL, "--json")
    assert found.code == 0, found.err
    assert sorted(written(folder)) == [f"part-{k:06d}.parquet" for k in range(4)]
    parts, whole = ds.dataset(folder).to_table(), pq.read_table(one)
    assert set(parts.column_names) - set(whole.column_names) == {"group", "thumbnail"}
    parts = parts.select(whole.column_names)
    assert parts.replace_schema_metadata(None).combine_chunks() == whole.replace_schema_metadata(None).combine_chunks()
    assert json.loads(found.out)["images"] == 13
    assert len(json.loads(found.out)["set_aside"]) == 7
    assert json.loads((folder / WHOLE).read_text())["files"] == 4
    folder.rename(tmp_path / "features")
    monkeypatch.chdir(tmp_path)
    exec(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0], {})
    assert "'content_hash'] 13" in capfd.readouterr().out


def test_a_layer_of_its_own_says_what_it_is(many: Path, tmp_path: Path, run: Run) -> None:
    words = ["--layer", "blocks.1", "--pool", "max", *SMALL]
    assert run("features", many, "-o", tmp_path / "one.parquet", *words).code == 0
    assert run("features", many, "-o", f"{tmp_path / 'out'}/", *words).code == 0
    part, one = pq.read_schema(tmp_path / "out" / "part-000000.parquet"), pq.read_schema(tmp_path / "one.parquet")
    assert part.field("blocks.1/max").metadata == one.field("blocks.1/max").metadata != None  # noqa: E711


def test_what_is_there_is_not_written_again_and_what_has_changed_is(many: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "out"
    first = run("features", many, "-o", f"{folder}/", *SMALL)
    before, expected = written(folder), (folder / "part-000001.parquet").read_bytes()
    (folder / "part-000001.parquet").write_bytes(expected[:-20])
    (folder / WHOLE).unlink()
    again = run("features", many, "-o", f"{folder}/", *SMALL)
    assert (again.code, again.out, again.err) == (0, first.out, first.err)
    assert [name for name, when in written(folder).items() if when != before[name]] == ["part-000001.parquet"]
    assert (folder / "part-000001.parquet").read_bytes() == expected
    write_png(np.zeros((30, 30, 3), np.uint8), many / "b" / "19.png")
    assert run("features", many, "-o", folder, *SMALL).code == 0
    assert [name for name, when in written(folder).items() if when == before[name]] == [
        "part-000000.parquet",
        "part-000002.parquet",
    ]
    shutil.rmtree(many / "b")
    assert run("features", many, "-o", folder, *SMALL, "--seed", "5").code == 0
    assert sorted(written(folder)) == ["part-000000.parquet", "part-000001.parquet"]
    assert not {*written(folder).values()} & {*before.values()}


def test_a_folder_of_other_things_is_left_alone(many: Path, tmp_path: Path, run: Run) -> None:
    found = run("features", many, "-o", many, *SMALL)
    assert found.code == 1
    assert f"{many} holds other files (" in found.err.splitlines()[-1]
    (tmp_path / "file").write_text("mine")
    found = run("features", many, "-o", f"{tmp_path / 'file'}/", *SMALL)
    assert found.code == 2
    assert "is no folder" in found.err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_worker_elsewhere_writes_the_same_and_knows_what_is_there(many: Path, tmp_path: Path) -> None:
    backbone = open_backbone("test_efficientnet", "none")
    backbone = backbone.resized(replace(backbone.preprocess, size=(32, 32)))
    sight = Sight.of(backbone, OpenVinoEngine(backbone, "f32"), tmp_path / "cache")
    here, there = (Place(sight, tmp_path / name, None, {}) for name in ("here", "there"))
    table = list_images([many])
    write_folder(table, here, None, lambda n: None, print)
    there.folder.mkdir()
    work, every = writing(pickle.loads(pickle.dumps(there))), pickle.loads(pickle.dumps([*rows_of(table, SIZE)]))
    first = [work(rows) for rows in every]
    assert sum(found.n_new for found in first) == 0  # the store has them
    assert [work(rows) for rows in every] == first
    for path in here.folder.glob("part-*"):
        assert path.read_bytes() == (there.folder / path.name).read_bytes()
    given = table_of([np.zeros((20, 20, 3), np.uint8)] * 2)  # of a program: nothing says that they are the same
    assert [work(rows).n_new for _ in range(2) for rows in rows_of(given, 2)] == [1, 0]
    broken = list_images([many / "b" / "12.png"])
    with pytest.raises(DataError, match="none of 1 images can be read"):
        write_folder(broken, here, None, lambda n: None, print)
