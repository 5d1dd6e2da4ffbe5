"""Lists of images as rows: a CSV or Parquet manifest, or Parquet files that hold the images (Hugging Face layout)."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from headstart.data.folder_names import SPLIT_NAMES, split_of
from headstart.data.folders import counts
from headstart.data.sources import CellSource, FileSource, Found, Row, RowGroups
from headstart.data.tree import shown
from headstart.errors import DataError, nearest
from headstart.files.parquet import UNSOUND, open_parquet, read_columns
from headstart.files.reading import open_regular, why

COLUMNS = {
    "path": ("path", "filename", "file_name", "file", "image"),
    "label": ("label", "class"),
    "split": ("split",),
    "group": ("group",),
}
HF_LABELS = ("label", "labels", "class", "fine_label")
SPLITS_ALLOWED = "train, validation, test or none"
DELIMITERS = (",", ";", "\t")
LONGEST_LINE = 2**20  # characters of a CSV file: a device or a file of zeros has no end of line


def read_csv(path: Path) -> Found:
    """A CSV file with the columns path,label[,split][,group]; comma, semicolon or tab; UTF-8. Raises DataError."""
    try:
        with TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
            first = file.readline(LONGEST_LINE)
            delimiter, columns = _header(path, first)
            file.seek(0)
            reader = csv.reader(_lines(file), delimiter=delimiter, skipinitialspace=True, strict=True)
            next(reader)
            lines = ((reader.line_num, values) for values in reader if any(values))
            return _manifest(path, "CSV manifest", columns, lines)
    except UnicodeDecodeError as error:
        raise DataError(f"{shown(str(path))} is not UTF-8 text ({error.reason}): save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{shown(str(path))} is not a CSV file: {error}") from error
    except OSError as error:
        raise DataError(f"{shown(str(path))} cannot be read: {why(error)}") from error


def _lines(file: TextIO) -> Iterator[str]:
    """The lines of a text, none of them endless. Raises csv.Error."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise csv.Error(f"it has a line of more than {LONGEST_LINE:,} characters")
        yield line


