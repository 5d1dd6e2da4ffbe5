"""Lists of labels that lie in a folder of images: Hugging Face's metadata.csv, or a CSV file beside class folders."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.data.folder_names import split_of
from headstart.data.folders import counts, read_folder
from headstart.data.groups import by_folder
from headstart.data.manifests import read_csv, read_parquet
from headstart.data.sources import FileSource, Found, Row
from headstart.data.tree import images, shown
from headstart.data.walk import Walk
from headstart.errors import DataError
from headstart.files.reading import open_regular

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
LABELS = ("label", "labels", "class", "class_name", "category", "target")  # of a line of JSON
LONGEST = 1 << 20  # bytes of a line of JSON or of a header
WRAPPERS = 4  # folders in folders that are opened to find metadata
LOOKED_AT = 4  # CSV files beside class folders that are compared with them
ALIKE = 0.5  # share of the images that a list must name to be a list of them


def read_labelled_folder(place: Path, min_classes: int, inner: str) -> Found:
    """A folder with its class folders, or with the metadata files that lie in it. Raises DataError.

    Where both are there and say different things, the user is asked.
    """
    files = metadata_files(place)
    try:
        folders = read_folder(place, min_classes, inner)
    except DataError:
        if not files:
            raise
        return read_metadata(place, files, inner == "folder")
    lists = [file for file, _ in files]
    if all(row.split == "none" for row in folders.rows):
        lists += sorted(file for file in place.glob("[!.]*.[ct]sv") if file not in lists)[:LOOKED_AT]
    for file in lists:
        _check_agreement(place, folders, file)
    return folders


def metadata_files(place: Path) -> list[tuple[Path, str]]:
    """(file, split) of the metadata files with a column file_name: one in the folder, or one in each part of it.

    A folder around all of that is opened.
    """
    for _ in range(WRAPPERS):
        if own := _metadata_in(place):
            return [(own, "none")]
        try:
            inner = sorted((p for p in place.iterdir() if p.is_dir()), key=lambda p: os.fsencode(p.name))
        except OSError:
            return []
        parts = [(part, split) for part in inner if (split := split_of(part.name))]
        if found := [(file, split) for part, split in parts if (file := _metadata_in(part))]:
            return found
        seen = [folder for folder in inner if not folder.name.startswith((".", "__"))]
        if len(seen) != 1:
            return []
        place = seen[0]
    return []


def _metadata_in(folder: Path) -> Path | None:
    return next((file for name in NAMES if (file := folder / name).is_file() and _names_files(file)), None)


def _names_files(file: Path) -> bool:
    if file.suffix == ".parquet":
        return True
    try:
        with open_regular(file) as opened:
            return b"file_name" in opened.readline(LONGEST)
    except OSError:
        return False


def read_metadata(place: Path, files: list[tuple[Path, str]], in_folders: bool = False) -> Found:
    """The rows of metadata files; their paths are below the folder of each. in_folders: which are groups of images.

    Raises DataError.
    """
    rows: list[Row] = []
    notes: list[str] = []
    for file, split in files:
        found = _rows_of(file)
        notes += found.notes
        above = "" if file.parent == place else shown(file.parent.relative_to(place).as_posix()) + "/"
        rows += [
            row._replace(name=above + row.name, split=split if split != "none" else row.split) for row in found.rows
        ]
    unlisted = Walk(str(place), masks=False).tree().total - len({os.path.normpath(row.name) for row in rows})
    if unlisted > 0:
        notes.append(f"not used: {images(unlisted)} that no metadata file lists")
    rows = by_folder(rows) if in_folders else rows
    kind = "labels of " + " and ".join(shown(str(file.relative_to(place))) for file, _ in files)
    return Found(rows, notes, f"{shown(str(place))}: {kind}, {counts(rows)}")


def _rows_of(file: Path) -> Found:
    readers = {".csv": read_csv, ".tsv": read_csv, ".parquet": read_parquet, ".jsonl": _read_jsonl}
    return readers[file.suffix.lower()](file)


def _read_jsonl(path: Path) -> Found:
    """Lines of JSON with file_name and label. Raises DataError."""
    rows = []
    for number, record in _records(path):
        name = record.get("file_name")
        keys = [key for key in LABELS if key in record]
        if not isinstance(name, str) or not name or len(keys) != 1:
            raise DataError(
                f"{shown(str(path))} line {number} has the keys {shown(', '.join(record)[:200])}: needed are file_name "
                "and label"
            )
        label = record[keys[0]]
        if label is not None and not isinstance(label, str | int):
            raise DataError(
                f"{shown(str(path))} line {number}: {keys[0]} is no text but a {type(label).__name__}: needed is the "
                "name of one class"
            )
        text = "" if label is None else str(label).strip()
        rows.append(Row(shown(name), FileSource(str(path.parent / name)), text, "none"))
    if not rows:
        raise DataError(f"{shown(str(path))} lists no images: each line is a JSON object with file_name and label")
    return Found(rows, [], f"{shown(str(path))}: lines of JSON, {counts(rows)}")


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    try:
        with open_regular(path) as file:
            while line := file.readline(LONGEST):
                number += 1
                if line.strip():
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise DataError(f"{shown(str(path))} line {number} is no JSON object")
                    yield number, record
    except (ValueError, RecursionError) as error:
        raise DataError(f"{shown(str(path))} line {number + (number == 0)} is no JSON: {error}") from error
    except OSError as error:
        raise DataError(f"{shown(str(path))} cannot be read: {error.strerror}") from error


def _check_agreement(place: Path, folders: Found, file: Path) -> None:
    """Raises DataError where a list beside class folders names their images and gives them other labels."""
    try:
        listed = _rows_of(file).rows
    except DataError:
        return  # a list of something else
    known = _by_file_name(folders.rows)
    pairs = [(known[name], row.label) for name, row in _by_file_name(listed).items() if name in known and row.label]
    if len(pairs) < ALIKE * len(folders.rows):
        return
    sizes = {
        len(set(kinds))
        for kinds in (((a.label, b) for a, b in pairs), (a.label for a, _ in pairs), (b for _, b in pairs))
    }
    if len(sizes) == 1:
        return  # the same classes under other names, such as 0 and 1 for cat and dog
    wrong = [(row, label) for row, label in pairs if row.label != label]
    if not wrong:
        return
    row, label = wrong[0]
    raise DataError(
        f"{shown(str(place))}: {shown(file.name)} gives other labels than the folders to {images(len(wrong))}, such as "
        f"{row.name}: {label!r}: name {shown(str(file))} for its labels, or move it away for those of the folders"
    )


def _by_file_name(rows: list[Row]) -> dict[str, Row]:
    """Rows by the last part of their names; names that are there more than once are left out."""
    ends = [row.name.replace("\\", "/").rpartition("/")[2] for row in rows]
    often = Counter(ends)
    return {end: row for end, row in zip(ends, rows, strict=True) if often[end] == 1}
