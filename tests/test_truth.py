"""The truth of each task as users have it: one text an image, read back without loss, or one line that says why not."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.data.groups import sequences_in
from headstart.data.scarce import scarce, training_images, without
from headstart.data.sources import GoneSource
from headstart.data.table import Table, read_table, table_of
from headstart.data.targets import class_targets, label_targets, value_targets
from headstart.data.teachable import check_teachable
from headstart.data.truth import number_in, number_text, tag_text, tags_in, value_text, values_in
from headstart.errors import DataError, OptionError
from test_manifests import lay

N = 12
CELLS = ["RBC|WBC", "RBC", "WBC", "RBC|Platelets", "Platelets", "|"] * 2
LENGTHS = [f"{1.5 + k * 0.25:g}" for k in range(N)]
NAMES = st.text(st.characters(exclude_characters="|", exclude_categories=("Cs",)), min_size=1).filter(
    lambda name: not name.startswith("?")
)


def listed(folder: Path, name: str = "list.csv", **columns: Any) -> Path:
    """A list of 12 images with these columns."""
    lay(folder, *(f"{k}.png" for k in range(N)))
    frame = pd.DataFrame({"path": [f"{k}.png" for k in range(len(next(iter(columns.values()))))], **columns})
    frame.to_csv(folder / name, index=False)
    return folder / name


def refused(path: Path, **how: Any) -> str:
    with pytest.raises((DataError, OptionError)) as caught:
        read_table(path, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Texts


@given(
    st.frozensets(NAMES), st.frozensets(NAMES), st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1)
)
def test_a_text_is_read_back_without_loss(
    present: frozenset[str], unknown: frozenset[str], values: list[float]
) -> None:
    text = tag_text(present, unknown - present)
    assert text
    assert tags_in(text) == (present, unknown - present)
    assert values_in(value_text(values)) == values
    assert all(number_in(number_text(value)) == value for value in values)


# Lists


@pytest.mark.parametrize("form", ["bar", "semicolon", "list in Parquet", "list in JSON", "brackets", "a line each"])
def test_one_column_of_several_labels_is_tags_however_it_is_written(form: str, tmp_path: Path) -> None:
    sets = [[part for part in cell.split("|") if part] for cell in CELLS]
    path = listed(tmp_path, label=CELLS)
    if form == "semicolon":
        path = listed(tmp_path, label=[cell.replace("|", ";") for cell in CELLS])
    elif form == "brackets":
        path = listed(tmp_path, label=[str(held) for held in sets])
    elif form == "list in Parquet":
        path = tmp_path / "list.parquet"
        pq.write_table(pa.table({"path": [f"{k}.png" for k in range(N)], "label": sets}), path)
    elif form == "list in JSON":
        lines = [json.dumps({"file_name": f"{k}.png", "label": held}) for k, held in enumerate(sets)]
        (tmp_path / "list.csv").unlink()
        (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
        path = tmp_path
    elif form == "a line each":
        pairs = [(f"{k}.png", name) for k, held in enumerate(sets) for name in held]
        path.write_text("path,label\n" + "".join(f"{file},{name}\n" for file, name in pairs))
    table = read_table(path)
    none = "" if form == "a line each" else "|"
    expected = [("|".join(sorted(held)) or none) for held in sets if held or none]
    assert (table.task, table.labels.tolist(), table.columns) == ("tag", expected, ())
    assert "read as several labels an image, 3 labels (Platelets 4, RBC 6, WBC 4)" in table.layout
    assert "--task classify" in table.layout
    assert table.take([1, 0]).task == "tag"
    found = label_targets(table)
    assert found.names == ("Platelets", "RBC", "WBC")
    if none:
        assert found.present.tolist() == [[int(name in held) for name in found.names] for held in sets]


def test_columns_of_0_and_1_are_tags_and_empty_is_unknown(tmp_path: Path) -> None:
    wbc, rbc = ["1", "0", "", "1", "0", "0"] * 2, ["yes", "yes", "no", "no", "", "yes"] * 2
    table = read_table(listed(tmp_path, WBC=wbc, RBC=rbc, note=["x"] * N))
    assert (table.task, table.columns) == ("tag", ("WBC", "RBC"))
    assert table.labels[:5].tolist() == ["RBC|WBC", "RBC", "?WBC", "WBC", "?RBC"]
    assert label_targets(table).present[:5].tolist() == [[1, 1], [1, 0], [0, -1], [0, 1], [-1, 0]]
    fewer = read_table(listed(tmp_path, WBC=wbc, RBC=rbc), 1, task="tag", label="WBC")
    assert label_targets(fewer, ("RBC", "WBC")).present[:3].tolist() == [[-1, 1], [-1, 0], [-1, -1]]
    assert read_table(listed(tmp_path, a=[1, 0] * 6, b=[0, 1] * 6)).labels[:2].tolist() == ["a", "b"]  # classes
    assert read_table(listed(tmp_path, a=[1, 0] * 6, b=[0, 1] * 6), task="tag").task == "tag"


def test_an_empty_cell_is_no_label_and_said(tmp_path: Path) -> None:
    table = read_table(listed(tmp_path, label=[*CELLS[:-1], ""]))
    assert table.labels[-1] == ""
    assert any("1 image with an empty cell" in note and "write |" in note for note in table.notes)
    assert (label_targets(table).present[-1] == -1).all()


def test_numbers_that_are_no_classes_are_values(tmp_path: Path) -> None:
    table = read_table(listed(tmp_path, label=LENGTHS))
    assert (table.task, table.columns, table.classes) == ("regress", ("label",), ("label",))
    assert "measured values of 'label' (1.5 to 4.25)" in table.layout
    assert value_targets(table).values[:, 0].tolist() == [float(text) for text in LENGTHS]
    both = read_table(listed(tmp_path, width=LENGTHS, height=[f"{k}" for k in range(N)]), label="height,width")
    assert (both.task, both.columns, both.labels[1]) == ("regress", ("height", "width"), "1|1.75")
    assert value_targets(both, ("width", "height")).values[1].tolist() == [1.75, 1.0]
    commas = listed(tmp_path, label=[text.replace(".", ",") for text in LENGTHS])
    assert read_table(commas).labels.tolist() == LENGTHS
    gap = read_table(listed(tmp_path, label=[*LENGTHS[:-1], ""]))
    assert gap.labels[-1] == ""


def test_whole_numbers_stay_classes_and_the_other_reading_is_said(tmp_path: Path) -> None:
    lay(tmp_path, *(f"{k}.png" for k in range(48)))
    counts = tmp_path / "list.csv"
    counts.write_text("path,label\n" + "".join(f"{k}.png,{k % 12}\n" for k in range(48)))
    table = read_table(counts)
    assert table.task == "classify"
    assert any("--task regress" in note for note in table.notes)
    assert read_table(counts, task="regress").task == "regress"


def test_folders_of_numbers_are_values_where_that_is_asked(tmp_path: Path) -> None:
    lay(tmp_path, *(f"{value}/{k}.png" for value in ("10", "2.50") for k in range(6)))
    assert read_table(tmp_path).task == "classify"
    assert Counter(read_table(tmp_path, task="regress").labels) == {"10": 6, "2.5": 6}


def test_what_teaches_decides_what_all_parts_are_read_as(tmp_path: Path) -> None:
    listed((tmp_path / "train"), "metadata.csv", label=["1", "2"] * 6)
    listed((tmp_path / "test"), "metadata.csv", label=LENGTHS)
    for part in ("train", "test"):
        file = tmp_path / part / "metadata.csv"
        file.write_text(file.read_text().replace("path,", "file_name,"))
    assert "'1.5' is in the test split" in refused(tmp_path)  # classes, though the test part alone looks measured
    assert read_table(tmp_path, task="regress").task == "regress"


def test_identities_may_be_new_in_the_test_set(tmp_path: Path) -> None:
    lay(tmp_path, *(f"train/{who}/{k}.png" for who in "abc" for k in range(3 if who != "c" else 1)), "test/d/0.png")
    assert "class 'd'" in refused(tmp_path)
    table = read_table(tmp_path, task="recognise")
    found = class_targets(table)
    assert (table.task, table.classes, found.names) == ("recognise", ("a", "b", "c"), ("a", "b", "c", "d"))
    assert table.labels[np.argmax(found.numbers)] == "d"
    assert any("single image" in note and "'c'" in note for note in table.notes)


@pytest.mark.parametrize(
    ("columns", "how", "said"),
    [
        ({"label": ["1.5", "two", *LENGTHS[2:]]}, {"task": "regress"}, "list.csv line 3.*'two'.*no finite number"),
        ({"label": ["1.5", "inf", *LENGTHS[2:]]}, {"task": "regress"}, "line 3.*'inf'"),
        ({"label": ["1e999", *LENGTHS[1:]]}, {"task": "regress"}, "line 2.*'1e999'"),
        ({"label": ["1,234", *LENGTHS[1:]]}, {"task": "regress"}, "'1,234'"),
        ({"label": ["3"] * N}, {"task": "regress"}, "column 'label' is 3 in all training images"),
        ({"label": LENGTHS[:4]}, {"task": "regress"}, "4 training images with a value: at least 10"),
        ({"label": LENGTHS}, {"task": "classify"}, "measured value.*--task regress"),
        ({"age": LENGTHS, "size": LENGTHS}, {"task": "regress"}, "which column.*'age' and 'size'.*--label age,size"),
        ({"label": CELLS}, {"task": "classify"}, "several labels of one image.*--task tag"),
        ({"label": ["a|b", "a;b", *"aabbaabbaa"]}, {"task": "tag"}, "line 2 has | between labels and line 3 has ;"),
        ({"label": ["a, b", *"abababababa"]}, {"task": "tag"}, "write | between labels"),
        ({"label": ["?a|b", *"abababababa"]}, {"task": "tag"}, "line 2: the label '.a' .*unknown"),
        ({"a": ["1", "0"] * 6, "b": ["1", "2"] * 6}, {"task": "tag", "label": "a,b"}, "line 3 holds '2' in column 'b'"),
        ({"a": ["1", "-1"] * 6, "b": ["-1", "1", "1"] * 4}, {"task": "tag"}, "1 and -1 but no 0"),
        (
            {"a": ["1", "0"] * 6, "b": ["1", "1", "0"] * 4},
            {"task": "classify"},
            "line 2: 2 of the columns.*one class.*--task tag",
        ),
        (
            {"a": ["1", "0"] * 6, "b": ["1", "1", "0"] * 4},
            {"task": "classify", "label": "a,b"},
            "one class.*--task tag",
        ),
        ({"label": ["a", "b"] * 6}, {"label": "lable"}, "no column 'lable'.*did you mean label"),
        ({"label": ["a"] * N}, {"task": "tag"}, "no label can be told"),
        ({"value": [""] * N}, {"task": "regress", "label": "value"}, "no labels: at least 1 value is needed"),
        ({"label": [f"p{k}" for k in range(N)]}, {"task": "recognise"}, "0 of 12 identities have 2 training images"),
        ({"label": ["a", "b"] * 6}, {"task": "regres"}, "regres.*did you mean regress"),
        ({"label": CELLS, "split": ["train"] * 11 + ["test"]}, {"label": " "}, "--label is empty"),
    ],
)
def test_what_does_not_fit_is_one_line_with_the_next_step(
    columns: dict[str, list[str]], how: dict[str, str], said: str, tmp_path: Path
) -> None:
    text = refused(listed(tmp_path, **columns), **how)
    assert re.search(said.replace("|", r"\|"), text), text


def test_a_label_that_only_the_test_part_has_is_refused(tmp_path: Path) -> None:
    cells = [*CELLS[:-1], "RBC|Blast"]
    text = refused(listed(tmp_path, label=cells, split=["train"] * 11 + ["test"]))
    assert "label 'Blast' is in the test split" in text


def test_class_folders_hold_no_tags_and_no_columns(tmp_path: Path) -> None:
    lay(tmp_path, *(f"{name}/{k}.png" for name in "ab" for k in range(3)))
    assert "write a list with the columns path,label" in refused(tmp_path, task="tag")
    assert "is no number" in refused(tmp_path, task="regress")
    assert "--label" in refused(tmp_path, label="age")


def test_lines_of_json_of_mixed_kinds_are_refused(tmp_path: Path) -> None:
    lay(tmp_path, "0.png", "1.png")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "0.png", "label": ["a", "b"]}\n{"file_name": "1.png", "label": "a"}'
    )
    assert "line 2: label is no list" in refused(tmp_path)


def test_scarce_labels_are_left_out_of_the_sets_and_the_images_stay(tmp_path: Path) -> None:
    table = read_table(listed(tmp_path, label=[*CELLS[:-1], "WBC|Blast"]))
    assert training_images(table) == {"Blast": 1, "Platelets": 4, "RBC": 6, "WBC": 5}
    kept = without(table, scarce(table, 2), 2)
    assert (len(kept), kept.labels[-1], kept.task) == (N, "WBC", "tag")
    assert "Blast" not in kept.classes
    assert any("Blast" in note for note in table.notes)


# What a program hands over


def images(n: int) -> list[Any]:
    return list(np.zeros((n, 4, 4, 3), np.uint8))


@pytest.mark.parametrize(
    ("given_labels", "task", "texts", "columns"),
    [
        ([["a", "b"], ["b"], [], None], "tag", ["a|b", "b", "|", ""], ()),
        ([{"b", "a"}, {"b"}, set(), {"a"}], "tag", ["a|b", "b", "|", "a"], ()),
        (np.array([[1, 1], [0, np.nan], [0, -1], [0, 0]]), "tag", ["0|1", "?1", "?1", "|"], ("0", "1")),
        ([[1, 1], [0, 1], [0, 0], [1, 0]], "tag", ["0|1", "1", "|", "0"], ("0", "1")),
        (pd.DataFrame({"x": [True, False, True, False], "y": [1, 1, 0, 0]}), "tag", ["x|y", "y", "x", "|"], ("x", "y")),
        ([0.5, 2.0, None, 3], "regress", ["0.5", "2", "", "3"], ("value",)),
        (pd.Series([0.5, 2, 3, 4], name="age"), "regress", ["0.5", "2", "3", "4"], ("age",)),
        (
            np.array([[0.5, 2], [1, 3], [np.nan, 1], [2, 2]]),
            "regress",
            ["0.5|2", "1|3", "", "2|2"],
            ("value 0", "value 1"),
        ),
        (["a", "b", "a", None], "classify", ["a", "b", "a", ""], ()),
        ([3, 1, 3, 1], "classify", ["3", "1", "3", "1"], ()),
        (np.eye(2, dtype=int)[[0, 1, 1, 0]], "classify", ["0", "1", "1", "0"], ()),
    ],
)
def test_a_program_s_labels_are_read_as_what_they_are(
    given_labels: Any, task: str, texts: list[str], columns: tuple[str, ...]
) -> None:
    table = table_of(images(4), given_labels)
    assert (table.task, table.labels.tolist(), table.columns) == (task, texts, columns)
    if task != "classify":
        assert table_of(images(4), given_labels, task).labels.tolist() == texts


def test_columns_without_names_keep_their_order() -> None:
    present = (np.random.default_rng(0).random((30, 12)) < 0.5).astype(int)
    found = label_targets(table_of(images(30), present))
    assert found.names == tuple(map(str, range(12)))
    assert np.array_equal(found.present, present)


@pytest.mark.parametrize(
    ("given_labels", "task", "said"),
    [
        ([1.0, "two", 3], "regress", "label 1 is 'two'"),
        ([1.0, float("inf"), 3], "regress", "label 1 is inf"),
        ([["a"], ["b|c"], []], "tag", "'b|c'"),
        ([["a", "b"], ["b", 1.5], []], "tag", "label 1 holds 1.5"),
        (np.array([[1, 2], [0, 1], [0, 0]]), "tag", "label 0 holds 2 in column 1"),
        (["a", "b", "c"], "tag", "one list of names an image"),
        ([["a", "b"], ["b"], []], "classify", "one label"),
        ([0.5, 1.5, 2.5], "classify", "measured value"),
        ([1, 2, 3], "guess", "allowed are auto"),
    ],
)
def test_labels_that_do_not_fit_the_task_are_refused(given_labels: Any, task: str, said: str) -> None:
    with pytest.raises((DataError, OptionError)) as caught:
        table_of(images(3), given_labels, task)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# Targets


def of(labels: list[str], task: str, columns: tuple[str, ...] = (), splits: list[str] | None = None) -> Table:
    def column(values: list[str]) -> Any:
        return np.array(values, dtype=object)

    n = len(labels)
    blank = column([""] * n)
    parts = column(splits or ["none"] * n)
    return Table(
        column([f"{k}.png" for k in range(n)]),
        column(labels),
        parts,
        blank,
        (GoneSource(),) * n,
        (),
        "",
        "str",
        task,
        columns,
    )


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"1\.png has the label 'RCB'.*did you mean RBC"):
        label_targets(of(["RBC", "WBC|RCB"], "tag"), ("RBC", "WBC"))
    with pytest.raises(DataError, match=r"1\.png has the class 'antz'.*did you mean ants"):
        class_targets(of(["ants", "antz"], "classify"), ("ants", "bees"))
    with pytest.raises(DataError, match="1 image without a value"):
        value_targets(of(["1", ""], "regress", ("x",)))
    with pytest.raises(DataError, match="--label a,b"):
        value_targets(of(["1|2"], "regress", ("a", "c")), ("a", "b"))
    assert class_targets(of(["b", "", "a"], "classify")).numbers.tolist() == [1, -1, 0]
    assert label_targets(of(["?q", "a|?b"], "tag", ("a", "b", "q")), ("a", "b")).present.tolist() == [[0, 0], [1, -1]]


def test_a_label_of_one_image_or_of_all_is_kept_and_noted() -> None:
    notes = check_teachable("x", "tag", ["a|all", "a|all", "b|all", "all"], ())
    assert "single training image" in notes[0]
    assert "'b'" in notes[0]
    assert "every training image" in notes[1]
    assert "'all'" in notes[1]


# Frames


def test_frames_of_films_are_told_from_numbered_photos() -> None:
    rng = np.random.default_rng(0)
    films = {"0001TP_": 30, "0006R0_f": 15, "Seq05VD_f": 30}
    names = [f"train/images/{take}{k * step:06d}.png" for take, step in films.items() for k in range(3, 60)]
    takes = [take for take in films for _ in range(3, 60)]
    order = rng.permutation(len(names))
    assert sequences_in([names[k] for k in order]) == [takes[k] for k in order]
    assert sequences_in([name for name in names if rng.random() < 0.5])  # and of a part of the frames
    assert sequences_in([f"film{f}_frame{k:03d}.jpg" for f in range(3) for k in range(20)])
    photos = {
        "running on": [f"IMG_{k:04d}.JPG" for k in range(300)],
        "several cameras": [f"{camera}{k:04d}.jpg" for camera in ("IMG1_", "DSC0", "P102") for k in range(100)],
        "with gaps": [f"{c}{k:04d}.jpg" for c in ("IMG1_", "DSC0") for k in np.sort(rng.choice(9999, 200, False))],
        "numbered in tens by class": [
            f"{name}/{name}_{k:04d}.jpg" for name in ("cat", "dog") for k in range(0, 900, 10)
        ],
        "one film": [f"0001TP_{k:06d}.png" for k in range(0, 3000, 30)],
        "few films among photos": [*names, *(f"IMG_{k}.jpg" for k in range(100))],
        "no numbers": ["a.jpg", "b.jpg", ""],
    }
    for what, found in photos.items():
        assert sequences_in(found) is None, what


@pytest.mark.parametrize("films", [1, 3])
def test_frames_of_films_are_said_unless_something_keeps_films_together(films: int, tmp_path: Path) -> None:
    names = [f"cam/{f}x_frame{k:03d}.png" for f in range(films) for k in range(8)]
    (tmp_path / "cam").mkdir()
    for name in names:
        (tmp_path / name).write_bytes(b"never read")
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{n},{'ab'[k % 2]}\n" for k, n in enumerate(names)))
    said = [note for note in read_table(tmp_path / "list.csv").notes if "frames of" in note]
    if films == 1:
        assert not said
        return
    expression = re.findall(r"--group-by '(.*)' keeps", said[0])[0]
    table = read_table(tmp_path / "list.csv", group_by=expression)
    assert len(set(table.groups)) == films
    assert not [note for note in table.notes if "look like frames" in note]
