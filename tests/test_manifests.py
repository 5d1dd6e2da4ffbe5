"""Lists of images: the table that was meant, or a line that names the trouble; no class that nobody means."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.data import places
from headstart.data.table import Table, read_table
from headstart.errors import DataError, ImageError

ONES = "abcd"


def lay(root: Path, *names: str) -> None:
    """Files whose bytes are their own names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def content(table: Table, row: int) -> str:
    """The name of the file that a row is read from, "" where it cannot be read."""
    try:
        data = table.read(row)
    except ImageError:
        return ""
    assert isinstance(data, bytes)
    return data.decode()


def contents(table: Table) -> list[str]:
    return [content(table, row) for row in range(len(table))]


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_table(path)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    return text


def refusal(path: Path) -> tuple[Table | None, str]:
    """The table, or why there is none."""
    try:
        return read_table(path), ""
    except DataError as error:
        return None, str(error)


@pytest.fixture
def four(tmp_path: Path) -> Path:
    """A folder with images/a.png to d.png."""
    lay(tmp_path, *(f"images/{one}.png" for one in ONES))
    return tmp_path


Write = Callable[..., Path]


@pytest.fixture
def write(four: Path) -> Write:
    """Four lines, the columns' values given for each: write(path=[...], label=[...]) -> the list."""

    def written(**columns: Sequence[object]) -> Path:
        text = io.StringIO()
        writer = csv.writer(text, delimiter="\t")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        (four / "list.csv").write_text(text.getvalue(), encoding="utf-8")
        return four / "list.csv"

    return written


PATHS = [f"images/{one}.png" for one in ONES]
TWO = ["x", "x", "y", "y"]


# Which column holds what


@pytest.mark.parametrize("label", ["label", "Labels", "class", "class_name", "Category", "target", "dx", "breed", "y"])
def test_columns_go_by_the_names_that_people_give_them(label: str, write: Write) -> None:
    for path in ("path", "file_name", "Filename", "filepath", "File Path", "file", "image", "image_id", "Image-Path"):
        table = read_table(write(**{"": range(4), label: TWO, "remark": "pqrs", path: PATHS}))
        assert (contents(table), table.labels.tolist()) == (PATHS, TWO), path
    for path in ("img", "IMG_NAME", "id", "name", "uri", "ImageURL"):
        table = read_table(write(**{label: TWO, path: [f"{one}.png" for one in ONES]}))
        assert (contents(table), table.labels.tolist()) == (PATHS, TWO), path


def test_of_two_columns_what_stands_in_them_decides_and_is_said(write: Write) -> None:
    table = read_table(write(image_id=range(4), image_path=PATHS, label=[0, 0, 1, 1], class_name=TWO))
    assert (contents(table), table.labels.tolist()) == (PATHS, TWO)
    assert [note for note in table.notes if "'image_path'" in note and "not of 'image_id'" in note]
    assert [note for note in table.notes if "'class_name'; 'label' parts them alike" in note]
    both = read_table(write(filename=[f"{one}.png" for one in ONES], filepath=PATHS, label=TWO))
    assert contents(both) == PATHS


def test_a_name_that_often_means_something_else_is_taken_where_it_is_alone_and_said(write: Write) -> None:
    table = read_table(write(path=PATHS, type=TWO))
    assert table.labels.tolist() == TWO
    assert table.notes == ("the classes are those of column 'type', since no column is called label",)
    assert read_table(write(path=PATHS, type="pqrs", species=TWO)).labels.tolist() == TWO


def test_where_nothing_decides_the_user_is_asked(write: Write) -> None:
    said = refused(write(path=PATHS, label=TWO, category=["p", "q", "p", "q"]))
    assert "which column is the class, 'label' and 'category'?" in said
    said = refused(write(path=PATHS, img=PATHS[::-1], label=TWO))
    assert "which column holds the paths of the images, 'path' and 'img'?" in said
    said = refused(write(path=PATHS, label=TWO, split=["train"] * 3 + ["test"], set=["test"] + ["train"] * 3))
    assert "which column parts the images" in said


