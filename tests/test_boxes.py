"""Pictures with boxes as tables: what each kind of annotation says, and what is wrong with it, made file by file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.data.box_text import Box, boxes_in, boxes_text
from headstart.data.boxes import BoxTruth, box_targets
from headstart.data.table import Table, read_table
from headstart.errors import DataError

WIDTH, HEIGHT = 40, 30


def read(path: Path, **more: Any) -> Table:
    """As for `evaluate`: a picture is enough."""
    return read_table(path, min_classes=1, task="detect", **more)


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
    return read(folder)


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


@pytest.mark.parametrize(
    "text", ["", "{}", "[[1,2]]", "[[0,1,1,NaN,3,0]]", "[[0,1,1,2", '[["a",1,1,2,3,0]]', "3", "[[1e999,1,1,2,3,0]]"]
)
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


# Faults of Pascal VOC


SIDE = (WIDTH, HEIGHT, 3)
FAULTS = {
    "reaches out": (voc("a", GOOD, ("cell", 30, 20, 60, 45)), "cut at its edges: 1", [Box(0, 29, 19, 40, 30)]),
    "a pixel out": (voc("a", GOOD, ("cell", 0, 0, 41, 31)), "", [Box(0, 0, 0, 40, 30)]),
    "outside": (voc("a", GOOD, ("cell", 50, 5, 60, 9)), "outside their picture, left out: 1", []),
    "no area": (voc("a", GOOD, ("cell", 5, 5, 5, 9)), "no area, left out: 1", []),
    "swapped": (voc("a", GOOD, ("cell", 9, 8, 5, 3)), "corners are swapped, put in order: 1", [Box(0, 4, 2, 9, 8)]),
    "not a number": (voc("a", GOOD, ("cell", "nan", 8, 5, 3)), "no number, left out: 1", []),
    "infinite": (voc("a", GOOD, ("cell", 1, 8, "inf", 30)), "no number, left out: 1", []),
    "a word": (voc("a", GOOD, ("cell", 1, "left", 4, 30)), "no number, left out: 1", []),
    "negative": (voc("a", GOOD, ("cell", -20, -9, 5, 6)), "cut at its edges: 1", [Box(0, 0, 0, 5, 6)]),
    "no class": (voc("a", GOOD, (" ", 1, 2, 5, 6)), "without a class, left out: 1", []),
    "no box": (voc("a", GOOD, extra="<object><name>cell</name></object>"), "objects without a box, left out: 1", []),
    "twice": (voc("a", GOOD, GOOD), "there twice, counted once: 1", []),
    "difficult": (voc("a", GOOD, ("cell", 3, 3, 9, 9, 1)), "", [Box(0, 2, 2, 9, 9, True)]),
    "no size": (voc("a", GOOD, ("cell", 3, 3, 9, 9), size=None), "", [Box(0, 2, 2, 9, 9)]),
    "size of 0": (voc("a", GOOD, ("cell", 3, 3, 9, 9), size=(0, 0, 3)), "", [Box(0, 2, 2, 9, 9)]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_box_is_left_out_or_mended_and_the_others_stay(tmp_path: Path, fault: str) -> None:
    text, words, more = FAULTS[fault]
    table = in_voc(tmp_path, {"a": text, "b": voc("b", GOOD)})
    assert told(table)["a"] == [Box(0, 0, 0, 10, 12), *more]
    assert told(table)["b"] == [Box(0, 0, 0, 10, 12)]
    if words:
        assert "first JPEGImages/a.jpg" in noted(table, words)
    else:
        assert table.notes == ()


ENTITIES = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + voc("a", ("&b;", 1, 1, 5, 5))
UNREADABLE = {
    "cut short": (voc("a", GOOD)[:-40], "it is no whole XML"),
    "empty": ("", "it is empty"),
    "not of VOC": ("<html><body/></html>", "its first element is 'html', not annotation"),
    "entities": (ENTITIES, "declares a document type or entities"),
    "entities in UTF-16": (ENTITIES.encode("utf-16"), "declares a document type or entities"),
    "too long": (voc("a", GOOD) + " " * (9 << 20), "more than the limit of 8,388,608"),
    "an encoding that is none": (b'<?xml version="1.0" encoding="klingon"?><annotation/>', "it is no whole XML"),
}


@pytest.mark.parametrize("fault", UNREADABLE)
def test_of_a_picture_whose_annotation_cannot_be_read_nothing_is_known(tmp_path: Path, fault: str) -> None:
    text, words = UNREADABLE[fault]
    in_voc(tmp_path, {"b": voc("b", GOOD)}, pictures="a")
    (tmp_path / "Annotations/a.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    table = read(tmp_path)
    assert told(table) == {"a": None, "b": [Box(0, 0, 0, 10, 12)]}
    assert "first Annotations/a.xml" in noted(table, words)
    assert "of which nothing is known: 1, the first JPEGImages/a.jpg" in noted(table, "without a readable annotation")


def test_annotations_and_pictures_that_miss_each_other_are_listed(tmp_path: Path) -> None:
    xml = {"a": voc("a.jpg", GOOD), "renamed": voc("c.jpg", GOOD)}
    for name in ("a", "b", "c"):
        picture(tmp_path / f"JPEGImages/{name}.jpg")
    table = in_voc(tmp_path / "other", {"x": voc("x", GOOD)})
    for name, text in {**xml, "lost": voc("lost.jpg", GOOD)}.items():
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / f"Annotations/{name}.xml").write_text(text)
    (tmp_path / "other").rename(tmp_path.parent / f"{tmp_path.name}-aside")
    table = read(tmp_path)
    assert told(table) == {"a": [Box(0, 0, 0, 10, 12)], "b": None, "c": [Box(0, 0, 0, 10, 12)]}
    assert "1, the first Annotations/lost.xml" in noted(table, "annotations without a picture")
    assert "1, the first JPEGImages/b.jpg" in noted(table, "without a readable annotation")


def test_an_annotation_of_two_pictures_of_one_name_is_neithers(tmp_path: Path) -> None:
    in_voc(tmp_path, {"a": voc("a.jpg", GOOD), "b": voc("b.jpg", GOOD)})
    picture(tmp_path / "JPEGImages/a.png")
    table = read(tmp_path)
    assert told(table) == {"a": None, "b": [Box(0, 0, 0, 10, 12)]}
    assert "the first Annotations/a.xml" in noted(table, "several pictures of the same name")


@pytest.mark.parametrize(
    ("size", "boxes", "scaled"),
    [
        ((80, 60, 3), [("cell", 1, 1, 80, 60), ("cell", 1, 1, 20, 20)], True),  # made smaller later
        ((20, 15, 3), [("cell", 1, 1, 20, 15)], True),  # made larger later: the shape says so
        ((20, 20, 3), [("cell", 1, 1, 20, 15)], False),  # of another shape, and both fit: the file is believed
        ((80, 60, 3), [("cell", 1, 1, 40, 30)], True),
        ((20, 15, 3), [("cell", 1, 1, 40, 30)], False),  # the box fits the file alone
        ((80, 60, 3), [("cell", 1, 1, 40 - k, 30 - k) for k in range(9)], False),  # none leaves the smaller one
        ((80, 60, 3), [("cell", 1, 1, 40 - k, 30 - k) for k in range(3)], True),  # which three may by chance
    ],
)
def test_boxes_are_scaled_where_they_were_drawn_on_another_size(
    tmp_path: Path, size: tuple[int, int, int], boxes: list[object], scaled: bool
) -> None:
    table = in_voc(tmp_path, {"a": voc("a.jpg", *boxes, size=size)})
    found = told(table)["a"]
    assert found is not None
    _, _, _, right, bottom = boxes[0]  # type: ignore[misc]
    by = (WIDTH / size[0], HEIGHT / size[1]) if scaled else (1, 1)
    assert found[0][3:5] == (right * by[0], bottom * by[1])
    assert f"(40 x 30 px, stated {size[0]} x {size[1]})" in noted(table, "scaled to it" if scaled else "as they are")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_stays_on_its_thing_when_exif_turns_the_picture(tmp_path: Path, orientation: int) -> None:
    """One bright pixel in a stored picture of odd size; the box around it is read back on the upright one."""
    from headstart.data.images import preview

    stored = np.zeros((31, 41, 3), np.uint8)
    stored[4:8, 9:15] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "JPEGImages").mkdir()
    Image.fromarray(stored).save(tmp_path / "JPEGImages/a.jpg", quality=100, exif=exif)
    table = in_voc(tmp_path, {"a": voc("a.jpg", ("dot", 10, 5, 15, 8), size=(41, 31, 3))})
    upright = np.asarray(Image.open(io.BytesIO(preview((tmp_path / "JPEGImages/a.jpg").read_bytes(), 99))))
    rows, columns = np.nonzero(upright[:, :, 0] > 128)
    seen = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    found = told(table)["a"]
    assert found is not None
    if orientation in (2, 3, 4):  # the size does not tell, so the box is of the picture as it is displayed
        assert found[0][1:5] == (9, 4, 15, 8)
        noted(table, "drawn on it as it is displayed: 1")
    else:
        assert found[0][1:5] == seen
    if orientation >= 5:
        noted(table, "drawn on it as it is stored, and turned with it: 1")
        displayed = in_voc(tmp_path, {"a": voc("a.jpg", ("dot", 10, 5, 15, 8), size=(31, 41, 3))})
        assert told(displayed)["a"] == [Box(0, 9, 4, 15, 8)]


def test_a_picture_that_says_its_size_late_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    image, exif = Image.new("RGB", (WIDTH, HEIGHT)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "JPEGImages/a.jpg", exif=exif, icc_profile=bytes(200_000))
    table = in_voc(tmp_path, {"a": voc("a.jpg", ("cell", 1, 1, 99, 99), size=None)})
    assert told(table)["a"] == [Box(0, 0, 0, HEIGHT, WIDTH)]
    (tmp_path / "JPEGImages/b.jpg").write_bytes(b"\xff\xd8 no picture")
    table = in_voc(tmp_path, {"b": voc("b.jpg", GOOD)})
    assert told(table)["b"] is None
    noted(table, "pictures that cannot be read: 1")


def test_classes_are_those_that_teach(tmp_path: Path) -> None:
    xml = {"a": voc("a", ("zebra", 1, 1, 5, 5), ("ant", 1, 1, 9, 9)), "b": voc("b", ("ant", 1, 1, 9, 9))}
    assert in_voc(tmp_path, xml, {"train": "a", "test": "b"}).classes == ("ant", "zebra")
    with pytest.raises(DataError, match=r"class 'zebra' is in the test split .* but in no training picture"):
        in_voc(tmp_path, xml, {"train": "b", "test": "a"})


def test_sets_without_boxes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no training picture has a box"):
        in_voc(tmp_path, {"a": voc("a"), "b": voc("b")})
    picture(tmp_path / "bare/a.jpg")
    with pytest.raises(DataError, match="pictures and no boxes of them: 1 image; expected are Pascal VOC"):
        read(tmp_path / "bare")
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "none")
    (tmp_path / "bare/words.docx").write_text("")
    with pytest.raises(DataError, match="no set of pictures with boxes"):
        read(tmp_path / "bare/words.docx")


# COCO


def coco(folder: Path, name: str = "annotations.json", pictures: int = 2, **changes: Any) -> Path:
    """1.jpg, 2.jpg ... with a box each, but as changed."""
    folder.mkdir(parents=True, exist_ok=True)
    held: dict[str, Any] = {
        "images": [
            {"id": k, "file_name": f"{k}.jpg", "width": WIDTH, "height": HEIGHT} for k in range(1, pictures + 1)
        ],
        "annotations": [
            {"id": k, "image_id": k, "category_id": 7, "bbox": [1, 2, 10, 12.5], "iscrowd": 0}
            for k in range(1, pictures + 1)
        ],
        "categories": [{"id": 9, "name": "bee"}, {"id": 7, "name": "wasp"}],
    }
    for k in range(1, pictures + 1):
        if not (folder / f"{k}.jpg").exists():
            picture(folder / f"{k}.jpg")
    (folder / name).write_text(json.dumps(held | changes))
    return folder


AT = {"image_id": 1, "category_id": 7, "bbox": [1, 2, 10, 12]}


def test_coco_counts_from_the_edge_and_its_categories_are_in_order(tmp_path: Path) -> None:
    extra = [AT, AT | {"category_id": 9, "bbox": [0, 0, 40, 30], "iscrowd": 1}]
    table = read(coco(tmp_path, annotations=extra))
    assert told(table) == {"1": [Box(0, 1, 2, 11, 14), Box(1, 0, 0, 40, 30, True)], "2": []}
    assert table.classes == ("wasp", "bee")
    again = read(tmp_path / "annotations.json")
    assert again.labels.tolist() == table.labels.tolist()


COCO_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown category": ({"annotations": [AT, AT | {"category_id": 1}]}, "category that their file does not name"),
    "unknown picture": ({"annotations": [AT, AT | {"image_id": 44}]}, "pictures that their file does not list"),
    "no box": ({"annotations": [AT, {"image_id": 1, "category_id": 7}]}, "without a box of four numbers"),
    "three numbers": ({"annotations": [AT, AT | {"bbox": [1, 2, 3]}]}, "without a box of four numbers"),
    "negative width": ({"annotations": [AT, AT | {"bbox": [9, 2, -3, 4]}]}, "no area, left out: 1"),
    "a number without end": (
        {"annotations": [AT, AT | {"bbox": [10**400, 2, 3, float("inf")]}]},
        "no number, left out: 1",
    ),
    "words": ({"annotations": [AT, AT | {"bbox": ["x", 2, 3, 4]}]}, "no number, left out: 1"),
    "a category twice": (
        {"annotations": [AT], "categories": [{"id": 7, "name": "wasp"}, {"id": 7, "name": "bee"}]},
        "whose number is taken already, left out: 1, the first bee in annotations.json",
    ),
    "a picture's number twice": (
        {"annotations": [AT], "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 1, "file_name": "2.jpg"}]},
        "whose number another one has already, left out: 1, the first 2.jpg",
    ),
    "a picture twice": (
        {"annotations": [AT], "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "1.jpg"}]},
        "listed twice, of which the first entry counts: 1, the first 1.jpg",
    ),
    "a picture that is not there": (
        {"annotations": [AT], "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "x/9.jpg"}]},
        "listed and not there: 1, the first x/9.jpg",
    ),
    "no name": ({"annotations": [AT], "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2}]}, "without a file_name"),
}


@pytest.mark.parametrize("fault", COCO_FAULTS)
def test_a_fault_in_coco_is_noted_and_the_rest_is_read(tmp_path: Path, fault: str) -> None:
    changes, words = COCO_FAULTS[fault]
    table = read(coco(tmp_path, **changes))
    assert told(table)["1"] == [Box(0, 1, 2, 11, 14)]
    noted(table, words)


def test_a_json_file_for_each_part(tmp_path: Path) -> None:
    for part in ("train", "val"):
        coco(tmp_path / f"{part}2017")
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / f"{part}2017/annotations.json").rename(tmp_path / f"annotations/instances_{part}2017.json")
    table = read(tmp_path)
    assert table.names.tolist() == ["train2017/1.jpg", "train2017/2.jpg", "val2017/1.jpg", "val2017/2.jpg"]
    assert table.splits.tolist() == ["train", "train", "validation", "validation"]
    coco(tmp_path / "train2017", "more.json")
    with pytest.raises(DataError, match=r"1\.jpg is listed both in .*json and in .*json: name the one JSON file"):
        read(tmp_path)


def test_a_broken_json_is_one_clear_error(tmp_path: Path) -> None:
    place = coco(tmp_path)
    whole = (place / "annotations.json").read_text()
    (place / "annotations.json").write_text(whole[:-30])
    with pytest.raises(DataError, match=r"annotations\.json is no whole JSON"):
        read(place)
    (place / "annotations.json").write_text('{"images": [], "annotations": 3}')
    with pytest.raises(DataError, match="no list of objects under 'annotations'"):
        read(place)


def test_categories_that_no_training_box_has_are_left_out(tmp_path: Path) -> None:
    table = read(coco(tmp_path))
    assert table.classes == ("wasp",)
    assert "1 class without a box in the training pictures, left out: 'bee'" in table.notes


# YOLO


def yolo(folder: Path, labels: dict[str, str], yaml: str | None = "names: [ant, bee]") -> Path:
    """images/PART/NAME.jpg and labels/PART/NAME.txt of names such as train/a."""
    for name, text in labels.items():
        if not (folder / f"images/{name}.jpg").exists():
            picture(folder / f"images/{name}.jpg")
        (folder / f"labels/{name}.txt").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"labels/{name}.txt").write_text(text)
    if yaml is not None:
        (folder / "data.yaml").write_text(yaml)
    return folder


def test_yolo_has_centres_and_shares(tmp_path: Path) -> None:
    outline = "0 0.1 0.1 0.5 0.2 0.3 0.9"
    place = yolo(tmp_path, {"train/a": f"1 0.5 0.5 0.5 0.2\n{outline}\n", "val/b": ""})
    table = read(place)
    assert told(table) == {"a": [Box(1, 10, 12, 30, 18), Box(0, 4, 3, 20, 27)], "b": []}
    assert table.splits.tolist() == ["train", "validation"]
    assert table.classes == ("ant", "bee")
    assert read(place / "data.yaml").labels.tolist() == table.labels.tolist()


@pytest.mark.parametrize(
    ("yaml", "classes"),
    [
        ("names:\n  0: ant\n  1: bee\n", ("ant", "bee")),
        ("names:\n- ant\n- bee\nnc: 2\n", ("ant", "bee")),
        ("nc: 2\n", ("0", "1")),
        (None, ("0", "1")),
    ],
)
def test_names_of_yolo_come_from_its_yaml(tmp_path: Path, yaml: str | None, classes: tuple[str, ...]) -> None:
    place = yolo(tmp_path, {"a": "1 .5 .5 .5 .5\n0 .5 .5 .2 .2"}, yaml)
    assert read(place).classes == classes
    if yaml is None:
        (place / "classes.txt").write_text("wasp\nfly\n")
        assert read(place).classes == ("wasp", "fly")


def test_the_layout_of_exports_and_what_their_yaml_says_of_parts(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        picture(tmp_path / f"{part}/images/{part}.jpg")
        (tmp_path / f"{part}/labels").mkdir()
        (tmp_path / f"{part}/labels/{part}.txt").write_text("0 .5 .5 .5 .5")
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnames: [ant]\n")
    assert read(tmp_path).splits.tolist() == ["train", "validation"]
    (tmp_path / "data.yaml").write_text("train: valid/images\nval: train/images\nnames: [ant]\n")
    assert read(tmp_path).splits.tolist() == ["validation", "train"]
    (tmp_path / "data.yaml").write_text("train: train\nval: .\nnames: [ant]\n")
    with pytest.raises(DataError, match="in the train part and in the validation part"):
        read(tmp_path)


YOLO_FAULTS = {
    "class without name": ("2 .5 .5 .1 .1", "whose class number has no name, left out: 1"),
    "class that is no number": ("bee .5 .5 .1 .1", "whose class is no number from 0 on, left out: 1"),
    "four values": ("0 .5 .5 .1", "not a class and x y width height, left out: 1"),
    "negative width": ("0 .5 .5 -.1 .1", "no area, left out: 1"),
    "not a number": ("0 .5 nan .1 .1", "no number, left out: 1"),
    "outside": ("0 1.5 .5 .1 .1", "outside their picture, left out: 1"),
}


@pytest.mark.parametrize("fault", YOLO_FAULTS)
def test_a_fault_in_a_line_of_yolo_is_noted_and_the_rest_is_read(tmp_path: Path, fault: str) -> None:
    line, words = YOLO_FAULTS[fault]
    table = read(yolo(tmp_path, {"a": f"{line}\n0 .5 .5 .5 .2", "b": "1 .5 .5 .5 .5"}))
    assert told(table)["a"] == [Box(0, 10, 12, 30, 18)]
    assert "first images/a.jpg" in noted(table, words)


def test_px_where_shares_are_expected(tmp_path: Path) -> None:
    good = dict.fromkeys("abc", "0 .5 .5 .5 .5")
    table = read(yolo(tmp_path, {**good, "d": "0 20 10 5 5"}))
    assert told(table)["d"] is None
    assert "1, the first images/d.jpg" in noted(table, "px where shares are expected")
    with pytest.raises(DataError, match=r"4 pictures, such as images/a\.jpg, are px, and YOLO has shares"):
        read(yolo(tmp_path, dict.fromkeys("abcd", "0 20 10 5 5")))


def test_of_a_picture_without_a_file_of_labels_nothing_is_known(tmp_path: Path) -> None:
    place = yolo(tmp_path, {"a": "0 .5 .5 .5 .5"})
    picture(place / "images/b.jpg")
    (place / "labels/lost.txt").write_text("0 .5 .5 .5 .5")
    table = read(place)
    assert told(table)["b"] is None
    noted(table, "without a file of labels, of which nothing is known: 1, the first images/b.jpg")
    noted(table, "files of labels without a picture: 1, the first labels/lost.txt")


def test_bad_yaml_is_one_clear_error(tmp_path: Path) -> None:
    place = yolo(tmp_path, {"a": "0 .5 .5 .5 .5"}, "names: [ant, 'bee\n")
    with pytest.raises(DataError, match=r"data\.yaml is no YAML"):
        read(place)
    (place / "data.yaml").write_text("names: {0: ant, 2: bee}")
    with pytest.raises(DataError, match="under names are not 0 to 1"):
        read(place)
    (place / "data.yaml").write_text("names: [ant, ant]")
    with pytest.raises(DataError, match="the class 'ant' twice"):
        read(place)


# Lists


def listed(folder: Path, text: str, name: str = "boxes.csv") -> Table:
    for stem in "abc":
        if not (folder / f"{stem}.jpg").exists():
            picture(folder / f"{stem}.jpg")
    (folder / name).write_text(text)
    return read(folder / name)


HEADER = "path,x1,y1,x2,y2,label\n"


def test_a_list_has_a_line_a_box_and_empty_cells_for_an_empty_picture(tmp_path: Path) -> None:
    table = listed(tmp_path, HEADER + "a.jpg,1,2,11,12.5,ant\na.jpg,3,3,9,9,bee\nb.jpg,,,,,\n")
    assert told(table) == {"a": [Box(0, 1, 2, 11, 12.5), Box(1, 3, 3, 9, 9)], "b": []}
    assert table.splits.tolist() == ["none", "none"]
    assert read(tmp_path).labels.tolist() == table.labels.tolist()


def test_parts_groups_and_hard_boxes_of_a_list(tmp_path: Path) -> None:
    head = "filename,width,height,class,xmin,ymin,xmax,ymax,difficult,split,site\n"
    rows = "a.jpg,40,30,ant,1,2,9,9,0,train,x\na.jpg,40,30,ant,2,2,9,9,1,train,x\nb.jpg,40,30,ant,1,1,9,9,0,test,y\n"
    listed(tmp_path, head + rows)
    table = read(tmp_path / "boxes.csv", group="site")
    assert table.splits.tolist() == ["train", "test"]
    assert table.groups.tolist() == ["x", "y"]
    assert told(table)["a"] == [Box(0, 1, 2, 9, 9), Box(0, 2, 2, 9, 9, True)]
    with pytest.raises(DataError, match=r"line 3: 'a\.jpg' is in another part or group than on a line before"):
        listed(tmp_path, head + rows.replace("0,train,x\na", "0,test,x\na"))


LIST_FAULTS = {
    "half a box": ("a.jpg,1,2,,12,ant", "no number, left out: 1"),
    "no class": ("a.jpg,1,2,8,12,", "without a class, left out: 1"),
    "swapped": ("a.jpg,8,12,1,2,ant", "corners are swapped, put in order: 1"),
    "shares among px": ("b.jpg,.1,.2,.5,.6,ant", "between 0 and 1 where px are expected, of which nothing is known: 1"),
    "no such picture": ("z.jpg,1,2,8,12,ant", "names no file that exists"),
}


@pytest.mark.parametrize("fault", LIST_FAULTS)
def test_a_fault_in_a_line_of_a_list_is_noted_and_the_rest_is_read(tmp_path: Path, fault: str) -> None:
    line, words = LIST_FAULTS[fault]
    table = listed(tmp_path, f"{HEADER}{line}\na.jpg,1,2,11,12,ant\nc.jpg,,,,,\n")
    found = told(table)
    assert Box(0, 1, 2, 11, 12) in (found["a"] or [])
    assert found["c"] == []
    assert found.get("b") is None
    assert found.get("z") is None
    noted(table, words)


def test_a_list_of_shares_is_read_as_shares(tmp_path: Path) -> None:
    table = listed(tmp_path, HEADER + "a.jpg,0,0,.5,.5,ant\nb.jpg,.25,.5,1,1,ant\n")
    assert told(table) == {"a": [Box(0, 0, 0, 20, 15)], "b": [Box(0, 10, 15, 40, 30)]}
    assert any("taken as shares" in note for note in table.notes)


def test_lists_that_cannot_be_read_say_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no columns of boxes: .*needed are path, x1, y1, x2, y2 and label"):
        listed(tmp_path, "path,label\na.jpg,ant\n")
    with pytest.raises(DataError, match="no column of classes"):
        listed(tmp_path, "path,x1,y1,x2,y2\na.jpg,1,2,3,4\n")
    with pytest.raises(DataError, match="none of the 2 files"):
        listed(tmp_path, HEADER + "x.jpg,1,2,3,4,a\ny.jpg,1,2,3,4,a\n")


# What is asked


def test_two_kinds_side_by_side_are_asked_about(tmp_path: Path) -> None:
    place = coco(tmp_path)
    (place / "1.xml").write_text(voc("1.jpg", GOOD))
    with pytest.raises(DataError, match=r"holds XML \(1\.xml\) and COCO JSON \(annotations\.json\): name the one file"):
        read(place)
    assert len(read(place / "annotations.json")) == 2


def test_columns_are_of_lists_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--group names none"):
        read(coco(tmp_path), group="site")


def test_detection_is_never_guessed(tmp_path: Path) -> None:
    in_voc(tmp_path, {"a": voc("a", GOOD)})
    with pytest.raises(DataError, match="detection"):
        read_table(tmp_path)


def test_one_picture_teaches_nothing_that_could_be_judged(tmp_path: Path) -> None:
    in_voc(tmp_path, {"a": voc("a", GOOD)})
    with pytest.raises(DataError, match="1 training picture of which boxes are known: at least 2"):
        read_table(tmp_path, task="detect")
    in_voc(tmp_path, {"b": voc("b", GOOD, ("rare", 1, 1, 5, 5))})
    assert "'rare'" in noted(read_table(tmp_path, task="detect"), "in a single training picture, so hardly learned")


def test_pictures_stay_together_by_their_names(tmp_path: Path) -> None:
    xml = {f"{site}_{k}": voc("a", GOOD) for site in "xy" for k in range(2)}
    in_voc(tmp_path, xml)
    table = read(tmp_path, group_by="([a-z])_")
    assert table.groups.tolist() == ["x", "x", "y", "y"]


def test_bccd_is_read_whole(shared: Path) -> None:
    table = read(shared / "data/bccd")
    assert table.classes == ("Platelets", "RBC", "WBC")
    assert [int((table.splits == part).sum()) for part in ("train", "validation", "test")] == [205, 87, 72]
    assert box_targets(table).matrix().sum(axis=0).tolist() == [361, 4153, 372]
    assert table.notes == ("boxes of no area, left out: 2, the first JPEGImages/BloodImage_00338.jpg",)
