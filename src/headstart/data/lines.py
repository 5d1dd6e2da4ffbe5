"""A text file as a sheet: CSV, its kin, and plain lines.

| what is written | how it is read |
|---|---|
| UTF-8, with or without its mark; UTF-16 and UTF-32 with theirs (Excel's "Unicode text") | as that |
| any other encoding | refused: a wrong guess would give classes other names |
| comma, semicolon, tab or bar between the columns; Excel's `sep=;` above them | what names the columns decides |
| no names of columns, but two columns of which the first names a file that exists | path and label |
| .txt and .lst: "path label" on each line, or "path" alone | the last blank parts them; the file must exist |
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from headstart.data.columns import is_known, role_of
from headstart.data.sheet_truth import wanted
from headstart.data.sheets import SAMPLED, Sheet
from headstart.data.tree import shown
from headstart.data.truth import Asked
from headstart.errors import DataError
from headstart.files.cells import quoted
from headstart.files.far import Far, Place
from headstart.files.reading import open_regular, read_regular, why

MOST_BYTES = 2**30  # of a list: one of 14 million paths (ImageNet-21k) has 0.9 GB
SNIFFED = 4096  # bytes that tell a text from a picture
LONGEST_LINE = 2**20  # characters: a file of zeros has no end of line
DELIMITERS = (",", ";", "\t", "|")
BLANK = " "  # between path and label in .txt and .lst
SPACED = (".txt", ".lst")
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
Exists = Callable[[str], bool]


def read_sheet(path: Place, exists: Exists, asked: Asked | None) -> Sheet:
    """A CSV, TSV or text file. exists: whether a path in it names a file. asked: of the truth, None: it may lack.

    Raises DataError.
    """
    where = shown(str(path))
    try:
        with _text(path) as file:
            return _read(path, where, file, exists, asked)
    except UnicodeError as error:
        raise DataError(
            f"{where} is damaged: its text ends within a character ({error}): save it as CSV UTF-8"
        ) from error
    except csv.Error as error:
        raise DataError(f"{where} is not a CSV file: {error}") from error
    except OSError as error:
        raise DataError(f"{where} cannot be read: {why(error)}") from error


def _text(path: Place) -> TextIO:
    """Bytes that are no UTF-8 stay as they are, as in the names of files; `_check_text` refuses them where they matter.

    Raises DataError on a file that is no text."""
    data = path.read(MOST_BYTES) if isinstance(path, Far) else read_regular(path, MOST_BYTES)
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    if encoding.startswith("utf-8") and b"\0" in data:
        raise DataError(f"{shown(str(path))} is not UTF-8 text (it holds zero bytes): save it as CSV UTF-8")
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    return io.TextIOWrapper(io.BytesIO(data), encoding=encoding, errors=errors, newline="")


def _read(path: Place, where: str, file: TextIO, exists: Exists, asked: Asked | None) -> Sheet:
    first, skipped = _first_line(file)
    given = re.fullmatch(r'"?sep=(.)"?\s*', first)
    if given:
        more, after = _first_line(file)
        first, skipped = more, skipped + 1 + after
    if not first:
        raise DataError(f"{where} is empty: its first line should be path,label")
    spaced = path.suffix.lower() in SPACED
    delimiters = (given[1],) if given else (*DELIMITERS, *((BLANK,) if spaced else ()))
    delimiter, names = _header(first, delimiters)
    kind = {".tsv": "TSV list", ".csv": "CSV manifest"}.get(path.suffix.lower(), "list")
    if any(role_of(name).startswith("path") for name in names):
        sheet = Sheet(where, kind, names)
        _fill(sheet, _records(file, delimiter, skipped + 1), asked)
        return sheet
    without = _headless(first, delimiters, exists)
    if asked is None and (spaced or exists(first)) and without is None:
        without = "\n", ["path"]
    if without is None:
        raise DataError(_no_path(Sheet(where, kind, names), spaced))
    delimiter, names = without
    sheet = Sheet(where, kind, names)
    sheet.notes.append(f"no line of the list names its columns: they were taken as {' and '.join(names)}")
    file.seek(0)
    for _ in range(skipped):
        file.readline()
    _fill(sheet, _records(file, delimiter, skipped), asked)
    return sheet


def _first_line(file: TextIO) -> tuple[str, int]:
    """The first line that is not blank, and how many stand before it."""
    skipped = 0
    while line := file.readline(LONGEST_LINE):
        if line.strip():
            return line.rstrip("\r\n"), skipped
        skipped += 1
    return "", skipped


def _header(line: str, delimiters: Sequence[str]) -> tuple[str, list[str]]:
    """(delimiter, names): that under which most columns have a name known here; of equals, that with most columns."""
    found = [(delimiter, _parted(line, delimiter)) for delimiter in delimiters]
    return max(found, key=lambda f: (_roles(f[1]), len(f[1])))


def _roles(names: Sequence[str]) -> int:
    return sum(is_known(name) for name in names)


def _parted(line: str, delimiter: str) -> list[str]:
    if delimiter == BLANK:
        return line.split()
    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return [line]


def _headless(line: str, delimiters: Sequence[str], exists: Exists) -> tuple[str, list[str]] | None:
    """(delimiter, names) of a file that begins with its first image: a path that exists, and a label that is none."""
    for delimiter in delimiters:
        values = _parted(line, delimiter) if delimiter != BLANK else line.strip().rsplit(maxsplit=1)
        if len(values) == 2 and exists(values[0]) and values[1].strip() and not exists(values[1]):
            return delimiter, ["path", "label"]
    return None


def _no_path(sheet: Sheet, spaced: bool) -> str:
    if spaced:
        return (
            f"{sheet.where} cannot be read as a list: its first line neither names columns nor is 'path label' with a "
            "path that exists: write it as CSV, with path,label as its first line"
        )
    return (
        f"{sheet.where} has no column 'path': its columns are {sheet.seen()}; name the one that holds the file names "
        "path and the one that holds the classes label, in its first line"
    )


def _records(file: TextIO, delimiter: str, above: int) -> Iterator[tuple[int, list[str]]]:
    """(line number, values) of each line that is not blank; above: lines that were read already."""
    if delimiter in (BLANK, "\n"):
        for number, line in enumerate(_lines(file), above + 1):
            if line.strip():
                yield number, [line.rstrip("\r\n")] if delimiter == "\n" else line.strip().rsplit(maxsplit=1)
        return
    reader = csv.reader(_lines(file), delimiter=delimiter, skipinitialspace=True, strict=True)
    for values in reader:
        if any(value.strip() for value in values):
            yield above + reader.line_num, values


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a text, none of them endless. Raises csv.Error."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise csv.Error(f"it has a line of more than {LONGEST_LINE:,} characters")
        yield line


def _fill(sheet: Sheet, records: Iterator[tuple[int, list[str]]], asked: Asked | None) -> None:
    """Take in the rows. Raises DataError on one with too few values, or with one that no column has."""
    width = len(sheet.names)
    unnamed = wanted(sheet.names, asked)
    kept = [place for place, name in enumerate(sheet.names) if is_known(name) or place in unnamed]
    columns: list[list[str]] = [[] for _ in kept]
    again = 0
    for number, values in records:
        if len(values) < width and (not kept or len(values) <= max(kept)):
            raise DataError(
                f"{sheet.where} line {number} has {len(values)} value{'s' if len(values) != 1 else ''}: "
                f"{width} columns are named above it"
            )
        if any(value.strip() for value in values[width:]):
            raise DataError(
                f"{sheet.where} line {number} has {len(values)} values under {width} columns: put a value that holds "
                "the delimiter in double quotes"
            )
        if values[:width] == sheet.names:
            again += 1
            continue
        for column, place in zip(columns, kept, strict=True):
            column.append(_checked(values[place], sheet, number))
        sheet.numbers.append(number)
        if len(sheet.sample) < SAMPLED:
            sheet.sample.append(values[:width])
    sheet.values = dict(zip(kept, columns, strict=True))
    if again:
        sheet.notes.append(
            f"passed over {again} line{'s' if again > 1 else ''} with the names of the columns, in the middle"
        )


def _checked(value: str, sheet: Sheet, number: int) -> str:
    """The value. Raises DataError where it is no text, or runs over a line's end."""
    if "\n" in value or "\r" in value:
        raise DataError(
            f"{sheet.where} line {number}: the value {quoted(value)} holds a line break: is a double quote missing?"
        )
    if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
        raw = value.encode("utf-8", "surrogateescape")
        raise DataError(
            f"{sheet.where} is not UTF-8 text: line {number} holds {quoted(raw.decode('ascii', 'replace'))}, which in "
            f"Windows' western encoding would be {quoted(raw.decode('cp1252', 'replace'))}: save it as CSV UTF-8"
        )
    return value


def is_text(path: Path) -> bool:
    """Whether a file begins as text does: with no zero byte and none that is no UTF-8, or with the mark of UTF-16."""
    try:
        with open_regular(path) as file:
            start = file.read(SNIFFED)
    except OSError:
        return False
    if any(start.startswith(mark) for mark, _ in MARKS):
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return b"\0" not in start
