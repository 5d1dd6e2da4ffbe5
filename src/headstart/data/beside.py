"""Lists of labels that lie in a folder of images: Hugging Face's metadata.csv, or a CSV file beside class folders."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.data.folder_names import split_of
from headstart.data.folders import counts, read_folder
from headstart.data.good import read_good_folder
from headstart.data.groups import by_folder
from headstart.data.manifests import read_csv, read_parquet
from headstart.data.sheet_truth import Truth, said_of, summary, truth_of
from headstart.data.sheets import Sheet
from headstart.data.sources import Found, Row, source_in
from headstart.data.tree import images, shown
from headstart.data.truth import BETWEEN, Asked, number_in, number_text
from headstart.data.walk import Walk
from headstart.errors import DataError
from headstart.files.reading import open_regular

NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
LABELS = ("label", "labels", "class", "class_name", "category", "target")  # of a line of JSON
LONGEST = 1 << 20  # bytes of a line of JSON or of a header
WRAPPERS = 4  # folders in folders that are opened to find metadata
LOOKED_AT = 4  # CSV files beside class folders that are compared with them
VALUE = ("value",)  # what the numbers in names of folders are called
ALIKE = 0.5  # share of the images that a list must name to be a list of them


def read_labelled_folder(place: Path, min_classes: int, inner: str, asked: Asked) -> Found:
    """A folder with its class folders, or with the metadata files that lie in it. Raises DataError.

    Where both are there and say different things, the user is asked. Labels that may come together, values and columns
    that the user names stand in files alone.
    """
    files = metadata_files(place)
    if files and (asked.label is not None or asked.beside or asked.task in ("tag", "regress")):
        return read_metadata(place, files, asked, inner == "folder")
    option = "label" if asked.label is not None else "group" if asked.group is not None else "time"
    if asked.label is not None or asked.beside:
        raise DataError(
            f"{shown(str(place))} has no metadata file whose column --{option} could name: name the list itself"
        )
    try:
        anomaly = asked.task == "anomaly"
        folders = read_good_folder(place, inner) if anomaly else read_folder(place, min_classes, inner)
    except DataError:
        if not files:
            raise
        return read_metadata(place, files, asked, inner == "folder")
    lists = [file for file, _ in files]
    if all(row.split == "none" for row in folders.rows):
        lists += sorted(file for file in place.glob("[!.]*.[ct]sv") if file not in lists)[:LOOKED_AT]
    for file in lists:
        _check_agreement(place, folders, file)
    return _in_folders(place, folders, asked)


def _in_folders(place: Path, found: Found, asked: Asked) -> Found:
    """Class folders as the task that is asked for. Raises DataError where they cannot hold its truth."""
    if asked.task == "tag":
        raise DataError(
            f"{shown(str(place))} holds class folders, one class an image, and no list of labels: for --task tag write "
            "a list with the columns path,label and | between labels"
        )
    if asked.one_class:
        return found._replace(task=asked.task)
    if asked.task != "regress":
        return found
    numbers = {row.label: number_in(row.label) for row in found.rows if row.label}
    wrong = next((label for label, number in numbers.items() if number is None), None)
    if wrong is not None:
        raise DataError(
            f"{shown(str(place))}: the folder {wrong!r} is no number, and --task regress reads each folder's name as "
            "the value of its images: write a list with the columns path,value"
        )
    texts = {label: number_text(number) for label, number in numbers.items() if number is not None} | {"": ""}
    rows = [row._replace(label=texts[row.label]) for row in found.rows]
    where = found.layout.partition(":")[0]
    return Found(rows, found.notes, f"{where}: folders, {summary(rows, 'regress', VALUE)}", "regress", VALUE)


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


def read_metadata(place: Path, files: list[tuple[Path, str]], asked: Asked, in_folders: bool = False) -> Found:
    """The rows of metadata files; their paths are below the folder of each. in_folders: which are groups of images.

    What teaches decides as what all are read. Raises DataError.
    """
    rows: list[Row] = []
    notes: list[str] = []
    truth: Found | None = None
    for file, split in sorted(files, key=lambda f: f[1] not in ("train", "none")):
        found = _rows_of(file, asked)
        if truth is None:
            truth, asked = found, replace(asked, task=found.task)
        elif truth.columns != found.columns:
            raise DataError(
                f"{shown(str(file))} has the columns {shown(', '.join(found.columns))} and {shown(str(files[0][0]))} "
                f"{shown(', '.join(truth.columns))}: all must have the same ones"
            )
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
    task, columns = (truth.task, truth.columns) if truth else ("classify", ())
    what = said_of(rows, Truth([], task, columns))
    return Found(rows, notes, f"{shown(str(place))}: {kind}, {what}", task, columns)


def _rows_of(file: Path, asked: Asked) -> Found:
    readers = {".csv": read_csv, ".tsv": read_csv, ".parquet": read_parquet, ".jsonl": _read_jsonl}
    return readers[file.suffix.lower()](file, asked)


def _read_jsonl(path: Path, asked: Asked) -> Found:
    """Lines of JSON with file_name and label, or other keys that hold the truth. Raises DataError."""
    rows = []
    records = list(_records(path))
    if _needs_sheet(records, asked):
        return _of_sheet(path, records, asked)
    for number, record in records:
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
        rows.append(Row(shown(name), source_in(path.parent, name), text, "none"))
    if not rows:
        raise DataError(f"{shown(str(path))} lists no images: each line is a JSON object with file_name and label")
    return Found(rows, [], f"{shown(str(path))}: lines of JSON, {counts(rows)}", asked.as_class)


def _needs_sheet(records: list[tuple[int, dict[str, Any]]], asked: Asked) -> bool:
    """Whether the truth of lines of JSON is more than the name of one class under its usual key."""
    if asked.label is not None or asked.beside or asked.task in ("tag", "regress"):
        return True
    keys = [key for key in LABELS if any(key in record for _, record in records)]
    if not keys:
        return len(records) > 0 and asked.task == "auto"
    return asked.task == "auto" and any(isinstance(record.get(keys[0]), (list, float)) for _, record in records)


def _of_sheet(path: Path, records: list[tuple[int, dict[str, Any]]], asked: Asked) -> Found:
    """Lines of JSON as a sheet of columns. Raises DataError."""
    names = list(dict.fromkeys(key for _, record in records for key in record))
    sheet = Sheet(shown(str(path)), "lines of JSON", names, numbers=[number for number, _ in records])
    for number, record in records:
        if not isinstance(record.get("file_name"), str) or not record["file_name"]:
            raise DataError(f"{sheet.where} line {number} has no text under file_name: each line names its image there")
    for place, name in enumerate(names):
        _fill_column(sheet, place, [record.get(name) for _, record in records])
    truth = truth_of(sheet, asked, ["none"] * len(sheet))
    rows = [
        Row(shown(r["file_name"]), source_in(path.parent, r["file_name"]), text, "none")
        for (_, r), text in zip(records, truth.texts, strict=True)
    ]
    return Found(rows, sheet.notes, f"{sheet.where}: {sheet.kind}, {said_of(rows, truth)}", truth.task, truth.columns)


def _fill_column(sheet: Sheet, place: int, values: list[Any]) -> None:
    """Texts, numbers and lists of them; a key that holds objects is left out. Raises DataError for mixed kinds."""
    kinds = {
        "lists" if isinstance(v, list) else "objects" if isinstance(v, dict) else "single values"
        for v in values
        if v is not None
    }
    if "objects" in kinds:
        return
    if len(kinds) > 1:
        row = next(k for k, value in enumerate(values) if value is not None and not isinstance(value, list))
        raise DataError(
            f"{sheet.row(row)}: {sheet.names[place]} is no list, as in other lines: give a list of labels in each, [] "
            "for none and null where it is unknown"
        )
    if "lists" in kinds:
        sheet.sets[place] = [None if v is None else tuple(str(one) for one in v if one is not None) for v in values]
        sheet.values[place] = [BETWEEN.join(held or ()) for held in sheet.sets[place]]
    else:
        sheet.values[place] = ["" if value is None else str(value) for value in values]


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
        listed = _rows_of(file, Asked("classify")).rows
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
