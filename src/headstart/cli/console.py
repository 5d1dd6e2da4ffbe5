"""What a command says: results on stdout, everything else on stderr. The only file that prints."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from headstart.files.cells import printable
from headstart.files.json_lists import pieces


class ClosedOutputError(OSError):
    """The standard output takes no more."""


@contextmanager
def writing() -> Iterator[None]:
    """Raises ClosedOutputError where the standard output takes no more; BrokenPipeError where its reader has gone."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ClosedOutputError(error.errno, error.strerror) from None


def say(line: str) -> None:
    """One line of the result."""
    _print(printable(line))


def tell(line: str) -> None:
    """One line beside the result. Where stderr is closed or full there is nobody to tell."""
    if sys.stderr is None:
        return
    with suppress(OSError):
        print(printable(line), file=sys.stderr, flush=True)


def say_json(value: Any) -> None:
    _print(json.dumps(value, ensure_ascii=True, indent=1, allow_nan=False))


def say_json_list(entries: Iterable[Any]) -> None:
    """The same document, entry by entry."""
    for piece in pieces(entries, ensure_ascii=True, allow_nan=False):
        _print(piece, end="")
    _print("")


def _print(text: str, end: str = "\n") -> None:
    if sys.stdout is None:
        raise ClosedOutputError(errno.EBADF, "it is closed")
    with writing():
        print(text, end=end)


def flush() -> None:
    """What was printed is out."""
    if sys.stdout is not None:
        with writing():
            sys.stdout.flush()


def drop_output() -> None:
    """What waits to be printed goes nowhere, so that the interpreter does not fail over it at its end."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
