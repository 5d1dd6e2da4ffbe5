"""Parquet files that somebody else made: what they say that they hold is checked before it is unpacked.

A page of zeros packs a thousandfold, one value stands for a million rows, and the sizes in the footer are whatever the
writer put there; Arrow takes all of it at its word. So the header of each page is read first (it is small, and Arrow
unpacks no more than it states), a row costs a byte of the file at least, and a value that many rows share stays one
value in memory. Raises one of UNSOUND; `reading.why` makes a line
of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from headstart.files.far import Parts, Place, open_place
from headstart.files.pages import Chunk, chunks, unpacked
from headstart.files.reading import open_regular

UNPACKED = 64 * 2**20  # bytes that some columns may unpack to, however small the file is
# Times its packed size that a column may unpack to beyond that. Photographs do not pack at all, blank pages that were
# scanned without compression some 50 times.
RATIO = 100
FEW_ROWS = 1_000_000  # however small the file is; beyond them a row takes a byte of it, since no two pictures are equal
UNSOUND = (OSError, pa.ArrowException, ValueError)  # what a file that is no sound Parquet raises; names may be no UTF-8
WORD = 8  # bytes of a number or of a place in a dictionary, at most
TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


@contextmanager
def open_parquet(path: Place) -> Iterator[pq.ParquetFile]:
    """The file with its footer read and its number of rows checked; for its schema, not for its columns."""
    with _opened(path) as (_, parquet):
        yield parquet


def read_columns(path: Place, names: Sequence[str]) -> pa.Table:
    """Some columns of all rows."""
    with _opened(path) as (file, parquet):
        groups = list(range(parquet.num_row_groups))
        left = dict.fromkeys(names, _check_pages(file, parquet, groups, names))
        for group in groups:
            _shared(file, parquet, group, left)
        table = parquet.read(columns=list(names))
        table.validate(full=True)  # texts that are no UTF-8
        return table


def read_group(path: Place, row_group: int, names: Sequence[str]) -> pa.Table:
    """Some columns of one row group, texts written out."""
    with _opened(path) as (file, parquet):
        left = dict.fromkeys(names, _check_pages(file, parquet, [row_group], names))
        found = _shared(file, parquet, row_group, left)
        plain = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in found.schema]
        table = found.cast(pa.schema(plain)).select(list(names))
        table.validate(full=True)  # texts that are no UTF-8
        return table


def read_shared(path: Place, row_group: int, name: str) -> pa.ChunkedArray:
    """A column of one row group; texts and bytes that several rows share are there once, as dictionaries."""
    with _opened(path) as (file, parquet):
        left = {name: _check_pages(file, parquet, [row_group], [name])}
        return _shared(file, parquet, row_group, left).column(0)


def read_field(path: Place, row_group: int, name: str, field: str) -> pa.ChunkedArray | None:
    """Of a column of structs, or of lists of them, one field in one row group; None where there is none."""
    with _opened(path) as (file, parquet):
        found = [leaf.path for leaf in _leaves(parquet, [name]) if leaf.path.endswith(f".{field}")]
        if not found:
            return None
        left = {name: _check_pages(file, parquet, [row_group], found)}
        return _shared(file, parquet, row_group, left, found).column(0)


@contextmanager
def _opened(path: Place) -> Iterator[tuple[BinaryIO, pq.ParquetFile]]:
    with open_place(path) as file, _arrows(file) as own, pq.ParquetFile(own) as parquet:
        size, footer = _size(file), parquet.metadata
        rows = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        if min(rows, default=0) < 0 or max(sum(rows), footer.num_rows) > max(FEW_ROWS, size):
            raise pa.ArrowInvalid(f"it claims {max(sum(rows), footer.num_rows):,} rows in {size:,} bytes")
        parquet.schema_arrow.to_string(show_schema_metadata=False)  # raises ValueError where a name is no UTF-8
        yield file, parquet


@contextmanager
def _arrows(file: BinaryIO) -> Iterator[Any]:
    """The same file for Arrow, which reads by itself: its threads would wait for Python's lock with each read from an
    object of Python's. One elsewhere has been fetched when its pages were looked at, and stays open."""
    if isinstance(file, Parts):
        yield pa.PythonFile(file, "r")
        return
    with pa.OSFile(os.fsencode(file.name)) as own:
        yield own


