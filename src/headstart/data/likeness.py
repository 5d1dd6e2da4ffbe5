"""A folder elsewhere as a folder here, of the same names, for as long as it takes to tell what it is.

All readers of folders then see what they would see of a copy, without a second set of them: pictures are empty files
here and stay where they are, lists in which labels may stand are fetched. What comes of it names the files elsewhere.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from headstart.counted import counted
from headstart.data.sources import FarSource, FileSource, Found, RefusedSource, Row, Source
from headstart.data.tree import shown
from headstart.errors import DataError
from headstart.files.far import Far, Listed
from headstart.files.reading import why

NEW = os.O_CREAT | os.O_EXCL | os.O_WRONLY
LISTS = (".csv", ".tsv", ".jsonl")  # endings of texts in which labels may stand, or metadata.parquet
DEEPEST = 3  # parts of the path of such a list: PART/metadata.csv in a wrapper
MOST_LISTS, MOST_BYTES = 20, 64 * 2**20  # that are fetched, and bytes of one


def as_here(folder: Far, files: Sequence[Listed], read: Callable[[Path], Found]) -> Found:
    """What `read` finds in a copy of the folder, with the pictures elsewhere. Raises DataError."""
    where = str(folder).rstrip("/")
    with tempfile.TemporaryDirectory(prefix="headstart-") as place:
        top = Path(os.path.realpath(place)) / (folder.name or "folder")
        passed = _made(top, files)
        _fetched(folder, top, files)
        try:
            found = read(top)
        except DataError as error:
            raise type(error)(str(error).replace(str(top), where)) from None
        stamps = {one.path: one.stamp for one in files}
        rows = [_elsewhere(row, folder, where, str(top), stamps) for row in found.rows]
    notes = [note.replace(str(top), where) for note in found.notes]
    if passed:
        notes.append(f"passed over {counted(len(passed), 'name')} that no file can have, such as {shown(passed[0])}")
    return found._replace(rows=rows, notes=notes, layout=found.layout.replace(str(top), where))


def _made(top: Path, files: Sequence[Listed]) -> list[str]:
    """Empty files of these names; the names that none can have."""
    passed, folders, root = [], {""}, f"{top}/"
    top.mkdir()
    for one in files:
        folder = one.path.rpartition("/")[0]
        try:
            if any(part in ("", ".", "..") for part in one.path.split("/")) or (os.sep == "\\" and ":" in one.path):
                raise OSError
            if folder not in folders:
                (top / folder).mkdir(parents=True, exist_ok=True)
                folders.add(folder)
            os.close(os.open(root + one.path, NEW))
        except (OSError, ValueError):
            passed.append(one.path)
    return passed


def _fetched(folder: Far, top: Path, files: Sequence[Listed]) -> None:
    """The lists among them, with what they hold. Raises DataError."""
    lists = [one for one in files if _is_list(one) and (top / one.path).is_file()]
    for one in lists[:MOST_LISTS]:
        try:
            (top / one.path).write_bytes(folder.within(one.path).read(MOST_BYTES))
        except OSError as error:
            raise DataError(f"{shown(str(folder.within(one.path)))} cannot be fetched: {why(error)}") from None


def _is_list(one: Listed) -> bool:
    name = one.path.rpartition("/")[2].lower()
    return one.path.count("/") < DEEPEST and (name.endswith(LISTS) or name == "metadata.parquet")


def _elsewhere(row: Row, folder: Far, where: str, top: str, stamps: dict[str, str]) -> Row:
    """The row with its picture where it is; one that a list names outside of the folder is refused."""
    source: Source = row.source
    if isinstance(source, FileSource):
        path = os.path.normpath(source.path) if ".." in source.path else source.path
        inside = path.startswith(top + os.sep)
        below = path[len(top) + 1 :].replace(os.sep, "/")
        if inside:
            source = FarSource(folder.within(below, stamps.get(below, "")))
        else:
            source = RefusedSource("a list elsewhere names it outside of its folder")
    return row._replace(name=row.name.replace(top, where), source=source)
