"""COCO: a JSON file of images, annotations and categories, one for all pictures or one for each part of them.

`bbox` is x, y, width, height in px of the picture, from its edge (cocodataset.org, Data format). A picture that the
file lists without annotations is known to be empty. Classes stand in the order of the categories' numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.data import folder_names as names
from headstart.data.annotated import Annotated, Marked, Place, Read, Remarks, split_in
from headstart.data.places import is_file
from headstart.data.tree import shown
from headstart.errors import DataError
from headstart.files.cells import quoted
from headstart.files.reading import open_regular, read_regular, why

MOST_JSON = 1 << 30  # bytes: instances_train2017.json has 450 MB
SNIFFED = 1 << 16  # bytes that tell what a JSON file is of: COCO's own begin with 2 KB of licences
KEYS = (b'"images"', b'"annotations"', b'"categories"')

Item = dict[str, Any]


def is_coco(path: str) -> bool:
    """Whether a JSON file begins as COCO's do."""
    try:
        with open_regular(path) as file:
            start = file.read(SNIFFED)
    except OSError:
        return False
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and any(key in start for key in KEYS)


def read_coco(place: Place, files: list[str]) -> Read:
    """The pictures that these files list. Raises DataError, also where a picture is in two of them."""
    read = Read([], "COCO")
    named: dict[str, str] = {}
    classes: list[str] = []
    finder = _Finder(place)
    for file in files:
        held = _document(file, place.name(file))
        found = _categories(held["categories"], read.remarks, place.name(file))
        classes += [name for name in found.values() if name not in classes]
        for picture in _pictures(place, finder, file, held, found, read.remarks):
            if picture.path in named:
                if named[picture.path] != file:
                    raise DataError(
                        f"{picture.name} is listed both in {place.name(named[picture.path])} and in "
                        f"{place.name(file)}: name the one JSON file that counts"
                    )
                read.remarks.add("pictures that are listed twice, of which the first entry counts", picture.name)
                continue
            named[picture.path] = file
            read.pictures.append(picture)
    read.classes = classes
    for path in place.pictures:
        if path not in named:
            read.remarks.add("pictures that no JSON file lists, not used", place.name(path))
    return read


def _document(path: str, where: str) -> dict[str, list[Item]]:
    """The three lists of a file. Raises DataError."""
    try:
        held = json.loads(read_regular(path, MOST_JSON).decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{where} cannot be read: {why(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no whole JSON ({error}): fetch it again") from error
    lists = {}
    for key in ("images", "annotations", "categories"):
        found = held.get(key) if isinstance(held, dict) else None
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise DataError(
                f"{where} has no list of objects under {key!r}: a COCO file has images, annotations, categories"
            )
        lists[key] = found
    return lists


def _categories(items: list[Item], remarks: Remarks, where: str) -> dict[int, str]:
    """Names by number, in the order of the numbers."""
    found: dict[int, str] = {}
    for item in items:
        number, name = item.get("id"), item.get("name")
        if not isinstance(number, int) or not isinstance(name, str) or not name.strip():
            remarks.add("categories without a number or a name, left out", where)
        elif number in found:
            remarks.add("categories whose number is taken already, left out", f"{name} in {where}")
        else:
            found[number] = name.strip()
    return dict(sorted(found.items()))


def _pictures(
    place: Place, finder: _Finder, file: str, held: dict[str, list[Item]], classes: dict[int, str], remarks: Remarks
) -> Iterable[Annotated]:
    split = _split_of(place, file)
    boxes: dict[Any, list[Marked]] = {}
    numbers = {_key(item.get("id")) for item in held["images"]}
    for item in held["annotations"]:
        number = _key(item.get("image_id"))
        if number not in numbers:
            remarks.add("annotations of pictures that their file does not list, left out", place.name(file))
        elif (box := _box(item, classes, remarks, place.name(file))) is not None:
            boxes.setdefault(number, []).append(box)
    seen = set()
    for item in held["images"]:
        number, name = _key(item.get("id")), item.get("file_name")
        if not isinstance(name, str) or not name:
            remarks.add("entries of pictures without a file_name, left out", place.name(file))
        elif number in seen:
            remarks.add("pictures whose number another one has already, left out", shown(name))
        elif path := finder.find(file, name, split):
            seen.add(number)
            part = split if split != "none" else split_in(place.root, path)
            yield Annotated(place.name(path), path, part, boxes.get(number, []), _stated(item))
        else:
            remarks.add("pictures that are listed and not there", shown(name))


def _key(number: object) -> object:
    """A number as it can be looked up: some programs write it as text in one of the two places."""
    return str(number) if isinstance(number, int | str) else None


def _split_of(place: Place, file: str) -> str:
    """The part that the name of a file tells, or the folders that it lies in."""
    found = {names.SPLIT_NAMES[word] for word in names.tokens(Path(file).stem) if word in names.SPLIT_NAMES}
    return found.pop() if len(found) == 1 else split_in(place.root, file)


def _stated(item: Item) -> tuple[int, int] | None:
    width, height = _number(item.get("width")), _number(item.get("height"))
    return (round(width), round(height)) if width >= 1 and height >= 1 and math.isfinite(width * height) else None


def _number(value: object) -> float:
    """nan for what is no number, or one that is far too large."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.nan


def _box(item: Item, classes: dict[int, str], remarks: Remarks, where: str) -> Marked | None:
    sides = item.get("bbox")
    if not isinstance(sides, list) or len(sides) != 4:
        remarks.add("annotations without a box of four numbers, left out", where)
        return None
    number = item.get("category_id")
    if not isinstance(number, int) or number not in classes:
        remarks.add(
            "boxes of a category that their file does not name, left out", f"{quoted(str(number)[:20])} in {where}"
        )
        return None
    x, y, width, height = map(_number, sides)
    width, height = max(width, 0.0), max(height, 0.0)  # below 0: of no area, and not a swapped corner
    return Marked(classes[number], x, y, x + width, y + height, bool(item.get("iscrowd")))


@dataclass
class _Finder:
    """Where the pictures are that JSON files name: below the file's folder, the set's, or by the end of their paths."""

    place: Place
    by_name: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in self.place.pictures:
            self.by_name.setdefault(Path(path).name, []).append(path)

    def find(self, file: str, name: str, split: str) -> str:
        """The path of the one picture that is meant, "" where none or several fit."""
        plain = name.replace("\\", "/")
        for base in (Path(file).parent, Path(self.place.root)):
            if "\0" not in plain and is_file(str(base / plain)):
                return str(base / plain)
        parts = Path(plain).parts
        found = self.by_name.get(parts[-1] if parts else "", [])
        for fits in (
            [path for path in found if Path(path).parts[-len(parts) :] == parts],
            [path for path in found if split != "none" and split_in(self.place.root, path) == split],
            found,
        ):
            if len(fits) == 1:
                return fits[0]
        return ""
