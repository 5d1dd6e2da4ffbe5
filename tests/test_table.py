"""Folders, manifests and Parquet sets as tables; every refusal is one line with the next step."""

from __future__ import annotations

import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from conftest import calls
from headstart.data import sources
from headstart.data.images import content_hash
from headstart.data.table import list_images, read_table, table_of
from headstart.errors import DataError, ImageError


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (value % 256, value // 256, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def lay(root: Path, *names: str) -> Path:
    """Files of these names below root; a name that ends in / is an empty folder."""
    for number, name in enumerate(names):
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(number))
    return root


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_table(path, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


# Folders


def test_class_folders(tmp_path: Path) -> None:
    table = read_table(lay(tmp_path, "cat/b.png", "cat/a.png", " dog /c.png"))
    assert table.names.tolist() == [" dog /c.png", "cat/a.png", "cat/b.png"]
    assert table.labels.tolist() == [" dog ", "cat", "cat"]
    assert set(table.splits) == {"none"}
    assert set(table.groups) == {""}
    assert table.classes == (" dog ", "cat")
    assert table.read(1) == (tmp_path / "cat/a.png").read_bytes()
    assert table.layout == f"{tmp_path}: class folders, 3 images of 2 classes ( dog  1, cat 2)"
    assert table.notes == ()


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("Training", "VALID", "testing"), ("TRAIN", "Validation", "TEST")],
)
def test_split_folders(tmp_path: Path, train: str, validation: str, test: str) -> None:
    lay(tmp_path, *(f"{part}/{label}/1.png" for part in (train, validation, test) for label in ("a", "b")))
    table = read_table(tmp_path)
    assert table.splits.tolist() == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    assert table.labels.tolist() == ["a", "b"] * 3
    assert table.names[0] == f"{train}/a/1.png"
    assert table.layout.endswith(
        "train 2 of 2 classes (a 1, b 1), validation 2 of 2 classes (a 1, b 1), test 2 of 2 classes (a 1, b 1)"
    )


def test_a_class_may_be_called_test_where_the_user_says_so(tmp_path: Path) -> None:
    lay(tmp_path, "test/1.png", "train/1.png", "plane/1.png")
    assert "test and train may be a part of the data without class folders, or a class beside plane" in refused(
        tmp_path
    )
    assert read_table(tmp_path, group_by="none").classes == ("plane", "test", "train")


def test_split_folder_problems(tmp_path: Path) -> None:
    assert "no train folder" in refused(lay(tmp_path / "1", "test/a/1.png", "test/b/1.png"))
    two = refused(lay(tmp_path / "2", "train/a/1.png", "Training/a/1.png"))
    assert "two train folders" in two
    unknown = refused(lay(tmp_path / "3", "train/a/1.png", "train/b/1.png", "val/c/1.png"))
    assert "class 'c' is in the validation split" in unknown
    table = read_table(
        lay(tmp_path / "4", "train/a/1.png", "train/b/1.png", "val/a/1.png", "extra/x/1.png", "readme.txt")
    )
    assert "validation has no images of class b" in table.notes
    assert any("folder beside the split folders: extra" in note for note in table.notes)
    assert len(table) == 3


def test_strays_are_noted_and_never_classes(tmp_path: Path) -> None:
    lay(
        tmp_path,
        *("a/1.png", "b/1.png", "b/photo", "b/photo.xyz", "empty/", ".git/1.png", "__MACOSX/1.png", "beside.png"),
        *("a/.DS_Store", "a/Thumbs.db", "a/desktop.ini", "a/notes.txt", "a/labels.csv", "a/._1.png", "b/deep/er/2.png"),
    )
    table = read_table(tmp_path)
    assert table.classes == ("a", "b")
    assert table.names.tolist() == ["a/1.png", "b/1.png", "b/photo", "b/photo.xyz", "b/deep/er/2.png"]
    assert table.notes == (
        "ignored 1 file beside the class folders: beside.png",
        "ignored 1 folder without images: empty",
        "ignored 6 hidden or system files: .git, __MACOSX, a/.DS_Store and 3 more",
        "ignored 2 stray files that are no images: a/labels.csv, a/notes.txt",
        "b: 1 image in folders inside it belongs to the same class",
    )


