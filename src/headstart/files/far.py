"""Files that lie elsewhere, by their addresses; `far_stores.py` asks for them.

| address | who reads it |
|---|---|
| https://, http:// | httpx2: whole files, and parts where the server gives them; a web server lists no folders |
| s3://, gs://, hdfs://, viewfs:// | pyarrow's file systems |
| hf:// (datasets/NAME/PATH), memory:// | fsspec |

What opens an address by itself (user:password@, a signature after the question mark) is left out wherever it is shown.
Nothing that is read is written to the disk. Those of pyarrow's and memory:// take files too (`put.py`). Everything
raises OSError, whose `strerror` is one line.
"""

from __future__ import annotations

import errno
import io
import os
import posixpath
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode, urljoin, urlsplit

from headstart.files.far_stores import SCHEMES, WEB, WRITTEN, Listed, Store, store_of, unlike_the_system
from headstart.files.reading import open_regular

_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)})://[^/\s]", re.IGNORECASE)
_ANY = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
HARMLESS = frozenset(  # parameters of an address that say which file is meant; some of all others open it
    """id name file filename path image img page n index w h width height size format fmt v version raw dl
    download""".split()  # noqa: SIM905
)
BLOCK = 4 * 2**20  # bytes fetched at a time of a file that is read in parts: some four pages of a Parquet file
BLOCKS = 64  # of them in memory: a row group of 256 MiB
T = TypeVar("T")


def is_far(text: object) -> bool:
    """Whether this is the address of something elsewhere, and not a path."""
    return isinstance(text, Far) or (isinstance(text, str) and _ADDRESS.match(text) is not None)


def is_address(text: str) -> bool:
    """Whether it is one of any kind, also of one that nobody here reads."""
    return _ANY.match(text) is not None and not text.lower().startswith("file:")


def of_another_kind(text: str) -> str:
    """What to say of an address that nobody here reads; "" for a path."""
    scheme = _ANY.match(text)
    if scheme is None or not is_address(text):
        return ""
    return f"{scheme[1]}:// is not read: " + ", ".join(f"{name}://" for name in SCHEMES if name != "memory") + " are"


def shown(address: str) -> str:
    """The address without what opens it: no user, no password, and of what follows a question mark only HARMLESS."""
    scheme, _, rest = address.strip().partition("://")
    place, slash, path = rest.partition("/")
    place = place.rpartition("@")[2]
    if scheme.lower() in WEB or re.search(r"\?[^/=]+=", path):
        path, _, query = path.partition("#")[0].partition("?")
        kept = [(name, value) for name, value in parse_qsl(query) if name.lower() in HARMLESS]
        path += f"?{urlencode(kept)}" if kept else ""
    return f"{scheme}://{place}{slash}{path}"


@dataclass(frozen=True)
class Far:
    """A file or folder elsewhere, as far as possible with the words of a Path. `stamp`: what its store said of it when
    it was listed: size and time of change; "" where nothing is known. As text it is what may be shown."""

    address: str = field(repr=False)
    stamp: str = ""

    def __str__(self) -> str:
        return shown(self.address)

    @property
    def scheme(self) -> str:
        return self.address.strip().partition("://")[0].lower()

    @property
    def name(self) -> str:
        """The last part of its path."""
        path = self.address.strip().partition("://")[2]
        path = unquote(path.partition("?")[0].partition("#")[0]) if self.scheme in WEB else path
        return posixpath.basename(path.rstrip("/"))

    @property
    def stem(self) -> str:
        return posixpath.splitext(self.name)[0]

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.name)[1]

    @property
    def parent(self) -> Far:
        """What it lies in; a signature of the one file opens no other."""
        base = self.address.partition("?")[0] if self.scheme in WEB else self.address
        return Far(base.rstrip("/").rpartition("/")[0])

    @property
    def bucket(self) -> Far:
        """The first part of its path."""
        scheme, _, rest = self.address.strip().partition("://")
        return Far(f"{scheme}://{rest.partition('/')[0]}")

    def __truediv__(self, name: str) -> Far:
        return self.within(name)

    def absolute(self) -> Far:
        """As of a Path: an address is whole."""
        return self

    def beside(self, name: str) -> Far:
        """A file that is named from this folder: by an address of its own, or by a path."""
        if is_far(name):
            return Far(name.strip())
        name = name.strip().replace("\\", "/")
        if self.scheme not in WEB:
            scheme, _, rest = self.address.partition("://")
            root, _, path = rest.partition("/")
            return Far(f"{scheme}://{root}{posixpath.normpath(posixpath.join('/', path, name.lstrip('/')))}")
        base = self.address.partition("?")[0]
        return Far(urljoin(f"{base.rstrip('/')}/", quote(name.lstrip("/"))))

    def within(self, path: str, stamp: str = "") -> Far:
        """What lies at a path below this folder, as its store lists it."""
        return Far(f"{self.address.strip().rstrip('/')}/{path}", stamp)

    def read(self, most: int) -> bytes:
        """All of it, at most so many bytes. Raises OSError."""
        return _asked(self, lambda store, address: store.read(address, most))

    def open(self) -> Parts:
        """For reading here and there. Raises OSError."""
        return Parts(self)

    def is_dir(self) -> bool:
        """Whether it is a folder. Raises OSError where it cannot be asked."""
        return _asked(self, lambda store, address: store.is_folder(address))

    def names(self) -> dict[str, int | None]:
        """What lies in this folder: bytes by name, None for a folder; nothing where it is not there. Raises OSError."""
        return _asked(self, lambda store, address: store.names(address))

    def write(self, file: Path) -> None:
        """As a file of this disk is, whole or not at all. Raises OSError."""
        _asked(self, lambda store, address: store.write(address, str(file)))

    def unlink(self) -> None:
        """Raises OSError."""
        _asked(self, lambda store, address: store.remove(address))

    @property
    def takes_files(self) -> bool:
        return self.scheme in WRITTEN


