"""Pictures in tar files with what is said of each beside it, as WebDataset writes them, read in place.

A sample is all that has one name up to its first dot: 0001.jpg with 0001.cls (a number or a name), 0001.txt (a name)
or 0001.json (keys and values, the label under "label"). What a number is called stands in a file of names beside the
tar files, one a line. Several tar files are one set: a folder of them, or NAME-{000..009}.tar; those whose names begin
with train, val or test are those parts.

A tar file is whatever its maker put there. Only ordinary members count, by their names; links lead nowhere, and no name
becomes a path. A packed one (.tar.gz, .tgz) unpacks to a stated multiple of its size at most.
"""

from __future__ import annotations

import gzip
import json
import re
import tarfile
import weakref
import zlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from headstart.counted import counted
from headstart.data import columns
from headstart.data.folder_names import split_at_start
from headstart.data.images import DEFAULT_LIMITS
from headstart.data.sheet_truth import Truth, said_of, truth_of
from headstart.data.sheets import Sheet
from headstart.data.sources import Found, Row
from headstart.data.tree import shown
from headstart.data.truth import BETWEEN, Asked
from headstart.data.walk import DROPPINGS, PICTURES
from headstart.errors import DataError, ImageError
from headstart.files.far import Far, Place, open_place, part
from headstart.files.forks import Lock
from headstart.files.reading import open_regular, read_regular, why

TEXTS = (".txt", ".json", ".md", ".csv", ".tsv", ".yaml")  # beside tar files
TARS = (".tar", ".tar.gz", ".tgz")
MOST_MEMBERS = 5_000_000  # of a tar file: 1 GB of names and places
MOST_TEXT = 2**20  # bytes of what is said of one picture
MOST_HEADER = 2**20  # bytes of a long name, or of the other things that a member states of itself
UNPACKED, RATIO = 2**26, 100  # bytes that a packed one may unpack to, however small it is; and times its size
# Of the latest bytes that were unpacked, in memory: threads that read in order are not quite in order.
KEPT_BYTES = 128 * 2**20
STEP = 2**20  # bytes unpacked at a time
UNSOUND = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError)
NAMES = ("classes.txt", "class_names.txt", "classnames.txt", "labels.txt")  # what numbers are called, one a line
SAID = ("cls", "txt", "json")  # endings of what is said of a picture
_SEVERAL = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST_SHARDS = 100_000


@dataclass(frozen=True, slots=True)
class TarredSource:
    """One picture in a tar file: so many bytes from a place on."""

    tar: Tar
    offset: int
    size: int

    def read(self) -> bytes:
        DEFAULT_LIMITS.check_bytes(self.size)
        try:
            return self.tar.part(self.offset, self.size)
        except UNSOUND as error:
            raise ImageError(f"it cannot be read from the tar file ({why(error)})") from None


class Tar:
    """A tar file; safe on several threads. It travels to other processes, which open it for themselves."""

    def __init__(self, path: Place) -> None:
        self.path, self.packed = path, not path.name.lower().endswith(".tar")
        self._lock = Lock()
        self._unpacked: Unpacked | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Elsewhere all that come of the same file are one, so that a packed one is unpacked once a process."""
        return _opened_again, (self.path.absolute(),)

    def part(self, offset: int, size: int) -> bytes:
        """So many bytes from there on. Raises one of UNSOUND."""
        if self.packed:
            with self._lock:
                self._unpacked = self._unpacked or Unpacked(self.path)
                data = self._unpacked.part(offset, size)
        elif isinstance(self.path, Far):
            data = part(self.path, offset, size)
        else:
            with open_regular(self.path) as file:
                file.seek(offset)
                data = file.read(size)
        if len(data) != size:
            raise EOFError("it ends before the picture does")
        return data

    def opened(self) -> BinaryIO:
        """From its beginning, unpacked. Raises one of UNSOUND."""
        return Unpacked(self.path) if self.packed else open_place(self.path)  # type: ignore[return-value]


@lru_cache(maxsize=2)  # files that a process keeps open of those that came from another one
def _opened_again(path: Place) -> Tar:
    return Tar(path)


class Unpacked:
    """What a packed tar file holds, read forwards, with the latest KEPT_BYTES at hand; going back begins anew."""

    def __init__(self, path: Place) -> None:
        self._path = path
        self._begin()

    def _begin(self) -> None:
        file = open_place(self._path)
        self.most = max(UNPACKED, RATIO * file.seek(0, 2))
        file.seek(0)
        self._zipped = gzip.GzipFile(fileobj=file)
        self._closing = weakref.finalize(self, _close, self._zipped, file)
        self._parts: deque[bytes] = deque()
        self._start = self._end = self._at = 0  # of what is at hand, and where `read` goes on

    def tell(self) -> int:
        return self._at

    def seek(self, place: int, start: int = 0) -> int:
        self._at = place if start == 0 else self._at + place
        return self._at

    def read(self, count: int) -> bytes:
        data = self.part(self._at, count)
        self._at += len(data)
        return data

    def close(self) -> None:
        self._closing()

    def __enter__(self) -> Unpacked:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def part(self, offset: int, size: int) -> bytes:
        if offset < self._start:
            at = self._at
            self.close()
            self._begin()
            self._at = at
        while self._end < offset + size and (data := self._zipped.read(STEP)):
            self._parts.append(data)
            self._end += len(data)
            if self._end > self.most:
                raise ValueError(f"it unpacks to more than {self.most:,} bytes, {RATIO} times its size")
            while self._end - self._start > max(KEPT_BYTES, self._end - offset) and len(self._parts) > 1:
                self._start += len(self._parts.popleft())
        return self._joined(offset, size)

    def _joined(self, offset: int, size: int) -> bytes:
        found, at = [], self._start
        for data in self._parts:
            if at + len(data) > offset and at < offset + size:
                found.append(data[max(0, offset - at) : offset + size - at])
            at += len(data)
        return b"".join(found)


def _close(*files: BinaryIO | gzip.GzipFile) -> None:
    for file in files:
        file.close()


class _Bounded:
    """A file of which no more than MOST_HEADER bytes are read at a time: headers come whole, contents by place."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int) -> bytes:
        if not 0 <= count <= MOST_HEADER:
            raise OSError(f"what a member states of itself has {count:,} bytes, more than {MOST_HEADER:,}")
        return self._file.read(count)


