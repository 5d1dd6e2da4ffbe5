"""numpy and text as Arrow, and back: the same as Arrow's own conversions, without pandas."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.files.arrow import numbers, rows_of, texts, whole_numbers

WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=9)


@settings(max_examples=50, deadline=None)
@given(WORDS)
def test_texts_are_those_that_arrow_makes(words: list[str]) -> None:
    assert texts(words).equals(pa.array(words, pa.string()))
    texts(words).validate(full=True)


def test_a_name_that_is_no_unicode_is_refused_as_arrow_refuses_it() -> None:
    for make in (texts, lambda words: pa.array(words, pa.string())):
        with pytest.raises(UnicodeEncodeError):
            make(["a", "\udcff"])


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.int64])
@pytest.mark.parametrize("n", [0, 1, 6])
def test_numbers_are_those_that_arrow_makes(kind: type[np.generic], n: int) -> None:
    values = np.arange(2 * n).astype(kind)[::2]  # not in one piece
    assert numbers(values).equals(pa.array(values))
    numbers(values).validate(full=True)


def test_rows_come_back_bit_for_bit_from_pieces_and_from_the_middle() -> None:
    values = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float16)
    lists = pa.FixedSizeListArray.from_arrays(numbers(values.ravel()), 3)
    for column, wanted in (
        (pa.chunked_array([lists]), values),
        (pa.chunked_array([lists[:4], lists[4:]]), values),
        (pa.chunked_array([lists[2:7]]), values[2:7]),
    ):
        assert rows_of(column, np.float16).tobytes() == wanted.tobytes()
    with pytest.raises(ValueError, match="halffloat"):
        rows_of(pa.chunked_array([lists]), np.float32)


def test_what_holds_a_null_is_refused() -> None:
    column = pa.chunked_array([pa.array([[np.float16(1), None]], pa.list_(pa.float16(), 2))])
    with pytest.raises(ValueError, match="1 nulls"):
        rows_of(column, np.float16)
    with pytest.raises(ValueError, match="1 nulls"):
        whole_numbers(pa.chunked_array([pa.array([1, None])]))


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint16(), pa.int32(), pa.int64(), pa.uint64()])
def test_whole_numbers_are_those_that_arrow_gives(kind: pa.DataType) -> None:
    values = pa.array(range(9), kind)
    for column in (
        pa.chunked_array([values]),
        pa.chunked_array([values[3:5], values[:2]]),
        pa.chunked_array([values[:0]]),
    ):
        assert whole_numbers(column).tolist() == column.to_pylist()
        assert whole_numbers(column).dtype == np.int64
