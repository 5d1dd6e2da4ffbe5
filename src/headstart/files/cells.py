"""Rows as CSV that a spreadsheet does not run and a terminal does not obey.

File names and labels are other people's text. A cell that begins with =, +, -, @, a tab or a line break is taken for a
formula by spreadsheets, so it gets an apostrophe before it (OWASP, "CSV Injection"); control characters and those that
turn the direction of writing are written as escapes.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import BinaryIO

from headstart.files.far import is_far, shown

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
# Control characters (C0, DEL, C1), line and paragraph separators, and what turns the direction of writing (Unicode
# UAX 9). Joiners of zero width stay: names in Persian and with emoji need them.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A CSV document in UTF-8; text in its cells is made harmless, numbers stay as they are."""
    content = io.BytesIO()
    write_csv(content, header, rows)
    return content.getvalue()


def write_csv(file: BinaryIO, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """The same, row by row into a file."""
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
    try:
        writer = csv.writer(text)
        writer.writerow(header)
        writer.writerows([cell(value) for value in row] for row in rows)
    finally:
        text.detach()  # written out, and the file stays open


def printable(text: str) -> str:
    """The text without control characters: file names may hold line breaks and orders to the terminal."""
    return CONTROL.sub(_escape, text)


def quoted(text: str, most: int = 40) -> str:
    """A value as a message shows it: in quotes, so that a blank at its end is seen, and without its middle if long; an
    address without what opens it."""
    text = shown(text) if is_far(text) else text
    return repr(text if len(text) <= most else f"{text[: most // 2]}…{text[-(most // 2) :]}")


def cell(value: object) -> object:
    if not isinstance(value, str):
        return "" if value is None else value
    guarded = f"'{value}" if value.startswith(FORMULA) else value
    return printable(guarded)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
