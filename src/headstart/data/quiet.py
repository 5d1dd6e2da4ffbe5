"""Decoders that keep quiet, on any number of threads.

Pillow warns, logs and (through libtiff) writes to stderr about files that are damaged or odd. headstart says the same
once, as the reason in an ImageError, so none of it may reach the user. `warnings.catch_warnings` is no way to do that
here: it swaps the filters of all threads at once, so that several threads drop or leak each other's. Instead one
permanent filter asks which thread is decoding; code that is not inside `quiet` keeps its warnings and logs.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import cast

from PIL import Image


class _InQuietThread:
    """A message pattern for `warnings.filters` and a filter for loggers; both look at the thread alone."""

    pattern = "(?!)"  # scikit-learn copies filters to its workers by their pattern: this one matches nothing

    def __init__(self) -> None:
        self.thread = threading.local()

    def match(self, _text: str) -> bool:
        return getattr(self.thread, "quiet", False)

    def filter(self, _record: logging.LogRecord) -> bool:
        return not getattr(self.thread, "quiet", False)


_HERE = _InQuietThread()
_IGNORE = ("ignore", _HERE, Warning, None, 0)


@contextmanager
def quiet() -> Iterator[None]:
    """No warning, log record or line of libtiff's comes out of this thread."""
    filters = cast("list[object]", warnings.filters)
    if not filters or filters[0] is not _IGNORE:  # a test runner, say, has put others in front or replaced the list
        filters[:] = [_IGNORE, *(f for f in filters if f is not _IGNORE)]
    _silence_libraries()
    before = getattr(_HERE.thread, "quiet", False)  # one reader may call another
    _HERE.thread.quiet = True
    try:
        yield
    finally:
        _HERE.thread.quiet = before


@cache
def _silence_libraries() -> None:
    """Once a process: what logs errors (of Pillow one module), and the error handler of the libtiff that Pillow brings.

    Pillow turns libtiff's warnings off in the same way, but not its errors. Where libtiff is linked into Pillow
    (Windows) there is nothing to turn off from here, and its lines still appear.
    """
    import ctypes

    for name in ("PIL.TiffImagePlugin", "tifffile", "pydicom"):
        logging.getLogger(name).addFilter(_HERE)
    home = Path(Image.__file__).parent
    bundled = sorted([*home.parent.glob("[Pp]illow.libs/libtiff*"), *home.glob(".dylibs/libtiff*")])
    with suppress(OSError, AttributeError):
        ctypes.CDLL(str(bundled[0]) if bundled else "libtiff.so.6").TIFFSetErrorHandler(None)
