"""Strange, damaged and hostile files among the photographs: the fit ends, names what it refused, and stays small."""

from __future__ import annotations

import csv
import json
import os
from itertools import cycle
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from conftest import TINY, Run, Start

PEAK = 2.5e9  # bytes of memory that a fit may take, whatever the files say of their size


@pytest.fixture(scope="module")
def mixture(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs of each of two classes, with a part of every kind of messy file spread over both."""
    folder, data = tmp_path_factory.mktemp("messy") / "mixture", shared / "data"
    for name in ("ants", "bees"):
        (folder / name).mkdir(parents=True)
        for file in sorted((data / "hymenoptera/train" / name).glob("[0-9]*.jpg"))[:12]:
            (folder / name / file.name).symlink_to(file)
    messy = [f for f in sorted((data / "messy").rglob("*")) if f.is_file()]
    bombs = [f for f in messy if "bomb" in f.name]
    upright = [f for f in messy if f.parent.name == "exif_orientation"]
    assert bombs
    assert upright
    for file, name in zip(dict.fromkeys([*bombs, *upright, *messy[::17]]), cycle(("ants", "bees"))):
        (folder / name / f"{file.parent.name}__{file.name}").symlink_to(file)
    return folder


def test_every_refused_file_is_listed_with_a_reason_and_nothing_is_lost(
    mixture: Path, start: Start, tmp_path: Path
) -> None:
    out, err = tmp_path / "out.txt", tmp_path / "err.txt"
    code, peak = start(out, err, "fit", mixture, "-o", tmp_path / "model", *TINY).ended()
    said = err.read_text()
    assert code == 0, said
    assert peak < PEAK
    assert "Traceback" not in said
    with (tmp_path / "model/set_aside.csv").open(newline="") as file:
        refused = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    used = set(pq.read_table(tmp_path / "model/split.parquet")["path"].to_pylist())
    note = next((line for line in said.splitlines() if "stray files" in line), "ignored 0 stray")
    passed_over = int(note.split("ignored ")[1].split()[0])
    assert not used & set(refused)
    assert len(used) + len(refused) + passed_over == sum(f.is_symlink() for f in mixture.rglob("*"))
    assert len(refused) > 20
    assert all(reason and "\n" not in reason for reason in refused.values())
    assert all("__" in path for path in refused), "a good photograph was refused"
    page = (tmp_path / "model/report.html").read_text()
    listed = json.loads((tmp_path / "model/metrics.json").read_text())["set_aside"]
    assert {record["path"]: record["reason"] for record in listed} == refused
    assert all(path.split("__")[1].split(".")[0] in page for path in refused)


def test_the_eight_orientations_get_one_answer(shared: Path, run: Run, model: Path) -> None:
    folder = shared / "data/messy/exif_orientation"
    for kind in ("Landscape", "Portrait"):
        files = sorted(f for f in folder.rglob(f"{kind}_[1-8].jpg"))
        assert len(files) == 8
        found = run("predict", model, *files, "--json")
        answers = json.loads(found.out)
        assert len({a["label"] for a in answers}) == 1
        p = [{c["label"]: c["probability"] for c in a["top"]} for a in answers]
        assert max(abs(p[0][name] - other[name]) for other in p for name in p[0]) < 0.02, os.linesep.join(map(str, p))
