"""The one door to web servers (httpx2), to pyarrow's file systems and to fsspec: what each says of an address.

Who may read is found by each client's own convention, in the environment and its profile files, and never said or kept.
Addresses come in with all that opens them, and what is raised here may name it: `far.py` makes a line of it.
"""

from __future__ import annotations

import datetime
import errno
import os
import re
import sys
import time
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit

WEB = ("http", "https")
# Not Azure's: its client ends the process where it finds no credentials (pyarrow 26).
ARROW = ("s3", "gs", "hdfs", "viewfs")
FSSPEC = ("hf", "memory")  # what a plain install has
SCHEMES = (*WEB, *ARROW, *FSSPEC)
BUCKETS = ("s3", "gs")  # where the first part of a path must be there, and folders need not
WRITTEN = (*ARROW, "memory")  # the hub takes commits, not files
RENAMED = ("hdfs", "viewfs")  # where a file is seen while it is written; a store of objects shows it when it is whole
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # variables that name another store than Amazon's
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
TRIES = 3  # of what fails for a moment
WAITS = (0.5, 2.0)  # s between them
TRANSIENT = frozenset((408, 425, 429, 500, 502, 503, 504))  # answers of a server after which it may be asked again
TO_CONNECT, TO_ANSWER = 10.0, 30.0  # s
LONGEST = datetime.timedelta(seconds=30)  # of tries by Google's client, which by itself goes on for 15 minutes
REDIRECTS = 5
DOWN = 30.0  # s for which a server that could not be reached in TRIES is tried once a file
MOST_LISTED = 2_000_000  # files of a folder, as on this disk
T = TypeVar("T")


class Listed(NamedTuple):
    """A file below a folder: its path from there, and what its store says of it."""

    path: str
    size: int
    stamp: str


class Opened(NamedTuple):
    """A file to be read here and there: its bytes, and (start, count) -> so many of them from there on."""

    size: int
    part: Callable[[int, int], bytes]


class Store(Protocol):
    """Who reads one kind of address."""

    def read(self, address: str, most: int) -> bytes: ...
    def part(self, address: str, start: int, count: int) -> bytes: ...
    def open(self, address: str) -> Opened: ...
    def is_folder(self, address: str) -> bool: ...
    def below(self, address: str) -> list[Listed]: ...
    def names(self, address: str) -> dict[str, int | None]: ...
    def write(self, address: str, file: str) -> None: ...
    def remove(self, address: str) -> None: ...


def unlike_the_system() -> tuple[type[Exception], ...]:
    """What the clients raise beside OSError; those of the hub's client too, which fsspec asks."""
    web = sys.modules.get("httpx2")
    own = () if web is None else (web.HTTPError, web.InvalidURL)
    return (ValueError, ImportError, RuntimeError, NotImplementedError, *own)


def store_of(scheme: str, address: str) -> Store:
    """Who reads this address; opened once in a process."""
    if scheme in WEB:
        return _web(os.getpid())
    return _filed(scheme, address.partition("://")[2].partition("/")[0], os.getpid())


def _too_large(size: int, most: int) -> OSError:
    return OSError(errno.EFBIG, f"it has {size:,} bytes, more than the limit of {most:,}")


@lru_cache(maxsize=1)
def _web(_process: int) -> _Web:
    return _Web()