def read_parquet(path: Path) -> Found:
    """A Parquet file: images inside (Hugging Face layout), or a manifest with path and label. Raises DataError."""
    schema = _schema(path)
    if _image_column(schema):
        return _hugging_face([(path, "none")], shown(str(path)), [])
    columns = _columns(path, schema.names)
    used = sorted(columns.values())
    data = _read_columns(path, [schema.names[i] for i in used])
    values = zip(*(data.column(k).to_pylist() for k in range(len(used))), strict=True)
    position = {name: used.index(i) for name, i in columns.items()}
    lines = ((n, ["" if v is None else str(v) for v in row]) for n, row in enumerate(values, 1))
    return _manifest(path, "Parquet manifest", position, lines)


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a Hugging Face set, directly in a folder or in its `data` folder, sorted; or none."""
    for place in (folder, folder / "data"):
        found = sorted(place.glob("[!.]*.parquet"), key=lambda p: os.fsencode(p.name))
        if any(_split_of(file) or _holds_images(file) for file in found):
            return found
    return _export(folder)


def _export(folder: Path) -> list[Path]:
    """The files of the hub's own export, CONFIGURATION/train/0000.parquet, or of one configuration; or none."""
    parts = [f"{partial}{split}" for partial in ("", "partial-") for split in ("train", "validation", "test")]
    found: dict[Path, list[Path]] = {}
    try:
        inner = sorted(Path(entry.path) for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return []
    for place in (folder, *inner):
        files = [file for part in parts for file in sorted((place / part).glob("[!.]*.parquet"))]
        if any(_holds_images(file) for file in files):
            found[place] = files
    if len(found) > 1:
        names = ", ".join(shown(place.name) for place in found)
        raise DataError(
            f"{shown(str(folder))} holds {len(found)} sets, {names}: name one, {shown(str(next(iter(found))))}"
        )
    return next(iter(found.values()), [])


def _holds_images(file: Path) -> bool:
    try:
        return bool(_image_column(_schema(file)))
    except DataError:
        return False


def read_parquet_folder(folder: Path, files: Sequence[Path]) -> Found:
    """A folder of train-*, validation-* and test-* Parquet files in the Hugging Face layout. Raises DataError."""
    named = [(file, _split_of(file) or _part_of(file, folder)) for file in files]
    notes = [
        f"{file.name}: not read, its name begins with none of train, validation, test" for file, s in named if not s
    ]
    parts = [(file, split) for file, split in named if split]
    if not parts:  # one set in several files
        parts, notes = [(file, "none") for file in files], []
    return _hugging_face(parts, shown(str(folder)), notes)


def _part_of(file: Path, folder: Path) -> str:
    """The split that the folder of a file is named after, in the hub's own export."""
    return "" if file.parent in (folder, folder / "data") else split_of(file.parent.name)


def _split_of(file: Path) -> str:
    return SPLIT_NAMES.get(file.stem.lower().replace("_", "-").replace(".", "-").split("-")[0], "")


def _hugging_face(parts: Sequence[tuple[Path, str]], where: str, notes: list[str]) -> Found:
    column = _image_column(_schema(parts[0][0]))
    if not column:
        raise DataError(f"{shown(str(parts[0][0]))} has no image column (a struct with the field bytes)")
    groups = RowGroups([file for file, _ in parts], column)
    twice = len({file.name for file, _ in parts}) < len(parts)  # train/0000.parquet and test/0000.parquet
    rows: list[Row] = []
    for number, (file, split) in enumerate(parts):
        schema = _schema(file)
        if _image_column(schema) != column:
            raise DataError(f"{shown(str(file))} has no image column {column!r} as {parts[0][0].name} has")
        labels = _labels(file, schema)
        name = f"{file.parent.name}/{file.name}" if twice else file.name
        at = 0
        with open_parquet(file) as parquet:
            sizes = [parquet.metadata.row_group(g).num_rows for g in range(parquet.num_row_groups)]
        for group, size in enumerate(sizes):
            for row in range(size):
                source = CellSource(groups, number, group, row)
                rows.append(Row(f"{shown(name)}#{at + row}", source, labels[at + row], split))
            at += size
    if not rows:
        raise DataError(f"{where} has no rows")
    order = {"train": 0, "validation": 1, "test": 2, "none": 3}
    rows.sort(key=lambda r: order[r.split])  # stable: files stay in the order of their names
    kind = f"images in {len(parts)} Parquet file{'s' if len(parts) > 1 else ''}"
    return Found(rows, notes, f"{where}: {kind}, {counts(rows)}")


def _labels(file: Path, schema: pa.Schema) -> list[str]:
    """The class name of each row; "" where it is null or -1, Hugging Face's mark of an image without label."""
    features = _features(schema)
    spelt = {name.lower(): name for name in schema.names}
    found = [spelt[name] for name in HF_LABELS if name in spelt]
    found += [n for n in schema.names if features.get(n, {}).get("_type") == "ClassLabel"]
    if not found:
        raise DataError(f"{shown(str(file))} has no label column: found {', '.join(schema.names)}; needed is label")
    column = _read_columns(file, [found[0]]).column(0)
    names = _class_names(features.get(found[0], {}))
    values = column.to_pylist()
    if not names or not pa.types.is_integer(column.type):
        return ["" if v is None else str(v) for v in values]
    wrong = next((v for v in values if v is not None and not -1 <= v < len(names)), None)
    if wrong is not None:
        raise DataError(f"{shown(str(file))} has the label {wrong}, but names for 0 to {len(names) - 1} only")
    return ["" if v is None or v < 0 else str(names[v]) for v in values]


def _class_names(feature: Mapping[str, Any]) -> list[str]:
    """Of Hugging Face's ClassLabel; [] where there are none."""
    names = feature.get("names")
    if isinstance(names, dict) and all(key.isdecimal() for key in names):  # an older spelling: {"0": "cat", ...}
        names = [names[key] for key in sorted(names, key=int)]
    return [str(name) for name in names] if isinstance(names, list) else []


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Hugging Face's description of each column; {} if there is none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    return {k: v for k, v in features.items() if isinstance(v, dict)} if isinstance(features, dict) else {}


def _image_column(schema: pa.Schema) -> str:
    """The first struct column with a binary field `bytes`; "" if there is none."""
    for column in schema:
        if pa.types.is_struct(column.type):
            fields = {f.name: f.type for f in column.type}
            kind = fields.get("bytes", pa.null())
            if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
                return str(column.name)
    return ""


def _schema(path: Path) -> pa.Schema:
    try:
        with open_parquet(path) as parquet:
            return parquet.schema_arrow
    except UNSOUND as error:
        raise DataError(f"{shown(str(path))} is not a Parquet file: {why(error)}") from error


def _read_columns(path: Path, names: list[str]) -> pa.Table:
    try:
        return read_columns(path, names)
    except UNSOUND as error:
        raise DataError(f"{shown(str(path))} is damaged: {why(error)}") from error


def _header(path: Path, line: str) -> tuple[str, dict[str, int]]:
    """(delimiter, column name -> position): the delimiter under which the header names a path and a label."""
    for delimiter in DELIMITERS:
        names = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        try:
            return delimiter, _columns(path, names)
        except DataError:
            continue
    if not line.strip():
        raise DataError(f"{shown(str(path))} is empty: its first line should be path,label")
    return ",", _columns(path, next(csv.reader([line])))


def _columns(path: Path, names: Iterable[str]) -> dict[str, int]:
    """path, label, split, group -> position among the names, whatever their letter case. Raises DataError."""
    spelt = [name.strip().lower() for name in names]
    found: dict[str, int] = {}
    for column, spellings in COLUMNS.items():
        position = next((spelt.index(s) for s in spellings if s in spelt), None)
        if position is not None:
            found[column] = position
    for column in ("path", "label"):
        if column not in found:
            seen = shown(", ".join(n[:40] for n in spelt[:8]))
            raise DataError(
                f"{shown(str(path))} has no column {column!r}: its columns are {seen}{nearest(column, spelt)}; "
                "needed is path,label[,split][,group]"
            )
    return found


def _manifest(path: Path, kind: str, columns: Mapping[str, int], lines: Iterable[tuple[int, list[str]]]) -> Found:
    """Rows of a manifest from (line number, values); relative paths start at the manifest's folder."""
    folder, rows = path.parent, []
    for number, values in lines:
        if len(values) <= max(columns.values()):
            raise DataError(
                f"{shown(str(path))} line {number} has {len(values)} values: {len(columns)} columns are needed"
            )
        name = values[columns["path"]]
        if not name:
            raise DataError(f"{shown(str(path))} line {number} has no path")
        split = _split(path, number, values[columns["split"]]) if "split" in columns else "none"
        group = values[columns["group"]] if "group" in columns else ""
        source = FileSource(str(folder / name))
        rows.append(Row(shown(name), source, values[columns["label"]], split, group))
    if not rows:
        raise DataError(f"{shown(str(path))} lists no images: each line is path,label")
    return Found(rows, [], f"{shown(str(path))}: {kind}, {counts(rows)}")


def _split(path: Path, number: int, value: str) -> str:
    word = value.strip().lower()
    if word in ("", "none"):
        return "none"
    if word not in SPLIT_NAMES:
        near = nearest(word, SPLIT_NAMES)
        raise DataError(f"{shown(str(path))} line {number}: split {value!r} is not one of {SPLITS_ALLOWED}{near}")
    return SPLIT_NAMES[word]
