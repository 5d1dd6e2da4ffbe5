"""Polygons and runs that annotation tools write: COCO and Labelme JSON, as pictures with shapes.

Pixels in no shape are of the class `background`, which is the first unless a class of the file is called so. Where
shapes overlap, COCO's smaller ones lie on top of the larger ones, Labelme's later ones on top of the earlier ones.
COCO's crowds (`iscrowd`), and shapes of a class called void, ignore or the like, are void.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headstart.data import folder_names as names
from headstart.data.columns import squeezed
from headstart.data.mask_classes import MOST, SAY_VOID, Classes
from headstart.data.mask_text import Shape
from headstart.data.masked import Pictured, Remarks
from headstart.data.places import place, say_missing, say_moved
from headstart.data.placing import VOID, Size
from headstart.data.tree import shown
from headstart.errors import DataError, nearest
from headstart.files.reading import read_regular, why

BACKGROUND = "background"
MOST_BYTES = 2**30  # of a JSON file: COCO's instances_train2017 has 448 MB
MOST_BITS = 60  # of a packed run: more are damaged
FARTHEST = 10**9  # px: beyond are no places of a picture, but mistakes
CORNERS = 64  # of a circle
Outline = list[float] | dict[str, list[int]]


class Marked(NamedTuple):
    """A shape before its class has a number; None: void."""

    label: str | None
    outline: Outline
    area: float = 0.0


class Sketched(NamedTuple):
    """A picture with its shapes by name. size: (height, width) px as stated."""

    name: str
    path: str
    split: str
    shapes: list[Marked]
    size: Size | None
    why: str = ""


class Read(NamedTuple):
    """kind: what was read. labels: of all classes, in order."""

    pictures: list[Sketched]
    labels: list[str]
    kind: str
    notes: list[str]


def json_in(path: Path) -> Any:
    """Raises DataError for a file that cannot be read, or that is no JSON."""
    try:
        return json.loads(read_regular(path, MOST_BYTES))
    except OSError as error:
        raise DataError(f"{shown(str(path))} cannot be read: {why(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{shown(str(path))} is no JSON, or cut short: {error}") from error


def is_coco(found: Any) -> bool:
    return isinstance(found, dict) and all(isinstance(found.get(key), list) for key in ("images", "annotations"))


def is_labelme(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("shapes"), list) and "images" not in found


def pictured(read: Read, given: Classes | None) -> tuple[list[Pictured], Classes]:
    """The pictures with class numbers. given: the classes that the user names. Raises DataError."""
    labels = list(dict.fromkeys(read.labels))
    if given is None:
        kept = [label for label in labels if squeezed(label) not in SAY_VOID]
        own = next((label for label in kept if squeezed(label) == BACKGROUND), BACKGROUND)
        order = (own, *(label for label in kept if label != own))
        if len(order) > MOST:
            raise DataError(f"{len(order)} classes: at most {MOST} are possible")
        given = Classes(order, {}, tuple(label for label in labels if label not in kept), "the annotations")
    number = {name: k for k, name in enumerate(given.names)} | dict.fromkeys(given.void, VOID)
    strange = next((label for label in labels if label not in number and squeezed(label) not in SAY_VOID), None)
    if strange is not None:
        raise DataError(f"class {strange!r} is none of those of {given.where}{nearest(strange, given.names)}")
    rest = next((number[name] for name in given.names if squeezed(name) == BACKGROUND), VOID)
    found = []
    for one in read.pictures:
        shapes = tuple[Shape, ...](
            (VOID if mark.label is None else number.get(mark.label, VOID), mark.outline) for mark in one.shapes
        )
        held = None if one.why else shapes
        found.append(Pictured(one.name, one.path, one.split, None, held, one.size, rest, one.why))
    return found, given


# COCO


def read_coco(files: Sequence[tuple[Path, Any]], root: Path) -> Read:
    """COCO files that belong together, with what stands in them; their pictures lie below the folder of each, or below
    `root`. Raises DataError."""
    pictures, labels, notes, remarks = list[Sketched](), dict[str, None](), list[str](), Remarks()
    several = len(files) > 1
    for path, content in files:
        split = _split_of(path, root) if several else "none"
        categories = _categories(content, path)
        marks = _marks(content, categories, remarks)
        listed = _listed(content, path)
        base = path.parent if path.parent != root and _lies_in(path.parent, listed) else root
        placed = place(base, [str(image["file_name"]) for image in listed])
        notes += [*say_moved(placed), *say_missing(placed)]
        again, ids = Counter(placed.files), Counter(image["id"] for image in listed)
        for image, file in zip(listed, placed.files, strict=True):
            shapes = sorted(marks.pop(image["id"], []), key=lambda mark: (mark.label is not None, -mark.area))
            twice = again[file] > 1 or ids[image["id"]] > 1
            reason = "set aside, listed more than once" if twice else _fault(shapes)
            name = shown(os.path.relpath(file, root).replace(os.sep, "/"))
            pictures.append(
                Sketched(name, file, split, shapes, _stated(image.get("width"), image.get("height")), reason)
            )
        if marks:
            notes.append(f"{shown(path.name)}: shapes of {len(marks)} pictures that it does not list are left out")
        used = {mark.label for one in pictures for mark in one.shapes}
        labels |= dict.fromkeys(label for label in categories.values() if label in used)
    if not any(mark.label is not None for one in pictures for mark in one.shapes):
        raise DataError(f"{shown(str(files[0][0]))} holds no polygons and no runs: for boxes alone say --task detect")
    return Read(pictures, list(labels), "COCO JSON", [*notes, *remarks.notes()])


def _categories(content: Any, path: Path) -> dict[Any, str]:
    found = content.get("categories")
    if not isinstance(found, list) or not all(isinstance(one, dict) and "id" in one and "name" in one for one in found):
        raise DataError(f"{shown(str(path))} has no list `categories` with id and name: it cannot be read as COCO")
    try:
        return {one["id"]: str(one["name"]) for one in sorted(found, key=lambda one: one["id"])}
    except TypeError as error:
        raise DataError(f"{shown(str(path))}: the ids of its categories are no numbers") from error


def _listed(content: Any, path: Path) -> list[dict[str, Any]]:
    found = content["images"]
    if not all(
        isinstance(one, dict) and isinstance(one.get("id"), int | float | str) and isinstance(one.get("file_name"), str)
        for one in found
    ):
        raise DataError(f"{shown(str(path))}: an entry of `images` has no id or no file_name")
    return list(found)


def _lies_in(folder: Path, listed: Sequence[dict[str, Any]]) -> bool:
    return bool(listed) and (folder / listed[0]["file_name"]).is_file()


def _marks(content: Any, categories: dict[Any, str], remarks: Remarks) -> dict[Any, list[Marked]]:
    """The shapes of each image id."""
    found = defaultdict[Any, list[Marked]](list)
    for one in content["annotations"]:
        if not isinstance(one, dict) or not isinstance(one.get("image_id"), int | float | str):
            remarks.add("annotations without image_id are left out", str(one)[:40])
            continue
        category = one.get("category_id")
        label = categories.get(category) if isinstance(category, int | float | str) else None
        outlines = _outlines(one.get("segmentation"))
        which = f"annotation {one.get('id')}"
        if label is None:
            remarks.add("shapes of a category that the file does not list are void", which)
        elif not outlines and (box := _box(one.get("bbox"))):
            remarks.add("annotations with a box and no outline are void in their box", which)
            label, outlines = None, [box]
        elif not outlines:
            remarks.add("annotations without polygons or runs are left out", which)
        label = None if one.get("iscrowd") else label
        area = sum(_area(outline) for outline in outlines)
        found[one["image_id"]] += [Marked(label, outline, area) for outline in outlines]
    return found


def _outlines(segmentation: Any) -> list[Outline]:
    """Polygons of three corners or more, or runs; nothing for what is neither."""
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        counts = unpacked(counts) if isinstance(counts, str) else counts
        return [{"counts": counts}] if isinstance(counts, list) else []
    rings = segmentation if isinstance(segmentation, list) else []
    rings = [rings] if rings and not isinstance(rings[0], list) else rings
    return [ring for ring in rings if len(ring) >= 6]


def _box(box: Any) -> Outline | None:
    """COCO's box, x, y, width and height, as a polygon."""
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, int | float) for side in box):
        return None
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def unpacked(text: str) -> list[int]:
    """COCO's runs as they are packed into a text: five bits a character, and differences to the run before the last;
    [] where it is damaged."""
    counts, value, shift = list[int](), 0, 0
    for character in text.encode():
        bits = character - 48
        if shift > MOST_BITS or not 0 <= bits < 64:
            return []
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value |= -1 << shift if bits & 16 else 0
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _area(outline: Outline) -> float:
    """In px; 0 of what cannot be drawn."""
    if _wrong_with(outline):
        return 0.0
    if isinstance(outline, dict):
        return float(sum(outline["counts"][1::2]))
    x, y = np.asarray(outline, np.float64).reshape(-1, 2).T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)


