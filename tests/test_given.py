"""Images and labels in the forms in which a program has them: one way to read each, or words."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.data.given import KINDS, NO_LABEL, classes_of, kind_of, labels_of
from headstart.data.sources import FileSource
from headstart.data.table import table_of
from headstart.errors import DataError

NAMES = st.text("abzÄ 019é", min_size=1, max_size=4).filter(lambda name: name.strip() and name not in NO_LABEL)
WHOLE = st.integers(-(2**40), 2**40)
COLUMNS = st.one_of(*(st.lists(one, min_size=1, max_size=30) for one in (WHOLE, NAMES, st.booleans())))

Form = Callable[[list[Any]], Any]
FORMS: dict[str, Form] = {
    "a list": list,
    "a tuple": tuple,
    "a generator": iter,
    "an array": np.array,
    "an array of objects": lambda y: np.array(y, dtype=object),
    "an array (n, 1)": lambda y: np.array(y).reshape(-1, 1),
    "a list of lists": lambda y: [[label] for label in y],
    "a series": pd.Series,
    "a series with another index": lambda y: pd.Series(y, index=range(len(y), 0, -1)),
    "a categorical series": lambda y: pd.Series(y).astype("category"),
    "a frame": lambda y: pd.DataFrame({"label": y}),
    "the values of a frame": lambda y: pd.DataFrame({"label": y}).to_numpy(),
}


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=25)
@given(y=COLUMNS)
def test_classes_are_the_labels_in_their_own_order_whatever_holds_them(form: str, y: list[Any]) -> None:
    found = labels_of(FORMS[form](y))
    table = table_of(["a.png"] * len(y), found)
    values = np.unique(np.array(y))
    assert np.array_equal(found.values, values)
    assert found.values.dtype.kind == values.dtype.kind
    assert table.classes == tuple(str(v) for v in values.tolist())
    assert [table.classes.index(name) for name in table.labels] == np.searchsorted(values, np.array(y)).tolist()
    assert np.array_equal(classes_of(table.classes, table.kind), values)  # what a saved model says
    assert table.take(np.arange(len(y))[::-1]).classes == table.classes


@pytest.mark.parametrize("dtype", ["Int64", "string", "category", "boolean", "object", "float"])
@pytest.mark.parametrize("gap", [None, pd.NA, float("nan"), np.nan, pd.NaT])
def test_a_missing_value_is_no_label(dtype: str, gap: Any) -> None:
    values = {"Int64": [3, 1], "boolean": [True, False], "float": [3.0, 1.0]}.get(dtype, ["b", "a"])
    column = pd.Series([values[0], None, values[1], None], dtype=dtype)
    listed = [values[0], gap, values[1], gap]
    for y in (column, listed, np.array(listed, dtype=object), pd.DataFrame({"y": column})):
        found = labels_of(y)
        assert [bool(text) for text in found.texts] == [True, False, True, False]
        assert found.values.tolist() == sorted(values)


def test_more_that_is_missing() -> None:
    assert labels_of(np.ma.array([1, 2, 3], mask=[0, 1, 0])).texts == ("1", "", "3")
    assert labels_of(np.array(["2", "nan", "b"])).texts == ("2", "", "b")
    written = labels_of(["a", " ", "None", "nan", "<NA>", "", "b"])
    assert written.texts == ("a", "", "", "", "", "", "b")
    assert written.written == (" ", "None", "nan", "<NA>", "")
    assert labels_of([None, None]).texts == ("", "")


def test_whole_numbers_written_as_floats_are_the_same_classes() -> None:
    floats = labels_of(np.array([10.0, 9.0, np.nan, 10.0]))
    assert floats.texts == labels_of([10, 9, None, 10]).texts == ("10", "9", "", "10")
    assert floats.values.tolist() == [9.0, 10.0]
    assert floats.values.dtype == float
    assert labels_of(np.array([[3], [1]], dtype=np.int8)).values.dtype == np.int8


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (np.eye(3, dtype=int), r"shape \(3, 3\).*argmax"),
        (np.eye(3).tolist(), "argmax"),
        (pd.get_dummies(pd.Series(list("abc"))), "3 columns .*argmax"),
        ([["a", "b"], ["b"], ["c"]], "one label"),
        ([{"a"}, {"b", "c"}], "one label"),
        (np.zeros((3, 2, 2)), "one label"),
        ([1, "a"], "several kinds, such as .*str"),
        ([True, 2], "several kinds"),
        ([0.137, 2.5], "0.137 looks like a measured value"),
        ([1.0, float("inf")], "measured value"),
        ([b"a", b"b"], "decode"),
        (pd.to_datetime(pd.Series(["2026-01-01", "2026-01-02"])), "Timestamp.*str"),
        ("abc", "labels are a str"),
        ({"a.png": 1}, "labels are a dict"),
        (5, "labels are of type int"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:20],
)
def test_labels_that_are_no_classes_are_refused_with_the_remedy(y: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as refused:
        labels_of(y)
    assert "\n" not in str(refused.value)


def test_as_many_numbers_as_images_are_a_measured_value() -> None:
    labels_of([*range(64), *range(64)]).check_classes()
    labels_of([str(k) for k in range(64)]).check_classes()  # names: said where a class has one image
    with pytest.raises(DataError, match=r"64 different numbers for 64 images, 0 to 63.*measured"):
        labels_of(np.arange(64)).check_classes()


@given(
    names=st.lists(st.one_of(NAMES, WHOLE.map(str), st.sampled_from(["True", "False", "1.0", "1e3", "٣", "1" * 5000])))
)
def test_names_that_a_kind_does_not_write_are_texts(names: list[str]) -> None:
    for kind in [*KINDS, "strange"]:
        found = classes_of(names, kind)
        assert [str(int(v)) if found.dtype.kind == "f" else str(v) for v in found.tolist()] == names
        assert kind_of(names, kind) in (kind, "str")


PATHS = ["b.png", "a.png"]


@pytest.mark.parametrize("form", [form for form in FORMS if "categorical" not in form])
def test_paths_are_taken_from_whatever_holds_one_column_of_them(form: str) -> None:
    assert table_of(FORMS[form](PATHS)).names.tolist() == PATHS
    assert table_of(FORMS[form]([Path(name) for name in PATHS])).names.tolist() == PATHS


def test_numbers_are_pictures_by_their_shape() -> None:
    for shape, n in (
        ((5, 8, 9, 3), 5),
        ((5, 8, 9, 1), 5),
        ((5, 8, 9), 5),
        ((40, 50, 3), 1),
        ((40, 50, 4), 1),
        ((40, 50, 1), 1),
        ((1, 8, 9), 1),
    ):
        array = np.zeros(shape, np.uint8)
        table = table_of(array)
        assert len(table) == n
        whole: Any = table.read(0)
        assert whole.shape == (shape if n == 1 and len(shape) == 3 and shape[2] in (1, 3, 4) else shape[1:])
    picture = Image.new("RGB", (64, 40))
    assert len(table_of(picture)) == len(table_of([picture])) == 1
    assert table_of(picture).read(0).shape == (40, 64, 3)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("X", "said"),
    [
        (np.zeros((24, 784)), r"shape \(24, 784\) are no pictures: give \(image, height, width"),
        (np.zeros(7), "no pictures"),
        (np.zeros((2, 3, 32, 32), np.float32), "channels first.*transpose"),
        (np.zeros((4, 8, 8), np.int64), r"int64, 0 to 0, .*astype\(numpy.uint8\)"),
        (np.full((4, 8, 8), 900, np.int32), "int32, 900 to 900.*bring them to 0..255"),
        ([np.zeros((8, 8)), np.full((8, 8), 255.0)], "0 to 255: divide them by 255"),
        (np.full((2, 8, 8, 3), -1.8), "normalised"),
        (np.array([["a.png", "b.png"]] * 3), r"shape \(3, 2\): give the one column"),
        (pd.DataFrame({"path": PATHS, "age": [3, 4]}), "2 columns .*path.*age.*images"),
        ({"a": 1}, "images are a dict"),
        ({"a.png"}, "images are a set"),
        (b"\xff\xd8", "images are a bytes"),
        ([b"\xff\xd8"], "BytesIO"),
        (["a.png", None], "image 1 is of type NoneType: it is missing"),
        (pd.Series(["a.png", None]), "it is missing"),
        ([[[0, 1], [1, 0]]], "numpy array"),
        (5, "images are of type int"),
        (Path("a.png"), "one path"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:20],
)
def test_what_is_no_image_is_refused_with_the_remedy(X: Any, said: str) -> None:
    with pytest.raises(DataError, match=said) as refused:
        table_of(X)
    assert "\n" not in str(refused.value)


def test_a_rounding_error_above_one_is_no_other_range() -> None:
    for top in (1.0, 1 + 1e-7, np.float16(1.001), 1.0009):
        assert len(table_of(np.array([[[0.0, top]] * 2] * 3))) == 3
    with pytest.raises(DataError, match="0 to 1"):
        table_of(np.array([[[0.0, 1.01]] * 2] * 3))


def test_torch_tensors_are_refused_in_words_as_images_and_read_as_labels() -> None:
    class Tensor:  # as torch's, without its import
        __module__ = "torch"
        ndim = 1

        def tolist(self) -> list[int]:
            return [10, 9, 10]

    assert labels_of(Tensor()).values.tolist() == [9, 10]
    with pytest.raises(DataError, match="permute"):
        table_of(Tensor())
    with pytest.raises(DataError, match="permute"):
        table_of([Tensor()])


def test_a_name_that_gives_orders_is_shown_harmless(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, "PNG")
    assert table_of([str(tmp_path / "a.png")]).sources[0] == FileSource(str(tmp_path / "a.png"))
    with pytest.raises(DataError) as refused:
        labels_of([["\x1b[31m", "b"]])
    assert "\x1b" not in str(refused.value)
