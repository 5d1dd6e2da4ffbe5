"""What each place of an image adds to its answer: all of the score, where it belongs, drawn on the picture."""

from __future__ import annotations

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import TINY, Run, picture
from headstart.cli.main import main
from headstart.data.images import write_png
from headstart.data.overlay import overlay
from headstart.data.preprocess import Preprocess
from headstart.data.table import list_images
from headstart.errors import OptionError
from headstart.heads.reference import nearest
from headstart.ship.explain import Explanation, explain, linear_head
from headstart.ship.predict import predict
from headstart.story.pipeline import load

VIEW = Preprocess((64, 64), 0.875, "bicubic", "shortest", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def explanations(folder: Path, images: Path) -> list[Explanation]:
    found: list[Explanation] = []
    explain(load(folder), list_images([images]), found.append, pytest.fail)
    return sorted(found, key=lambda one: one.row)


def test_the_places_add_up_to_the_score_of_the_answer(model: Path, pictures: Path) -> None:
    found, loaded = explanations(model, pictures), load(model)
    head, said = linear_head(loaded), predict(loaded, list_images([pictures])).answers
    above = np.log(said) - np.log(said).mean(axis=1, keepdims=True)  # the scores, less what all classes share
    intercept = head.intercept - head.intercept.mean()
    for one in found:
        assert one.output == said[one.row].argmax()
        assert one.score + intercept[one.output] == pytest.approx(above[one.row, one.output], rel=0.02, abs=0.02)
        assert one.places.sum() == pytest.approx(one.score, rel=1e-3, abs=1e-3)
        assert one.shown == 1


@pytest.fixture(scope="module")
def bordered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of the same noise, one with a bright square near the upper left corner."""
    folder, rng = tmp_path_factory.mktemp("data") / "bordered", np.random.default_rng(5)
    for name in ("plain", "marked"):
        (folder / name).mkdir(parents=True)
        for number in range(26):
            pixels = picture(0, rng, side=64)
            if name == "marked":
                pixels[4:20, 4:20] = 255
            write_png(pixels, folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def marked(bordered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    main(["fit", str(bordered), "-o", str(folder), "--taps", "all", *TINY])
    return folder


def test_a_planted_shortcut_is_where_the_network_looked(bordered: Path, marked: Path) -> None:
    whole = np.zeros((64, 64))
    for one in explanations(marked, bordered / "marked"):
        whole += one.places
    corner = whole[:24, :24].clip(0).sum() / whole.clip(0).sum()
    assert corner > 2 * (24 / 64) ** 2


def test_each_image_that_can_be_read_is_drawn_under_a_name_of_its_own(model: Path, tmp_path: Path, run: Run) -> None:
    rng = np.random.default_rng(0)
    for name in ("a/x.png", "b/x.png", "b/<y>.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_png(picture(1, rng), tmp_path / name)
    (tmp_path / "b/broken.png").write_bytes(b"\x89PNG no")
    done = run("predict", model, tmp_path / "a", tmp_path / "b", "--explain", tmp_path / "out")
    assert done.code == 0
    assert "3 images written to" in done.err
    names = sorted(place.name for place in (tmp_path / "out").iterdir())
    assert len(names) == 3
    assert all("<" not in name and "broken" not in name for name in names)
    assert {Image.open(tmp_path / "out" / name).size for name in names} == {(40, 40)}


def test_what_speaks_for_the_answer_is_orange_and_what_the_view_cuts_off_is_darker() -> None:
    white = np.full((64, 128, 3), 255, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(white).save(buffer, "PNG")
    places = np.zeros((64, 64))
    places[:, :20], places[:, 44:] = 1, -1
    pixels = np.asarray(Image.open(io.BytesIO(overlay(buffer.getvalue(), places, VIEW))), np.int64)
    left, middle, right, outside = (pixels[32, x] for x in (42, 64, 86, 5))
    assert left[0] > left[2] + 50
    assert right[2] > right[0] + 50
    assert middle.min() > 230
    assert outside.max() < 130


def test_a_head_that_is_not_linear_is_refused_before_anything_is_read(model: Path, pictures: Path) -> None:
    other: Any = object()
    with pytest.raises(OptionError, match="linear head"):
        explain(replace(load(model), head=other), list_images([pictures]), print, print)


def test_the_nearest_training_images_are_named_with_their_similarity(
    bordered: Path, marked: Path, tmp_path: Path, run: Run
) -> None:
    """Of an image that taught it is itself; all are of the training images, nearest first, and labelled as given."""
    images = [bordered / "marked" / f"{k}.png" for k in range(3)]
    assert run("predict", marked, *images, "--explain", tmp_path / "out").code == 0
    told = json.loads((tmp_path / "out" / "explanations.json").read_text())
    assert "52 of 52 training images" in told["nearest"]
    for image, one in zip(images, told["images"], strict=True):
        assert (tmp_path / "out" / one["overlay"]).is_file()
        similar = one["nearest"]
        assert len(similar) == 3
        assert similar[0]["path"] == f"marked/{image.name}"
        assert similar[0]["similarity"] == pytest.approx(1, abs=1e-3)
        assert [s["similarity"] for s in similar] == sorted((s["similarity"] for s in similar), reverse=True)
        assert all(s["path"].split("/")[0] == s["label"] and (bordered / s["path"]).is_file() for s in similar)


def test_a_model_whose_list_of_images_is_gone_names_none(
    bordered: Path, marked: Path, tmp_path: Path, run: Run
) -> None:
    copy = shutil.copytree(marked, tmp_path / "model")
    (copy / "split.parquet").unlink()
    image = bordered / "marked" / "0.png"
    assert run("predict", copy, image, "--explain", tmp_path / "out").code == 0
    assert [place.suffix for place in (tmp_path / "out").iterdir()] == [".jpg"]


def test_another_answer_is_explained_where_it_is_asked_for(bordered: Path, marked: Path) -> None:
    found: dict[int, Explanation] = {}
    loaded, table = load(marked), list_images([bordered / "marked" / "0.png"])
    for output in (0, 1):
        explain(loaded, table, lambda one: found.update({one.output: one}), pytest.fail, asked={0: output})
    assert set(found) == {0, 1}
    assert found[0].score == pytest.approx(
        -found[1].score, rel=1e-3
    )  # two classes: what is for one is against the other


def test_a_mistake_looks_like_a_training_image_of_the_class_that_it_was_taken_for(
    bordered: Path, marked: Path, tmp_path: Path, run: Run
) -> None:
    """Never like itself or a copy; where the network looked is drawn only where it was asked for."""
    data = shutil.copytree(bordered, tmp_path / "data")
    for number in range(3):  # marked ones that are called plain: mistakes, each of which looks like a marked one
        (data / "plain" / f"{number}.png").write_bytes((data / "marked" / f"{number}.png").read_bytes())
        (data / "marked" / f"{number}.png").unlink()
    assert run("fit", data, "-o", tmp_path / "model", "--explain", *TINY).code == 0
    html = (tmp_path / "model" / "report.html").read_text()
    likes = re.findall(r'alt="a training image labelled (\w+)".*?title="([^"]+)"', html, re.S)
    assert likes
    assert all(name.startswith(f"{label}/") for label, name in likes)
    assert html.count('alt="where the network looked for') == len(likes)
    assert "--explain" in html.partition("To do it again")[2]
    assert "where the network looked" not in (marked / "report.html").read_text()


def test_explain_is_refused_with_layers_of_ones_own(bordered: Path, tmp_path: Path, run: Run) -> None:
    done = run("fit", bordered, "-o", tmp_path / "model", "--explain", "--head", "dense 8 relu", *TINY)
    assert done.code == 2
    assert "--explain is for linear heads" in done.err


@given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 99))
def test_the_nearest_are_those_with_the_largest_cosine(n: int, most: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, rows = (rng.standard_normal((k, 6)).astype(np.float32) for k in (4, n))
    places, cosines = nearest(x, rows, most)
    every = (x @ rows.T) / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(rows, axis=1)
    assert np.allclose(cosines, -np.sort(-every, axis=1)[:, :most], atol=1e-5)
    assert np.allclose(np.take_along_axis(every, places, axis=1), cosines, atol=1e-5)