def _wrong_with(outline: Outline) -> str:
    """Why an outline cannot be drawn; "" if it can."""
    values = outline["counts"] if isinstance(outline, dict) else outline
    kinds = int if isinstance(outline, dict) else int | float
    if not all(isinstance(v, kinds) and not isinstance(v, bool) and abs(v) <= FARTHEST for v in values):
        return f"set aside, a shape has a corner or a run that is no number of px (of {FARTHEST:,} at most)"
    if not isinstance(outline, dict) and len(values) % 2:
        return "set aside, a polygon has an odd number of coordinates"
    return ""


def _fault(shapes: Iterable[Marked]) -> str:
    """Why the shapes of a picture cannot be drawn; "" if they can."""
    return next((wrong for mark in shapes if (wrong := _wrong_with(mark.outline))), "")


def _stated(width: Any, height: Any) -> Size | None:
    known = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in (width, height))
    return (height, width) if known else None


def _split_of(path: Path, root: Path) -> str:
    """By the file's own name, as instances_val2017, or by its folder."""
    parts = [path.stem, *(part for part in path.parent.relative_to(root).parts[::-1])]
    for part in parts:
        for word in names.tokens(part):
            if word in names.SPLIT_NAMES:
                return names.SPLIT_NAMES[word]
    return "none"


