"""What a user gives to be labelled: pictures, folders, lists, Parquet and zip files, or paths on standard input.

What is missing or cannot be read, beside other things that can, is a row whose picture cannot be read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, TextIO

from headstart.counted import counted
from headstart.data.archives import read_zip
from headstart.data.far_sets import pictures_at
from headstart.data.lines import SPACED, is_text
from headstart.data.manifests import LISTS, read_csv, read_parquet
from headstart.data.mask_layouts import without_masks
from headstart.data.parquet import parquet_files, read_parquet_folder
from headstart.data.sources import Found, RefusedSource, Row, source_of
from headstart.data.tars import read_tars, tars_at
from headstart.data.tree import shown
from headstart.data.walk import Walk
from headstart.errors import DataError
from headstart.files.far import is_far, of_another_kind

MOST_PATHS = 2**28  # bytes of paths on standard input: some two million


def found_in(paths: Sequence[str | Path], masks: bool = True) -> Found:
    """The pictures in all that is named; a file named here is always kept. masks: whether those of a folder are
    pictures too. Raises DataError where there is none."""
    rows: list[Row] = []
    notes: list[str] = []
    refused: list[str] = []
    for path in (os.fspath(path) for path in paths):
        try:
            found = _found_at(path, masks)
        except DataError as error:
            there = is_far(path) or os.path.lexists(path)
            source = RefusedSource(str(error)) if there else source_of(path)
            found = Found([Row(shown(path), source, "", "none")], [], "")
            refused.append(str(error))
        rows += found.rows
        notes += found.notes
    if not rows:
        raise DataError(f"no images found in {shown(', '.join(map(str, paths))) or 'an empty list'}")
    if len(refused) == len(rows):
        others = f" (and {len(refused) - 1} more like it)" if len(refused) > 1 else ""
        raise DataError(f"{refused[0]}{others}")
    return Found(rows, notes, f"{counted(len(rows), 'image')} without labels")


def _found_at(path: str, masks: bool) -> Found:
    """The pictures in one thing that is named. Raises DataError where there is no such thing."""
    place, kind = Path(path), os.path.splitext(path)[1].lower()  # noqa: PTH122 (".zip" has no stem)
    if is_far(path):
        return pictures_at(path, lambda folder: _pictures_below(str(folder), masks))
    if tars := tars_at(path):
        return read_tars(tars, shown(path), asked=None)
    if place.is_dir():
        inside = parquet_files(place)
        return read_parquet_folder(place, inside, asked=None) if inside else _pictures_below(path, masks)
    if not os.path.lexists(path):
        hint = of_another_kind(path) or "name image files, folders, lists, Parquet or zip files"
        raise DataError(f"{shown(path)} does not exist: {hint}")
    if kind == ".parquet":
        return read_parquet(place, asked=None)
    if kind in LISTS and (kind not in SPACED or is_text(place)):
        return read_csv(place, asked=None)
    if kind == ".zip":
        return read_zip(place)
    return Found([Row(shown(path), source_of(path), "", "none")], [], "")


def _pictures_below(folder: str, masks: bool) -> Found:
    walk = Walk(folder)
    paths = [file.path for file in walk.below(folder)] if masks else without_masks(walk)
    return Found([Row(shown(path), source_of(path), "", "none") for path in paths], walk.passed_over(), "")


def named(paths: Sequence[str], given: TextIO) -> list[str]:
    """The paths, with those that come on standard input in place of "-". Raises DataError."""
    found: list[str] = []
    for path in paths:
        found += _paths_from(given.buffer) if path == "-" else [path]
    return found


def _paths_from(file: BinaryIO) -> list[str]:
    """One a line; or with a zero byte after each, where there is one."""
    data = file.read(MOST_PATHS + 1)
    if len(data) > MOST_PATHS:
        raise DataError(f"more than {MOST_PATHS:,} bytes of paths came on standard input: give them in parts")
    parts = data.split(b"\0") if b"\0" in data else data.splitlines()
    found = [os.fsdecode(part) for part in parts if part.strip()]
    if not found:
        raise DataError("no path came on standard input: one a line is needed")
    return found