Place = Path | Far


def place_of(text: str | Path | Far) -> Place:
    """A path, or what an address names."""
    if isinstance(text, Far):
        return text
    return Far(text.strip()) if isinstance(text, str) and is_far(text) else Path(text)


def open_place(place: Place) -> BinaryIO:
    """An ordinary file of this disk, or one elsewhere. Raises OSError."""
    return place.open() if isinstance(place, Far) else open_regular(place)  # type: ignore[return-value]


def listed(folder: Far) -> list[Listed]:
    """All files below a folder, in bytewise order of their paths. Raises OSError."""
    found = _asked(folder, lambda store, address: store.below(address))
    return sorted(found, key=lambda one: one.path.encode("utf-8", "surrogateescape"))


class Parts(io.RawIOBase):
    """A file elsewhere, of which parts are fetched as they are read, BLOCK bytes at a time."""

    def __init__(self, far: Far) -> None:
        self.far, self.name = far, str(far)
        self.size, self._part = _asked(far, lambda store, address: store.open(address))
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, place: int, start: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[start]
        self._at = max(0, base + place)
        return self._at

    def read(self, count: int | None = -1) -> bytes:
        end = self.size if count is None or count < 0 else min(self.size, self._at + count)
        found = []
        while self._at < end:
            number = self._at // BLOCK
            part = self._block(number)[self._at - number * BLOCK : end - number * BLOCK]
            if not part:
                raise OSError(errno.EIO, "it became shorter while it was read")
            found.append(part)
            self._at += len(part)
        return b"".join(found)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            start = number * BLOCK
            count = min(BLOCK, self.size - start)
            self._blocks[number] = _kept_in_line(self.far, lambda: self._part(start, count))
            if len(self._blocks) > BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]


def part(far: Far, start: int, count: int) -> bytes:
    """So many bytes of a file from there on. Raises OSError."""
    return _asked(far, lambda store, address: store.part(address, start, count))


def _asked(far: Far, ask: Callable[[Store, str], T]) -> T:
    """What its store says of the address. Raises OSError."""
    address = far.address.strip()
    return _kept_in_line(far, lambda: ask(store_of(far.scheme, address), address))


def _kept_in_line(far: Far, ask: Callable[[], T]) -> T:
    """What is asked. Raises OSError with one line that holds nothing that opens the address."""
    try:
        return ask()
    except OSError as error:
        raise _said(far, error, error.errno or errno.EIO) from None
    except unlike_the_system() as error:
        raise _said(far, error, errno.EIO) from None


def _said(far: Far, error: Exception, number: int) -> OSError:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    text = text.replace(far.address.strip(), str(far))
    secret = [far.address.partition("://")[2].partition("/")[0].rpartition("@")[0], urlsplit(far.address).query]
    for word in filter(None, secret):
        text = text.replace(word, "...")
    text = re.sub(
        r"(?i)\b(x-amz-\w+|x-goog-\w+|authorization|aws\w*key\w*|token|sig|signature)[=:]\S+", r"\1=...", text
    )
    lines = text.splitlines()
    if isinstance(error, FileNotFoundError) or "NoSuchKey" in text or "NoSuchBucket" in text:
        return FileNotFoundError(errno.ENOENT, "it is not there")
    return OSError(number, (lines[0] if lines else type(error).__name__)[:300])
