"""A file is written beside its place and then takes it: it is there whole, or as it was before.

What a kill leaves is a hidden `.NAME.TOKEN.partial` that nobody reads; `sweep` removes it later. Two writers at once
write a file each, and the last one's stays. A link is followed. A pipe, a device or a folder is never replaced.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from headstart.files.reading import kind_of

REMAINS = re.compile(r"\.(.*)\.[0-9a-f]{32}\.partial", re.DOTALL)
NAME = 40  # characters of the file's name in that of its partial one: file systems allow 255 bytes in all
ABANDONED = 3600.0  # s: no file of headstart takes an hour to write


def write_whole(path: Path, write: Callable[[Path], object], partial: Path | None = None) -> None:
    """`write` beside the place, flush to the disk, rename. Raises OSError.

    `partial`: the place beside it, of one who writes there alone: what a kill has left of it goes first.
    """
    place = _place(path)
    if partial is not None:
        partial.unlink(missing_ok=True)
    partial = partial or _beside(place)
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(place)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def probe(path: Path) -> None:
    """Raise OSError now if `write_whole` could not write there. Leaves nothing behind, old remains included."""
    place = _place(path)
    sweep(place.parent, place.name)
    trial = _beside(place)
    trial.touch(exist_ok=False)
    trial.unlink()


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what killed writers of this file, or of any file in the folder, left more than an hour ago."""
    with suppress(OSError):
        for path in list(folder.iterdir()):
            found = REMAINS.fullmatch(path.name)
            if found and (name is None or found[1] == name[:NAME]):
                with suppress(OSError):
                    if time.time() - path.lstat().st_mtime > ABANDONED:
                        path.unlink()


def _place(path: Path) -> Path:
    """Where a link leads. Raises OSError where something else than a file lies there."""
    place = Path(os.path.realpath(path))
    with suppress(FileNotFoundError):
        kind = place.stat().st_mode
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, f"{kind_of(kind)} lies there", str(path))
    return place


def _beside(place: Path) -> Path:
    return place.with_name(f".{place.name[:NAME]}.{uuid.uuid4().hex}.partial")