class _Web:
    """Web servers, one client for all of them; safe on several threads."""

    def __init__(self) -> None:
        import httpx2

        limits = httpx2.Limits(max_connections=64, max_keepalive_connections=64)
        self._client = httpx2.Client(timeout=httpx2.Timeout(TO_ANSWER, connect=TO_CONNECT), limits=limits)
        weakref.finalize(self, self._client.close)
        self._down: dict[str, float] = {}  # server -> when it could not be reached

    def read(self, address: str, most: int) -> bytes:
        return self._tried(address, {}, lambda answer: _body(answer, most))

    def part(self, address: str, start: int, count: int) -> bytes:
        def taken(answer: Any) -> bytes:
            if answer.status_code != 206:
                raise OSError(errno.ENOTSUP, "its server gives no parts of files: download it first, and name the file")
            return _body(answer, count)

        return self._tried(address, {"Range": f"bytes={start}-{start + count - 1}"}, taken)

    def open(self, address: str) -> Opened:
        def stated(answer: Any) -> int:
            found = re.fullmatch(r"bytes \d+-\d+/(\d+)", answer.headers.get("Content-Range", ""))
            if answer.status_code != 206 or not found:
                raise OSError(errno.ENOTSUP, "its server gives no parts of files: download it first, and name the file")
            return int(found[1])

        size = self._tried(address, {"Range": "bytes=0-0"}, stated)
        return Opened(size, lambda start, count: self.part(address, start, count))

    def is_folder(self, address: str) -> bool:
        return False

    def below(self, address: str) -> list[Listed]:
        raise OSError(
            errno.ENOTSUP, "a web server lists no folders: name a list of addresses, a zip, tar or Parquet file"
        )

    def names(self, address: str) -> dict[str, int | None]:
        raise OSError(errno.ENOTSUP, "a web server takes no files")

    def write(self, address: str, file: str) -> None:
        raise OSError(errno.ENOTSUP, "a web server takes no files")

    def remove(self, address: str) -> None:
        raise OSError(errno.ENOTSUP, "a web server takes no files")

    def _tried(self, address: str, headers: dict[str, str], take: Callable[[Any], T]) -> T:
        import httpx2

        server = urlsplit(address).netloc
        tries = 1 if time.monotonic() - self._down.get(server, -DOWN) < DOWN else TRIES
        for wait in (*WAITS[: tries - 1], None):
            try:
                return self._asked(address, headers, take)
            except _LaterError as error:
                if wait is None:
                    raise OSError(errno.EIO, str(error)) from None
            except httpx2.TransportError as error:
                if wait is None:
                    self._down[server] = time.monotonic()
                    raise OSError(errno.EIO, f"its server cannot be reached ({_reason(error)})") from None
            except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.DecodingError) as error:
                raise OSError(errno.EINVAL, _reason(error)) from None
            time.sleep(wait)
        raise AssertionError

    def _asked(self, address: str, headers: dict[str, str], take: Callable[[Any], T]) -> T:
        """One try, through at most REDIRECTS redirects, none of them to another kind of address or out of https."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "headstart", **headers}
        request = self._client.build_request("GET", address, headers=headers)
        for _ in range(REDIRECTS + 1):
            answer = self._client.send(request, stream=True)
            try:
                if answer.next_request is None:
                    _check_status(answer.status_code)
                    return take(answer)
            finally:
                answer.close()
            last, request = request, answer.next_request
            if request.url.scheme not in WEB or (last.url.scheme == "https" and request.url.scheme == "http"):
                raise OSError(errno.EINVAL, "it leads on to an address that is not https")
        raise OSError(errno.ELOOP, f"it leads on more than {REDIRECTS} times")


class _LaterError(Exception):
    """A server that may answer later."""


def _check_status(code: int) -> None:
    if code in TRANSIENT:
        raise _LaterError(f"its server answers with {code}")
    if code in (404, 410):
        raise FileNotFoundError(errno.ENOENT, "it is not there")
    if code in (401, 403):
        raise PermissionError(errno.EACCES, f"its server refuses it ({code})")
    if not 200 <= code < 300:
        raise OSError(errno.EIO, f"its server answers with {code}")


def _body(answer: Any, most: int) -> bytes:
    stated = answer.headers.get("Content-Length", "")
    if stated.isdecimal() and int(stated) > most:
        raise _too_large(int(stated), most)
    data = bytearray()
    for piece in answer.iter_bytes():
        data += piece
        if len(data) > most:
            raise OSError(errno.EFBIG, f"it has more bytes than the limit of {most:,}")
    return bytes(data)


def _reason(error: Exception) -> str:
    """An error of a client, in a few words."""
    lines = str(error).splitlines()
    return lines[0][:200] if lines and lines[0] else type(error).__name__


@lru_cache(maxsize=16)
def _filed(scheme: str, place: str, _process: int) -> _Filed:
    import pyarrow.fs as pa_fs

    if scheme == "s3":
        return _Filed(_s3(place), by_place=True)
    if scheme == "gs":
        anonymous = place.startswith("anonymous@")
        return _Filed(pa_fs.GcsFileSystem(anonymous=anonymous, retry_time_limit=LONGEST), by_place=True)
    if scheme in ARROW:
        return _Filed(pa_fs.FileSystem.from_uri(f"{scheme}://{place}/")[0], by_place=False)
    import fsspec

    return _Filed(pa_fs.PyFileSystem(pa_fs.FSSpecHandler(fsspec.filesystem(scheme))), by_place=True)


def _s3(place: str) -> Any:
    """Amazon's store, or another that speaks as it does (AWS_ENDPOINT_URL)."""
    import pyarrow.fs as pa_fs

    user, _, bucket = place.rpartition("@")
    if user not in ("", "anonymous"):
        raise ValueError(
            "keys are not taken from an address: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
        )
    endpoint = next((found for name in ENDPOINTS if (found := os.environ.get(name))), "")
    where: dict[str, str] = {}
    if endpoint:
        where = {"scheme": urlsplit(endpoint).scheme, "endpoint_override": endpoint.partition("://")[2].rstrip("/")}
    elif not any(os.environ.get(name) for name in REGIONS):
        where = {"region": pa_fs.resolve_s3_region(bucket)}
    retry = pa_fs.AwsStandardS3RetryStrategy(max_attempts=TRIES)
    times = {"connect_timeout": TO_CONNECT, "request_timeout": TO_ANSWER}
    return pa_fs.S3FileSystem(anonymous=bool(user), retry_strategy=retry, **times, **where)


