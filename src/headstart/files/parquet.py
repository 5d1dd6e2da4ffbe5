"""Parquet files that somebody else made: what they say that they hold is checked before it is unpacked.

A page of zeros packs a thousandfold, one value stands for a million rows, and the sizes in the footer are whatever the
writer put there; Arrow takes all of it at its word. So the header of each page is read first (it is small, and Arrow
unpacks no more than it states), a row costs a byte of the file at least, and a value that many rows share stays one
value in memory. Raises one of UNSOUND; `reading.why` makes a line
of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headstart.files.reading import open_regular

UNPACKED = 64 * 2**20  # bytes that some columns may unpack to, however small the file is
# Times its packed size that a column may unpack to beyond that. Photographs do not pack at all, blank pages that were
# scanned without compression some 50 times.
RATIO = 100
FEW_ROWS = 1_000_000  # however small the file is; beyond them a row takes a byte of it, since no two pictures are equal
HEADERS = (2**12, 2**24)  # bytes tried for the header of a page: some writers put the smallest and largest value there
DEEPEST = 8  # structures inside each other in such a header: the format has three
UNSOUND = (OSError, pa.ArrowException)  # what a file that is no sound Parquet raises here
WORD = 8  # bytes of a number or of a place in a dictionary, at most
TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list, pa.types.is_map)


@contextmanager
def open_parquet(path: Path) -> Iterator[pq.ParquetFile]:
    """The file with its footer read and its number of rows checked; for its schema, not for its columns."""
    with _opened(path) as (_, parquet):
        yield parquet


def read_columns(path: Path, names: Sequence[str]) -> pa.Table:
    """Some columns of all rows."""
    with _opened(path) as (file, parquet):
        groups = list(range(parquet.num_row_groups))
        most = _check_pages(file, parquet, groups, names)
        _shared(path, parquet, groups, names, most)
        return parquet.read(columns=list(names))


def read_shared(path: Path, row_group: int, name: str) -> pa.ChunkedArray:
    """A column of one row group; texts and bytes that several rows share are there once, as dictionaries."""
    with _opened(path) as (file, parquet):
        most = _check_pages(file, parquet, [row_group], [name])
        return _shared(path, parquet, [row_group], [name], most).column(0)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, pq.ParquetFile]]:
    # Arrow reads by itself: its threads would wait for Python's lock with each read from an object of Python's.
    with open_regular(path) as file, pa.OSFile(os.fsencode(path)) as own, pq.ParquetFile(own) as parquet:
        size, footer = _size(file), parquet.metadata
        rows = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
        if min(rows, default=0) < 0 or max(sum(rows), footer.num_rows) > max(FEW_ROWS, size):
            raise pa.ArrowInvalid(f"it claims {max(sum(rows), footer.num_rows):,} rows in {size:,} bytes")
        yield file, parquet


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _leaves(parquet: pq.ParquetFile, names: Sequence[str]) -> list[Any]:
    """What is stored of these columns: a struct has a leaf a field."""
    columns = [parquet.schema.column(place) for place in range(len(parquet.schema))]
    return [column for column in columns if any(f"{column.path}.".startswith(f"{name}.") for name in names)]


def _shared(path: Path, parquet: pq.ParquetFile, groups: list[int], names: Sequence[str], most: int) -> pa.Table:
    """Raises where a column, its texts written out for every row, would take more than `most` bytes."""
    texts = [leaf.path for leaf in _leaves(parquet, names) if leaf.physical_type == "BYTE_ARRAY"]
    with pa.OSFile(os.fsencode(path)) as own:
        again = pq.ParquetFile(own, metadata=parquet.metadata, read_dictionary=texts)
        table = again.read_row_groups(groups, columns=list(names))
    for name, column in zip(table.column_names, table.columns, strict=True):
        size = sum(map(_written_out, column.chunks))
        if size > most:
            raise pa.ArrowInvalid(f"its column {name!r} unpacks to {size:,} bytes, more than the limit of {most:,}")
    return table


def _written_out(array: pa.Array) -> int:
    """Bytes of an array with the texts of its dictionaries written out for every row."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _written_out(array.storage)
    if pa.types.is_dictionary(kind) and any(test(kind.value_type) for test in TEXTS):
        return int(pc.sum(pc.binary_length(array.dictionary).take(array.indices)).as_py() or 0)
    if pa.types.is_struct(kind):
        return sum(map(_written_out, array.flatten()))
    if any(test(kind) for test in LISTS):
        return _written_out(array.flatten())
    return int(array.nbytes)


