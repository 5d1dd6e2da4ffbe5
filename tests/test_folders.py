"""Real people's folders: splits, wrappers, sidecars, lists beside images, masks, groups, small classes."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from conftest import TINY, Run, picture
from headstart.cli.main import COMMANDS
from headstart.data.images import write_png
from headstart.data.scarce import refuse_scarce, scarce, training_images, without
from headstart.data.table import Table, list_images, read_table
from headstart.errors import DataError, OptionError
from test_table import lay, refused, write_hf

AB = ("ants", "bees")


def below(*folders: str, names: tuple[str, ...] = AB, n: int = 1, kind: str = "png") -> list[str]:
    return [f"{folder}/{name}/{k}.{kind}" for folder in folders for name in names for k in range(n)]


def rows(table: Table) -> dict[str, tuple[str, str]]:
    return {n: (la, s) for n, la, s in zip(table.names, table.labels, table.splits, strict=True)}


# Files that are no pictures


def test_sidecar_files_change_nothing_but_one_note(tmp_path: Path) -> None:
    plain = rows(read_table(lay(tmp_path / "plain", "a/1.tif", "a/2.tif", "b/1.tif", "b/2.img")))
    kinds = "ovr tfw jgw pgw wld prj msk xmp dbf shp shx cpg qix sbn vrt rrd enp aux".split()  # noqa: SIM905
    beside = [f"a/1.{kind}" for kind in kinds] + [f"b/1.tif.{kind.upper()}" for kind in kinds]
    odd = ["a/1.tif.aux.xml", "a/1.aux.xml", "b/1.tif.vat.dbf", "b/2.hdr", "b/1.tif.ovr.aux.xml", "b/2.THM"]
    table = read_table(lay(tmp_path / "full", "a/1.tif", "a/2.tif", "b/1.tif", "b/2.img", *beside, *odd))
    assert rows(table) == plain
    (note,) = table.notes
    assert note.startswith(f"ignored {len(beside) + len(odd)} sidecar files")
    assert ".aux.xml 3" in note
    assert ".dbf 3" in note
    assert ".ovr 2" in note
    assert len(list_images([tmp_path / "full"])) == len(plain)


def test_whatever_is_named_after_a_picture_belongs_to_it(tmp_path: Path) -> None:
    table = read_table(lay(tmp_path, "a/1.tif", "a/1.tif.what", "a/2.what", "b/1.tif", "b/1.tif.jpg", "b/x.y.z"))
    assert table.names.tolist() == ["a/1.tif", "a/2.what", "b/1.tif", "b/1.tif.jpg", "b/x.y.z"]
    assert table.notes == ("ignored 1 sidecar file, which belongs to other files (.what 1)",)


def test_a_header_is_a_picture_where_no_other_file_has_its_stem(tmp_path: Path) -> None:
    table = read_table(lay(tmp_path, "a/1.hdr", "a/2.hdr", "b/1.hdr", "b/1.img"))
    assert table.names.tolist() == ["a/1.hdr", "a/2.hdr", "b/1.img"]


def test_masks_beside_their_pictures_are_no_pictures_of_the_class(tmp_path: Path) -> None:
    names = ["benign (1)", "benign (2)"]
    masks = [f"benign/{n}_mask.png" for n in names] + ["benign/benign (1)_mask_1.png"]
    lay(tmp_path / "files", *(f"benign/{n}.png" for n in names), *masks, "malign/1.png", "malign/old_mask.png")
    table = read_table(tmp_path / "files")
    assert table.names.tolist() == [*(f"benign/{n}.png" for n in names), "malign/1.png", "malign/old_mask.png"]
    assert any(note.startswith("ignored 3 masks that lie beside their pictures") for note in table.notes)
    assert len(list_images([tmp_path / "files"])) == 7  # who asks for all of a folder is told of all
    lay(tmp_path / "folders", *below("covid", "normal", names=("images", "masks"), n=2))
    table = read_table(tmp_path / "folders")
    assert table.classes == ("covid", "normal")
    assert all("/images/" in name for name in table.names)
    assert "ignored 2 folders of masks or boxes: covid/masks, normal/masks" in table.notes


def test_checkpoints_and_clutter_in_a_class_are_not_its_images(tmp_path: Path) -> None:
    lay(tmp_path, "cat/1.png", "cat/cat (1).png", "dog/1.png", "cat/.ipynb_checkpoints/1.png", "dog/@eaDir/1.png")
    lay(tmp_path, "__MACOSX/cat/._1.png", "dog/ehthumbs.db", "dog/__pycache__/x.png")
    assert read_table(tmp_path).names.tolist() == ["cat/1.png", "cat/cat (1).png", "dog/1.png"]


# Parts of the data


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("training_set", "test_set", "test"),
        ("seg_train/seg_train", "seg_test/seg_test", "test"),
        ("train", "dev", "validation"),
        ("trainval", "test", "test"),
        ("train_val", "test", "test"),
        ("Training", "Testing", "test"),
        ("TRAIN", "VALID", "validation"),
        ("01_train", "02_validation", "validation"),
        ("trainset", "testset", "test"),
        ("TrainImages", "ValImages", "validation"),
        ("train_images", "valid_set", "validation"),
        ("train-data", "val_data", "validation"),
        ("flowers_train", "flowers_test", "test"),
        ("train/images", "test/images", "test"),
        ("train/photos of 2020", "test/photos of 2020", "test"),
        ("archive/train", "archive/test", "test"),
        ("data/raw/Train", "data/raw/Test", "test"),
    ],
)
def test_splits_have_many_names_and_wrappers(tmp_path: Path, train: str, other: str, split: str) -> None:
    table = read_table(lay(tmp_path, *below(train, other)))
    assert rows(table) == {
        f"{place}/{name}/0.png": (name, part) for place, part in ((train, "train"), (other, split)) for name in AB
    }


def test_a_class_that_the_test_part_alone_lacks_is_no_wrapper(tmp_path: Path) -> None:
    table = read_table(lay(tmp_path, *below("train"), *below("test/ants", names=("near", "far"))))
    assert rows(table)["test/ants/near/0.png"] == ("ants", "test")


def test_parts_without_class_folders_are_not_used_and_said(tmp_path: Path) -> None:
    lay(tmp_path, *below("train"), "test/1.png", "test/2.png", "val/val/1.png", "seg_pred/1.png")
    table = read_table(tmp_path)
    assert len(table) == 2
    assert any(note.startswith("test: 2 images in no class folder") for note in table.notes)
    assert any(note.startswith("val: 1 image in no class folder") for note in table.notes)
    assert "ignored 1 folder beside the split folders: seg_pred" in table.notes


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["train/1.png", "test/1.png", "train.csv"], "train and test hold images but no class folders"),
        (["train/1.png"], "train holds images but no class folders"),
        (["Train_Set/1.png", "test_set/1.png", "extra/1.png"], "no class folders"),
        (["cat_train/1.png", "cat_test/1.png", "dog_train/1.png", "dog_test/1.png"], "no class folders"),
        ([*below("test"), "train/1.png"], "train holds images but no class folders"),
        (below("train1", "train2", "test"), "two train folders"),
        ([*below("."), *below("test")], "put those that teach into a folder named train"),
        ([*below("train"), *below("test"), *below("more")], "its name tells no part"),
        ([*below("train"), "ants/1.png"], "its name tells no part"),
        ([*below("train"), "bus/1.png", "car/1.png"], "may be the part that teaches or a class"),
        ([*below("test"), "bus/1.png", "car/1.png"], "may be a part or a class"),
        (["bus/1.png", "car/1.png", "bus/test/1.png", "car/test/1.png"], "divide every class into train and test"),
        ([*below("cat", "dog", names=("train", "test")), "cow/1.png"], "divide every class like that"),
        ([*below("cat", "dog", names=("train", "test")), "cat/1.png"], "move them into one of these"),
        ([*below("a/train", "a/test", "b/train", "b/test")], "a set of its own: name one"),
        ([*below("a/train", "b/train")], "a set of its own: name one"),
        ([*below("seg_train/seg_train", "seg_test/seg_test"), "seg_train/cover.png"], "take them out"),
        ([*below("train", names=("train", "test")), *below("test", names=("train", "test"))], "two levels"),
    ],
)
@pytest.mark.parametrize("least", [1, 2])
def test_parts_in_doubt_are_asked_for(tmp_path: Path, files: list[str], said: str, least: int) -> None:
    text = refused(lay(tmp_path, *files), min_classes=least)
    assert said in text
    assert ("headstart fit" in text) == ("train.csv" in files)


def test_every_class_may_be_divided(tmp_path: Path) -> None:
    table = read_table(lay(tmp_path, *below("wrapper/cat", "wrapper/dog", names=("Test", "training"))))
    assert rows(table) == {
        f"wrapper/{name}/{part}/0.png": (name, split)
        for name in ("cat", "dog")
        for part, split in (("Test", "test"), ("training", "train"))
    }


def test_a_train_among_cars_is_a_class_and_that_is_said(tmp_path: Path) -> None:
    flat = read_table(lay(tmp_path / "1", "bus/1.png", "car/1.png", "train/1.png"))
    sites = read_table(lay(tmp_path / "2", *below("bus", "car", "train", names=("day", "night"))))
    for table in (flat, sites):
        assert table.classes == ("bus", "car", "train")
        assert "train: read as a class, not as a part of the data" in table.notes


def test_the_user_can_say_that_what_lies_on_top_are_classes(tmp_path: Path) -> None:
    lay(tmp_path, *below("."), "test/1.png", "ants/train/1.png")
    assert "divide every class" in refused(tmp_path)
    table = read_table(tmp_path, group_by="none")
    assert table.classes == (*AB, "test")
    assert len(table) == 4


# Two readings


@pytest.mark.parametrize("outer", [("A", "B"), ("fold1", "fold2", "fold3"), ("2019", "2020"), ("web", "phone")])
@pytest.mark.parametrize("missing", [0, 1])
def test_folders_that_hold_the_same_folders_are_never_classes(
    tmp_path: Path, outer: tuple[str, ...], missing: int
) -> None:
    files = below(*outer)[: len(outer) * 2 - missing]
    assert all(name in refused(lay(tmp_path, *files)) for name in outer)
    assert "hold the same folders" in refused(lay(tmp_path, "docs/1.png", *files), min_classes=1)
    told = read_table(tmp_path, group_by="none")
    assert set(told.classes) == {*outer, "docs"}
    assert set(told.groups) == {""}


@pytest.mark.parametrize(
    "inner",
    [("site1", "site2"), ("left", "right"), ("images",), ("2019", "2020-05"), ("p01", "p7"), ("Plot A", "Plot B")],
)
def test_folders_of_sites_belong_to_their_class(tmp_path: Path, inner: tuple[str, ...]) -> None:
    table = read_table(lay(tmp_path, *below("cat", "dog", names=inner)))
    assert table.classes == ("cat", "dog")
    assert len(table) == 2 * len(inner)


def test_folders_in_folders_that_differ_belong_to_the_class_and_are_noted(tmp_path: Path) -> None:
    table = read_table(lay(tmp_path, *below("flowers", names=("rose", "lily")), *below("animals")))
    assert table.classes == ("animals", "flowers")
    assert "flowers: 2 images in folders inside it belong to the same class" in table.notes


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["images/1.png", "masks/1.png"], "segmentation"),
        (["JPEGImages/1.png", "Annotations/1.xml", "ImageSets/a.txt"], "detection"),
        (["images/1.png", "labels/1.txt"], "detection"),
        (["wrapper/images/train/1.png", "wrapper/labels/train/1.txt"], "detection"),
        (below("train", "val", names=("images", "masks")), "segmentation"),
        (["train/images/1.png", "train/labels/1.txt", "valid/images/1.png", "valid/labels/1.txt"], "detection"),
        (["train2017/1.png", "val2017/1.png", "annotations/x.json"], "detection"),
        (["train_images/1.png", "train_masks/1.png"], "segmentation"),
        ([*below("images/Images"), "annotations/Annotation/ants/0"], "name {}/images/Images"),
        (["1.png", "masks/1.png"], "segmentation"),
        (below("leftImg8bit/train", "gtFine/train", "leftImg8bit/val", "gtFine/val"), "segmentation"),
        (["scans/a.png", "scans/b.png", "masks/a.png", "masks/b.png"], "look like masks"),
        (["benign/1.png", "malign/2.png", "masks/1_mask.png", "masks/2.png"], "look like masks"),
    ],
)
@pytest.mark.parametrize("least", [1, 2])
def test_masks_and_boxes_are_another_task(tmp_path: Path, files: list[str], said: str, least: int) -> None:
    assert said.format(tmp_path) in refused(lay(tmp_path, *files), min_classes=least)


@pytest.mark.parametrize(
    "pair", [("mask", "no_mask"), ("with_mask", "without_mask"), ("ground", "sky"), ("photo", "sketch")]
)
def test_words_of_other_tasks_can_be_classes(tmp_path: Path, pair: tuple[str, str]) -> None:
    assert read_table(lay(tmp_path, *below(".", names=pair))).classes == pair


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["images/1.png"], "that is no class: it holds 1 image"),
        (["data_1/1.png", "data_2/1.png"], "a place for pictures"),
        (["rgb/1.png", "seg/1.png"], "a place for pictures"),
        (["Skin_images_part_1/1.png", "Skin_images_part_2/1.png"], "a place for pictures"),
        ([*below("images"), "figures/1.png"], "name {}/images"),
        ([*below("flowers"), "docs/1.png"], "take it out"),
        ([*below("all"), "docs/1.png"], "name {}/all if its folders are the classes"),
        ([*below("labelled"), "unlabelled/1.png"], "name {}/labelled"),
        ([*below("data/train", "data/test"), "docs/1.png"], "{}/data holds"),
        ([*below("."), *below("backup")], "the same names as those beside it"),
        ([*below("."), "predictions/1.png"], "would be a class"),
        ([*below("."), "test/1.png"], "test may be a part of the data without class folders"),
        (["bus/1.png", "train/1.png"], "train may be a part of the data without class folders"),
        ([*below("."), "val/1.png"], "val may be a part of the data without class folders"),
        ([*below("."), "training_set/1.png"], "training_set may be a part of the data without class folders"),
        ([*below("train", "test"), "train/seg_train/1.png"], "seg_train may be a part of the data"),
        ([*below("train", "test"), "train/images/1.png"], "a place for pictures"),
        ([*below("train", "test"), "train/ants_aug/1.png"], "'ants_aug' would be a class beside 'ants'"),
        (below("train/2019", "train/2020"), "put them into {}/train itself"),
        ([*below("."), "New folder (2)/1.png"], "would be a class"),
        ([*below("."), "ants_augmented/1.png"], "'ants_augmented' would be a class beside 'ants'"),
        ([*below("."), "test_ants/1.png"], "'test_ants' would be a class beside 'ants'"),
        ([*below("."), "bees (1)/1.png"], "'bees (1)' would be a class beside 'bees'"),
        ([*below("."), "bees - Copy/1.png"], "'bees - Copy' would be a class beside 'bees'"),
        ([*below("."), *(f"{n}.png" for n in range(9))], "9 images lie beside"),
    ],
)
def test_would_be_classes_that_nobody_means_are_refused(tmp_path: Path, files: list[str], said: str) -> None:
    assert said.format(tmp_path) in refused(lay(tmp_path, *files))


def test_unlabelled_images_are_no_class(tmp_path: Path) -> None:
    table = read_table(lay(tmp_path / "1", *below("."), "unlabelled/1.png", "Unlabeled_images/1.png"))
    assert table.classes == AB
    assert (table.labels == "").sum() == 2
    assert "4 images of 2 classes (ants 1, bees 1, unlabelled 2)" in table.layout
    assert read_table(lay(tmp_path / "2", "labelled/1.png", "unlabelled/1.png")).classes == ("labelled", "unlabelled")


def test_an_empty_set_says_what_lies_there(tmp_path: Path) -> None:
    text = refused(lay(tmp_path, *below(".", n=12, kind="npy"), "bees/readme.txt"))
    assert "no images found" in text
    assert "24 .npy files, 1 .txt file in 2 folders (ants, bees)" in text
    assert "arrays are taken in Python" in text
    assert "unpack the archive" in refused(lay(tmp_path / "packed", "train.zip"))


def test_a_class_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    table = read_table(lay(tmp_path, *below("."), "cows/1.npy", "cows/2.npy"))
    assert "ignored 1 folder without images: cows (2 .npy files)" in table.notes


def test_many_classes_with_folders_inside_are_one_note(tmp_path: Path) -> None:
    table = read_table(lay(tmp_path, *below(*"abcdef", names=("site1", "site2"))))
    assert table.notes == ("12 images in folders inside 6 class folders belong to those classes: a, b, c and 3 more",)


# Names


def test_accents_in_two_forms_are_one_class_and_paths_stay(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "Ångström") for form in ("NFC", "NFD")]
    lay(tmp_path, *(f"train/{form}/{k}.png" for k, form in enumerate(forms)), "train/b/1.png", f"test/{forms[1]}/2.png")
    if len(list((tmp_path / "train").iterdir())) < 3:
        pytest.skip("this file system has one form of accents")
    table = read_table(tmp_path)
    assert set(table.classes) == {forms[0], "b"}
    assert set(table.names) >= {f"train/{forms[1]}/1.png", f"test/{forms[1]}/2.png"}
    assert all(len(table.read(row)) for row in range(len(table)))
    assert any("how accents are stored" in note for note in table.notes)


def test_names_that_differ_in_case_or_blanks_are_said(tmp_path: Path) -> None:
    table = read_table(lay(tmp_path, *below(".", names=("Ants", "ants", "sea  lake", "sea lake ", "bees"))))
    assert len(table.classes) == 5
    assert sum("differ only in letter case or blanks" in note for note in table.notes) == 2
    text = refused(lay(tmp_path / "parts", *below("train"), "test/Ants/1.png"))
    assert "class 'Ants' is in the test split" in text
    assert "which has 'ants'" in text


def test_linked_folders_are_read_once_for_each_class(tmp_path: Path) -> None:
    lay(tmp_path, "all/1.png", "all/deep/2.png", "set/a/x.png", "set/b/y.png")
    for label in ("a", "b"):
        (tmp_path / "set" / label / "more").symlink_to(tmp_path / "all")
        (tmp_path / "set" / label / "again").symlink_to(tmp_path / "all")
    for k in range(12):  # each leads to all of them
        (tmp_path / "all" / f"link{k}").symlink_to(tmp_path / "all")
    table = read_table(tmp_path / "set")
    inside = ("again/1.png", "again/deep/2.png")
    assert table.names.tolist() == [f"{c}/{n}" for c, own in (("a", "x"), ("b", "y")) for n in (f"{own}.png", *inside)]


# Lists in a folder of images


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("places", [("",), ("train/", "test/"), ("data/",), ("data/raw/train/", "data/raw/test/")])
def test_metadata_files_are_the_labels(tmp_path: Path, kind: str, places: tuple[str, ...]) -> None:
    found = {}
    for place in places:
        lay(tmp_path, *(f"{place}{k}.png" for k in range(3)))
        labels = [("0.png", "cat"), ("1.png", "dog"), ("2.png", "cat")]
        lines = [f"{n},{label}" for n, label in labels]
        if kind == "jsonl":
            lines = [json.dumps({"file_name": n, "label": label}) for n, label in labels]
        text = "\n".join(["file_name,label", *lines] if kind == "csv" else lines)
        (tmp_path / place / f"metadata.{kind}").write_text(text)
        split = Path(place).name if place.endswith(("train/", "test/")) else "none"
        found |= {f"{place}{n}": (label, split) for n, label in labels}
    table = read_table(tmp_path)
    assert rows(table) == found
    assert all(len(table.read(row)) for row in range(len(table)))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"file_name": "1.png", "text": "a cat"}', "has no column 'label'"),
        ('{"file_name": "1.png", "label": {"a": 1}}', "label is no text"),
        ('{"file_name": "", "label": "a"}', "needed are file_name and label"),
        ('{"file_name": ', "line 1 is no JSON"),
        ('["file_name"]', "line 1 is no JSON object"),
    ],
)
def test_metadata_lines_in_doubt_are_refused(tmp_path: Path, line: str, said: str) -> None:
    (lay(tmp_path, "1.png") / "metadata.jsonl").write_text(line)
    assert said in refused(tmp_path)


def test_images_that_no_metadata_lists_are_said(tmp_path: Path) -> None:
    lay(tmp_path, "1.png", "2.png", "3.png", "4.png")
    (tmp_path / "metadata.csv").write_text("file_name,label\n1.png,a\n2.png,b\n")
    assert "not used: 2 images that no metadata file lists" in read_table(tmp_path).notes


@pytest.mark.parametrize("name", ["labels.csv", "truth.tsv", "all.parquet", "labels.xlsx"])
@pytest.mark.parametrize("place", ["", "images/"])
def test_a_list_beside_images_is_named(tmp_path: Path, name: str, place: str) -> None:
    lay(tmp_path, "images/1.png", "images/2.png")
    (tmp_path / place / name).write_text("path,label\nimages/1.png,a\nimages/2.png,b\n")
    text = refused(tmp_path, min_classes=1)
    assert f"{tmp_path}/{place}{name}" in text
    assert ("headstart fit" in text) == (not name.endswith("xlsx"))


def test_a_list_that_contradicts_the_folders_is_asked_about(tmp_path: Path) -> None:
    lay(tmp_path, "siteA/1.png", "siteA/2.png", "siteB/3.png", "siteB/4.png")
    (tmp_path / "labels.csv").write_text(
        "path,label\nsiteA/1.png,cat\nsiteA/2.png,dog\nsiteB/3.png,cat\nsiteB/4.png,dog\n"
    )
    text = refused(tmp_path)
    assert "labels.csv gives other labels than the folders" in text
    same = "path,label\nsiteA/1.png,siteA\nsiteA/2.png,siteA\nsiteB/3.png,siteB\nsiteB/4.png,siteB\n"
    for harmless in (same, same.replace(",siteA", ",0").replace(",siteB", ",1"), "name,price\nx,1\n"):
        (tmp_path / "labels.csv").write_text(harmless)
        assert read_table(tmp_path).classes == ("siteA", "siteB")


@pytest.mark.parametrize("above", ["", "default/"])
def test_the_hubs_own_export_is_read(tmp_path: Path, above: str) -> None:
    for part, first in (("train", 0), ("test", 30)):
        write_hf(tmp_path / above / part / "0000.parquet", [0, 1, 1], first, ["cat", "dog"])
    table = read_table(tmp_path)
    assert rows(table) == {
        f"{part}/0000.parquet#{k}": (label, part)
        for part in ("train", "test")
        for k, label in enumerate(("cat", "dog", "dog"))
    }
    write_hf(tmp_path / "other/train/0000.parquet", [0, 1], 0, ["cat", "dog"])
    said = refused(tmp_path)
    assert "other: name one" in said


# Groups


def test_a_group_in_the_names_goes_with_each_image(tmp_path: Path) -> None:
    lay(tmp_path, "a/p1_1.png", "a/p1_2.png", "b/p1_3.png", "b/p22_1.png")
    table = read_table(tmp_path, group_by=r"/(p\d+)_")
    assert table.groups.tolist() == ["p1", "p1", "p1", "p22"]
    assert any(note.startswith("2 groups of images that stay together") for note in table.notes)
    assert read_table(tmp_path, group_by=r"p\d+").groups.tolist() == ["p1", "p1", "p1", "p22"]
    (tmp_path / "list.csv").write_text("path,label\na/p1_1.png,x\na/p1_2.png,y\nb/p1_3.png,x\nb/p22_1.png,y\n")
    assert read_table(tmp_path / "list.csv", group_by=r"p\d+").groups.tolist() == ["p1", "p1", "p1", "p22"]
    assert read_table(tmp_path / "list.csv", group_by="folder").groups.tolist() == ["a", "a", "b", "b"]


def test_folders_inside_a_class_can_be_groups(tmp_path: Path) -> None:
    lay(tmp_path, "a/s1/1.png", "a/s2/deep/1.png", "b/s1/1.png", "b/3.png")
    table = read_table(tmp_path, group_by="folder")
    assert dict(zip(table.names, table.groups, strict=True)) == {
        "a/s1/1.png": "s1",
        "a/s2/deep/1.png": "s2/deep",
        "b/s1/1.png": "s1",
        "b/3.png": "",
    }
    assert any("1 image has none" in note for note in table.notes)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (r"q\d", "matches none of the 4 names"),
        (r"p1", "does not match 1 of the 4 names in"),
        (r"(.)ng", "one group only"),
        (r"^\w+", "one group a class"),
        ("folder", "no image of"),
    ],
)
def test_groups_that_cannot_be_meant_are_refused(tmp_path: Path, how: str, said: str) -> None:
    lay(tmp_path, "a/p1_1.png", "a/p1_2.png", "b/p1_3.png", "b/p22_1.png"[:5] + "2.png")
    assert said in refused(tmp_path, group_by=how)


@pytest.mark.parametrize("how", ["(", "(a)(b)", "*", ""])
def test_what_is_no_expression_is_wrong_usage(tmp_path: Path, how: str, run: Run) -> None:
    with pytest.raises(OptionError):
        read_table(tmp_path, group_by=how)
    found = run("fit", tmp_path, "--group-by", how)
    assert (found.code, found.err.count("\n")) == (2, 1)


def test_a_list_with_groups_of_its_own_keeps_them(tmp_path: Path) -> None:
    lay(tmp_path, "1.png", "2.png")
    (tmp_path / "m.csv").write_text("path,label,group\n1.png,a,x\n2.png,b,y\n")
    assert "has a column of groups" in refused(tmp_path / "m.csv", group_by=r"\d")
    assert read_table(tmp_path / "m.csv", group_by="none").groups.tolist() == ["x", "y"]


# Classes that are too small


def test_all_small_classes_are_named_at_once() -> None:
    with pytest.raises(DataError) as caught:
        refuse_scarce({"a": 5, "b": 1, "c": 0, "d": 1})
    assert all(f"'{name}' ({count})" in str(caught.value) for name, count in (("b", 1), ("c", 0), ("d", 1)))
    assert "'a'" not in str(caught.value)
    assert "--min-images 2" in str(caught.value)


def test_small_classes_are_left_out_of_every_part(tmp_path: Path) -> None:
    lay(tmp_path, *below("train", names=("a", "b"), n=3), "train/c/1.png", *below("test", names=("a", "b", "c")))
    table = read_table(tmp_path)
    smaller = without(table, scarce(table, 2), 2)
    assert training_images(smaller) == {"a": 3, "b": 3}
    assert set(smaller.labels) == {"a", "b"}
    assert smaller.notes[-1] == "left out by --min-images 2: 'c' (1), 2 images in all"
    assert without(table, scarce(table, None), None) is table
    with pytest.raises(DataError, match="leaves no class"):
        without(table, scarce(table, 9), 9)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of pictures of four animals each, one with a single picture, one of which but one can be read."""
    folder, rng = tmp_path_factory.mktemp("uneven"), np.random.default_rng(1)
    for colour, name in enumerate(("moss", "sand", "sea")):
        for number in range(8):
            place = folder / name / f"animal{number // 2}"
            place.mkdir(parents=True, exist_ok=True)
            write_png(picture(colour, rng), place / f"{number}.png")
    for name, good, bad in (("lone", 1, 0), ("broken", 1, 3)):
        (folder / name / "animal9").mkdir(parents=True)
        for number in range(good):
            write_png(picture(0, rng), folder / name / "animal9" / f"{number}.png")
        for number in range(bad):
            (folder / name / "animal9" / f"b{number}.png").write_bytes(b"no picture")
    return folder