@dataclass
class _Sample:
    """What has one name in a tar file: the picture's member, and the texts that say something of it, by ending."""

    picture: tuple[str, str, int, int] = ("", "", 0, 0)  # ending, name, offset, size
    said: dict[str, str] = field(default_factory=dict)


def is_tar(name: str) -> bool:
    return name.lower().endswith(TARS)


def several(text: str) -> list[str]:
    """The names that NAME-{000..009}.tar stands for; the text itself where it stands for one. Raises DataError."""
    found = _SEVERAL.search(text)
    if not found:
        return [text]
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < MOST_SHARDS:
        raise DataError(f"{shown(text)} stands for {last - first + 1:,} files: from 1 to {MOST_SHARDS:,} can be read")
    width = len(found[1]) if found[1].startswith("0") else 1
    numbered = (f"{text[: found.start()]}{k:0{width}d}{text[found.end() :]}" for k in range(first, last + 1))
    return [name for one in numbered for name in several(one)]


def tars_at(path: str) -> list[Path]:
    """The tar files that a path stands for: itself, those of NAME-{000..009}.tar, or those of a folder in which nothing
    else lies but texts; [] for anything else. Raises DataError."""
    place = Path(path)
    if place.is_dir():
        return _in_folder(place)
    if not is_tar(place.name):
        return []
    if place.exists():
        return [place]
    names = several(path)
    return [Path(name) for name in names] if names != [path] else []


def _in_folder(folder: Path) -> list[Path]:
    try:
        inside = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError:
        return []
    tars = {path for path in inside if is_tar(path.name)}
    alone = tars and all(path in tars or (path.suffix.lower() in TEXTS and path.is_file()) for path in inside)
    return sorted(tars, key=lambda path: path.name.encode("utf-8", "surrogateescape")) if alone else []


def read_tars(files: Sequence[Place], where: str, asked: Asked | None) -> Found:
    """The pictures in tar files, with what is said of each. asked: of the truth, None: none. Raises DataError."""
    rows: list[Row] = []
    records: list[dict[str, Any]] = []
    strays, broken = Counter[str](), list[str]()
    for file in files:
        tar, split = Tar(file), split_at_start(file.name) or "none"
        for sample in _samples(tar, asked is not None, strays, broken):
            _, name, offset, size = sample.picture
            rows.append(Row(shown(f"{file.name}/{name}"), TarredSource(tar, offset, size), "", split))
            records.append(_record(sample, f"{shown(str(file))}: {shown(name)}") if asked else {})
    if not rows:
        said = f": {broken[0]}" if broken else ": each is NAME.jpg or the like, with NAME.cls beside it"
        raise DataError(f"{where} holds no pictures{said}")
    notes = [*broken, *(f"passed over {n:,} {what}" for what, n in sorted(strays.items()))]
    kind = f"pictures in {counted(len(files), 'tar file')}"
    if asked is None:
        return Found(rows, notes, f"{where}: {kind}, {counted(len(rows), 'image')}")
    sheet = _sheet(where, records, files[0].parent)
    told = columns.described(sheet, asked)
    splits = [
        own if split == "none" else split for own, split in zip((r.split for r in rows), told.splits, strict=True)
    ]
    truth: Truth = truth_of(sheet, asked, splits)
    rows = [
        row._replace(label=label, split=split, group=group, time=time)
        for row, label, split, group, time in zip(rows, truth.texts, splits, told.groups, told.times, strict=True)
    ]
    what = f"{where}: {kind}, {said_of(rows, truth)}{told.grouped}"
    return Found(rows, [*notes, *sheet.notes], what, truth.task, truth.columns)