def test_folder_refusals_name_the_next_step(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere")
    assert "no images found" in refused(lay(tmp_path / "1", "a/", "b/notes.txt"))
    assert "one class only, 'a'" in refused(lay(tmp_path / "2", "a/1.png", "a/2.png"))
    assert len(read_table(tmp_path / "2", min_classes=1)) == 2
    assert "no class folders" in refused(lay(tmp_path / "3", "1.png", "2.png"))
    assert f"did you mean {tmp_path}/4/flowers?" in refused(
        lay(tmp_path / "4", "flowers/rose/1.png", "flowers/lily/1.png")
    )
    (tmp_path / "picture.png").write_bytes(png())
    assert "neither a folder nor a manifest" in refused(tmp_path / "picture.png")


def test_links_in_circles_end_and_broken_links_are_rows(tmp_path: Path) -> None:
    lay(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "a/self").symlink_to(tmp_path / "a")
    (tmp_path / "a/knot.png").symlink_to("knot.png")
    (tmp_path / "b/gone.png").symlink_to(tmp_path / "nothing.png")
    os.mkfifo(tmp_path / "b/pipe")
    table = read_table(tmp_path)
    assert table.names.tolist() == ["a/1.png", "a/knot.png", "b/1.png", "b/gone.png"]
    assert any("links that lead in a circle: a/self, a/up" in note for note in table.notes)
    assert any("pipe or device: b/pipe" in note for note in table.notes)
    for row, reason in ((1, "cannot be read"), (3, "does not exist")):
        with pytest.raises(ImageError, match=reason):
            table.read(row)


def test_a_pipe_in_place_of_a_file_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="regular"):
        list_images([str(tmp_path / "pipe")]).read(0)


def test_names_sort_bytewise_and_may_be_any_text(tmp_path: Path) -> None:
    names = ["Z", "a", "é", "ä", "日本", "🐜", "B c"]
    table = read_table(lay(tmp_path, *(f"{name}/1.png" for name in names)))
    assert table.labels.tolist() == sorted(names, key=str.encode)
    assert list(table.classes) == sorted(names)


