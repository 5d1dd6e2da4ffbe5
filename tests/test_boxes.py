"""Pictures with boxes as tables: what each kind of annotation says, and what is wrong with it, made file by file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data.box_text import Box, boxes_in, boxes_text
from headstart.data.boxes import BoxTruth, box_targets
from headstart.data.table import Table, read_table
from headstart.errors import DataError

WIDTH, HEIGHT = 40, 30


def picture(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), orientation: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image, exif = Image.new("RGB", size, "teal"), Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def voc(name: str, *boxes: object, size: object = (WIDTH, HEIGHT, 3), extra: str = "") -> str:
    """boxes: (label, xmin, ymin, xmax, ymax) each, or (..., difficult)."""
    objects = ""
    for label, x1, y1, x2, y2, *hard in boxes:  # type: ignore[misc]
        objects += (
            f"<object><name>{label}</name><difficult>{hard[0] if hard else 0}</difficult><bndbox><xmin>{x1}</xmin>"
            f"<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        )
    said = "" if size is None else "<size><width>{}</width><height>{}</height><depth>{}</depth></size>".format(*size)  # type: ignore[misc]
    return f"<annotation><filename>{name}</filename>{said}{extra}{objects}</annotation>"


def in_voc(folder: Path, xml: dict[str, str], lists: dict[str, str] | None = None, pictures: str = "") -> Table:
    """JPEGImages/NAME.jpg and Annotations/NAME.xml of each; pictures: more names, with blanks between."""
    for name in [*xml, *pictures.split()]:
        if not (folder / f"JPEGImages/{name}.jpg").exists():
            picture(folder / f"JPEGImages/{name}.jpg")
    for name, text in xml.items():
        (folder / "Annotations").mkdir(exist_ok=True)
        (folder / f"Annotations/{name}.xml").write_text(text)
    for name, text in (lists or {}).items():
        (folder / "ImageSets/Main").mkdir(parents=True, exist_ok=True)
        (folder / f"ImageSets/Main/{name}.txt").write_text(text)
    return read_table(folder, task="detect")


def told(table: Table) -> dict[str, list[Box] | None]:
    """The boxes by the name of the picture, without folders and ending."""
    return {
        Path(name).stem: boxes_in(text) if text else None for name, text in zip(table.names, table.labels, strict=True)
    }


def noted(table: Table, words: str) -> str:
    found = [note for note in table.notes if words in note]
    assert len(found) == 1, (words, table.notes)
    return found[0]


GOOD = ("cell", 1, 1, 10, 12)


def test_boxes_survive_their_text() -> None:
    boxes = [Box(0, 0, 0, 1, 1), Box(3, 0.125, 2, 7.5, 30, True)]
    assert boxes_in(boxes_text(boxes)) == boxes
    assert boxes_text([]) == "[]"
    assert boxes_text([Box(1, 0.0, 1.0, 2.00004, 3.5)]) == "[[1,0,1,2,3.5,0]]"


@pytest.mark.parametrize("text", ["", "{}", "[[1,2]]", "[[0,1,1,NaN,3,0]]", "[[0,1,1,2", '[["a",1,1,2,3,0]]', "3"])
def test_a_text_that_is_no_list_of_boxes_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="box"):
        boxes_in(text)


def test_voc_counts_pixels_from_one_and_includes_the_last(tmp_path: Path) -> None:
    table = in_voc(tmp_path, {"a": voc("a.jpg", ("dot", 1, 1, 2, 1.5), ("all", 1, 1, WIDTH, HEIGHT))})
    assert told(table)["a"] == [Box(1, 0, 0, 2, 1.5), Box(0, 0, 0, WIDTH, HEIGHT)]
    assert table.classes == ("all", "dot")
    assert table.notes == ()


def test_lists_of_voc_are_the_parts(tmp_path: Path) -> None:
    every = {name: voc(f"{name}.jpg", GOOD) for name in "abcde"}
    lists = {"train": "a\n", "val": "b\n", "test": "c 1\n", "trainval": "a\nb\nd\n"}
    table = in_voc(tmp_path, every, lists)
    assert dict(zip((Path(n).stem for n in table.names), table.splits, strict=True)) == {
        "a": "train",
        "b": "validation",
        "c": "test",
        "d": "train",
    }
    assert "1, the first JPEGImages/e.jpg" in noted(table, "no list of ImageSets names")
    lists["test"] = "a\n"
    with pytest.raises(DataError, match=r"test\.txt names 'a', which train\.txt names too"):
        in_voc(tmp_path, every, lists)


def test_targets_hold_what_the_table_says(tmp_path: Path) -> None:
    xml = {
        "a": voc("a.jpg", ("x", 1, 1, 5, 5), ("y", 3, 3, 9, 9, 1), ("x", 11, 11, 20, 20)),
        "b": voc("b.jpg"),
    }
    table = in_voc(tmp_path, xml, pictures="c")
    truth = box_targets(table)
    assert isinstance(truth, BoxTruth)
    assert truth.names == ("x", "y")
    assert truth.boxes[0].dtype == np.float32
    assert truth.boxes[0].tolist() == [[0, 0, 5, 5], [2, 2, 9, 9], [10, 10, 20, 20]]
    assert truth.labels[0].tolist() == [0, 1, 0]
    assert truth.hard[0].tolist() == [False, True, False]
    assert truth.matrix().tolist() == [[2, 0], [0, 0], [0, 0]]
    assert truth.strata.tolist() == [[1, 0], [0, 0], [0, 0]]
    assert truth.known.tolist() == [True, True, False]
    assert [len(part.boxes) for part in (truth.take(np.array([2, 0])), truth.take(truth.known))] == [2, 2]
    turned = box_targets(table, ("y", "z", "x"))
    assert turned.labels[0].tolist() == [2, 0, 2]
    with pytest.raises(DataError, match="class 'y', which is not one of the known classes"):
        box_targets(table, ("x",))
