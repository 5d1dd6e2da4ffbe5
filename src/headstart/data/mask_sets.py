"""What is given for `--task segment`, by the reader for it: folders, lists, COCO and Labelme."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from headstart.data.beside import metadata_files
from headstart.data.mask_classes import Classes, classes_given
from headstart.data.mask_layouts import LAYOUT, has_masks, key_of, part_of, pieces_of, read_masked_folder
from headstart.data.mask_lists import read_masked_list, read_metadata_masks
from headstart.data.masked import found_in
from headstart.data.shape_files import Read, is_coco, is_labelme, json_in, pictured, read_coco, read_labelme
from headstart.data.sources import Found
from headstart.data.tree import shown
from headstart.data.truth import Asked
from headstart.data.walk import Walk
from headstart.errors import DataError, OptionError

LISTS = (".csv", ".tsv", ".txt", ".lst", ".jsonl", ".parquet")


def read_masks(place: Path, asked: Asked, inner: str) -> Found:
    """The rows of pictures with masks or shapes. inner: "folder" makes groups of the folders in which pictures lie
    below images/. Raises DataError, OptionError."""
    given = classes_given(asked.classes) if asked.classes is not None else None
    where = shown(str(place))
    if place.is_dir():
        return _folder(place, asked, inner, given)
    if not place.exists():
        raise DataError(f"{where} does not exist: {LAYOUT}")
    if place.suffix.lower() in LISTS:
        return read_masked_list(place, asked, given)
    if place.suffix.lower() == ".json":
        content = json_in(place)
        if not is_coco(content):
            raise DataError(f"{where} is no COCO JSON, with images, annotations and categories: {LAYOUT}")
        _no_columns(asked, where)
        return _of_shapes(read_coco([(place, content)], place.parent), where, given)
    raise DataError(f"{where} is neither a folder nor a list: {LAYOUT}")


def _folder(place: Path, asked: Asked, inner: str, given: Classes | None) -> Found:
    where = shown(str(place))
    if files := [(file, split) for file, split in metadata_files(place) if file.suffix != ".parquet"]:
        return read_metadata_masks(place, files, asked, given)
    _no_columns(asked, where)
    walk = Walk(str(place))
    pieces = pieces_of(walk)
    if has_masks(pieces):
        return read_masked_folder(walk, pieces, inner == "folder", given)
    contents = [(path, json_in(path)) for path in _json_files(place)]
    if coco := [(path, content) for path, content in contents if is_coco(content)]:
        return _of_shapes(read_coco(coco, place), where, given)
    known = {piece.key: piece.path for piece in pieces}
    sketched = [(known.get(key_of(place, path), ""), path, found) for path, found in contents if is_labelme(found)]
    matched = [(walk.relative(file), file, part_of(place, Path(file)), found) for file, _, found in sketched if file]
    if matched:
        return _of_shapes(read_labelme(matched), where, given, len(sketched) - len(matched))
    return read_masked_folder(walk, pieces, False, given)  # which says what is lacking


def _of_shapes(read: Read, where: str, given: Classes | None, lone: int = 0) -> Found:
    pictures, classes = pictured(read, given)
    notes = [*read.notes, *([f"{lone} files of Labelme have no picture of their name"] if lone else [])]
    return found_in(pictures, read.kind, where, classes, notes)


def _no_columns(asked: Asked, where: str) -> None:
    for option in ("label", "group", "time"):
        if getattr(asked, option) is not None:
            raise OptionError(f"--{option} names a column of a list, and {where} is none: leave it out")


def _json_files(root: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(".json") and not name.startswith("."):
                yield Path(folder) / name
