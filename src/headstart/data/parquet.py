"""Parquet files that hold images, in Hugging Face's layout and its kin, and the texts in any Parquet file's columns.

An image is a struct with the field `bytes` (and maybe `path`), plain bytes, or a list of one of these. A label is a
text, a number, a number that the file's own description names (ClassLabel), or a list of one of these.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from headstart.counted import counted
from headstart.data import columns
from headstart.data.folder_names import split_at_start, split_of
from headstart.data.sheet_truth import Truth, said_of, truth_of
from headstart.data.sheet_truth import wanted as wanted_of
from headstart.data.sheets import SAMPLED, Sheet
from headstart.data.sources import CACHED_BYTES, IN_ORDER, CellSource, Found, Row, RowGroups
from headstart.data.tree import shown
from headstart.data.truth import BETWEEN, Asked
from headstart.errors import DataError
from headstart.files.cells import quoted
from headstart.files.far import Far, Place
from headstart.files.parquet import UNSOUND, open_parquet, read_columns
from headstart.files.reading import why

IMAGES = frozenset(  # what a column of pictures is called
    """image img picture photo pic images imgs pixels imagebytes imgbytes imagedata imgdata imagecontent bytes content
    jpg jpeg png tif tiff webp""".split()  # noqa: SIM905
)
MOST_SAMPLED = 200  # columns looked at to find one of 0 and 1 for each class


def parquet_files(folder: Path) -> list[tuple[Path, str]]:
    """(file, split) of a set in a folder: in it, in `data`, or in train, validation and test, as the Hub exports them.

    Sorted by name; [] where there is none. Raises DataError where several sets lie there.
    """
    for place in (folder, folder / "data"):
        found = _in_order(place.glob("[!.]*.parquet"))
        if any(split_at_start(file.stem) or _holds_images(file) for file in found):
            return [(file, split_at_start(file.stem)) for file in found]
    sets = {place: _in_parts(place) for place in (folder, *_folders(folder))}
    filled = {place: parts for place, parts in sets.items() if any(_holds_images(file) for file, _ in parts)}
    if len(filled) > 1:
        names = " and ".join(shown(place.name) for place in filled)
        raise DataError(
            f"{shown(str(folder))} holds {len(filled)} sets, {names}: name one, {shown(str(next(iter(filled))))}"
        )
    return next(iter(filled.values()), [])


def read_parquet_folder(folder: Place, files: Sequence[tuple[Place, str]], asked: Asked | None) -> Found:
    """The images of the files that `parquet_files` has found. asked: of their truth, None: none. Raises DataError."""
    notes = [
        f"{file.name}: not read, its name begins with none of train, validation, test" for file, s in files if not s
    ]
    parts = [(file, split) for file, split in files if split]
    if not parts:  # one set in several files
        parts, notes = [(file, "none") for file, _ in files], []
    return read_images(parts, shown(str(folder)), notes, asked)


def _in_order(files: Any) -> list[Path]:
    return sorted(files, key=lambda p: os.fsencode(p.name))


def _folders(folder: Path) -> list[Path]:
    try:
        return _in_order(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
    except OSError:
        return []


def _in_parts(folder: Path) -> list[tuple[Path, str]]:
    parts = [(place, split_of(place.name)) for place in _folders(folder)]
    return [(file, split) for place, split in parts if split for file in _in_order(place.glob("[!.]*.parquet"))]


def _holds_images(file: Place) -> bool:
    try:
        return bool(image_column(file))
    except DataError:
        return False


def image_column(path: Place) -> str:
    """The column that holds the pictures; "" where there is none. Raises DataError where several may."""
    schema = _schema(path)
    found = [str(field.name) for field in schema if _holds_bytes(field.type)]
    texts = [f for f in schema if columns.role_of(f.name) == "path" and not _holds_bytes(f.type)]
    named = [name for name in found if columns.squeezed(name) in IMAGES]
    structs = [name for name in found if not _is_bytes(_inner(schema.field(name).type))]
    plain = [] if texts else [name for name in found if name not in structs and not columns.role_of(name)]
    best = named or structs or plain
    if len(best) > 1:
        raise DataError(
            f"{shown(str(path))}: which column holds the pictures, {' and '.join(map(quoted, best))}? Name it image, "
            "and the others otherwise, for instance note1"
        )
    return best[0] if best else ""


def _inner(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if _is_list(kind) else kind


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _holds_bytes(kind: pa.DataType) -> bool:
    inner = _inner(kind)
    if not pa.types.is_struct(inner):
        return _is_bytes(inner)
    return any(field.name == "bytes" and _is_bytes(field.type) for field in inner)


def read_images(parts: Sequence[tuple[Place, str]], where: str, notes: list[str], asked: Asked | None) -> Found:
    """The rows of Parquet files with images inside, each with its split. Raises DataError."""
    column = next((found for found in (image_column(file) for file, _ in parts) if found), "")
    groups = RowGroups([file for file, _ in parts], column, CACHED_BYTES if asked else IN_ORDER)
    names = _names([file for file, _ in parts])
    found: list[Row] = []
    sheets = []
    for number, (file, split) in enumerate(parts):
        if image_column(file) != column:
            raise DataError(f"{shown(str(file))} has no column {column!r} with images, as the other files have")
        name, at = names[number], 0
        for group, size in enumerate(_row_groups(file)):
            found += [
                Row(f"{name}#{at + row}", CellSource(groups, number, group, row), "", split) for row in range(size)
            ]
            at += size
        sheets.append(sheet_of(file, asked, column))
    if not found:
        raise DataError(f"{where} has no rows")
    sheet = _joined(where, sheets)
    told = columns.described(sheet, asked)
    splits = [told.splits[k] if row.split == "none" else row.split for k, row in enumerate(found)]
    truth = truth_of(sheet, asked, splits) if asked else Truth([""] * len(found), "classify")
    rows = [
        row._replace(label=label, split=split, group=group, time=time)
        for row, label, split, group, time in zip(found, truth.texts, splits, told.groups, told.times, strict=True)
    ]
    order = {"train": 0, "validation": 1, "test": 2, "none": 3}
    rows.sort(key=lambda r: order[r.split])  # stable: files stay in the order of their names
    kind = f"images in {len(parts)} Parquet file{'s' if len(parts) > 1 else ''}"
    what = said_of(rows, truth) if asked else counted(len(rows), "image")
    return Found(rows, [*notes, *sheet.notes], f"{where}: {kind}, {what}{told.grouped}", truth.task, truth.columns)


def _names(files: Sequence[Place]) -> list[str]:
    """What the files are called below the folder that holds them all, with slashes."""
    parts = [str(file).replace(os.sep, "/").split("/") for file in files]
    common = 0
    while all(len(one) > common + 1 and one[common] == parts[0][common] for one in parts):
        common += 1
    return [shown("/".join(one[common:])) for one in parts]


def _row_groups(file: Place) -> list[int]:
    try:
        with open_parquet(file) as parquet:
            return [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
    except UNSOUND as error:
        raise DataError(f"{shown(str(file))} is damaged: {why(error)}") from error


def sheet_of(path: Place, asked: Asked | None, pictures: str = "") -> Sheet:
    """The columns of a Parquet file that may say something of its images, as texts. Raises DataError."""
    schema = _schema(path)
    names = [str(name) for name in schema.names]
    typed = [name for name in names if _features(schema).get(name, {}).get("_type") == "ClassLabel"]
    sheet = Sheet(shown(str(path)), "Parquet manifest", names, unit="row")
    useless = ("", "box", "path", "path?") if pictures else ("", "box")
    known = [name for name in names if name in typed or columns.role_of(name) not in useless]
    unnamed = [names[k] for k in sorted(wanted_of(names, asked))]
    also = [
        names[k] for name in (asked.beside if asked else ()) if (k := columns.column_called(names, name)) is not None
    ]
    unnamed = [n for n in unnamed if n not in known and (n != pictures or not _holds_bytes(schema.field(n).type))]
    known += [n for n in unnamed if asked and (asked.label or n in also or _may_be_truth(schema.field(n)))][
        :MOST_SAMPLED
    ]
    wanted = [n for n in known if n != pictures and _is_text(schema.field(n).type, columns.role_of(n))]
    if repeated := next((name for name in wanted if names.count(name) > 1), None):
        raise DataError(f"{sheet.where} has several columns {quoted(repeated)}: keep one")
    table = _read(path, wanted)
    sheet.numbers = list(range(1, table.num_rows + 1) if wanted else range(1, sum(_row_groups(path)) + 1))
    for name in wanted:
        texts = _texts(sheet, name, table.column(name), _class_labels(schema, name))
        sheet.values[names.index(name)] = texts
        if _is_list(schema.field(name).type):
            sheet.sets[names.index(name)] = _entries(sheet, name, table.column(name), _class_labels(schema, name))
    sheet.stated = [names.index(name) for name in typed if name in wanted]
    if not any(columns.role_of(name) in ("label", "label?") for name in names):
        few = [name for name in names if _is_number(schema.field(name).type)][:MOST_SAMPLED]
        looked = _read(path, few).slice(0, SAMPLED).to_pydict() if few else {}
        sheet.sample = [
            [str(looked[name][row]) if name in looked else "" for name in names]
            for row in range(len(next(iter(looked.values()), ())))
        ]
    return sheet


def _is_text(kind: pa.DataType, role: str) -> bool:
    """Whether a column's values can be written as one text each; a list may hold the labels of an image."""
    if _is_list(kind):
        return role in ("label", "label?", "") and not pa.types.is_nested(kind.value_type)
    return not pa.types.is_nested(kind)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _may_be_truth(field: pa.Field) -> bool:
    """Whether a column whose name says nothing may hold labels of 0 and 1, or values."""
    return _is_number(field.type) or bool(pa.types.is_string(field.type) or pa.types.is_large_string(field.type))