def _size(file: BinaryIO) -> int:
    return file.size if isinstance(file, Parts) else os.fstat(file.fileno()).st_size


def _leaves(parquet: pq.ParquetFile, names: Sequence[str]) -> list[Any]:
    """What is stored of these columns: a struct has a leaf a field."""
    columns = [parquet.schema.column(place) for place in range(len(parquet.schema))]
    return [column for column in columns if any(f"{column.path}.".startswith(f"{name}.") for name in names)]


def _shared(
    file: BinaryIO, parquet: pq.ParquetFile, row_group: int, left: dict[str, int], leaves: Sequence[str] = ()
) -> pa.Table:
    """The columns that `left` names, or of these the `leaves` alone. Raises where one, its texts written out for every
    row, takes more than the bytes that are left for it; else they become fewer."""
    asked = list(leaves or left)
    texts = [leaf.path for leaf in _leaves(parquet, asked) if leaf.physical_type == "BYTE_ARRAY"]
    with _arrows(file) as own:
        again = pq.ParquetFile(own, metadata=parquet.metadata, read_dictionary=texts)
        table = again.read_row_group(row_group, columns=asked)
    rows = parquet.metadata.row_group(row_group).num_rows
    if len(table) != rows:
        raise pa.ArrowInvalid(f"its row group {row_group} holds {len(table):,} rows and claims {rows:,}")
    for name, column in zip(table.column_names, table.columns, strict=True):
        left[name] -= sum(map(_written_out, column.chunks))
        if left[name] < 0:
            raise pa.ArrowInvalid(f"its column {name!r} unpacks to {-left[name]:,} bytes more than its size allows")
    return table


def _written_out(array: pa.Array) -> int:
    """Bytes of an array with the texts of its dictionaries written out for every row."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _written_out(array.storage)
    if pa.types.is_dictionary(kind) and any(test(kind.value_type) for test in TEXTS):
        import pyarrow.compute as pc  # 0.05 s that every command would wait for

        return int(pc.sum(pc.binary_length(array.dictionary).take(array.indices)).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(map(_written_out, array.flatten()))
    if pa.types.is_map(kind):
        return _written_out(array.keys) + _written_out(array.items)
    if any(test(kind) for test in LISTS):
        return _written_out(array.flatten())
    return int(array.nbytes)


def _check_pages(file: BinaryIO, parquet: pq.ParquetFile, groups: Sequence[int], names: Sequence[str]) -> int:
    """Raises where these columns unpack to more bytes than their packed size allows, which is returned."""
    widths = {leaf.path: max(WORD, leaf.length or 0) for leaf in _leaves(parquet, names)}
    packed = total = 0
    try:
        layout = chunks(file) if isinstance(file, Parts) else _layout(file.name, *_age(file))
        for chunk in (chunk for group in groups for chunk in layout[group] if chunk.name in widths):
            found = unpacked(file, chunk)
            packed += chunk.end - chunk.start
            total += max(found.bytes, widths[chunk.name] * found.values)
    except LookupError as error:
        raise pa.ArrowInvalid(f"its footer or a page in it is damaged: {error}") from None
    most = max(UNPACKED, RATIO * min(packed, _size(file)))
    if total > most:
        raise pa.ArrowInvalid(f"its {_size(file):,} bytes unpack to {total:,}, more than the limit of {most:,}")
    return most


def _age(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=8)
def _layout(path: str, _size: int, _changed: int) -> list[list[Chunk]]:
    """Of a file that has not changed meanwhile: a set is read one row group at a time."""
    with open_regular(path) as file:
        return chunks(file)
