"""numpy and text <-> Arrow, by the bytes that they share.

Arrow's own `array`, `to_numpy` and `to_pandas_dtype` ask pandas whether the values are its own, and so import it
wherever it is installed: 0.3 s of every command that reads or keeps features, and its end where that pandas is one that
cannot be imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

MOST = 2**31 - 1  # bytes of text in one array of Arrow's usual kind


def numbers(values: npt.NDArray[Any]) -> pa.Array:
    """An array (row,) of these numbers (row,), none of them null."""
    flat = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(flat.dtype), flat.size, [None, pa.py_buffer(flat)])


def texts(values: Sequence[str]) -> pa.Array:
    """An array (row,) of these texts (row,), none of them null. Raises UnicodeEncodeError for what is no Unicode."""
    packed = [value.encode() for value in values]
    ends = np.zeros(len(packed) + 1, dtype=np.int64)
    np.cumsum([len(one) for one in packed], out=ends[1:])
    if ends[-1] > MOST:
        return pa.array(values, pa.string())
    places, content = pa.py_buffer(ends.astype(np.int32)), pa.py_buffer(b"".join(packed))
    return pa.StringArray.from_buffers(len(packed), places, content)


def rows_of(column: pa.ChunkedArray, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """A column of lists of one length as (row, value); not copied where it is one chunk. Raises ValueError for other
    values, and for nulls."""
    lists = column.combine_chunks()
    values = lists.flatten()
    if values.type != pa.from_numpy_dtype(np.dtype(dtype)):
        raise ValueError(f"a column holds {values.type}, not {np.dtype(dtype)}")
    return _in_memory(values, np.dtype(dtype)).reshape(len(lists), lists.type.list_size)


def whole_numbers(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A column of integers (row,). Raises ValueError for other values, and for nulls."""
    if not pa.types.is_integer(column.type):
        raise ValueError(f"a column holds {column.type}, not integers")
    return _in_memory(column.combine_chunks(), np.dtype(str(column.type))).astype(np.int64)


def _in_memory(values: pa.Array, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Numbers (row,) of this type as they lie in memory. Raises ValueError for nulls."""
    if values.null_count:
        raise ValueError(f"a column of {len(values)} numbers holds {values.null_count} nulls")
    if not len(values):
        return np.empty(0, dtype)
    return np.frombuffer(values.buffers()[1], dtype, len(values), values.offset * dtype.itemsize)