def _texts(sheet: Sheet, name: str, column: pa.ChunkedArray, known: list[str]) -> list[str]:
    """Each value as text, "" for none: the name that `known` gives to a number, where there are such names."""
    values = column.to_pylist()
    if _is_list(column.type):
        return [BETWEEN.join(entries or ()) for entries in _entries(sheet, name, column, known)]
    return [_text(sheet, name, row, value, known) for row, value in enumerate(values)]


def _entries(sheet: Sheet, name: str, column: pa.ChunkedArray, known: list[str]) -> list[tuple[str, ...] | None]:
    """The entries of each list as texts, without those that are none; None where there is no list."""
    return [
        None if value is None else tuple(filter(None, (_text(sheet, name, row, one, known) for one in value)))
        for row, value in enumerate(column.to_pylist())
    ]


def _text(sheet: Sheet, name: str, row: int, value: Any, known: list[str]) -> str:
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise DataError(
                f"{sheet.where} row {row + 1}: column {quoted(name)} holds {len(value):,} bytes that are no text"
            ) from None
    if not known or not isinstance(value, int | float) or not float(value).is_integer():
        return str(value)
    if value == -1:  # Hugging Face's mark of an image without label
        return ""
    if not 0 <= value < len(known):
        raise DataError(f"{sheet.where} has the label {value}, but names for 0 to {len(known) - 1} only")
    return known[int(value)]


