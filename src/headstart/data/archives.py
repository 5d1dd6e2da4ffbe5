"""Pictures in a zip file, read one at a time and unpacked nowhere.

The list of contents and each picture are read up to a stated size, whatever the archive says of them. Refused are
members that need a password, and ways of packing other than deflate, which unpack without a bound.
"""

from __future__ import annotations

import struct
import weakref
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from headstart.counted import counted
from headstart.data.images import DEFAULT_LIMITS
from headstart.data.sources import Found, Row
from headstart.data.tree import shown
from headstart.data.walk import DROPPINGS, NO_IMAGE
from headstart.errors import DataError, ImageError
from headstart.files.far import Place, open_place
from headstart.files.forks import Lock
from headstart.files.reading import why

MOST_CONTENTS = 64 * 2**20  # bytes of the list of contents: half a million pictures, which take 10 times that in memory
UNSOUND = (  # what a zip file that is none raises
    *(zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, NotImplementedError, RuntimeError, ValueError),
    OverflowError,
)
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
NEEDS_PASSWORD = 1  # bit of a member's flags


@dataclass(frozen=True, slots=True)
class MemberSource:
    """One picture in a zip file."""

    archive: Archive
    name: str

    def read(self) -> bytes:
        return self.archive.read(self.name)


class Archive:
    """A zip file; safe on several threads. Raises DataError where it cannot be opened."""

    def __init__(self, path: Place) -> None:
        self._lock, self.path = Lock(), path
        try:
            file = open_place(path)
        except OSError as error:
            raise DataError(f"{shown(str(path))} cannot be read: {why(error)}") from error
        weakref.finalize(self, file.close)
        try:
            bounded = _Bounded(file)
            self._zip = zipfile.ZipFile(bounded)  # type: ignore[arg-type]
            bounded.most = DEFAULT_LIMITS.max_bytes
        except UNSOUND as error:
            raise DataError(f"{shown(str(path))} is not a sound zip file: {why(error)}") from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Elsewhere it is opened again, once a process."""
        return _opened_again, (self.path.absolute(),)

    def names(self) -> list[str]:
        """Of all that is no folder, sorted bytewise; each once."""
        names = {info.filename for info in self._zip.infolist() if not info.is_dir()}
        return sorted(names, key=lambda name: name.encode("utf-8", "surrogateescape"))

    def read(self, name: str) -> bytes:
        """The bytes of a member. Raises ImageError."""
        info = self._zip.getinfo(name)
        if info.flag_bits & NEEDS_PASSWORD:
            raise ImageError("it needs a password: unpack the zip file first")
        if info.compress_type not in PACKED:
            raise ImageError("it is packed in a way that is not supported: pack the zip file anew, or unpack it")
        DEFAULT_LIMITS.check_bytes(info.file_size)
        try:
            with self._lock, self._zip.open(info) as member:
                return member.read()
        except UNSOUND as error:
            raise ImageError(f"it cannot be unpacked ({why(error)})") from error


@lru_cache(maxsize=2)  # files that a process keeps open of those that came from another one
def _opened_again(path: Place) -> Archive:
    return Archive(path)


class _Bounded:
    """A file of which no more than `most` bytes are read at a time; the list of contents is read at once, and first."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.most = file, MOST_CONTENTS
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(count if 0 <= count <= self.most else self.most + 1)
        if len(data) > self.most:
            raise OSError(f"a part of it has more than {self.most:,} bytes")
        return data


def read_zip(path: Place) -> Found:
    """The pictures in a zip file, without labels. Raises DataError."""
    archive = Archive(path)
    rows, passed = [], 0
    for name in archive.names():
        parts = PurePosixPath(name.replace("\\", "/")).parts
        hidden = any(part.startswith(".") or part.lower() in DROPPINGS for part in parts)
        if hidden or name.rpartition(".")[2].lower() in NO_IMAGE:
            passed += 1
        else:
            rows.append(Row(shown(f"{path}/{name}"), MemberSource(archive, name), "", "none"))
    notes = [f"{shown(str(path))}: {passed} files in it are no pictures"] if passed else []
    return Found(rows, notes, f"{counted(len(rows), 'image')} in a zip file")