def test_a_fit_leaves_small_and_unreadable_classes_out_and_keeps_groups(run: Run, uneven: Path, tmp_path: Path) -> None:
    found = run("fit", uneven, "-o", tmp_path / "m", *TINY, "--min-images", 2, "--group-by", "folder", "--json")
    assert found.code == 0, found.err
    assert "left out by --min-images 2: 'lone' (1)" in found.err
    assert "left out by --min-images 2: 'broken' (1), 4 images in all, since others cannot be read" in found.err
    split = pq.read_table(tmp_path / "m/split.parquet").to_pylist()
    assert {row["label"] for row in split} == {"moss", "sand", "sea"}
    by_folder: dict[str, set[int]] = {}
    for row in split:
        by_folder.setdefault(row["path"].split("/")[1], set()).add(row["group"])
    assert all(len(groups) == 1 for groups in by_folder.values())
    command = json.loads((tmp_path / "m/run.json").read_text())
    assert "--group-by folder" in json.dumps(command)
    assert "--min-images 2" in json.dumps(command)


def test_inspect_says_which_groups_are_used(run: Run, uneven: Path) -> None:
    found = run("inspect", uneven, *TINY, "--group-by", r"animal\d", "--json")
    assert found.code == 0, found.err
    said: dict[str, Any] = json.loads(found.out)
    assert said["groups"] == {"groups": 5, "images": 26, "smallest": 2, "largest": 6}
    assert any("5 groups of images that stay together (--group-by animal" in note for note in said["notes"])