def _class_labels(schema: pa.Schema, name: str) -> list[str]:
    """The names of the classes by number, as the file's own description has them."""
    feature = _features(schema).get(name, {})
    inner = feature.get("feature")
    names = (inner if isinstance(inner, dict) else feature).get("names")
    if isinstance(names, dict) and all(key.isdecimal() for key in names):  # an older spelling: {"0": "cat", ...}
        names = [names[key] for key in sorted(names, key=int)]
    return [str(name) for name in names] if isinstance(names, list) else []


def _joined(where: str, sheets: Sequence[Sheet]) -> Sheet:
    """The rows of several files one after the other; a column that a file lacks is empty there."""
    if len(sheets) == 1:
        return sheets[0]
    names = list(dict.fromkeys(name for sheet in sheets for name in sheet.names))
    whole = Sheet(where, "Parquet", names, unit="row", sample=next((s.sample for s in sheets if s.sample), []))
    for place, name in enumerate(names):
        at_hand = [(s, s.names.index(name) if name in s.names else -1) for s in sheets]
        if any(k in s.values for s, k in at_hand):
            whole.values[place] = [text for s, k in at_hand for text in s.values.get(k, [""] * len(s))]
            if any(k in s.sets for s, k in at_hand):
                empty = [[None] * len(s) for s, _ in at_hand]
                whole.sets[place] = [
                    one for (s, k), none in zip(at_hand, empty, strict=True) for one in s.sets.get(k, none)
                ]
        if any(k in s.stated for s, k in at_hand):
            whole.stated.append(place)
    whole.numbers = list(range(1, sum(map(len, sheets)) + 1))
    return whole


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Hugging Face's description of each column; {} if there is none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return {k: v for k, v in features.items() if isinstance(v, dict)} if isinstance(features, dict) else {}


def _schema(path: Place) -> pa.Schema:
    try:
        with open_parquet(path) as parquet:
            return parquet.schema_arrow
    except UNSOUND as error:
        what = "cannot be fetched" if isinstance(path, Far) and isinstance(error, OSError) else "is not a Parquet file"
        raise DataError(f"{shown(str(path))} {what}: {why(error)}") from error


def _read(path: Place, names: list[str]) -> pa.Table:
    try:
        return read_columns(path, names)
    except UNSOUND as error:
        raise DataError(f"{shown(str(path))} is damaged: {why(error)}") from error