def test_names_that_are_not_utf8_can_be_stored(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    (tmp_path / os.fsdecode(b"caf\xe9/1.png")).write_bytes(png())
    table = read_table(lay(tmp_path, "tea/1.png"))
    assert table.classes == ("caf\\udce9", "tea")
    assert "\n".join(table.names).encode()
    assert table.read(0) == png()


def test_a_folder_is_listed_at_the_same_cost_an_image_and_none_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100,000 images in at most 10 s: few calls an image, as many of a large folder as of a small one."""

    def listed(n: int) -> float:
        folder = tmp_path / str(n)
        for label in ("a", "b"):
            (folder / label).mkdir(parents=True)
            for number in range(n // 2):
                (folder / label / f"{number}.jpg").touch()
        return calls(lambda: read_table(folder)) / n

    listed(100)  # what is imported and cached at the first use
    few = listed(200)
    monkeypatch.setattr("io.open", None)
    monkeypatch.setattr("builtins.open", None)
    asked, stat = [], os.stat
    monkeypatch.setattr(os, "stat", lambda *given, **more: [asked.append(given), stat(*given, **more)][1])
    assert listed(1600) < min(1.05 * few, 110)
    assert len(asked) < 1600 + 100  # one for each file, and of folders


# CSV and Parquet manifests


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_csv_manifest(tmp_path: Path, delimiter: str, start: str) -> None:
    lay(tmp_path, "x/1.png", "2.png", "3, and; more.png", "4.png")
    lines = [
        ["Filename", "Class", "Split", "GROUP"],
        ["x/1.png", "cat", "Training", "p1"],
        ["2.png", "dog", "val", "p2"],
    ]
    lines += [['"3, and; more.png"', "dog", "", ""], [str(tmp_path / "4.png"), "cat", "test", "p1"]]
    text = start + "\r\n".join(delimiter.join(line) for line in lines) + "\r\n\r\n"
    (tmp_path / "m.csv").write_text(text, encoding="utf-8", newline="")
    table = read_table(tmp_path / "m.csv")
    assert table.names.tolist() == ["x/1.png", "2.png", "3, and; more.png", str(tmp_path / "4.png")]
    assert table.labels.tolist() == ["cat", "dog", "dog", "cat"]
    assert table.splits.tolist() == ["train", "validation", "none", "test"]
    assert table.groups.tolist() == ["p1", "p2", "", "p1"]
    assert [content_hash(table.read(i)) for i in range(4)] == [content_hash(png(n)) for n in (0, 1, 2, 3)]


def test_a_missing_file_is_not_fatal(tmp_path: Path) -> None:
    lay(tmp_path, "1.png")
    (tmp_path / "m.csv").write_text("path,label\n1.png,a\ngone.png,b\nbad\x00.png,b\n".replace("\x00", ""))
    table = read_table(tmp_path / "m.csv")
    assert table.read(0) == png()
    with pytest.raises(ImageError, match="does not exist"):
        table.read(1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("path,label\n", "lists no images"),
        ("kind,label\na,b\n", "no column 'path'"),
        ("path,lable\na,b\n", "rename 'lable' to label"),
        (
            "path,label,split\na.png,x,train\nb.png,y,trian\n",
            "line 3: split 'trian' is not one of train, validation, test or none (did you mean train",
        ),
        ("path,label\na.png\n", "line 2 has 1 value:"),
        ("path,label\n,x\n", "line 2 has no path"),
        ("path,label\n1.png,x\n2.png,x\n", "1 labelled class, 'x'"),
        ('path,label\n"a.png,x\n', "not a CSV file"),
        ("path,label\n\udcff.png,x\n", "not UTF-8"),
    ],
)
def test_manifest_refusals(tmp_path: Path, content: str, said: str) -> None:
    lay(tmp_path, "1.png", "2.png")
    (tmp_path / "m.csv").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert said in refused(tmp_path / "m.csv")


def test_parquet_manifest(tmp_path: Path) -> None:
    lay(tmp_path, "1.png", "2.png")
    columns = {
        "label": ["b", "b", None],
        "other": [1, 2, 3],
        "Image": ["1.png", "2.png", "1.png"],
        "split": ["train", "test", None],
    }
    pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    table = read_table(tmp_path / "m.parquet", min_classes=1)
    assert table.labels.tolist() == ["b", "b", ""]
    assert table.splits.tolist() == ["train", "test", "none"]
    assert table.read(1) == png(1)
    assert table.classes == ("b",)
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 not really")
    assert "not a Parquet file" in refused(tmp_path / "broken.parquet")


# Images inside Parquet


def write_hf(path: Path, labels: list[Any], first: int = 0, names: Any = None, row_group_size: int = 4) -> None:
    images = [{"bytes": png(first + i), "path": None} for i in range(len(labels))]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(images, kind), "label": labels})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)


@pytest.mark.parametrize("inside", ["", "data"])
def test_hugging_face_folder(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / inside
    write_hf(folder / "test-00000-of-00001.parquet", [1, 0], 30, ["cat", "dog"])
    write_hf(folder / "train-00001-of-00002.parquet", [1] * 5, 10, ["cat", "dog"])
    write_hf(folder / "train-00000-of-00002.parquet", [0] * 9 + [-1], 0, {"1": "dog", "0": "cat"})
    table = read_table(tmp_path)
    assert table.splits.tolist() == ["train"] * 15 + ["test"] * 2
    assert table.labels.tolist() == ["cat"] * 9 + [""] + ["dog"] * 5 + ["dog", "cat"]
    assert table.names[[9, 10, 16]].tolist() == [
        "train-00000-of-00002.parquet#9",
        "train-00001-of-00002.parquet#0",
        "test-00000-of-00001.parquet#1",
    ]
    assert [table.read(i) for i in (0, 9, 10, 14, 16, 3)] == [png(n) for n in (0, 9, 10, 14, 31, 3)]
    single = read_table(folder / "test-00000-of-00001.parquet")
    assert set(single.splits) == {"none"}


def test_hugging_face_string_labels_paths_and_refusals(tmp_path: Path) -> None:
    write_hf(tmp_path / "s.parquet", ["x", "y", None])
    assert read_table(tmp_path / "s.parquet").labels.tolist() == ["x", "y", ""]
    write_hf(tmp_path / "wrong.parquet", [0, 2], names=["a", "b"])
    assert "label 2" in refused(tmp_path / "wrong.parquet")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": None, "path": "1.png"}, {"bytes": None, "path": None}, None], kind)
    pq.write_table(pa.table({"img": cells, "label": ["x", "y", "y"]}), tmp_path / "p.parquet")
    table = read_table(lay(tmp_path, "1.png") / "p.parquet")
    assert table.read(0) == png()
    for row in (1, 2):
        with pytest.raises(ImageError, match="no image bytes"):
            table.read(row)
    pq.write_table(pa.table({"image": cells}), tmp_path / "n.parquet")
    assert "no column 'label'" in refused(tmp_path / "n.parquet")


def test_row_groups_are_decoded_once_when_read_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_hf(tmp_path / "train.parquet", ["a", "b"] * 100, row_group_size=10)
    decoded = []
    decode = sources.RowGroups._decode

    def counted(self: sources.RowGroups, file: int, group: int) -> Any:
        decoded.append(group)
        return decode(self, file, group)

    monkeypatch.setattr(sources.RowGroups, "_decode", counted)
    monkeypatch.setattr("headstart.data.parquet.CACHED_BYTES", 0)  # as if row groups were very large
    table = read_table(tmp_path / "train.parquet")
    assert [table.read(i) for i in range(200)] == [png(i) for i in range(200)]
    assert decoded == list(range(20))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(table.read, range(200))) == [png(i) for i in range(200)]
    cell = table.sources[0]
    assert isinstance(cell, sources.CellSource)
    assert len(cell.groups._kept) == sources.CACHED_AT_LEAST


def test_a_parquet_file_that_vanishes_sets_images_aside(tmp_path: Path) -> None:
    write_hf(tmp_path / "train.parquet", ["a", "b"])
    table = read_table(tmp_path / "train.parquet")
    (tmp_path / "train.parquet").unlink()
    with pytest.raises(ImageError, match="row group 0"):
        table.read(0)


def test_a_stray_parquet_file_does_not_hide_class_folders(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "split.parquet")
    assert read_table(lay(tmp_path, "a/1.png", "b/1.png")).classes == ("a", "b")


# The other doors


def test_table_of_arrays_pictures_and_paths(tmp_path: Path) -> None:
    array = np.full((3, 4, 3), 7, np.uint8)
    lay(tmp_path, "1.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGBA", (4, 3), (7, 7, 7, 255)).save(buffer, "PNG", exif=exif)
    table = table_of(
        [array, Image.open(buffer), str(tmp_path / "1.png"), tmp_path / "1.png"], ["3", "x", None, np.float64("nan")]
    )
    assert table.labels.tolist() == ["3", "x", "", ""]
    assert table.names.tolist() == ["image 0", "image 1", str(tmp_path / "1.png"), str(tmp_path / "1.png")]
    assert table.read(0) is array
    turned = table.read(1)
    assert isinstance(turned, np.ndarray)
    assert turned.shape == (4, 3, 3)
    assert (turned == 7).all()
    assert table.read(2) == png()
    assert len(table_of(np.zeros((5, 8, 8), np.uint8))) == 5


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        ("a.png", None, "one path"),
        (["a.png"], ["x", "y"], "1 images but 2 labels"),
        ([3], None, "type int"),
        ([], None, "empty"),
    ],
)
def test_table_of_refusals(images: Any, labels: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        table_of(images, labels)


def test_take_keeps_rows_together_and_classes_are_of_training_rows(tmp_path: Path) -> None:
    table = read_table(lay(tmp_path, "train/a/1.png", "train/b/2.png", "test/a/3.png"))
    picked = table.take(np.array([2, 0]))
    assert picked.names.tolist() == ["test/a/3.png", "train/a/1.png"]
    assert picked.read(0) == table.read(2)
    assert picked.classes == ("a",)
    assert table.take(table.splits == "test").classes == ("a",)  # no training rows: all rows
    assert table.take(table.labels == "b").names.tolist() == ["train/b/2.png"]


def test_list_images(tmp_path: Path) -> None:
    lay(tmp_path, "f/b/2.png", "f/1.png", "f/notes.txt", "f/.hidden.png", "notes.txt", "z.png")
    table = list_images([str(tmp_path / "z.png"), str(tmp_path / "f"), str(tmp_path / "notes.txt")])
    assert [os.path.relpath(name, tmp_path) for name in table.names] == ["z.png", "f/1.png", "f/b/2.png", "notes.txt"]
    assert set(table.labels) == {""}
    assert len(table.notes) == 2
    with pytest.raises(DataError, match="does not exist"):
        list_images([str(tmp_path / "q.png")])
    with pytest.raises(DataError, match="no images found"):
        list_images([str(lay(tmp_path / "e", "x.txt"))])


def test_real_sets(shared: Path) -> None:
    bees = read_table(shared / "data/hymenoptera")
    assert (len(bees), bees.classes) == (398, ("ants", "bees"))
    assert {s: int((bees.splits == s).sum()) for s in ("train", "validation")} == {"train": 245, "validation": 153}
    cifar = read_table(shared / "data/cifar10")
    assert {s: int((cifar.splits == s).sum()) for s in ("train", "test")} == {"train": 50_000, "test": 10_000}
    assert cifar.classes[:3] == ("airplane", "automobile", "bird")
    last = cifar.read(59_999)
    assert isinstance(last, bytes)
    assert last[:2] == b"\xff\xd8"
