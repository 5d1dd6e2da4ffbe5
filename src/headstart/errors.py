"""Everything headstart refuses, as one tree.

    HeadstartError              a failure that headstart can explain
    ├── OptionError             a value that an option or argument cannot take
    ├── DataError               a folder, manifest or label that cannot be used
    │   ├── LabelsError         images that no labels are given for, where labels are needed
    │   └── ImageError          one image that cannot be read: set aside, never fatal by itself
    ├── BackboneError           an unknown network, or weights that are missing or do not fit
    ├── BundleError             a saved model that is damaged, incomplete or too new
    └── OutputError             a place that cannot be written

A message is one line: what failed, the value received, what is allowed, the next step.
Only `cli/main.py` turns one into an exit code.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HeadstartError(Exception):
    """A failure that headstart can explain in one line."""


class OptionError(HeadstartError, ValueError):
    """A value that an option or argument cannot take."""


class DataError(HeadstartError, ValueError):
    """A folder, manifest or label that cannot be used."""


class LabelsError(DataError):
    """Images that no labels are given for, where labels are needed."""


class ImageError(DataError):
    """One image that cannot be read."""


class BackboneError(HeadstartError, ValueError):
    """An unknown network, or weights that are missing or do not fit."""


class BundleError(HeadstartError, ValueError):
    """A saved model that is damaged, incomplete or too new."""


class OutputError(HeadstartError, OSError):
    """A place that cannot be written."""


def nearest(name: str, known: Iterable[str], most: int = 3) -> str:
    """A clause that names the closest known spellings, such as " (did you mean resnet18?)", or "".

    Letter case is ignored.
    """
    spelt = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), spelt, n=most, cutoff=0.5)
    if not close:
        return ""
    return f" (did you mean {', '.join(spelt[c] for c in close)}?)"


# What the system, its loader and libraries say where memory cannot be had; those that catch a MemoryError raise others.
_NO_MEMORY = (
    "cannot allocate memory",
    "failed to map segment",
    "bad_alloc",
    "can't allocate memory",
    "not enough memory",
    "unable to allocate",
    "out of memory",
    "can't start new thread",
    "resource temporarily unavailable",
)


def lacks_memory(error: BaseException) -> bool:
    """Whether an error, or what it came from, means that there was no memory."""
    while True:
        if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY):
            return True
        cause = error.__cause__ or error.__context__
        if cause is None:
            return False
        error = cause


def reason_of(error: BaseException) -> str:
    """Why, in a few words on one line."""
    said = getattr(error, "strerror", None) or next(iter(str(error).strip().splitlines()), "")
    return said[:120] or "no more can be had"