# Labelme


def read_labelme(files: Sequence[tuple[str, str, str, Any]]) -> Read:
    """(name of the picture, its file, part of the data, content) of each file of Labelme. Raises DataError."""
    pictures, labels, remarks = list[Sketched](), set[str](), Remarks()
    for name, path, split, content in files:
        shapes, reason = list[Marked](), ""
        for shape in content["shapes"]:
            outline = _labelme_outline(shape)
            if outline is None:
                remarks.add("shapes that are no areas are left out", name)
                continue
            label = str(shape.get("label") or "").strip()
            if not label:
                reason = "set aside, a shape has no label"
            label = BACKGROUND if label == "_background_" else label
            shapes.append(Marked(label, outline))
            labels.add(label)
        size = _stated(content.get("imageWidth"), content.get("imageHeight"))
        pictures.append(Sketched(name, path, split, shapes, size, reason or _fault(shapes)))
    if not labels:
        raise DataError("none of the Labelme files holds a polygon: nothing says what is in the pictures")
    return Read(pictures, sorted(labels), "Labelme JSON", remarks.notes())


def _labelme_outline(shape: Any) -> list[float] | None:
    """The corners of a shape; None for points, lines, and what is no shape."""
    if not isinstance(shape, dict) or not isinstance(shape.get("points"), list):
        return None
    kind = shape.get("shape_type") or "polygon"
    try:
        corners = [(float(x), float(y)) for x, y in shape["points"]]
    except (ValueError, TypeError):
        return [math.nan] * 6
    if kind == "rectangle" and len(corners) == 2:
        (x1, y1), (x2, y2) = corners
        return [x1, y1, x2, y1, x2, y2, x1, y2]
    if kind == "circle" and len(corners) == 2:
        (x, y), edge = corners
        radius = math.dist((x, y), edge)
        turns = [2 * math.pi * k / CORNERS for k in range(CORNERS)]
        return [value for turn in turns for value in (x + radius * math.cos(turn), y + radius * math.sin(turn))]
    if kind in ("polygon", "rectangle") and len(corners) >= 3:
        return [value for corner in corners for value in corner]
    return None
