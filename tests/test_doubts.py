"""What a fit leaves to look at again: its mistakes, and the training images that an image looks like."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from conftest import TINY, picture
from headstart.cli.main import main
from headstart.data.images import write_png
from headstart.data.table import read_table
from headstart.story.alike import LookAlikes
from headstart.story.doubts import doubts_of


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `data` that can hardly be told apart, and a `model` of them."""
    rng, folder = np.random.default_rng(6), tmp_path_factory.mktemp("weak")
    for part, n in (("train", 28), ("test", 12)):  # fewer than 50 are not kept with a model
        for colour, name in enumerate(("sand", "sea")):
            (folder / "data" / part / name).mkdir(parents=True)
            for k in range(n):
                write_png(picture(colour, rng, strength=4), folder / "data" / part / name / f"{k:02d}.png")
    main(["fit", str(folder / "data"), "-o", str(folder / "model"), *TINY])
    return folder


def test_the_list_of_mistakes_is_of_all_judged_images_that_were_answered_wrongly(fitted: Path) -> None:
    table = read_table(fitted / "data")
    score = json.loads((fitted / "model" / "metrics.json").read_text())["test"]
    with (fitted / "model" / "mistakes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert 0 < len(rows) == round(score["n"] * (1 - score["accuracy"]["value"]))
    label_of = dict(zip(table.names, table.labels, strict=True))
    for row in rows:
        assert row["path"].startswith("test/")
        assert row["given"] == label_of[row["path"]] != row["label"]
    sure = [float(row["probability"]) for row in rows]
    assert sure == sorted(sure, reverse=True)
    told = [d for d in doubts_of(fitted / "model", table).every if d.reasons[-1].kind == "mistake"]
    assert [doubt.path for doubt in told] == [row["path"] for row in rows]


def test_look_alikes_are_training_images_and_neither_itself_nor_its_copies(fitted: Path, tmp_path: Path) -> None:
    table = read_table(fitted / "data")
    alike = LookAlikes(fitted / "model", table)
    for row in (0, 3, 9, 40):
        every = alike.of(row)
        assert 2 <= len(every) <= 3
        assert row not in [one.row for one in every]
        assert [one.similarity for one in every] == sorted((one.similarity for one in every), reverse=True)
        assert all((table.splits[one.row], table.labels[one.row]) == ("train", one.label) for one in every)
        assert every[0].row not in [one.row for one in alike.of(row, (every[0].row,))]
    assert LookAlikes(tmp_path / "none", table).of(0) == ()