class _Filed:
    """A file system of pyarrow's or fsspec's; safe on several threads. by_place: paths begin with the bucket."""

    def __init__(self, system: Any, by_place: bool) -> None:
        self._system, self._by_place = system, by_place

    def _path(self, address: str) -> str:
        rest = address.partition("://")[2]
        place, slash, path = rest.partition("/")
        return (
            f"{place.rpartition('@')[2] if ':' not in place else place}{slash}{path}" if self._by_place else f"/{path}"
        )

    def read(self, address: str, most: int) -> bytes:
        with self._system.open_input_file(self._path(address)) as file:
            if file.size() > most:
                raise _too_large(file.size(), most)
            return bytes(file.read(file.size()))

    def part(self, address: str, start: int, count: int) -> bytes:
        with self._system.open_input_file(self._path(address)) as file:
            return bytes(file.read_at(count, start))

    def open(self, address: str) -> Opened:
        file = self._system.open_input_file(self._path(address))
        return Opened(file.size(), lambda start, count: bytes(file.read_at(count, start)))

    def is_folder(self, address: str) -> bool:
        import pyarrow.fs as pa_fs

        found = self._system.get_file_info(self._path(address).rstrip("/"))
        if found.type == pa_fs.FileType.NotFound:
            raise FileNotFoundError(errno.ENOENT, "it is not there")
        return bool(found.type == pa_fs.FileType.Directory)

    def below(self, address: str) -> list[Listed]:
        import pyarrow.fs as pa_fs

        top = self._path(address).rstrip("/")
        found = self._system.get_file_info(pa_fs.FileSelector(top, recursive=True))
        files = [one for one in found if one.type == pa_fs.FileType.File]
        if len(files) > MOST_LISTED:
            raise OSError(
                errno.EFBIG, f"it holds {len(files):,} files, more than the limit of {MOST_LISTED:,}: name a list"
            )
        base = len(top.lstrip("/")) + 1
        return [Listed(one.path.lstrip("/")[base:], one.size or 0, f"{one.size} {one.mtime_ns}") for one in files]

    def names(self, address: str) -> dict[str, int | None]:
        """Bytes by name of what lies in a folder itself, None for a folder; nothing where there is no folder."""
        import pyarrow.fs as pa_fs

        top = self._path(address).rstrip("/")
        found = self._system.get_file_info(pa_fs.FileSelector(top, allow_not_found=True))
        return {one.base_name: one.size for one in found}

    def write(self, address: str, file: str) -> None:
        """A copy of a file of this disk, which is there whole or not at all."""
        import pyarrow.fs as pa_fs

        path = self._path(address)
        beside = f"{path}.partial" if address.partition("://")[0].lower() in RENAMED else path
        here = {"source_filesystem": pa_fs.LocalFileSystem(), "destination_filesystem": self._system}
        pa_fs.copy_files(file, beside, **here)
        if beside != path:
            if self._system.get_file_info(path).type == pa_fs.FileType.File:
                self._system.delete_file(path)  # Hadoop renames onto nothing that is there
            self._system.move(beside, path)

    def remove(self, address: str) -> None:
        self._system.delete_file(self._path(address))