@pytest.mark.parametrize("columns", [{"path": PATHS, "lable": TWO}, {"image": PATHS, "name": TWO}, {"path": PATHS}])
def test_a_refusal_offers_no_column_of_the_user_as_what_was_meant(columns: Any, write: Write) -> None:
    said = refused(write(**columns))
    assert "did you mean" not in said
    assert "no column 'label'" in said
    assert "'lable' to label" in said or "lable" not in columns


@pytest.mark.parametrize(
    ("name", "values", "splits"),
    [
        ("set", ["train", "Test", "train", "test"], ["train", "test", "train", "test"]),
        ("Subset", ["Training", "Validation", "training", "train"], ["train", "validation", "train", "train"]),
        ("fold", ["train", "val", "train", "train"], ["train", "validation", "train", "train"]),
        ("is_valid", ["True", "False", "True", "False"], ["validation", "train", "validation", "train"]),
        ("is_valid", [0, 0, 1, 0], ["train", "train", "validation", "train"]),
        ("is_training_img", [1, 0, 1, 1], ["train", "test", "train", "train"]),
        ("fold", [0, 1, 2, 0], None),
        ("set", ["A", "B", "A", "B"], None),
        ("dataset", ["hospital", "hospital", "home", "home"], ["none"] * 4),
    ],
)
def test_parts_are_what_a_column_says_and_numbers_are_none(name: str, values: Any, splits: Any, write: Write) -> None:
    table = read_table(write(path=PATHS, label=["x"] * 4, **{name: values}), min_classes=1)
    assert table.splits.tolist() == (splits or ["none"] * 4)
    assert any(f"'{name}'" in note for note in table.notes) == (splits != ["none"] * 4)
    if splits is None:
        assert "unused" in table.notes[0]


def test_a_mark_that_most_images_bear_is_no_validation_set(write: Write) -> None:
    assert "true in 75% of the lines" in refused(write(path=PATHS, label=TWO, is_valid=[1, 1, 1, 0]))
    assert "'trian' is not one of train" in refused(
        write(path=PATHS, label=TWO, set=["train", "trian", "test", "test"])
    )


def test_groups_are_said_where_they_are_used_and_where_they_only_look_like_it(write: Write) -> None:
    used = read_table(write(path=PATHS, label=TWO, group=["p", "q", "p", "q"], patient_id=[1, 1, 2, 2]))
    assert used.groups.tolist() == ["p", "q", "p", "q"]
    assert used.layout.endswith("in 2 groups of column 'group'")
    assert not any("not used" in note for note in used.notes)
    unused = read_table(write(path=PATHS, label=TWO, patient_id=[1, 1, 2, 2], site=["s"] * 4))
    assert set(unused.groups) == {""}
    assert len(unused.notes) == 1
    assert "'patient_id' looks like a group (2 different values) and is not used" in unused.notes[0]
    assert "name it with --group" in unused.notes[0]


def test_one_column_a_class_and_boxes_are_tasks_of_their_own(write: Write) -> None:
    single = read_table(write(image=PATHS, ants=[1, 0, 0, 1], bees=[0, 1, 1, 0]))
    assert (single.task, single.labels.tolist()) == ("classify", ["ants", "bees", "bees", "ants"])
    boxes = {corner: [1, 2, 3, 4] for corner in ("xmin", "ymin", "xmax", "ymax")}
    assert "--task detect learns where" in refused(write(filename=[PATHS[0]] * 4, **{"class": TWO}, **boxes))


# How a list is written


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_delimiters_and_ends_of_lines(encoding: str, four: Path) -> None:
    for delimiter, end in itertools.product(",;\t|", ("\n", "\r\n", "\r")):
        rows = [f'{path}{delimiter}"é, {label}"' for path, label in zip(PATHS, TWO, strict=True)]
        for above in ([], ["", f"sep={delimiter}"]):
            text = end.join([*above, f"path{delimiter}label", *rows, ""])
            (four / "list.csv").write_bytes(text.encode(encoding))
            table = read_table(four / "list.csv")
            assert (contents(table), table.labels.tolist()) == (PATHS, [f"é, {k}" for k in TWO])


