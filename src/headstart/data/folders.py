"""A folder of images as rows, with what was passed over, and what its labels look like, in notes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from headstart.data.class_folders import Layout, annotated
from headstart.data.folder_names import SPLIT_NAMES, composed, differ_only_in_spelling
from headstart.data.layouts import layout_of
from headstart.data.sources import FileSource, Found, Row
from headstart.data.tree import Folder, contents, or_list, remedy, shown, some
from headstart.data.walk import DROPPINGS, NO_IMAGE, Walk
from headstart.errors import DataError

# what the readers of lists take from here
__all__ = ["DROPPINGS", "NO_IMAGE", "SPLIT_NAMES", "Walk", "counts", "read_folder", "shown"]


def read_folder(root: Path, min_classes: int, inner: str = "") -> Found:
    """The rows of a folder of class folders, with or without split folders around or in them. Raises DataError.

    inner: what folders in a class folder are: "" unknown, "none" nothing, "folder" the group of their images. Where it
    is known, the topmost folders are the classes (or those in train), whatever they are called.
    """
    walk = Walk(str(root), masks=False)
    top = walk.tree()
    if not top.total:
        raise DataError(
            f"no images found in {shown(str(root))}: it holds {contents(top)}; expected is one folder per class with "
            f"images inside{remedy(top)}{or_list(top)}"
        )
    layout = layout_of(top, bool(inner))
    _note_what_is_left(walk, layout)
    rows = [row for found in layout.classes for row in _class_rows(walk, *found, grouped=inner == "folder")]
    notes = [*walk.notes(), *layout.notes, *_check_classes(top, layout, rows, min_classes)]
    return Found(rows, notes, _layout(root, layout.kind, rows))


def _note_what_is_left(walk: Walk, layout: Layout) -> None:
    """What lies beside the folders that are read."""
    among = "class" if layout.kind == "class folders" else "split"
    read = {id(folder) for folder, _, _ in layout.classes}
    for place in layout.places:
        for entry in place.files:
            walk.ignore(f"files beside the {among} folders", entry.path)
        for folder in place.folders:
            if not folder.total and id(folder) not in read:
                what = f" ({contents(folder)})" if any(inner.strays for inner in folder.below()) else ""
                walk.ignore("folders without images", folder.path + what)
    for why, folders in layout.beside.items():
        for folder in folders:
            walk.ignore(why, folder.path)


def _class_rows(walk: Walk, folder: Folder, label: str, split: str, grouped: bool) -> list[Row]:
    """One row an image of a class folder; folders of masks in it are left out."""
    rows: list[Row] = []
    pending = [folder]
    while pending:
        place = pending.pop()
        _, masks = annotated(place)
        for mask in masks:
            walk.ignore("folders of masks or boxes", mask.path)
        pending += reversed([inner for inner in place.folders if inner not in masks])
        group = shown(os.path.relpath(place.path, folder.path).replace(os.sep, "/")) if place is not folder else ""
        if group and place.files:
            walk.nested[folder.path] += len(place.files)
        group = group if grouped else ""
        rows += [Row(walk.relative(entry.path), FileSource(entry.path), label, split, group) for entry in place.files]
    return rows


def _check_classes(top: Folder, layout: Layout, rows: list[Row], min_classes: int) -> list[str]:
    """Notes on classes that a split lacks, or that are spelt alike. Raises DataError on too few classes."""
    classes: dict[str, set[str]] = {}
    for row in rows:
        if row.label:
            classes.setdefault(row.split, set()).add(row.label)
    training = classes.get("train", classes.get("none", set()))
    if len(training) == 1 < min_classes:
        raise DataError(
            f"{shown(top.path)} has one class only, {next(iter(training))!r}: at least two class folders with images "
            f"are needed; it holds {contents(top)}{or_list(top)}"
        )
    notes = [
        f"{split} has no images of class {some(missing)}"
        for split, names in classes.items()
        if (missing := sorted(training - names))
    ]
    folders: dict[str, set[str]] = {}
    for folder, label, _ in layout.classes:
        if composed(shown(folder.name)) == label:
            folders.setdefault(label, set()).add(folder.name)
    notes += [
        f"class {label!r}: folders whose names differ only in how accents are stored are one class"
        for label, spelt in folders.items()
        if len(spelt) > 1
    ]
    every = sorted(set().union(*classes.values())) if classes else []
    notes += [
        f"{a!r} and {b!r} differ only in letter case or blanks and are two classes: rename one folder if one is meant"
        for a, b in differ_only_in_spelling(every)
    ]
    return notes


def _layout(root: Path, kind: str, rows: list[Row]) -> str:
    return f"{shown(str(root))}: {kind}, {counts(rows)}"


def counts(rows: list[Row]) -> str:
    """How many images of which class and split, in one line: "train 244 (ants 123, bees 121), validation ..."."""
    by_split: dict[str, Counter[str]] = {}
    for row in rows:
        by_split.setdefault(row.split, Counter())[row.label] += 1
    parts = []
    for split in ("train", "validation", "test", "none"):
        if split in by_split:
            labels = by_split[split]
            each = [f"{label} {n:,}" for label, n in sorted(labels.items()) if label]
            each += [f"unlabelled {labels['']:,}"] if labels[""] else []
            what = f"{sum(labels.values()):,} images" if split == "none" else f"{split} {sum(labels.values()):,}"
            parts.append(f"{what} of {len(set(labels) - {''})} classes ({some(each, 10)})")
    return ", ".join(parts)
