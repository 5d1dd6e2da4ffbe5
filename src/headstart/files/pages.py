"""Where the columns of a Parquet file lie and what their pages say that they unpack to, read without Arrow.

Arrow believes what a page states of its size, and on some damaged footers its accessors end the process. Both are
structures in Thrift's compact protocol (apache/parquet-format: FileMetaData, PageHeader), of which no more is read
here than is asked. Everything raises LookupError where a file is not what it should be.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO, NamedTuple, TypeVar

MOST_FOOTER = 2**28  # bytes
HEADERS = (2**12, 2**24)  # bytes tried for the header of a page: some writers put the smallest and largest value there
DEEPEST = 16  # structures and lists inside each other: the format has eight
BOOLEANS, WHOLE, FLOAT, BINARY, LISTS, STRUCT = (1, 2), (3, 4, 5, 6), 7, 8, (9, 10), 12  # kinds of values; 3: a byte
Kind = TypeVar("Kind")


class Chunk(NamedTuple):
    """A column in one row group, as the footer has it: its name with dots, the bytes where it lies, its values."""

    name: str
    start: int
    end: int
    values: int


class Unpacked(NamedTuple):
    """What the headers of all pages of a chunk state."""

    bytes: int
    values: int


def chunks(file: BinaryIO) -> list[list[Chunk]]:
    """Of each row group."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 8))
    end = file.read(8)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or length > min(size, MOST_FOOTER):
        raise LookupError("no footer of a Parquet file")
    file.seek(size - 8 - length)
    groups = _field(Thrift(file.read(length)).struct(), 4, list)
    return [[_chunk(column, size) for column in _field(group, 1, list)] for group in groups]


def _chunk(column: object, size: int) -> Chunk:
    about = _field(column, 3, dict)
    starts = [about[field] for field in (9, 11) if isinstance(about.get(field), int) and about[field] > 0]
    start = min(starts, default=0)
    name = b".".join(part for part in _field(about, 3, list) if isinstance(part, bytes)).decode("utf-8", "replace")
    return Chunk(name, start, min(size, start + max(0, _field(about, 7, int))), max(0, _field(about, 5, int)))


def unpacked(file: BinaryIO, chunk: Chunk) -> Unpacked:
    at, total, values = chunk.start, 0, 0
    while at < chunk.end:
        try:
            header, length = _page_header(file, at)
        except LookupError:
            if values < chunk.values:
                raise
            break  # some writers leave a gap after the last page
        total += max(0, _field(header, 2, int))
        data = header.get(5) or header.get(8)  # of a data page of version 1 or 2
        values += max(0, _field(data, 1, int)) if data else 0
        at += length + max(0, _field(header, 3, int))
    return Unpacked(total, max(values, chunk.values))


def _page_header(file: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    """(the header, its bytes)."""
    for most in HEADERS:
        file.seek(at)
        thrift = Thrift(file.read(most))
        try:
            return thrift.struct(), thrift.at
        except IndexError:
            continue
    raise LookupError("no header of a page")


def _field(struct: object, number: int, kind: type[Kind]) -> Kind:
    value = struct.get(number) if isinstance(struct, dict) else None
    if not isinstance(value, kind):
        raise LookupError(f"no field {number}")
    return value


class Thrift:
    """A structure as {number of the field: value}. Raises IndexError where the data end too early."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        found: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._whole()
            found[field] = bool(head & 1) if head & 15 in BOOLEANS else self._value(head & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in WHOLE:
            return self._byte() if kind == WHOLE[0] else self._whole()
        if kind == BINARY:
            return self._bytes(self._varint())
        if kind in LISTS and depth < DEEPEST:
            return self._list(depth + 1)
        if kind == STRUCT and depth < DEEPEST:
            return self.struct(depth + 1)
        if kind == FLOAT:
            return self._bytes(8)
        if kind in BOOLEANS:
            return self._byte()
        raise LookupError(f"no kind {kind}")  # maps are not used

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._varint()
        return [self._value(head & 15, depth) for _ in range(count)]

    def _byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def _bytes(self, count: int) -> bytes:
        start, self.at = self.at, self.at + count
        if self.at > len(self.data):
            raise IndexError("the data end too early")
        return self.data[start : self.at]

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
