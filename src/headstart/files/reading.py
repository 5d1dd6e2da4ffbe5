"""The bytes of an ordinary file, and of nothing else.

A named pipe may never answer, a device never ends, and what lies below /proc says that it is empty and is not. So a
file is opened without waiting, must be a regular one, and no more of it is read than it said that it holds.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

MOST_TEXT = 64 * 2**20
"""Bytes of a JSON document, the largest text that a saved model holds: a metrics.json of 1,000 classes has 2 MB."""


def open_regular(path: str | Path) -> BinaryIO:
    """A regular file, open for reading in binary. Raises OSError, whose `strerror` says what else it is."""
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115 (handed to the caller)
    kind = os.fstat(file.fileno()).st_mode
    if stat.S_ISREG(kind):
        return file
    file.close()
    raise OSError(errno.EINVAL, f"{kind_of(kind)}, not a regular file", str(path))


def read_regular(path: str | Path, most: int = MOST_TEXT) -> bytes:
    """All of a regular file of at most `most` bytes. Raises OSError, whose `strerror` says why not."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than the limit of {most:,}", str(path))
        return file.read(size)


def why(error: Exception) -> str:
    """What the system says of a file, in one line; pyarrow and safetensors have their own ways to say it."""
    lines = str(getattr(error, "strerror", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__


def kind_of(mode: int) -> str:
    """What a file is that is no regular one, from its `st_mode`."""
    names = (
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    )
    return next((name for test, name in names if test(mode)), "something else")


def _without_waiting(path: str, flags: int) -> int:
    """Opening a named pipe would wait for a writer for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
