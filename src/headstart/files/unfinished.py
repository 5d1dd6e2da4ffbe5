"""Work that is cut short goes on: its parts lie in one file beside the output until that is written.

    FILE.part:  MAGIC, then frames: number, bytes and checksum of a frame, then its bytes; frame 0 says of what work

A frame is there whole or not at all: what a kill or a full disk has torn is cut off when the file is opened again, with
all that follows. The frames are used only where frame 0 says the same as the new work, to the letter. One process at a
time works on a file; it holds a lock that the system takes back when the process ends, however it ends. A file of this
name that somebody else made is left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from headstart.errors import OutputError
from headstart.files.reading import kind_of, why

MAGIC = b"headstart, unfinished 1\n"
ENDING = ".part"
NEW = ".new"  # after it: the output while it is written, by the one process that works here
LONGEST = 255  # bytes of a file's name
HEAD = struct.Struct("<QQI")  # number of the frame, its bytes, CRC-32 of both and of its content
MOST_FRAME = 2**31  # bytes
OPENED = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


class Unfinished:
    """The frames of a piece of work. `differs`: the first thing in which what lay there was other work, or None;
    `needed`: whether they are kept when something fails."""

    def __init__(self, path: Path, file: int, about: Mapping[str, str]) -> None:
        self.path, self._file = path, file
        self.differs: str | None = None
        self.needed = True
        self._ends: list[int] = []  # of the frames that are whole, the first one left out
        self._begin(about)

    @property
    def new(self) -> Path:
        """Where the output is written before it takes its place: what a kill leaves there is written over."""
        return self.path.with_name(self.path.name + NEW)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[bytes]:
        for number in range(1, len(self._ends)):
            start = self._ends[number - 1]
            yield self._content(number, start, self._ends[number] - start)

    def append(self, content: bytes) -> None:
        """One more frame. Raises OutputError; then it is not there."""
        number, end = len(self._ends), self._ends[-1] if self._ends else 0
        begin = b"" if number else MAGIC
        frame = begin + HEAD.pack(number, len(content), _sum(number, content)) + content
        try:
            _write(self._file, frame, end)
        except OSError as error:
            reason = f"{self.path} cannot be written ({why(error)})"
            raise OutputError(f"{reason}: make room, and the same command goes on from there") from None
        self._ends.append(end + len(frame))

    def _begin(self, about: Mapping[str, str]) -> None:
        self._scan()
        known = _parsed(self._content(0, len(MAGIC), self._ends[0] - len(MAGIC))) if self._ends else None
        if known == dict(about):
            os.ftruncate(self._file, self._ends[-1])  # what is torn goes
            return
        if known is not None:
            self.differs = next((name for name in about if known.get(name) != about[name]), "format")
        self._ends = []
        os.ftruncate(self._file, 0)
        self.append(json.dumps(dict(about)).encode())

    def _scan(self) -> None:
        """Finds the frames that are whole."""
        end, size = len(MAGIC), os.fstat(self._file).st_size
        while end + HEAD.size <= size:
            number, count, stated = HEAD.unpack(_read(self._file, HEAD.size, end))
            if number != len(self._ends) or count > min(MOST_FRAME, size - end - HEAD.size):
                return
            if stated != _sum(number, _read(self._file, count, end + HEAD.size)):
                return
            end += HEAD.size + count
            self._ends.append(end)

    def _content(self, number: int, start: int, size: int) -> bytes:
        """Of a frame that lies there. Raises OutputError where it has changed meanwhile."""
        frame = _read(self._file, size, start)
        content = frame[HEAD.size :]
        if len(frame) != size or HEAD.unpack(frame[: HEAD.size]) != (number, len(content), _sum(number, content)):
            raise OutputError(f"{self.path} was changed by another program: remove it and give the command again")
        return content


@contextmanager
def unfinished(output: Path, about: Mapping[str, str]) -> Iterator[Unfinished]:
    """What lies beside an output of the same work; it is removed when the block ends well, and stays otherwise, unless
    nothing was done. about: what the work depends on, by names that a message can use.

    Raises OutputError where it cannot be written, another process is at work there, or the file is somebody else's.
    """
    path, work, well = _beside(output), None, False
    file = _opened(path)
    try:
        work = Unfinished(path, file, about)
        yield work
        well = True
    finally:
        _close(path, file, keep=not well and work is not None and work.needed and len(work) > 0)


def _beside(output: Path) -> Path:
    """Where the half-done work for an output lies."""
    place = Path(os.path.realpath(output))
    name = f"{place.name}{ENDING}"
    if len(os.fsencode(name + NEW)) > LONGEST:
        name = hashlib.blake2b(os.fsencode(place.name), digest_size=16).hexdigest() + ENDING
    return place.with_name(name)


def _opened(path: Path) -> int:
    """A file of ours, or an empty one, locked. Raises OutputError."""
    while True:
        try:
            file = os.open(path, OPENED, 0o666)
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({why(error)}): choose another -o") from None
        ours = False
        try:
            ours = _is_there(path, _checked(path, file))
        finally:
            if not ours:
                os.close(file)
        if ours:
            return file  # else the one that held it has ended meanwhile, and removed it


def _checked(path: Path, file: int) -> os.stat_result:
    """What the system says of it. Raises OutputError for what is not ours, and for what another process holds."""
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode):
        raise OutputError(f"{path} cannot be written ({kind_of(found.st_mode)} lies there): choose another -o")
    if not MAGIC.startswith(_read(file, len(MAGIC), 0)):
        raise OutputError(f"{path} is no half-done work of headstart: rename it or remove it, or choose another -o")
    if not _lock(file):
        raise OutputError(f"another process is at work on {path}: wait until it has ended, or choose another -o")
    return found


def _is_there(path: Path, found: os.stat_result) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), found)
    return False


def _lock(file: int) -> bool:
    """Whether nobody else works on it. A file system without locks takes everybody at their word."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(file, 2**62, os.SEEK_SET)  # a lock there hinders no reading
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _close(path: Path, file: int, keep: bool) -> None:
    if keep or sys.platform == "win32":  # no open file can be removed there
        os.close(file)
    with suppress(OSError):
        if not keep:
            path.unlink()
    if not keep and sys.platform != "win32":
        os.close(file)  # last: until then nobody else takes a file of this name for free


def _sum(number: int, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(struct.pack("<QQ", number, len(content)), 1))


def _parsed(content: bytes) -> dict[str, str] | None:
    try:
        found = json.loads(content)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _read(file: int, count: int, at: int) -> bytes:
    os.lseek(file, at, os.SEEK_SET)
    parts = []
    while count and (part := os.read(file, count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _write(file: int, content: bytes, at: int) -> None:
    os.lseek(file, at, os.SEEK_SET)
    left = memoryview(content)
    while left:
        left = left[os.write(file, left) :]