def test_the_options_are_where_they_are_needed(run: Run) -> None:
    for name in COMMANDS:
        said = run(name, "--help").out
        assert ("--group-by" in said) == (name in ("fit", "evaluate", "inspect", "compare", "rank"))
        assert ("--min-images" in said) == (name in ("fit", "compare", "rank"))


# The cases that lie beside the checkout


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("sidecars", "class folders, 10 images of 2 classes (a 5, b 5)"),
        ("kaggle_split", "train 30 of 3 classes (Forest 10, Residential 10, River 10), test 12"),
        ("dev_split", "validation 15 of 3 classes"),
        ("major", "train 20 of 2 classes (Forest 10, River 10), test 8"),
        ("hf_meta", "42 images of 3 classes"),
        ("parquet/data/split", "train 30 of 3 classes"),
        ("csv_beside", "headstart fit"),
        ("npy", "12 .npy files in 2 folders (Forest, River)"),
    ],
)
def test_small_inputs_that_went_wrong(shared: Path, case: str, said: str) -> None:
    place = shared / "cases" / case
    place = place / "data" if "/" not in case else place
    if not place.is_dir():
        pytest.skip(f"needs {place}, which is absent")
    assert said in (refused(place) if case in ("csv_beside", "npy") else read_table(place).layout)
