"""Laws of pictures with masks: a mask is read as its picture lies, and what is wrong is set aside with its reason."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.cli.arguments import parser
from headstart.data import mask_text
from headstart.data.mask_classes import FILES, classes_given, read_classes
from headstart.data.mask_text import mask_of, published
from headstart.data.masks import mask_targets
from headstart.data.placing import VOID, upright
from headstart.data.polygons import filled
from headstart.data.shape_files import unpacked
from headstart.data.table import Table, read_table, table_of
from headstart.errors import DataError, ImageError, OptionError

SIZE = (5, 7)  # height, width
Array = np.ndarray[Any, Any]


def picture(path: Path, size: tuple[int, int] = SIZE, orientation: int = 1, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def numbers(seed: int = 0, size: tuple[int, int] = SIZE, most: int = 3) -> Array:
    found = np.random.default_rng(seed).integers(0, most, size).astype(np.uint8)
    found.flat[:most] = range(most)
    return found


def mask(path: Path, values: Array) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def made(root: Path, n: int = 4) -> Path:
    """images/ and masks/ of classes 0, 1 and 2."""
    for k in range(n):
        picture(root / "images" / f"{k}.png", seed=k)
        mask(root / "masks" / f"{k}.png", numbers(k))
    return root


def segments(path: Path, **asked: Any) -> Table:
    return read_table(path, task="segment", **asked)


def notes(path: Path, **asked: Any) -> str:
    return " | ".join(segments(path, **asked).notes)


# What is read


def test_masks_are_those_that_lie_there(tmp_path: Path) -> None:
    table = segments(made(tmp_path))
    truth = mask_targets(table)
    assert table.columns == table.classes == truth.names == ("0", "1", "2")
    assert "no file names the numbers in the masks: 0, 1, 2 are classes, none is void" in notes(tmp_path)
    assert list(table.names) == [f"images/{k}.png" for k in range(4)]
    for k in range(4):
        np.testing.assert_array_equal(truth.mask(k, SIZE), numbers(k))
        np.testing.assert_allclose(truth.matrix()[k], np.bincount(numbers(k).ravel(), minlength=3) / 35)
    taken = truth.take(np.array([2, 0]))
    assert len(taken) == 2
    np.testing.assert_array_equal(taken.mask(0), numbers(2))
    np.testing.assert_array_equal(taken.strata, np.ones((2, 3)))


@pytest.mark.parametrize(
    ("of_picture", "of_mask", "splits"),
    [
        ("images/{}.png", "masks/{}.png", ("none", "none")),
        ("JPEGImages/{}.png", "SegmentationClass/{}.png", ("none", "none")),
        ("{s}/images/{}.png", "{s}/masks/{}.png", ("train", "validation")),
        ("images/{s}/{}.png", "labels/{s}/{}.png", ("train", "validation")),
        ("{s}/{}.png", "{s}_labels/{}_L.png", ("train", "validation")),
        ("{s}/{}.png", "{s}annot/{}.png", ("train", "validation")),
        ("imgs/{}.png", "annotations/{}_mask.png", ("none", "none")),
        ("{}.png", "{}_gt.png", ("none", "none")),
        (
            "leftImg8bit/{s}/town/{}_leftImg8bit.png",
            "gtFine/{s}/town/{}_gtFine_labelIds.png",
            ("train", "validation"),
        ),
    ],
)
def test_layouts(of_picture: str, of_mask: str, splits: tuple[str, str], tmp_path: Path) -> None:
    for k in range(4):
        part = "train" if k < 3 else "val"
        picture(tmp_path / of_picture.format(f"a{k}", s=part), seed=k)
        mask(tmp_path / of_mask.format(f"a{k}", s=part), numbers(k))
    table = segments(tmp_path)
    truth = mask_targets(table)
    assert list(table.splits) == [splits[0]] * 3 + [splits[1]]
    for k in range(4):
        np.testing.assert_array_equal(truth.mask(k), numbers(k))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(5, 7), (6, 6)])
def test_a_mask_belongs_to_the_picture_as_displayed_or_as_stored(
    orientation: int, size: tuple[int, int], tmp_path: Path
) -> None:
    """A single pixel at each corner says which way it lies."""
    stored = np.zeros(size, np.uint8)
    stored[0, 1] = 1
    for how, own in (("shown", upright(stored, orientation)), ("stored", stored)):
        root = tmp_path / how
        for k in range(2):
            picture(root / "images" / f"{k}.jpg", size, orientation)
            mask(root / "masks" / f"{k}.png", own)
        truth = mask_targets(segments(root))
        decided = size[0] != size[1] and orientation >= 5
        expected = own if how == "shown" or not decided else upright(stored, orientation)
        np.testing.assert_array_equal(truth.mask(0, expected.shape), expected)
        assert tuple(truth.sizes[0]) == expected.shape
        assert ("as it is stored" in notes(root)) == (how == "stored" and decided)


def test_a_mask_with_an_orientation_of_its_own_is_displayed_by_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    for k in range(2):
        picture(tmp_path / "images" / f"{k}.jpg", SIZE, 3)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray(numbers(k)).save(tmp_path / "masks" / f"{k}.png", exif=exif)
    np.testing.assert_array_equal(mask_targets(segments(tmp_path)).mask(1), upright(numbers(1), 3))


def test_masks_whose_size_does_not_decide_follow_those_whose_size_does(tmp_path: Path) -> None:
    stored = numbers(1)
    for k, orientation in enumerate((6, 3, 1)):
        picture(tmp_path / "images" / f"{k}.jpg", SIZE, orientation)
        mask(tmp_path / "masks" / f"{k}.png", stored)
    truth = mask_targets(segments(tmp_path))
    for k, orientation in enumerate((6, 3, 1)):
        np.testing.assert_array_equal(truth.mask(k), upright(stored, orientation))


def test_parts_as_voc_lists_them(tmp_path: Path) -> None:
    for k in range(4):
        picture(tmp_path / "VOC/JPEGImages" / f"{k}.jpg")
        mask(tmp_path / "VOC/SegmentationClass" / f"{k}.png", numbers(k))
        mask(tmp_path / "VOC/SegmentationObject" / f"{k}.png", numbers(k))
    lists = tmp_path / "VOC/ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n1\n2\n")
    (lists / "val.txt").write_text("3\n")
    assert list(segments(tmp_path / "VOC").splits) == ["train"] * 3 + ["validation"]


def test_black_and_white_jpegs_are_masks(tmp_path: Path) -> None:
    made(tmp_path)
    rng = np.random.default_rng(0)
    blobs = [np.kron(rng.integers(0, 2, (2, 2)), np.ones((32, 32))).astype(np.uint8) for _ in range(4)]
    for k, blob in enumerate(blobs):
        blob[:32, :32], blob[32:, 32:] = 0, 1
        (tmp_path / "masks" / f"{k}.png").unlink()
        picture(tmp_path / "images" / f"{k}.png", (64, 64))
        mask(tmp_path / "masks" / f"{k}.jpg", blob * 255)
    truth = mask_targets(segments(tmp_path))
    assert truth.names == ("background", "foreground")
    np.testing.assert_array_equal(truth.mask(2), blobs[2])


def test_names_void_and_colours_of_a_file(tmp_path: Path) -> None:
    colours = np.array([[128, 64, 0], [0, 0, 255], [10, 20, 30]], np.uint8)
    made(tmp_path)
    for k in range(4):
        mask(tmp_path / "masks" / f"{k}.png", colours[numbers(k)])
    with pytest.raises(DataError, match=r"in colours \(0,0,255; 10,20,30; 128,64,0\) and no file says"):
        segments(tmp_path)
    (tmp_path / "classes.csv").write_text("name,r,g,b\nroad,128,64,0\nVoid,0,0,255\nsea,10,20,30\n")
    truth = mask_targets(segments(tmp_path))
    assert truth.names == ("road", "sea")
    np.testing.assert_array_equal(truth.mask(1), np.array([0, VOID, 1], np.uint8)[numbers(1)])
    assert "void, which neither teaches nor judges: 'Void'" in notes(tmp_path)
    assert "no file names" not in notes(tmp_path)


def test_a_palette_is_read_by_its_numbers_or_by_the_colours_that_a_file_names(tmp_path: Path) -> None:
    made(tmp_path)
    for k in range(4):
        image = Image.fromarray(numbers(k)).convert("P")
        image.putdata(numbers(k).ravel().tolist())
        image.putpalette([9, 9, 9, 0, 255, 0, 255, 0, 0])
        image.save(tmp_path / "masks" / f"{k}.png")
    np.testing.assert_array_equal(mask_targets(segments(tmp_path)).mask(3), numbers(3))
    (tmp_path / "label_colors.txt").write_text("255 0 0\tcar\n9 9 9\tsky\n0 255 0\ttree\n")
    truth = mask_targets(segments(tmp_path))
    assert truth.names == ("car", "sky", "tree")
    np.testing.assert_array_equal(truth.mask(3), np.array([1, 2, 0], np.uint8)[numbers(3)])


def test_grey_pictures_of_colours_and_numbers_beside_a_file_of_colours(tmp_path: Path) -> None:
    """Black in RGB is a colour; a number in a grey file is a line of the file, unless all its colours are grey."""
    made(tmp_path)
    (tmp_path / "classes.csv").write_text("road,9,8,7\nsky,0,0,0\ncar,2,2,2\n")
    for k in (0, 1):
        mask(tmp_path / "masks" / f"{k}.png", np.array([[9, 8, 7], [0, 0, 0], [2, 2, 2]], np.uint8)[numbers(k)])
    mask(tmp_path / "masks/2.png", np.zeros((*SIZE, 3), np.uint8))
    truth = mask_targets(segments(tmp_path))
    np.testing.assert_array_equal(truth.mask(1), numbers(1))
    assert (truth.mask(2) == 1).all()
    np.testing.assert_array_equal(truth.mask(3), numbers(3))
    (tmp_path / "classes.csv").write_text("fg,2,2,2\nmid,1,1,1\nbg,0,0,0\n")
    mask(tmp_path / "masks/1.png", numbers(1))
    np.testing.assert_array_equal(mask_targets(segments(tmp_path)).mask(1), 2 - numbers(1))


def test_masks_of_0_and_255_are_two_classes_and_255_elsewhere_is_void(tmp_path: Path) -> None:
    made(tmp_path / "two")
    made(tmp_path / "three")
    for k in range(4):
        mask(tmp_path / "two/masks" / f"{k}.png", (numbers(k) > 0).astype(np.uint8) * 255)
        mask(tmp_path / "three/masks" / f"{k}.png", np.where(numbers(k) == 2, 255, numbers(k)).astype(np.uint8))
    two = mask_targets(segments(tmp_path / "two"))
    assert two.names == ("background", "foreground")
    np.testing.assert_array_equal(two.mask(0), numbers(0) > 0)
    assert segments(tmp_path / "two", classes="wall,crack").columns == ("wall", "crack")
    three = mask_targets(segments(tmp_path / "three"))
    np.testing.assert_array_equal(three.mask(0) == VOID, numbers(0) == 2)
    assert three.matrix().sum(axis=1) == pytest.approx(1)


def test_numbers_with_gaps_keep_their_names(tmp_path: Path) -> None:
    made(tmp_path)
    for k in range(4):
        mask(tmp_path / "masks" / f"{k}.png", np.array([3, 7, 40], np.uint8)[numbers(k)])
    truth = mask_targets(segments(tmp_path))
    assert truth.names == ("3", "7", "40")
    np.testing.assert_array_equal(truth.mask(2), numbers(2))
    other = mask_targets(segments(tmp_path), ("40", "7", "3", "9"))
    np.testing.assert_array_equal(other.mask(2), 2 - numbers(2))
    assert other.pixels[2].tolist() == [*truth.pixels[2][::-1], 0]
    with pytest.raises(DataError, match="class '40', which is none of the 2"):
        mask_targets(segments(tmp_path), ("3", "7"))


@pytest.mark.parametrize(
    ("text", "names", "meant"),
    [
        ("sky\nroad\n", ("sky", "road"), {"0": 0, "1": 1}),
        (
            "# a comment\n0 unlabelled\n1 road\n2 traffic light\n",
            ("road", "traffic light"),
            {"0": VOID, "1": 0, "2": 1},
        ),
        ("Pixel Value, Class\n1, cat\n0, none\n", ("none", "cat"), {"0": 0, "1": 1}),
        ("background:0,0,0::\ncell:1,2,3::\n", ("background", "cell"), {"0,0,0": 0, "1,2,3": 1, "0": 0, "1": 1}),
        ("bg,0,0,0\nfg,255,255,255\n", ("bg", "fg"), {"0,0,0": 0, "255,255,255": 1}),
        (
            "64 128 64\tAnimal\n0 0 0\tVoid\n1 1 1\tAnimal",
            ("Animal",),
            {"64,128,64": 0, "0,0,0": VOID, "1,1,1": 0, "0": 0, "1": VOID, "2": 0},
        ),
    ],
)
def test_files_of_classes(text: str, names: tuple[str, ...], meant: dict[str, int], tmp_path: Path) -> None:
    file = tmp_path / "x.txt"
    file.write_text(text)
    found = read_classes(file)
    assert found.names == names
    assert found.meant == meant
    assert classes_given(str(file)) == found


def test_a_list_with_masks_splits_and_groups(tmp_path: Path) -> None:
    made(tmp_path)
    lines = [f"images/{k}.png,masks/{k}.png,{'train' if k else 'test'},g{k // 2}" for k in range(4)]
    (tmp_path / "list.csv").write_text("\n".join(["path,mask,split,group", *lines]) + "\n")
    records = [{"file_name": f"images/{k}.png", "mask": f"masks/{k}.png" if k < 3 else None} for k in range(4)]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, records)))
    table = segments(tmp_path / "list.csv")
    assert list(table.splits) == ["test", "train", "train", "train"]
    assert list(table.groups) == ["g0", "g0", "g1", "g1"]
    np.testing.assert_array_equal(mask_targets(table).mask(1), numbers(1))
    other = mask_targets(segments(tmp_path / "list.jsonl"))
    assert other.known.tolist() == [True, True, True, False]
    np.testing.assert_array_equal(other.mask(3, SIZE), np.full(SIZE, VOID))


def test_the_past_teaches_and_the_latest_pictures_judge(tmp_path: Path) -> None:
    made(tmp_path, 10)
    lines = [f"images/{k}.png,masks/{k}.png,2020-01-{28 - k:02d}" for k in range(10)]
    (tmp_path / "list.csv").write_text("\n".join(["path,mask,date", *lines]))
    splits = segments(tmp_path / "list.csv", time="date").splits
    assert splits[0] == "test"
    assert splits[9] == "train"


def test_groups_by_name_and_by_folder(tmp_path: Path) -> None:
    for film in ("one", "two"):
        for k in range(2):
            picture(tmp_path / "images" / film / f"{k}.png")
            mask(tmp_path / "masks" / film / f"{k}.png", numbers(k))
    assert list(segments(tmp_path, group_by="folder").groups) == ["one", "one", "two", "two"]
    assert list(segments(tmp_path, group_by=r"images/(\w+)/").groups) == ["one", "one", "two", "two"]


# Polygons


def test_a_polygon_holds_the_pixels_whose_centres_lie_in_it() -> None:
    square = np.array([[1, 1], [4, 1], [4, 3], [1, 3]], float)
    expected = np.zeros(SIZE, bool)
    expected[1:3, 1:4] = True
    np.testing.assert_array_equal(filled(square, SIZE), expected)
    np.testing.assert_array_equal(filled(square[::-1], SIZE), expected)
    triangles = [np.array([[0, 0], [7, 0], [7, 5]], float), np.array([[0, 0], [7, 5], [0, 5]], float)]
    assert (sum(filled(t, SIZE).astype(int) for t in triangles) == 1).all()
    assert filled(np.array([[-50, -50], [90, -50], [90, 90], [-50, 90]], float), SIZE).all()
    assert not filled(np.array([[2, 2], [3, 2], [2, 2]], float), SIZE).any()


def coco(root: Path, more: list[dict[str, Any]], only: bool = False) -> Path:
    for k in range(3):
        picture(root / "images" / f"{k}.png", seed=k)
    content = {
        "images": [{"id": k, "file_name": f"images/{k}.png", "width": 7, "height": 5} for k in range(3)],
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 9, "segmentation": [[0, 0, 7, 0, 7, 5, 0, 5]]},
            {"id": 2, "image_id": 1, "category_id": 4, "segmentation": [[0, 0, 2, 0, 2, 1, 0, 1]]},
        ],
    }
    file = root / "instances.json"
    content["annotations"] = [*([] if only else content["annotations"]), *more]
    file.write_text(json.dumps(content))
    return file


def test_coco_polygons_runs_and_crowds(tmp_path: Path) -> None:
    file = coco(
        tmp_path,
        [
            {"id": 3, "image_id": 0, "category_id": 4, "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]},
            {"id": 4, "image_id": 1, "category_id": 9, "segmentation": {"size": [5, 7], "counts": [30, 5]}},
            {
                "id": 5,
                "image_id": 1,
                "category_id": 9,
                "iscrowd": 1,
                "segmentation": {"size": [5, 7], "counts": [0, 6, 29]},
            },
        ],
    )
    for table in (segments(file), segments(tmp_path)):
        truth = mask_targets(table)
        assert truth.names == ("background", "cat", "dog")
        first, second = truth.mask(0, SIZE), truth.mask(1, SIZE)
        assert (first[1:3, 1:3] == 1).all()  # the small one lies on top
        assert (first == 2).sum() == 35 - 4
        assert (second[:, 6] == 2).all()
        assert second[0].tolist() == [1, 1, 0, 0, 0, 0, 2]
        assert second[1].tolist() == [VOID, 0, 0, 0, 0, 0, 2]
        assert (truth.mask(2) == 0).all()  # listed and empty


def test_packed_runs() -> None:
    """As pycocotools writes them: five bits a character from the lowest on, 32 where more follow, 48 added."""
    rng = np.random.default_rng(0)
    for counts in ([0, 18, 1], rng.integers(0, 5000, 40).tolist()):
        text = ""
        for place, count in enumerate(counts):
            value, more = count - (counts[place - 2] if place > 2 else 0), True
            while more:
                bits, value = value & 31, value >> 5
                more = value != (-1 if bits & 16 else 0)
                text += chr(48 + (bits | 32 if more else bits))
        assert unpacked(text) == counts


def test_labelme_beside_the_pictures(tmp_path: Path) -> None:
    for k in range(2):
        picture(tmp_path / f"{k}.jpg")
        shapes = [
            {"label": "cell", "points": [[1, 1], [4, 3]], "shape_type": "rectangle"},
            {"label": "__ignore__", "points": [[5, 0], [7, 0], [7, 2], [5, 2]], "shape_type": "polygon"},
            {"label": "cell", "points": [[1, 1]], "shape_type": "point"},
        ]
        content = {"shapes": shapes, "imagePath": f"{k}.jpg", "imageHeight": 5, "imageWidth": 7}
        (tmp_path / f"{k}.json").write_text(json.dumps(content))
    truth = mask_targets(segments(tmp_path))
    assert truth.names == ("background", "cell")
    expected = np.zeros(SIZE, np.uint8)
    expected[1:3, 1:4] = 1
    expected[0:2, 5:7] = VOID
    np.testing.assert_array_equal(truth.mask(1, SIZE), expected)
    assert "shapes that are no areas are left out: 2 pictures" in notes(tmp_path)


# Faults


def _other_size(root: Path) -> None:
    mask(root / "masks/0.png", numbers(0, (5, 8)))


def _out_of_range(root: Path) -> None:
    (root / "classes.txt").write_text("a\nb\nc\n")
    values = numbers(0)
    values[0, 0] = 17
    mask(root / "masks/0.png", values)


def _cut_short(root: Path) -> None:
    file = root / "masks/0.png"
    file.write_bytes(file.read_bytes()[:60])


def _no_picture(root: Path) -> None:
    (root / "masks/0.png").write_bytes(b"no picture at all, but some text")


def _jpeg(root: Path) -> None:
    (root / "masks/0.png").unlink()
    mask(root / "masks/0.jpg", numbers(0))


def _no_bytes(root: Path) -> None:
    (root / "masks/0.png").write_bytes(b"")


def _all_void(root: Path) -> None:
    mask(root / "masks/0.png", np.full(SIZE, VOID, np.uint8))


def _two_pictures(root: Path) -> None:
    picture(root / "images/0.jpg")


def _two_masks(root: Path) -> None:
    mask(root / "masks/0.bmp", numbers(0))


def _missing(root: Path) -> None:
    (root / "masks/0.png").unlink()


def _photograph(root: Path) -> None:
    picture(root / "images/0.png", (90, 90))
    picture(root / "masks/0.png", (90, 90))


def _broken_link(root: Path) -> None:
    (root / "masks/0.png").unlink()
    (root / "masks/0.png").symlink_to("nowhere.png")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_other_size, "set aside, the mask is 8 x 5 px and the picture 7 x 5 px"),
        (_out_of_range, "set aside, the mask holds 17, which is no class of"),
        (_cut_short, "set aside, the mask is"),
        (_no_picture, "set aside, the mask is not a picture in a format that headstart reads"),
        (_jpeg, "set aside, the mask is a JPEG"),
        (_no_bytes, "set aside, the mask is empty"),
        (_all_void, "set aside, the mask is void all over"),
        (_two_pictures, "set aside, another picture has the same name"),
        (_two_masks, "set aside, 2 masks have its name"),
        (_missing, "without a mask, so neither taught by nor judged"),
        (_photograph, "set aside, the mask has more than 4,096 colours"),
        (_broken_link, "set aside, the file of the mask does not exist"),
    ],
)
def test_what_is_wrong_with_one_mask_is_said_and_the_others_are_read(spoil: Any, reason: str, tmp_path: Path) -> None:
    spoil(made(tmp_path))
    table = segments(tmp_path)
    truth = mask_targets(table)
    spoilt = [k for k, name in enumerate(table.names) if Path(name).stem == "0"]
    assert reason in " | ".join(table.notes)
    assert [k for k in range(len(table)) if not truth.known[k]] == spoilt
    np.testing.assert_array_equal(truth.mask(len(table) - 1), numbers(3))


def test_a_mask_without_a_picture_is_noted(tmp_path: Path) -> None:
    mask(made(tmp_path) / "masks/alone.png", numbers(0))
    assert "masks without a picture: 1, masks/alone.png" in notes(tmp_path)


def test_a_list_with_two_masks_for_a_picture_and_a_mask_that_is_missing(tmp_path: Path) -> None:
    made(tmp_path)
    pairs = [(0, 0), (0, 1), (1, 1), (2, 9), (3, 3)]
    lines = [f"images/{a}.png,masks/{b}.png" for a, b in pairs]
    (tmp_path / "list.csv").write_text("\n".join(["path,mask", *lines]))
    table = segments(tmp_path / "list.csv")
    assert mask_targets(table).known.tolist() == [False, True, False, True]
    said = " | ".join(table.notes)
    assert "listed with different masks" in said
    assert "the file of the mask does not exist" in said


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"segmentation": [[0, 0, float("nan"), 0, 7, 5]]}, "a shape has a corner or a run that is no number"),
        ({"segmentation": [[0, 0, 1e300, 0, 7, 5]]}, "a shape has a corner or a run that is no number"),
        ({"segmentation": [[0, 0, 7, 0, 7, 5, 3]]}, "a polygon has an odd number of coordinates"),
        ({"segmentation": {"size": [5, 7], "counts": [3, 5]}}, "runs of 8 px do not fill a picture of 7 x 5 px"),
        ({"segmentation": {"size": [5, 7], "counts": [3, "x"]}}, "a shape has a corner or a run that is no number"),
        ({"segmentation": [["a", "b", 1, 2, 3, 4]]}, "a shape has a corner or a run that is no number"),
        ({"segmentation": []}, "annotations without polygons or runs are left out"),
        ({"bbox": [0, 0, 2, 2]}, "annotations with a box and no outline are void in their box"),
        (
            {"category_id": 77, "segmentation": [[0, 0, 1, 0, 1, 1]]},
            "that the file does not list are void",
        ),
        (
            {"category_id": [4], "segmentation": [[0, 0, 1, 0, 1, 1]]},
            "that the file does not list are void",
        ),
        (
            {"segmentation": {"size": [5, 7], "counts": "oooooooooooooooooooooo"}},
            "runs of 0 px do not fill a picture",
        ),
        ({"image_id": 55, "segmentation": [[0, 0, 1, 0, 1, 1]]}, "shapes of 1 pictures that it does not list"),
    ],
)
def test_messy_coco(annotation: dict[str, Any], reason: str, tmp_path: Path) -> None:
    file = coco(tmp_path, [{"id": 7, "image_id": 2, "category_id": 4} | annotation])
    table = segments(file)
    assert reason in " | ".join(table.notes)
    truth = mask_targets(table)
    assert truth.known[:2].all()
    if reason.endswith(("are void", "in their box")):
        assert truth.mask(2)[0, 0] == VOID


def test_one_clear_error_where_nothing_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "bare/images/0.png")
    made(tmp_path / "torn")
    for k in range(4):
        (tmp_path / "torn/masks" / f"{k}.png").write_bytes(b"nothing")
    one = made(tmp_path / "one")
    for k in range(4):
        mask(one / "masks" / f"{k}.png", np.zeros(SIZE, np.uint8))
    many = made(tmp_path / "many")
    for k in range(4):
        picture(many / "images" / f"{k}.png", (16, 16))
        mask(many / "masks" / f"{k}.png", np.arange(256, dtype=np.uint8).reshape(16, 16))
    (tmp_path / "cut.json").write_text('{"images": [')
    (tmp_path / "list.csv").write_text("path,label\na.png,b\n")
    boxes = coco(tmp_path / "boxes", [{"id": 1, "image_id": 0, "category_id": 9, "bbox": [0, 0, 1, 1]}], only=True)
    for path, said in (
        (tmp_path / "nowhere", "does not exist"),
        (tmp_path / "empty", "has no pictures: it holds nothing that could be a picture"),
        (tmp_path / "bare", "has no masks: it holds 1 picture; expected are pictures in images/"),
        (tmp_path / "torn", "no picture has a mask that can be read"),
        (one, "all training masks are of one class, '0'"),
        (many, "the masks hold 255 different numbers, 0 to 254"),
        (tmp_path / "cut.json", "is no JSON, or cut short"),
        (tmp_path / "list.csv", "has no column 'mask': its columns are 'path', 'label'"),
        (boxes, "for boxes alone say --task detect"),
    ):
        with pytest.raises(DataError, match=said.replace("(", r"\(")) as caught:
            segments(path)
        assert "\n" not in str(caught.value)


def test_classes_that_are_none(tmp_path: Path) -> None:
    made(tmp_path)
    for given, said in (
        ("a,,b", "a name is empty"),
        ("no/such.txt", "there is no such file"),
        ("void", "names no class but void"),
    ):
        with pytest.raises((OptionError, DataError), match=said):
            segments(tmp_path, classes=given)
    with pytest.raises(OptionError, match="--classes names what the values in masks are"):
        read_table(tmp_path, classes="a,b")


def test_a_mask_that_changed_since_it_was_read_is_refused(tmp_path: Path) -> None:
    truth = mask_targets(segments(made(tmp_path)))
    with pytest.raises(ImageError, match="the mask is 7 x 5 px and the picture 5 x 7 px"):
        truth.mask(0, (7, 5))
    mask(tmp_path / "masks/0.png", numbers(0, (6, 7)))
    (tmp_path / "masks/1.png").unlink()
    with pytest.raises(ImageError, match="it was changed"):
        truth.mask(0)
    with pytest.raises(ImageError, match="does not exist"):
        truth.mask(1)
    with pytest.raises(ImageError, match="no text of a mask"):
        mask_of("[1, 2]")


def test_masks_that_a_program_hands_over(tmp_path: Path) -> None:
    made(tmp_path)
    pictures = [str(tmp_path / f"images/{k}.png") for k in range(4)]
    holed = np.where(numbers(3) == 2, VOID, numbers(3)).astype(np.uint8)
    given = [numbers(0), None, str(tmp_path / "masks/2.png"), Image.fromarray(holed)]
    truth = mask_targets(table_of(pictures, given, task="segment"))
    assert truth.names == ("0", "1", "2")
    assert truth.known.tolist() == [True, False, True, True]
    for k in (0, 2):
        np.testing.assert_array_equal(truth.mask(k, SIZE), numbers(k))
    np.testing.assert_array_equal(truth.mask(3), holed)
    two = mask_targets(table_of(pictures, [numbers(k) > 0 for k in range(4)], task="segment"))
    assert two.names == ("0", "1")
    np.testing.assert_array_equal(two.mask(1), numbers(1) > 0)
    for wrong, said in (
        ([numbers(0) / 3], "give class numbers"),
        ([numbers(0)[None]], "give class numbers"),
        ([numbers(0).astype(int) - 9], "class numbers are 0 to 254"),
        ([7], "of type int"),
        ([None], "none of the images has a mask"),
        ([str(tmp_path / "nowhere.png")], "the file of the mask does not exist"),
        ("masks/", "masks are a str"),
    ):
        with pytest.raises(DataError, match=said):
            table_of(pictures[:1], wrong, task="segment")


def test_what_is_handed_on_names_no_path_and_is_equal_for_equal_masks(tmp_path: Path) -> None:
    made(tmp_path)
    mask(tmp_path / "masks/1.png", numbers(0))
    table = segments(tmp_path)
    first, second, third = (published(text) for text in table.labels[:3])
    assert first == second != third
    assert str(tmp_path) not in first
    assert mask_text.said(table.labels[0], ("sky", "road", "car")).count(" %") == 3
    assert published("") == mask_text.said("", ()) == ""


def test_the_page_on_segmentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path / "camvid")
    Path("classes.txt").write_text("sky\nroad\ncar\n")
    page = (Path(__file__).resolve().parents[1] / "docs" / "segmentation.md").read_text(encoding="utf-8")
    known: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        if "mask_targets" in block:  # the other learns: tests/test_placed_estimators.py
            exec(block, known)
    assert known["truth"].names == ("sky", "road", "car")
    for line in re.findall(r"^headstart (.*)$", page, re.MULTILINE):
        parser().parse_args(shlex.split(line))
    for name in re.findall(r"`(\w+\.(?:txt|csv))`", page.partition("lies beside the folders")[2].partition("...")[0]):
        assert name in FILES


def test_camvid(shared: Path) -> None:
    names = "sky,building,pole,road,pavement,tree,sign,fence,car,pedestrian,bicyclist,void"
    table = segments(shared / "data/camvid", classes=names)
    assert {part: int((table.splits == part).sum()) for part in ("train", "validation", "test")} == {
        "train": 130,
        "validation": 35,
        "test": 70,
    }
    assert len(table.columns) == 11
    assert mask_targets(table).known.all()