def _samples(tar: Tar, with_texts: bool, strays: Counter[str], broken: list[str]) -> Iterator[_Sample]:
    """The samples of a tar file that hold a picture, in its order, as far as it can be read."""
    found: dict[str, _Sample] = {}
    try:
        with tar.opened() as file:
            for name, offset, size in _members(file, strays):
                key, ending = _key(name)
                sample = found.setdefault(key, _Sample())
                last = ending.rpartition(".")[2]
                if ending in SAID:
                    if with_texts:
                        sample.said[ending] = _text(file, name, offset, size)
                elif last not in PICTURES:
                    strays["files in tar files that are no pictures"] += 1
                elif not sample.picture[1] or "." in sample.picture[0]:  # 1.jpg before 1.mask.png
                    sample.picture = (ending, name, offset, size)
    except UNSOUND as error:
        n = sum(bool(sample.picture[1]) for sample in found.values())
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else why(error)
        used = f": {counted(n, 'picture')} before that {'is' if n == 1 else 'are'} used" if n else ""
        broken.append(f"{shown(str(tar.path))} cannot be read as a tar file to its end ({reason}){used}")
    for sample in found.values():
        if sample.picture[1]:
            yield sample
        else:
            strays["names in tar files without a picture"] += 1


def _members(file: BinaryIO, strays: Counter[str]) -> Iterator[tuple[str, int, int]]:
    """(name, place, bytes) of each ordinary member."""
    n = last = 0
    with tarfile.TarFile(fileobj=_Bounded(file), mode="r") as opened:  # type: ignore[arg-type]
        while (info := opened.next()) is not None:
            vars(opened)["members"] = []  # it would keep them all
            n += 1
            if n > MOST_MEMBERS:
                raise ValueError(f"it has more than {MOST_MEMBERS:,} members")
            if opened.offset <= last:  # a size below zero leads back, and never to the end
                raise ValueError(f"it is damaged at byte {last:,}")
            last = opened.offset
            parts = info.name.split("/")
            if info.isdir():
                continue
            if not info.isreg() or info.sparse is not None:
                strays["links and other things in tar files that are no ordinary files"] += 1
            elif any(part.startswith(".") or part.lower() in DROPPINGS for part in parts if part != "."):
                strays["hidden files in tar files"] += 1
            else:
                yield info.name, info.offset_data, info.size
        file.seek(last)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise ValueError(f"it is damaged at byte {last:,}")


def _key(name: str) -> tuple[str, str]:
    """(name up to the first dot of its last part, ending in small letters)."""
    folder, slash, last = name.rpartition("/")
    stem, _, ending = last.partition(".")
    return f"{folder}{slash}{stem}", ending.lower()


def _text(file: BinaryIO, name: str, offset: int, size: int) -> str:
    if size > MOST_TEXT:
        raise ValueError(f"{shown(name)} has {size:,} bytes, more than {MOST_TEXT:,}")
    file.seek(offset)
    try:
        return file.read(size).decode()
    except UnicodeDecodeError:
        raise ValueError(f"{shown(name)} is no UTF-8 text") from None


def _record(sample: _Sample, where: str) -> dict[str, Any]:
    """What is said of a picture, as keys and values. Raises DataError."""
    found: dict[str, Any] = {}
    if "json" in sample.said:
        try:
            said = json.loads(sample.said["json"])
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: what is said of it is no JSON: {error}") from error
        found = said if isinstance(said, dict) else {"label": said}
    text = sample.said.get("cls", "" if "label" in found else sample.said.get("txt", "")).strip()
    return found | ({"label": text} if text else {})


def _sheet(where: str, records: Sequence[dict[str, Any]], folder: Place) -> Sheet:
    """What is said of all pictures, as columns; keys that hold objects are left out."""
    names = list(dict.fromkeys(key for record in records for key in record)) or ["label"]
    sheet = Sheet(where, "tar files", names, unit="picture", numbers=list(range(1, len(records) + 1)))
    for place, name in enumerate(names):
        values = [record.get(name) for record in records]
        if any(isinstance(value, dict) for value in values):
            continue
        if any(isinstance(value, list) for value in values):
            sheet.sets[place] = [
                None if v is None else tuple(map(str, v if isinstance(v, list) else [v])) for v in values
            ]
            sheet.values[place] = [BETWEEN.join(held or ()) for held in sheet.sets[place]]
        else:
            sheet.values[place] = ["" if value is None else str(value) for value in values]
    if "label" in names and (called := _called(folder)) and (place := names.index("label")) not in sheet.sets:
        sheet.values[place] = [_named(text, called) for text in sheet.values[place]]
        sheet.stated.append(place)
    return sheet


def _named(text: str, called: Sequence[str]) -> str:
    return called[int(text)] if text.isdecimal() and int(text) < len(called) else text


def _called(folder: Place) -> list[str]:
    """The names of classes by number, of a file beside the tar files; [] where there is none."""
    for name in NAMES:
        try:
            data = (
                folder.beside(name).read(MOST_TEXT)
                if isinstance(folder, Far)
                else read_regular(folder / name, MOST_TEXT)
            )
            return [line.strip() for line in data.decode().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError):
            continue
    return []
