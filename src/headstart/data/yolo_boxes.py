"""YOLO: a text file a picture, in labels beside images or beside the picture, a line a box: class x y width height.

x and y are the box's centre, and all four are shares of the picture's sides, upright. A line of a class and three or
more points is an outline, whose extent is the box. An empty file is a picture known to be empty; without a file nothing
is known of it. Names come from data.yaml (`names`), classes.txt or obj.names, and else are the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from headstart.data.annotated import Annotated, Marked, Place, Read, Remarks, key_of, split_in
from headstart.data.folder_names import is_annotation
from headstart.data.tree import shown
from headstart.errors import DataError
from headstart.files.reading import read_regular, why

MOST_TEXT = 8 << 20  # bytes of a file of labels: 100,000 boxes
MOST_YAML = 1 << 20
NAMES = ("classes.txt", "obj.names", "classes.names", "labels.txt", "predefined_classes.txt")
LOOKED_AT = 50  # files of labels that tell whether they are such

Key = tuple[str, ...]


def label_files(place: Place) -> dict[Key, str]:
    """Text files that lie where a picture's labels would, by what they have in common with it. () = not YOLO."""
    keys = {key_of(place.root, path) for path in place.pictures}
    found = {}
    for path in place.files(".txt"):
        key = key_of(place.root, path)
        folders = Path(path).relative_to(place.root).parts[:-1]
        if key in keys or (any(map(is_annotation, folders)) and Path(path).name.lower() not in NAMES):
            found[key] = path
    fitting = [path for key, path in found.items() if key in keys]
    if not any(_is_label(path) for path in islice(fitting, LOOKED_AT)):
        return {}
    return found


def _is_label(path: str) -> bool:
    try:
        lines = [line.split() for line in read_regular(path, MOST_TEXT).decode("utf-8", "replace").splitlines()]
    except OSError:
        return False
    return any(len(line) >= 5 and all(math.isfinite(_number(word)) for word in line) for line in lines)


def read_yolo(place: Place, labels: Mapping[Key, str], described: Path | None) -> Read:
    """The pictures of a folder with files of labels. described: its data.yaml. Raises DataError."""
    read = Read([], "YOLO")
    held = _document(described) if described else {}
    classes = _names(place, held, described)
    read.classes = classes or None
    parts = _parts(place, held, described)
    keys = set()
    for path in place.pictures:
        name, key = place.name(path), key_of(place.root, path)
        keys.add(key)
        picture = Annotated(name, path, parts.get(path) or split_in(place.root, path), relative=True)
        if key in labels:
            picture.boxes = _boxes(labels[key], name, classes, read.remarks)
        else:
            read.remarks.add("pictures without a file of labels, of which nothing is known", name)
        read.pictures.append(picture)
    for key, file in labels.items():
        if key not in keys:
            read.remarks.add("files of labels without a picture", place.name(file))
    return read


def _boxes(file: str, name: str, classes: list[str], remarks: Remarks) -> list[Marked] | None:
    try:
        text = read_regular(file, MOST_TEXT).decode("utf-8-sig")
    except (OSError, UnicodeError):
        remarks.add("files of labels that cannot be read, whose pictures are not used", name)
        return None
    found = []
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        box = _box(words, classes)
        if isinstance(box, str):
            remarks.add(box, name)
        else:
            found.append(box)
    return found


