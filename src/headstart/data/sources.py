"""Where the bytes of one image are: a file, here or elsewhere, a cell of a Parquet file, or the program's memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from headstart.data.images import DEFAULT_LIMITS, array_of
from headstart.errors import ImageError
from headstart.files.far import Far, Place, is_far
from headstart.files.forks import Lock
from headstart.files.parquet import UNSOUND, read_field, read_shared
from headstart.files.reading import read_regular, why

CACHED_BYTES = 128 << 20  # of row groups in memory; CIFAR-10's are 2 MB each, Hugging Face's own up to some 100 MB
IN_ORDER = 16 << 20  # bytes of row groups in memory where each image is read once, one after the other
SETS = 2  # of Parquet files whose row groups a process keeps of those that came from another one
CACHED_AT_LEAST = 2  # row groups: threads that read in order stand on both sides of one boundary


class Source(Protocol):
    """One image, unread."""

    def read(self) -> bytes | NDArray[Any]:
        """The encoded bytes, or an array as `images.load` takes it. Raises ImageError with a reason."""
        ...


class Row(NamedTuple):
    """One image as a reader of folders or manifests found it; "" = no label, no group, no time."""

    name: str
    source: Source
    label: str
    split: str
    group: str = ""
    time: str = ""


class Found(NamedTuple):
    """What a reader made of a folder or manifest. task, columns: as in `Table`."""

    rows: list[Row]
    notes: list[str]
    layout: str
    task: str = "classify"
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileSource:
    """An image file."""

    path: str

    def read(self) -> bytes:
        try:
            return read_regular(self.path, DEFAULT_LIMITS.max_bytes)
        except FileNotFoundError:
            raise ImageError("the file does not exist") from None
        except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
            raise ImageError(f"the file cannot be read ({why(error)})") from error


@dataclass(frozen=True, slots=True)
class FarSource:
    """An image file that lies elsewhere. It is fetched each time that it is read, and kept nowhere."""

    far: Far

    def read(self) -> bytes:
        try:
            return self.far.read(DEFAULT_LIMITS.max_bytes)
        except FileNotFoundError:
            raise ImageError("the file does not exist") from None
        except OSError as error:
            raise ImageError(f"the file cannot be fetched ({why(error)})") from None


def source_of(path: str) -> FileSource | FarSource:
    """The image of a path or an address."""
    return FarSource(Far(path)) if is_far(path) else FileSource(path)


def source_in(folder: Place, name: str) -> FileSource | FarSource:
    """The image that is named from a folder, here or elsewhere: by a path, or by an address of its own."""
    if isinstance(folder, Far):
        return FarSource(folder.beside(name))
    return source_of(name if is_far(name) else str(folder / name))


@dataclass(frozen=True, slots=True)
class RefusedSource:
    """Something that is no picture, with the reason."""

    reason: str

    def read(self) -> bytes:
        raise ImageError(self.reason)


@dataclass(frozen=True, slots=True)
class GoneSource:
    """An image of which only the stored features are at hand. `content_hash`: of the file that it was, "" where nobody
    has said; `place`: the row of its features in a set of them, -1 where there is none."""

    content_hash: str = ""
    place: int = -1

    def read(self) -> bytes:
        raise ImageError("the image itself is not at hand, only what the network said of it")


@dataclass(frozen=True, slots=True, eq=False)
class ArraySource:
    """An image that the program handed over as an array."""

    array: NDArray[Any]

    def read(self) -> NDArray[Any]:
        return self.array


@dataclass(frozen=True, slots=True, eq=False)
class PictureSource:
    """An image that the program handed over as a Pillow image; converted when it is read."""

    picture: Image.Image

    def read(self) -> NDArray[Any]:
        return array_of(self.picture)


@dataclass(frozen=True, slots=True)
class CellSource:
    """One row of a Parquet file's image column."""

    groups: RowGroups
    file: int
    row_group: int
    row: int

    def read(self) -> bytes:
        return self.groups.read(self.file, self.row_group, self.row)


class RowGroups:
    """The image columns of some Parquet files, with the row groups last used kept in memory; safe on several threads.

    column: its values are bytes, structs with the field `bytes` and maybe `path`, or lists of one of these. A null
    `bytes` beside a `path` means an image file of that path, relative to the Parquet file. Memory: `most` bytes, or the
    CACHED_AT_LEAST last row groups where those are larger. Reading in order decodes each row group once.
    """

    def __init__(self, files: Sequence[Place], column: str, most: int = CACHED_BYTES) -> None:
        self._most = most
        self.files = list(files)
        self._column = column
        self._lock = Lock()
        self._kept: OrderedDict[tuple[int, int], pa.ChunkedArray] = OrderedDict()
        self._refused: dict[tuple[int, int], str] = {}  # each is tried once, not once a row
        self._named: tuple[tuple[int, int], list[str]] = (-1, -1), []  # of the row group last asked for

    def __reduce__(self) -> tuple[Any, ...]:
        """Elsewhere all that come of the same files are one, so that a row group is decoded once a process."""
        return _groups_of, (tuple(file.absolute() for file in self.files), self._column, self._most)

    def read(self, file: int, row_group: int, row: int) -> bytes:
        cell = _one_picture(self._cells(file, row_group)[row].as_py())
        data = cell.get("bytes")
        if data is not None:
            DEFAULT_LIMITS.check_bytes(len(data))
            return bytes(data)
        if cell.get("path"):
            return source_in(self.files[file].parent, cell["path"]).read()
        raise ImageError("the row holds no image bytes")

    def named(self, file: int, row_group: int, row: int) -> str:
        """The path beside the bytes of a picture, or instead of them; "" where there is none. No bytes are read."""
        key = (file, row_group)
        if self._named[0] != key:
            try:
                found = read_field(self.files[file], row_group, self._column, "path")
            except UNSOUND:
                found = None
            self._named = key, [] if found is None else [_path_in(cell) for cell in found.to_pylist()]
        return self._named[1][row] if self._named[1] else ""

    def _cells(self, file: int, row_group: int) -> pa.ChunkedArray:
        with self._lock:
            key = (file, row_group)
            if key in self._refused:
                raise ImageError(self._refused[key])
            if key not in self._kept:
                self._kept[key] = self._decode(file, row_group)
                while len(self._kept) > CACHED_AT_LEAST and sum(c.nbytes for c in self._kept.values()) > self._most:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def _decode(self, file: int, row_group: int) -> pa.ChunkedArray:
        path = self.files[file]
        try:
            return read_shared(path, row_group, self._column)
        except UNSOUND as error:
            reason = f"row group {row_group} of {path.name} cannot be read ({why(error)})"
            self._refused[file, row_group] = reason
            raise ImageError(reason) from error


@lru_cache(maxsize=SETS)
def _groups_of(files: tuple[Place, ...], column: str, most: int) -> RowGroups:
    return RowGroups(list(files), column, most)


def _path_in(cell: Any) -> str:
    inner = cell[0] if isinstance(cell, list) and cell else cell
    return str(inner.get("path") or "") if isinstance(inner, dict) else ""


def _one_picture(cell: Any) -> dict[str, Any]:
    """The cell as a struct. Raises ImageError where it is a list of several."""
    if isinstance(cell, list):
        if len(cell) > 1:
            raise ImageError(f"the row holds {len(cell)} pictures: one is needed")
        cell = cell[0] if cell else None
    return {"bytes": cell} if isinstance(cell, bytes) else cell or {}
