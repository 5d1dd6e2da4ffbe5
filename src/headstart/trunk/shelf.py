"""What was made once and need not be made again: facts about networks, and networks compiled for this machine.

    ROOT/networks/KEY-SUM    KEY: the hash of all that it depends on; SUM: the hash of its bytes

A file is written beside its place and then renamed, and is read only where its bytes are those that were written.
Where the disk refuses, or something is damaged, it counts as absent: all of this can be made again, at the cost of
importing torch and timm, most of a short run. What was not used for longest goes when it is more than MOST_BYTES.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from headstart.errors import OutputError
from headstart.files.reading import read_regular, why
from headstart.files.whole import sweep, write_whole

MOST_BYTES = 4 * 2**30  # a hundred networks of the default's size
MOST_FILE = 2**36  # bytes of a file that is read: no network is larger
FOLDER = "networks"


class Shelf:
    """Things of one cache folder, each under the description of all that it depends on."""

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER

    def read(self, about: Mapping[str, Any]) -> bytes | None:
        """What was kept under this description, None where there is nothing, or no longer what was written."""
        for path in self.folder.glob(f"{_key(about)}-*"):
            with suppress(OSError):
                content = read_regular(path, MOST_FILE)
                if _digest(content) == path.name.rpartition("-")[2]:
                    os.utime(path)  # used: it stays longest
                    return content
                path.unlink()
        return None

    def write(self, about: Mapping[str, Any], content: bytes) -> None:
        """Keep it, if the disk lets us."""
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{_key(about)}-{_digest(content)}"
            write_whole(path, lambda place: place.write_bytes(content))
            self._make_room(path)

    def fact(self, about: Mapping[str, Any]) -> Any:
        """The JSON that was kept, None where there is none."""
        content = self.read(about)
        with suppress(ValueError):
            return None if content is None else json.loads(content)
        return None

    def note(self, about: Mapping[str, Any], fact: Any) -> None:
        """Keep what JSON can hold."""
        self.write(about, json.dumps(fact).encode())

    def _make_room(self, newest: Path) -> None:
        sweep(self.folder)
        known = sorted(((path.stat(), path) for path in files(self.folder.parent)), key=lambda f: f[0].st_mtime)
        total = sum(stat.st_size for stat, _ in known)
        for stat, path in known:
            if total <= MOST_BYTES:
                return
            if path != newest:
                path.unlink(missing_ok=True)
                total -= stat.st_size


def files(root: Path) -> list[Path]:
    """Everything that is kept there."""
    return sorted(path for path in (root / FOLDER).glob("[!.]*-*") if path.is_file())


def kept_bytes(root: Path) -> int:
    """What it takes on disk; another process may delete some meanwhile."""
    total = 0
    for path in files(root):
        with suppress(OSError):
            total += path.stat().st_size
    return total


def clear(root: Path) -> None:
    """Delete all of it. Raises OutputError."""
    try:
        for path in files(root):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"the cache {root} cannot be cleared ({why(error)}: {error.filename})") from None


def _key(about: Mapping[str, Any]) -> str:
    return _digest(json.dumps(about, sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
