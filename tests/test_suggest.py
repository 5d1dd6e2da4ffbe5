"""Which images to label next: unsure ones, no two alike, in a list that fit reads."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from conftest import TINY, Run, picture
from headstart.data.images import write_png
from headstart.heads.choosing import choose, nearest_distance


def unit(x: Any) -> Any:
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def test_what_is_chosen_is_unsure_and_no_two_are_alike() -> None:
    rng = np.random.default_rng(0)
    kinds = unit(rng.normal(size=(8, 20)))
    x = unit(np.repeat(kinds, 25, axis=0) + 0.02 * rng.normal(size=(200, 20)))
    p = np.where(np.arange(200) % 5 == 0, 0.55, 0.98)
    found = choose(x, np.stack([p, 1 - p], axis=1), 8)
    assert (p[found.rows] == 0.55).all()  # there are 40 unsure ones, 5 of each kind
    assert sorted(found.rows // 25) == list(range(8))
    assert (np.diff(found.unsure[found.rows]) <= 0).all()


def test_as_many_as_are_asked_for_are_chosen_each_once() -> None:
    rng = np.random.default_rng(1)
    for n_images, n in ((3, 9), (30, 30), (100, 7), (500, 40)):
        x = unit(rng.normal(size=(n_images, 5)))
        x[: n_images // 2] = x[0]  # copies
        rows = choose(x, rng.dirichlet(np.ones(4), n_images), n).rows
        assert len(set(rows.tolist())) == len(rows) == min(n, n_images)


def test_distances_are_those_to_the_nearest_and_none_is_its_own_neighbour() -> None:
    rng = np.random.default_rng(2)
    x, other = unit(rng.normal(size=(50, 4))), unit(rng.normal(size=(30, 4)))
    all_of_them = np.linalg.norm(x[:, None] - other[None], axis=2)
    assert np.allclose(nearest_distance(x, other), all_of_them.min(axis=1), atol=1e-3)
    assert np.allclose(nearest_distance(x, x), 0.0, atol=2e-3)
    assert nearest_distance(x, x, itself=False).min() > 0.01


def test_the_list_is_one_that_fit_reads_and_nothing_goes_through_the_network_again(tmp_path: Path, run: Run) -> None:
    rng = np.random.default_rng(3)
    for folder, kinds in (("taught", 12), ("new", 9)):
        for label in (0, 1):
            place = tmp_path / folder / "ab"[label]
            place.mkdir(parents=True)
            for k in range(kinds):
                write_png(picture(label, rng), place / f"{k}.png")
    cache, model = ("--cache", tmp_path / "cache"), tmp_path / "model"
    assert run("fit", tmp_path / "taught", "-o", model, *TINY, *cache).code == 0
    done = run(
        "suggest",
        model,
        tmp_path,
        "-n",
        5,
        "-o",
        tmp_path / "list.csv",
        "--sheet",
        tmp_path / "s.html",
        *cache,
        "--json",
    )
    assert done.code == 0, done.err
    found = json.loads(done.out)["suggested"]
    assert [one["rank"] for one in found] == [1, 2, 3, 4, 5]
    assert all("new" in one["path"] for one in found)
    assert (tmp_path / "s.html").read_text().count("data:image/jpeg") == 5
    with (tmp_path / "list.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "label": row["path"].split("/")[-2]} for row in rows)
    done = run("fit", tmp_path / "list.csv", "--add-to", model, "-o", tmp_path / "grown", *cache)
    assert done.code == 0, done.err
    assert "5 images added" in done.out
    assert json.loads((tmp_path / "grown" / "run.json").read_text())["images_through_the_network"] == 0