def _check_pages(file: BinaryIO, parquet: pq.ParquetFile, groups: list[int], names: Sequence[str]) -> int:
    """Raises where these columns unpack to more bytes than their packed size allows, which is returned."""
    widths = {leaf.path: max(WORD, leaf.length or 0) for leaf in _leaves(parquet, names)}
    packed, unpacked, size = 0, 0, _size(file)
    for group in map(parquet.metadata.row_group, groups):
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema in widths:
                found = _pages(file, chunk, size)
                packed += found.packed
                unpacked += max(found.unpacked, widths[chunk.path_in_schema] * found.values)
    most = max(UNPACKED, RATIO * min(packed, size))
    if unpacked > most:
        raise pa.ArrowInvalid(f"its {size:,} bytes unpack to {unpacked:,}, more than the limit of {most:,}")
    return most


class _Pages(NamedTuple):
    """What the headers of a column's pages in one row group state."""

    packed: int  # bytes
    unpacked: int  # bytes
    values: int


def _pages(file: BinaryIO, chunk: pq.ColumnChunkMetaData, size: int) -> _Pages:
    starts = [start for start in (chunk.dictionary_page_offset, chunk.data_page_offset) if start]
    at = start = max(0, min(starts, default=0))
    end, unpacked, values = min(start + chunk.total_compressed_size, size), 0, 0
    while at < end:
        try:
            header, length = _page_header(file, at)
        except LookupError:
            if values >= chunk.num_values:
                break  # some writers leave a gap after the last page
            raise pa.ArrowInvalid(f"the header of a page of its column {chunk.path_in_schema!r} is damaged") from None
        data = header.get(DATA) or header.get(DATA_2) or {}
        unpacked += max(0, _number(header.get(UNPACKED_SIZE)))
        values += max(0, _number(data.get(1) if isinstance(data, dict) else 0))
        at += length + max(0, _number(header.get(PACKED_SIZE)))
    return _Pages(max(0, end - start), unpacked, max(values, chunk.num_values))


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


# The header of a page, in Thrift's compact protocol (apache/parquet-format, PageHeader).
UNPACKED_SIZE, PACKED_SIZE, DATA, DATA_2 = 2, 3, 5, 8


def _page_header(file: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    """({number of the field: value}, bytes of the header). Raises LookupError where it is none."""
    for most in HEADERS:
        file.seek(at)
        thrift = _Thrift(file.read(most))
        try:
            return thrift.struct(), thrift.at
        except IndexError:
            continue
    raise LookupError("no header of a page")


class _Thrift:
    """Just enough of it to pass over what is not needed. Raises LookupError."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        found: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._whole()
            found[field] = self._value(head & 15, depth, of_field=True)
        return found

    def _value(self, kind: int, depth: int, of_field: bool = False) -> Any:
        if depth > DEEPEST:
            raise LookupError("too deep")
        if kind in (1, 2):  # true and false: a field has no more, an element of a list is a byte
            return kind if of_field else self._byte()
        readers: dict[int, Callable[[], Any]] = {
            3: self._byte,
            **dict.fromkeys((4, 5, 6), self._whole),
            7: lambda: self._skip(8),
            8: lambda: self._skip(self._varint()),
            **dict.fromkeys((9, 10), lambda: self._list(depth)),
            12: lambda: self.struct(depth + 1),
        }
        return readers[kind]()  # maps stand in no header

    def _list(self, depth: int) -> None:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._varint()
        for _ in range(count):
            self._value(head & 15, depth + 1)

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _skip(self, count: int) -> None:
        if count:
            self.at += count - 1
            self._byte()

    def _varint(self) -> int:
        found = 0
        for shift in range(0, 70, 7):  # of 64 bits
            byte = self._byte()
            found |= (byte & 127) << shift
            if byte < 128:
                return found
        raise LookupError("a number of more than 64 bits")

    def _whole(self) -> int:
        zigzag = self._varint()
        return zigzag >> 1 ^ -(zigzag & 1)