def test_text_that_is_no_utf_8_is_refused_where_it_matters(four: Path) -> None:
    lines = "".join(f"{p},{k},caf\udce9\n" for p, k in zip(PATHS, TWO, strict=True))
    (four / "list.csv").write_bytes(f"path,label,remark\n{lines}".encode("utf-8", "surrogateescape"))
    assert read_table(four / "list.csv").labels.tolist() == TWO
    (four / "list.csv").write_bytes(f"path,remark,label\n{lines}".encode("utf-8", "surrogateescape"))
    said = refused(four / "list.csv")
    assert "line 2" in said
    assert "'café'" in said
    assert "CSV UTF-8" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('path,label\nimages/a.png,"x\nimages/b.png,y"\n', "line 3: the value"),  # a lost quote would join two lines
        ("path,label\nimages/a.png,Paris, Texas\n", "line 2 has 3 values under 2 columns"),
        ("images/a.png,x,train\nimages/b.png,y,test\n", "no column 'path'"),
        ("no.png,x\nimages/b.png,y\n", "no column 'path'"),
        ("images/a.png,images/b.png\nimages/c.png,images/d.png\n", "no column 'path'"),
        ("path,label\nimages/a.png,a.jpg\nimages/b.png,b.jpg\n", "look like names of files"),
        ("path,type\nimages/a.png,jpg\nimages/b.png,PNG\n", "look like kinds of files"),
        ("path,label\nimages/a.png,train\nimages/b.png,test\n", "look like parts of the data"),
        (f"path,label\nimages/a.png,{'w' * 501}\nimages/b.png,y\n", "501 characters"),
        ("path,label\nimages/a.png,x\x1b[2J\nimages/b.png,y\n", "control characters"),
    ],
)
def test_what_would_become_wrong_classes_is_refused(text: str, said: str, four: Path) -> None:
    (four / "list.csv").write_text(text)
    assert said in refused(four / "list.csv")
    assert "\x1b" not in refused(four / "list.csv")


def test_a_file_that_begins_with_its_first_image_needs_no_names_of_columns(four: Path) -> None:
    lay(four, "my photos/a 1.png", "my photos/b 2.png")
    for name, text in (
        ("list.csv", "images/a.png,x\nimages/b.png,y\n"),
        ("list.txt", "images/a.png x\nimages/b.png y\n"),
        ("list.lst", "my photos/a 1.png x\nmy photos/b 2.png\ty\n"),
    ):
        (four / name).write_text(text)
        table = read_table(four / name)
        assert table.labels.tolist() == ["x", "y"]
        assert "" not in contents(table)
        assert "no line of the list names its columns" in table.notes[0]
    (four / "list.txt").write_text("images/a.png red fox\nimages/b.png cat\n")
    assert "cannot be read as a list" in refused(four / "list.txt")


def test_names_of_columns_in_the_middle_are_no_image(four: Path) -> None:
    (four / "list.csv").write_text("path,label\nimages/a.png,x\npath,label\nimages/b.png,y\n")
    table = read_table(four / "list.csv")
    assert table.classes == ("x", "y")
    assert len(table) == 2


# Where the files lie


