"""Answered boxes as they leave: drawn, as CSV and as COCO. What is written can be read again as a set with boxes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.box_drawing import COLOURS, Drawn, draw_boxes
from headstart.data.box_text import boxes_in
from headstart.data.boxes import BoxTruth
from headstart.data.table import read_table
from headstart.files.cells import csv_bytes
from headstart.judge.boxes import box_marks, outcome_of
from headstart.judge.matching import FALSE, LEFT_OUT, RIGHT
from headstart.ship.box_files import HEADER, coco_document, csv_rows, found_boxes

NAMES = ("ant", "bee")
ANSWERS = [np.array([[1, 2, 11.5, 12, 0.9, 1], [0, 0, 40, 30, 0.25, 0]]), np.zeros((0, 6))]


def stored(size: tuple[int, int] = (61, 41), orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = io.BytesIO()
    Image.new("RGB", size, "white").save(content, "JPEG", exif=exif)
    return content.getvalue()


def coloured(drawing: bytes) -> np.ndarray:
    """Where something is drawn on a white picture (height, width)."""
    return np.asarray(Image.open(io.BytesIO(drawing)).convert("RGB")).min(axis=2) < 170


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_box_is_drawn_at_its_place_on_the_upright_picture(orientation: int) -> None:
    source = stored(orientation=orientation)
    seen = coloured(draw_boxes(source, [Drawn((10, 5, 31, 26), 0)]))
    assert seen.shape == ((41, 61) if orientation < 5 else (61, 41))
    rows, columns = np.nonzero(seen)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (10, 5, 31, 26)
    assert not seen[8:23, 13:28].any()


def test_a_large_picture_is_drawn_small_and_its_boxes_with_it() -> None:
    pixels = np.full((1000, 2000, 3), 255, np.uint8)
    seen = coloured(draw_boxes(pixels, [Drawn((1000, 500, 2000, 1000), 1)], side=200))
    assert seen.shape == (100, 200)
    rows, columns = np.nonzero(seen)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (100, 50, 200, 100)


def test_what_was_missed_is_dashed_and_words_stand_at_the_box() -> None:
    source = stored((300, 200))
    whole, dashed, named = (
        coloured(draw_boxes(source, [Drawn((50, 60, 250, 150), 2, words, dash)]))
        for words, dash in (("", False), ("", True), ("ant 0.93", False))
    )
    assert 0.3 * whole.sum() < dashed.sum() < 0.7 * whole.sum()
    assert named[40:59, 50:100].any()
    assert not whole[40:59, 50:100].any()
    outside = draw_boxes(source, [Drawn((-20, -9, 400, 5), 0, "bee"), Drawn((5, 5, 5, 5), 1, "x", True)])
    assert coloured(outside).any()


def test_colours_can_be_told_apart_and_carry_white_words() -> None:
    channels = np.array(COLOURS) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    contrast = 1.05 / (linear @ (0.2126, 0.7152, 0.0722) + 0.05)  # WCAG 2.2, relative luminance
    assert contrast.min() > 3  # of large or bold words
    assert len(set(COLOURS)) == len(COLOURS)


def test_answers_as_csv_are_a_list_of_boxes_again(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg"]
    for name in names:
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    rows = [row for name, answers in zip(names, ANSWERS, strict=True) for row in csv_rows(name, answers, NAMES)]
    assert rows[-1] == ("b.jpg", "", "", "", "", "", "")
    (tmp_path / "found.csv").write_bytes(csv_bytes(HEADER, rows))
    table = read_table(tmp_path / "found.csv", task="detect", min_classes=1)
    assert table.classes == NAMES
    assert [box[:5] for box in boxes_in(table.labels[0])] == [(1, 1, 2, 11.5, 12), (0, 0, 0, 40, 30)]
    assert table.labels[1] == "[]"


def test_answers_as_coco_are_a_set_again(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    (tmp_path / "found.json").write_text(json.dumps(coco_document(["a.jpg", "b.jpg"], [(40, 30)] * 2, ANSWERS, NAMES)))
    table = read_table(tmp_path / "found.json", task="detect", min_classes=1)
    assert table.classes == NAMES
    assert [box[:5] for box in boxes_in(table.labels[0])] == [(1, 1, 2, 11.5, 12), (0, 0, 0, 40, 30)]
    assert table.labels[1] == "[]"
    assert found_boxes(ANSWERS[0], NAMES)[0] == {"label": "bee", "score": 0.9, "box": [1, 2, 11.5, 12]}


def test_what_is_shown_of_a_picture_is_what_was_judged() -> None:
    true = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50], [0, 30, 10, 40]], np.float32)
    truth = BoxTruth(
        (true,), (np.array([0, 0, 1, 1]),), (np.array([False, False, True, False]),), np.ones(1, bool), NAMES
    )
    answers = np.array(
        [
            [0, 0, 10, 10, 0.8, 0],
            [0, 0, 10, 9, 0.9, 0],
            [20, 20, 30, 30, 0.3, 0],
            [40, 40, 50, 50, 0.7, 1],
            [0, 30, 10, 40, 0.7, 0],
        ]
    )
    scores = np.array([0.5, 0.5])
    outcome = outcome_of(truth, 0, answers, scores)
    assert outcome.found.tolist() == [True, False, False, False]
    assert outcome.said.tolist() == [FALSE, RIGHT, LEFT_OUT, LEFT_OUT, FALSE]
    marks = box_marks(truth, [answers], scores)
    assert marks["found"].tolist() == [[1, 0]]
    assert marks["given"].tolist() == [[3, 0]]
    assert marks["n_true"].tolist() == [[2, 1]]