def _box(words: list[str], classes: list[str]) -> Marked | str:
    """A box, or what is wrong with the line."""
    number, values = _number(words[0]), [_number(word) for word in words[1:]]
    outline = len(values) >= 6 and len(values) % 2 == 0
    if len(values) != 4 and not outline:
        return "lines that are not a class and x y width height, left out"
    if not (number >= 0 and number.is_integer()):
        return "lines whose class is no number from 0 on, left out"
    if classes and number >= len(classes):
        return "boxes whose class number has no name, left out"
    label = classes[int(number)] if classes else str(int(number))
    if outline:
        x, y = values[0::2], values[1::2]
        if not all(map(math.isfinite, values)):
            return Marked(label, math.nan, math.nan, math.nan, math.nan)
        return Marked(label, min(x), min(y), max(x), max(y))
    x, y, width, height = values
    width, height = max(width, 0.0), max(height, 0.0)
    return Marked(label, x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


# What lies beside the pictures


def described_in(place: Place) -> Path | None:
    """The YAML file that names the classes, in the folder or one below it; None where there is none or several."""
    found = [Path(path) for path in place.files(".yaml", ".yml")]
    upper = [path for path in found if len(path.relative_to(place.root).parts) <= 2 and _document(path).get("names")]
    return upper[0] if len(upper) == 1 else None


def _document(path: Path) -> Mapping[str, Any]:
    """Raises DataError for what is no YAML."""
    import yaml

    try:
        held = yaml.safe_load(read_regular(path, MOST_YAML))
    except OSError as error:
        raise DataError(f"{shown(str(path))} cannot be read: {why(error)}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{shown(str(path))} is no YAML: {str(error).splitlines()[0]}") from error
    return held if isinstance(held, dict) else {}


def _names(place: Place, held: Mapping[str, Any], described: Path | None) -> list[str]:
    """The names of the classes in the order of their numbers, [] where nothing names them. Raises DataError."""
    stated = held.get("names")
    if isinstance(stated, dict):
        numbers = [key for key in stated if isinstance(key, int)]
        if sorted(numbers) != list(range(len(stated))):
            raise DataError(f"{shown(str(described))}: the numbers under names are not 0 to {len(stated) - 1}")
        stated = [stated[k] for k in range(len(stated))]
    if isinstance(stated, list):
        return _checked([str(name).strip() for name in stated], shown(str(described)))
    files = [path for path in place.files(*NAMES) if Path(path).name.lower() in NAMES]
    for file in files[:1]:
        try:
            text = read_regular(file, MOST_YAML).decode("utf-8-sig")
        except (OSError, UnicodeError) as error:
            raise DataError(f"{shown(file)} cannot be read: {why(error)}") from error
        return _checked([line.strip() for line in text.rstrip().splitlines()], shown(file))
    return []


def _checked(found: list[str], where: str) -> list[str]:
    twice = next((name for k, name in enumerate(found) if name in found[:k]), None)
    if twice is not None or "" in found:
        what = "a class without a name" if "" in found else f"the class {twice!r} twice"
        raise DataError(f"{where} has {what}: give each number a name of its own")
    return found


def _parts(place: Place, held: Mapping[str, Any], described: Path | None) -> dict[str, str]:
    """The part of each picture by what data.yaml says of train, val and test: folders, or lists of paths."""
    if described is None:
        return {}
    base = described.parent
    found: dict[str, str] = {}
    for word, split in (("train", "train"), ("val", "validation"), ("valid", "validation"), ("test", "test")):
        entries = held.get(word)
        for entry in [entries] if isinstance(entries, str) else entries if isinstance(entries, list) else []:
            place_of_part = _below(base, str(held.get("path") or ""), str(entry))
            if place_of_part is None:
                continue
            for path in _listed(place_of_part, place):
                if found.setdefault(path, split) != split:
                    raise DataError(
                        f"{shown(str(described))}: {place.name(path)} is in the {found[path]} part and in the {split} "
                        "part: a picture can be in one only"
                    )
    return found


def _below(base: Path, root: str, entry: str) -> Path | None:
    """The folder or list that an entry means; its path starts at `path`, at the file, or, as some programs write it, a
    folder too high."""
    plain = entry.replace("\\", "/")
    for path in (base / root / plain, base / plain, base / plain.removeprefix("../")):
        if "\0" not in plain and path.exists():
            return path
    return None


def _listed(where: Path, place: Place) -> list[str]:
    """The pictures in a folder, or of a list."""
    if where.is_dir():
        inside = where.resolve()
        return [path for path in place.pictures if Path(path).resolve().is_relative_to(inside)]
    try:
        lines = read_regular(where, MOST_TEXT).decode("utf-8-sig", "surrogateescape").splitlines()
    except OSError as error:
        raise DataError(f"{shown(str(where))} cannot be read: {why(error)}") from error
    named = {Path(line.strip().replace("\\", "/")).name for line in lines}
    return [path for path in place.pictures if Path(path).name in named]