SPELLINGS: dict[str, Callable[[str], str]] = {
    "backslash": lambda p: p.replace("/", "\\"),
    "no extension": lambda p: p.removesuffix(".png"),
    "no folder": lambda p: p.rpartition("/")[2],
    "neither": lambda p: p.rpartition("/")[2].removesuffix(".png"),
    "blank after": lambda p: f"{p} ",
    "blank before": lambda p: f" {p}",
    "Windows": lambda p: "C:\\Users\\u\\data\\" + p.replace("/", "\\"),
    "another folder there": lambda p: f"D:\\{p.rpartition('/')[2]}",
    "POSIX": lambda p: f"/home/other/data/{p}",
    "URL": lambda p: f"file:///home/other/my%20data/{p}",
    "web": lambda p: f"https://example.org/data/{p}?size=2",
    "case": str.upper,
    "quotes": lambda p: f"'{p}'",
    "percent": lambda p: p.replace("/", "%2F"),
    "invisible": lambda p: f"\ufeff{p}\u200b",
    "dots": lambda p: f"./../data/{p}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_path_is_found_where_it_fits_alone(spelling: str, write: Write) -> None:
    written = [SPELLINGS[spelling](p) for p in PATHS]
    table = read_table(write(path=written, label=TWO))
    assert contents(table) == PATHS
    assert len(table.notes) == (spelling != "blank before")  # which no reader of CSV keeps
    assert all("4 paths were found otherwise than written" in note for note in table.notes)


@pytest.mark.parametrize("prefix", ["", "/x/", "C:\\x\\"])
def test_a_picture_of_the_same_name_in_another_folder_is_not_the_one(prefix: str, tmp_path: Path) -> None:
    lay(tmp_path, *(f"{label}/{k}.png" for label, ks in (("dogs", (1, 2, 3)), ("birds", (7, 8))) for k in ks))
    listed = [(f"{prefix}{label}/{k}.png", label) for label in ("cats", "dogs") for k in (1, 2, 3)]
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{p},{k}\n" for p, k in listed))
    table = read_table(tmp_path / "list.csv")
    assert contents(table) == [""] * 3 + [f"dogs/{k}.png" for k in (1, 2, 3)]
    assert any("3 paths name no file that exists" in note and "lies at dogs/1.png" in note for note in table.notes)


def test_a_part_is_not_taken_for_another(tmp_path: Path) -> None:
    lay(tmp_path, *(f"test/{label}/{k}.png" for label in "xy" for k in (1, 2)))
    lines = "".join(f"/data/train/{label}/{k}.png,{label}\n" for label in "xy" for k in (1, 2))
    (tmp_path / "list.csv").write_text(f"path,label\n{lines}")
    assert "none of the 4 files that it lists exists" in refused(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_text("path,label\n" + lines.replace("/data/train/", "/data/pictures/"))
    assert contents(read_table(tmp_path / "list.csv")) == [f"test/{label}/{k}.png" for label in "xy" for k in (1, 2)]


def test_two_paths_are_not_one_file(tmp_path: Path) -> None:
    lay(tmp_path, "x/1.png", "y/2.png", "y/3.png")
    lines = "".join(
        f"{p},{k}\n" for p, k in (("/p/x/1.png", "x"), ("/q/x/1.png", "x"), ("y/2.png", "y"), ("3.png", "y"))
    )
    (tmp_path / "list.csv").write_text(f"path,label\n{lines}")
    assert contents(read_table(tmp_path / "list.csv")) == ["", "", "y/2.png", "y/3.png"]


def test_where_several_files_fit_none_is_taken_and_both_are_named(tmp_path: Path) -> None:
    lay(tmp_path, "1/a.png", "2/a.png", "1/b.png", "2/c.png")
    (tmp_path / "list.csv").write_text("path,label\na.png,x\nb.png,x\nc.png ,y\n q,y\n")
    table = read_table(tmp_path / "list.csv")
    assert contents(table) == ["", "1/b.png", "2/c.png", ""]
    assert any("2 paths name no file" in note and "1/a.png and 2/a.png" in note for note in table.notes)


def test_a_mask_is_not_the_picture(tmp_path: Path) -> None:
    lay(tmp_path, *(f"{folder}/{k}.png" for folder in ("images", "masks") for k in "ab"))
    (tmp_path / "list.csv").write_text("id,label\na,x\nb,y\n")
    assert contents(read_table(tmp_path / "list.csv")) == ["images/a.png", "images/b.png"]


def test_a_list_of_missing_files_says_so_with_the_blank_and_where_the_file_lies(write: Write) -> None:
    said = refused(write(path=["a.jpg ", "z.png", "y.png", "w.png"], label=TWO))
    assert "none of the 4 files that it lists exists: the first is 'a.jpg '" in said
    assert "images/a.png" in said
    assert "the file that it lists does not exist" in refused(write(path=["z.png"] * 4, label=TWO))
    assert "such addresses are not fetched" in refused(write(url=[f"ftp://h.org/{k}.png" for k in range(4)], label=TWO))


def test_a_path_that_exists_is_left_alone_and_nothing_is_looked_for(write: Write, monkeypatch: Any) -> None:
    monkeypatch.setattr(places, "_files", lambda base: pytest.fail("looked through the folder"))
    listed = write(path=PATHS, label=TWO)
    lay(listed.parent, "images/A.PNG", "other/a.png")
    assert contents(read_table(listed)) == PATHS


def test_a_folder_of_too_many_files_is_not_searched_to_its_end(write: Write, monkeypatch: Any) -> None:
    monkeypatch.setattr(places, "MOST_FILES", 3)
    assert contents(read_table(write(path=[PATHS[0], "b", "c", "d"], label=TWO))) == [PATHS[0], "", "", ""]


# What the labels are


@pytest.mark.parametrize(
    ("labels", "classes", "said"),
    [
        (["x ", "x", "y", "\u00a0y"], ["x", "x", "y", "y"], "spelt in more than one way"),
        (["caf\u00e9", "cafe\u0301", "y", "y"], ["caf\u00e9", "caf\u00e9", "y", "y"], "spelt in more than one way"),
        (["x\u200b", "\ufeffx", "y", "y"], ["x", "x", "y", "y"], "spelt in more than one way"),
        (["nan", "x", "y", ""], ["", "x", "y", ""], "'nan' of 1 line"),
        (["None", "x", "y", "NA"], ["", "x", "y", ""], "'None' of 1 line"),
        (["none", "x", "none", "x"], ["none", "x", "none", "x"], ""),
        (["0.0", "", "1.0", "10.0"], ["0", "", "1", "10"], "'0.0' is the class '0'"),
        (["1.5", "2.0", "1.5", "2.0"], ["1.5", "2.0", "1.5", "2.0"], ""),
        (["007", "7", "007", "7"], ["007", "7", "007", "7"], ""),
        (["['x']", "['x']", "['y']", "['y']"], ["x", "x", "y", "y"], "a list of one"),
        (["Fox", "fox", "y", "y"], ["Fox", "fox", "y", "y"], "differ only in letter case"),
        (["crane, bird", "crane", "y", "y"], ["crane, bird", "crane", "y", "y"], ""),
        (["x; sp", "x; sp", "y; sp2", "y; sp2"], ["x; sp", "x; sp", "y; sp2", "y; sp2"], ""),
        (["a/cat", "a/cat", "a/dog", "a/dog"], ["a/cat", "a/cat", "a/dog", "a/dog"], ""),
    ],
)
def test_labels_are_one_spelling_each_and_what_changed_is_said(
    labels: list[str], classes: list[str], said: str, write: Write
) -> None:
    table = read_table(write(path=PATHS, label=labels))
    assert table.labels.tolist() == classes
    assert any(said in note for note in table.notes) if said else table.notes == ()


@pytest.mark.parametrize(
    "labels",
    [
        ["ants;flower", "ants", "bees", "bees"],
        ["ants|flower", "bees|flower", "bees", "bees"],
        ["ants, flower", "ants", "flower", "bees"],
        ["[ants, flower]", "[ants]", "[bees]", "[bees]"],
        ["('ants', 'flower')", "('ants',)", "('bees',)", "('bees',)"],
        ["ants+flower", "ants", "flower", "flower"],
    ],
)
def test_several_labels_never_become_a_class(labels: list[str], write: Write) -> None:
    path = write(path=PATHS, label=labels)
    with pytest.raises(DataError, match=r"several labels of one image.*--task tag"):
        read_table(path, task="classify")
    if labels[0] in ("ants, flower", "ants+flower"):  # signs that one name may hold as well
        assert "several labels of one image" in refused(path)
    else:
        table = read_table(path)
        assert (table.task, table.labels[0]) == ("tag", "ants|flower")


def test_a_measured_value_is_no_class(tmp_path: Path) -> None:
    lay(tmp_path, *(f"{k}.png" for k in range(64)))
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{k}.png,{k * 1.37:.2f}\n" for k in range(64)))
    with pytest.raises(DataError, match=r"measured value.*--task regress"):
        read_table(tmp_path / "list.csv", task="classify")
    assert read_table(tmp_path / "list.csv").task == "regress"
    assert len(read_table(tmp_path / "list.csv", min_classes=1)) == 64
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{k}.png,{k % 12}\n" for k in range(64)))
    assert len(read_table(tmp_path / "list.csv").classes) == 12


def test_an_image_counts_once_and_one_with_two_labels_has_none(write: Write) -> None:
    listed = write(path=[*PATHS, PATHS[0], "images\\b.png", PATHS[2]], label=[*TWO, "x", "x", "x"])
    table = read_table(listed)
    assert contents(table) == PATHS
    assert table.labels.tolist() == ["x", "x", "", "y"]
    assert any("3 lines repeat an image" in note for note in table.notes)
    assert any("c.png ('x', 'y')" in note for note in table.notes)
    with pytest.raises(DataError, match=r"4 of 4 images have several labels.*--task tag"):
        read_table(write(path=PATHS * 2, label=TWO + TWO[::-1]), task="classify")


def test_a_cell_of_many_bytes_never_fills_a_message(write: Write) -> None:
    picture = "\x89PNG\r\n" + "\u00ff" * 100_000
    for columns in ({"path": [picture] * 4, "label": TWO}, {"path": PATHS, "label": [picture] * 4}):
        assert len(refused(write(**columns))) < 600


CELL = st.text("ab1./\\ '\"[](;,|:\0\n\r\té\u0301\u202e\u00a0\ud800=#", max_size=12)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(cells=st.lists(st.tuples(CELL, CELL), max_size=4), marks=st.booleans())
def test_any_text_in_any_cell_is_a_table_or_a_line(cells: list[tuple[str, str]], marks: bool, four: Path) -> None:
    start = ["http://[", "file://[x", "'", "[", "\\", "C:"][len(cells) % 6] if marks else ""
    text = io.StringIO()
    csv.writer(text).writerows([("path", "label"), *((start + path, label) for path, label in cells), (PATHS[0], "x")])
    (four / "list.csv").write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
    table, said = refusal(four / "list.csv")
    assert "\n" not in said
    assert table is None or len(table) <= len(cells) + 1


# Parquet


CELLS: dict[str, tuple[Callable[[bytes], Any], pa.DataType]] = {
    "struct": (lambda b: {"bytes": b, "path": None}, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    "bytes": (lambda b: b, pa.binary()),
    "large bytes": (lambda b: b, pa.large_binary()),
    "list of structs": (lambda b: [{"bytes": b}], pa.list_(pa.struct([("bytes", pa.binary())]))),
    "list of bytes": (lambda b: [b], pa.list_(pa.binary())),
}
LABELS: dict[str, pa.Array] = {
    "text": pa.array(TWO),
    "large text": pa.array(TWO, pa.large_string()),
    "dictionary": pa.array(TWO).dictionary_encode(),
    "list": pa.array([[label] for label in TWO]),
    "bytes": pa.array([label.encode() for label in TWO]),
}


@pytest.mark.parametrize("cell", CELLS)
def test_pictures_and_labels_in_any_kind_of_column(cell: str, tmp_path: Path) -> None:
    make, kind = CELLS[cell]
    pictures = pa.array([make(path.encode()) for path in PATHS], kind)
    names = itertools.cycle([("image", "label"), ("img", "target"), ("jpg", "labels")])
    for labels, (image, label) in zip(LABELS.values(), names):  # noqa: B905
        table = pa.table({"id": [1, 2, 3, 4], image: pictures, "hash": pa.array([b"h"] * 4), label: labels})
        pq.write_table(table, tmp_path / "set.parquet", row_group_size=3)
        found = read_table(tmp_path / "set.parquet")
        assert (contents(found), found.labels.tolist()) == (PATHS, TWO)
        assert found.notes == ()


def test_numbers_of_classes_have_the_names_that_the_file_gives_them(tmp_path: Path) -> None:
    features = {"label": {"names": ["x", "y"], "_type": "ClassLabel"}}
    for values in (pa.array([0, 1, -1, None]), pa.array([0.0, 1.0, None, -1.0]), pa.array([[0], [1], [], [-1]])):
        table = pa.table({"image": pa.array([p.encode() for p in PATHS]), "label": values})
        told = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        pq.write_table(table.replace_schema_metadata(told), tmp_path / "set.parquet")
        assert read_table(tmp_path / "set.parquet").labels.tolist() == ["x", "y", "", ""]
    features["label"]["names"] = {"a": "x", "b": "y"}  # of which the numbers are not known
    for values, labels in (
        ([0, 1, 1, 0], ["0", "1", "1", "0"]),
        ([0.0, float("inf"), 0.0, None], ["0.0", "inf", "0.0", ""]),
    ):
        told = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
        table = pa.table({"image": table["image"], "label": values})
        pq.write_table(table.replace_schema_metadata(told), tmp_path / "set.parquet")
        assert read_table(tmp_path / "set.parquet").labels.tolist() == labels
    pq.write_table(pa.table({"image": table["image"], "target": [0.0, 1.0, None, 1.0]}), tmp_path / "set.parquet")
    assert read_table(tmp_path / "set.parquet").labels.tolist() == ["0", "1", "", "1"]


def test_parquet_that_is_not_one_class_an_image_is_refused_without_its_bytes(tmp_path: Path) -> None:
    picture = pa.array([b"\x89PNG\xff" * 1000] * 4)
    columns: dict[str, dict[str, Any]] = {
        "5,000 bytes that are no text": {"image": PATHS, "label": picture},
        "which column holds the pictures, 'image' and 'img'": {"image": picture, "img": picture, "label": TWO},
        "no column 'path' and no images": {"embedding": [1.0] * 4, "label": TWO},
    }
    for said, table in columns.items():
        pq.write_table(pa.table(table), tmp_path / "set.parquet")
        text = refused(tmp_path / "set.parquet")
        assert said in text
        assert "PNG" not in text
    two = pa.array([[b"1", b"2"]] * 4)
    pq.write_table(pa.table({"image": two, "label": TWO}), tmp_path / "set.parquet")
    with pytest.raises(ImageError, match="2 pictures"):
        read_table(tmp_path / "set.parquet").read(0)


def test_a_list_in_parquet_says_what_the_same_list_in_csv_says(write: Write) -> None:
    columns: dict[str, Any] = {"FileName": ["a", "b", "c", "d"], "Class": ["x ", "x", "nan", "y"]}
    columns |= {"group": ["p", "q", "p", "q"], "is_valid": ["True", "False", "False", "False"]}
    text = write(**columns)
    pq.write_table(pa.table(columns), text.with_suffix(".parquet"))
    one, two = read_table(text, 1), read_table(text.with_suffix(".parquet"), 1)
    for column in ("names", "labels", "splits", "groups"):
        assert getattr(one, column).tolist() == getattr(two, column).tolist()
    assert contents(one) == contents(two) == PATHS
    assert [note.replace("line", "row") for note in one.notes] == [note.replace("line", "row") for note in two.notes]


@pytest.mark.parametrize("config", ["", "default/"])
def test_a_set_that_the_hub_exported_has_its_parts_in_folders(config: str, tmp_path: Path) -> None:
    for part, ones in (("train", "ab"), ("test", "cd")):
        (tmp_path / config / part).mkdir(parents=True)
        table = pa.table({"image": pa.array([one.encode() for one in ones]), "label": ["x", "y"]})
        pq.write_table(table, tmp_path / config / part / "0000.parquet")
    found = read_table(tmp_path)
    assert contents(found) == ["a", "b", "c", "d"]
    assert found.splits.tolist() == ["train", "train", "test", "test"]
    assert len(set(found.names)) == 4
    if config:
        (tmp_path / "default").rename(tmp_path / "other")
        (tmp_path / "default").symlink_to("other")
        assert "holds 2 sets" in refused(tmp_path)


# All of it at once


@pytest.fixture(scope="module")
def folders() -> dict[tuple[str, ...], Path]:
    """Their files -> the folder that has them: made once."""
    return {}


class Made(NamedTuple):
    """A list made at random, and what is meant by it. sure: there is no reason to refuse it."""

    files: list[str]
    text: bytes
    name: str
    meant: list[tuple[str, str]]  # file, label
    sure: bool


TRAIN = ("images/{}.png", "images/{}.PNG", "{}.png", "a b/ü/{}.png", "{label}/{}.png", "x/{label}/{}.png")
NAMED = ["path", "File Name", "image_path", "img", "FILEPATH", "image", "filename"]
CLASSES = [
    ("ants", "bees"),
    ("Waldkauz", "Uhu"),
    ("été", "naïve"),
    ("0", "1"),
    ("1.0", "2.0"),
    ("Paris, Texas", "Rome"),
]
ODD_CLASSES = [("ants;bees", "ants"), ("NA", "EU"), ("Fox", "fox"), ("['x']", "['y']"), ("x|y", "y"), ("=1+1", "@x")]


@st.composite
def lists(draw: st.DrawFn) -> Made:
    pick = lambda options: draw(st.sampled_from(list(options)))  # noqa: E731
    odd = draw(st.booleans())
    labels = pick(CLASSES + ODD_CLASSES) if odd else pick(CLASSES)
    layout = pick(TRAIN)
    end = pick(["", " é"])
    ones = [(f"p{k}{end}", labels[k % 2]) for k in range(4)]
    files = [layout.format(one, label=label.replace("/", "-")) for one, label in ones]
    spell = {**SPELLINGS, "wrong folder": lambda p: f"cats/{p.rpartition('/')[2]}"}[pick([*SPELLINGS, "wrong folder"])]
    spell = spell if odd else str
    columns = {
        pick(NAMED): [spell(file) for file in files],
        pick(["label", "Class", "category", "class_name", "y"]): [label + pick(["", "", " "]) for _, label in ones],
    }
    extra = {"": [str(k) for k in range(4)], "remark": ['é, "q"'] * 4, "score": ["0.5"] * 4, "lat": ["48.1"] * 4}
    for name in draw(st.lists(st.sampled_from(sorted(extra)), unique=True, max_size=3)):
        columns[name] = extra[name]
    order = draw(st.permutations(sorted(columns)))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=pick(",;\t|"), lineterminator=pick(["\n", "\r\n"]))
    if not odd or draw(st.booleans()):
        writer.writerow(order)
    writer.writerows(zip(*(columns[name] for name in order), strict=True))
    encoding = pick(["utf-8", "utf-8-sig", "utf-16", *(["cp1252", "utf-16-le"] if odd else [])])
    missing = draw(st.integers(0, 2)) if odd else 0
    meant = [
        (file if k >= missing else "", label) for k, (file, (_, label)) in enumerate(zip(files, ones, strict=True))
    ]
    try:
        written = text.getvalue().encode(encoding)
    except UnicodeEncodeError:  # a sign that Windows' encoding has not
        written = text.getvalue().encode()
    return Made(files[missing:], written, f"list.{pick(['csv', 'tsv', 'CSV'])}", meant, not odd)


@settings(max_examples=350, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=lists())
def test_a_list_is_read_as_it_was_meant_or_the_trouble_is_named(
    made: Made, tmp_path_factory: pytest.TempPathFactory, folders: dict[tuple[str, ...], Path]
) -> None:
    key = tuple(made.files)
    if key not in folders:
        folders[key] = tmp_path_factory.mktemp("list")
        lay(folders[key], *made.files)
    listed = folders[key] / made.name
    listed.write_bytes(made.text)
    table, said = refusal(listed)
    if table is None:
        assert not made.sure, said
        assert made.name in said
        assert "\n" not in said
        return
    meant = {"1.0": "1", "2.0": "2", "NA": "", "['x']": "x", "['y']": "y"}
    if table.task == "tag":
        meant["ants;bees"] = "ants|bees"
    assert table.labels.tolist() == [meant.get(label, label) for _, label in made.meant]
    for found, (file, _) in zip(contents(table), made.meant, strict=True):
        assert found == file or (not made.sure and found == "")
