"""An edited list of labels: what it says is done, the rest stays, and a slip is refused with its line."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.cli.main import main
from headstart.data.relabel import read_fixes, relabelled, write_manifest
from headstart.data.table import read_table
from headstart.errors import DataError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("ant", "bee"):
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for k in range(3):
                Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / f"{label}{k}.png")
    return tmp_path / "photos"


def fixes(folder: Path, *rows: tuple[str, ...], header: tuple[str, ...] = ("path", "action", "label", "why")) -> Path:
    path = folder / "fixes.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def test_the_list_is_done_and_the_rest_stays(data: Path, tmp_path: Path) -> None:
    old = read_table(data)
    listed = fixes(
        tmp_path, ("train/ant/ant0.png", "relabel", "bee", "x"), ("train/bee/bee1.png", "drop", "ant", ""),
        ("test/ant/ant2.png", "", "bee", ""),
    )  # fmt: skip
    before = {path: path.read_bytes() for path in data.rglob("*.png")}
    found = relabelled(old, read_fixes(listed), "fixes.csv")
    place = tmp_path / "elsewhere" / "manifest.csv"
    place.parent.mkdir()
    write_manifest(found, place)
    new = read_table(place)
    truth = {s.path: (label, split) for s, label, split in zip(old.sources, old.labels, old.splits, strict=True)}
    truth[str(data / "train/ant/ant0.png")] = ("bee", "train")
    del truth[str(data / "train/bee/bee1.png")]
    read = zip(new.sources, new.labels, new.splits, strict=True)
    assert {str(Path(s.path).resolve()): (label, split) for s, label, split in read} == truth
    assert found.to_json() == {"images": 11, "kept": 1, "relabelled": 1, "dropped": 1, "new_labels": []}
    assert {path: path.read_bytes() for path in data.rglob("*.png")} == before


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (("train/ant/gone.png", "drop", ""), "line 2: the data have no image"),
        (("train/ant/ant0.png", "relable", "bee"), "line 2: the action 'relable' is not known"),
        (("train/ant/ant0.png", "relabel", "bea"), "line 2: the label 'bea' is none of these data"),
        (("train/ant/ant0.png", "relabel", ""), "line 2: relabel needs a label"),
    ],
)
def test_a_slip_is_refused_with_its_line(data: Path, tmp_path: Path, row: tuple[str, ...], said: str) -> None:
    with pytest.raises(DataError, match=said):
        relabelled(read_table(data), read_fixes(fixes(tmp_path, row)), "fixes.csv")


def test_a_new_label_is_asked_for(data: Path, tmp_path: Path) -> None:
    listed = read_fixes(fixes(tmp_path, ("train/ant/ant0.png", "relabel", "wasp")))
    assert relabelled(read_table(data), listed, "fixes.csv", new_labels=True).new_labels == ("wasp",)


def test_an_image_stands_once_in_the_list(data: Path, tmp_path: Path) -> None:
    twice = [("train/ant/ant0.png", "drop", ""), ("train/ant/ant0.png", "keep", "")]
    with pytest.raises(DataError, match=r"line 3: .*before"):
        relabelled(read_table(data), read_fixes(fixes(tmp_path, *twice)), "fixes.csv")
    with pytest.raises(DataError, match="no column 'action'"):
        read_fixes(fixes(tmp_path, header=("path", "label")))


def test_groups_and_times_of_a_list_are_those_of_the_new_one(data: Path, tmp_path: Path) -> None:
    """So that a fit on it learns from the same past, and tells the same groups apart."""
    files = sorted(data.rglob("*.png"))
    listed = tmp_path / "list.csv"
    with listed.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [("path", "label", "site", "day"), *((f, f.parent.name, f"s{k % 2}", k % 5) for k, f in enumerate(files))]
        )
    out = tmp_path / "new.csv"
    asked = ["--group", "site", "--time", "day"]
    main(["relabel", str(listed), str(fixes(tmp_path, (str(files[0]), "relabel", "bee"))), "-o", str(out), *asked])
    old, new = read_table(listed, group="site", time="day"), read_table(out)
    assert set(old.splits) == {"train", "test"}
    for before, after in ((old.splits, new.splits), (old.groups, new.groups)):
        assert dict(zip(map(place, old.sources), before, strict=True)) == dict(
            zip(map(place, new.sources), after, strict=True)
        )


def place(source: Any) -> str:
    return str(Path(source.path).resolve())
