"""Lists of pictures with their masks: CSV, Parquet or lines of JSON, with a path and the path of a mask in each row."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.data import columns
from headstart.data.lines import read_sheet
from headstart.data.mask_classes import Classes, found_classes
from headstart.data.masked import Pictured, found_in
from headstart.data.parquet import image_column, sheet_of
from headstart.data.places import lies, none_exists, place, say_missing, say_moved
from headstart.data.sheets import MISSING, Sheet
from headstart.data.sources import Found
from headstart.data.tree import shown
from headstart.data.truth import Asked
from headstart.errors import DataError
from headstart.files.reading import read_regular, why

MASKS = frozenset(
    """mask masks maskpath maskfile maskfilename maskname segmentation segmentationpath segmentationmask seg segpath
    annotation annotationpath annotationfile gt gtpath labelpath labelfile labelimage labelmap""".split()  # noqa: SIM905
)
MOST_BYTES = 2**30  # of a list


def read_masked_list(path: Path, asked: Asked, given: Classes | None, split: str = "none") -> Found:
    """The rows of a list with a column mask, or that which --label names. Raises DataError."""
    pictures, kind, notes = listed(path, asked)
    return found_in(pictures, kind, shown(str(path)), given or found_classes([str(path.parent)]), notes)


def read_metadata_masks(root: Path, files: Sequence[tuple[Path, str]], asked: Asked, given: Classes | None) -> Found:
    """The rows of metadata.csv or .jsonl in a folder, or in each of its parts. Raises DataError."""
    pictures, notes = list[Pictured](), list[str]()
    for file, split in files:
        found, _, said = listed(file, asked)
        above = "" if file.parent == root else shown(file.parent.relative_to(root).as_posix()) + "/"
        notes += said
        pictures += [
            replace(one, name=above + one.name, split=split if split != "none" else one.split) for one in found
        ]
    where = shown(str(root))
    return found_in(pictures, "metadata with masks", where, given or found_classes([str(root)]), notes)


def listed(path: Path, asked: Asked) -> tuple[list[Pictured], str, list[str]]:
    """(pictures, what was read, notes) of a list. Raises DataError."""
    sheet = _sheet(path, asked)
    if not len(sheet):
        raise DataError(f"{sheet.where} lists no images: each line is path,mask")
    told = columns.described(sheet, asked)
    mask_column = _mask_column(sheet, asked)
    paths = _path_column(sheet, mask_column)
    files = place(path.parent, sheet.values[paths])
    if not files.n_found:
        raise DataError(none_exists(sheet.where, path.parent, files))
    written = ["" if name.strip() in MISSING else name for name in sheet.values[mask_column]]
    masks = place(path.parent, [name for name in written if name])
    of = iter(masks.files)
    found = []
    for row, name in enumerate(sheet.values[paths]):
        mask = next(of) if written[row] else None
        found.append(
            Pictured(
                shown(name), files.files[row], told.splits[row], mask, group=told.groups[row], time=told.times[row]
            )
        )
    notes = [*sheet.notes, *say_moved(files), *say_missing(files), *say_moved(masks)]
    return _each_once(found), sheet.kind + told.grouped, notes


def _sheet(path: Path, asked: Asked) -> Sheet:
    if path.suffix.lower() == ".jsonl":
        return _lines_of_json(path)
    if path.suffix.lower() != ".parquet":
        return read_sheet(path, lambda name: lies(path.parent, name), asked)
    if image_column(path):
        raise DataError(
            f"{shown(str(path))} holds pictures inside, and masks inside Parquet are not read: save pictures and masks "
            "as files, in images/ and masks/"
        )
    return sheet_of(path, asked)


def _lines_of_json(path: Path) -> Sheet:
    where = shown(str(path))
    try:
        lines = read_regular(path, MOST_BYTES).decode("utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"{where} cannot be read: {why(error)}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 text: save it as UTF-8") from error
    records = list[dict[str, Any]]()
    numbers = [number for number, line in enumerate(lines, 1) if line.strip()]
    for number in numbers:
        try:
            record = json.loads(lines[number - 1])
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} line {number} is no JSON: {error}") from error
        if not isinstance(record, dict):
            raise DataError(f"{where} line {number} is no JSON object")
        records.append(record)
    names = list(dict.fromkeys(key for record in records for key in record))
    texts = {
        k: ["" if record.get(name) is None else str(record[name]) for record in records] for k, name in enumerate(names)
    }
    return Sheet(where, "lines of JSON", names, texts, numbers)


def _mask_column(sheet: Sheet, asked: Asked) -> int:
    if asked.label is not None:
        column = columns.column_called(sheet.names, asked.label)
        if column is None or column not in sheet.values:
            raise DataError(
                f"{sheet.where} has no column {asked.label!r}, which --label names: its columns are {sheet.seen()}"
            )
        return column
    found = [column for column in sheet.values if columns.squeezed(sheet.names[column]) in MASKS]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise DataError(
            f"{sheet.where}: which column holds the masks, {columns.named(sheet, found)}? Name it with --label"
        )
    raise DataError(
        f"{sheet.where} has no column 'mask': its columns are {sheet.seen()}; name the one that holds the paths of the "
        "masks mask, or name it with --label"
    )


def _path_column(sheet: Sheet, mask_column: int) -> int:
    found = [column for column in columns.places(sheet, "path", "path?") if column != mask_column]
    if not found:
        raise DataError(f"{sheet.where} has no column 'path' beside its masks: its columns are {sheet.seen()}")
    return found[0]


def _each_once(pictures: Sequence[Pictured]) -> list[Pictured]:
    """Each picture once in a part of the data; one with two masks has none."""
    again = defaultdict[tuple[str, str], list[Pictured]](list)
    for one in pictures:
        again[one.split, one.path].append(one)
    found = []
    for alike in again.values():
        first = next((one for one in alike if one.mask), alike[0])
        two = len({one.mask for one in alike if one.mask}) > 1
        found.append(replace(first, mask=None, why="set aside, listed with different masks") if two else first)
    return found
