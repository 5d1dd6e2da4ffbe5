"""Pascal VOC: an XML file a picture, in Annotations beside JPEGImages or beside the picture itself.

Corners are 1-based and inclusive (VOC devkit, annotation guidelines): xmin 1, xmax 1 is the leftmost column of pixels.
So the edges are xmin - 1, ymin - 1, xmax, ymax. A box whose corners are the same pixel is taken as a slip of the mouse,
and has no area. ImageSets/Main/train.txt, val.txt, trainval.txt and test.txt name the parts, folders do elsewhere.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from headstart.data.annotated import Annotated, Marked, Place, Read, Remarks, key_of, split_in
from headstart.data.tree import shown
from headstart.errors import DataError
from headstart.files.cells import quoted
from headstart.files.reading import read_regular, why

MOST_XML = 8 << 20  # bytes: one of 10,000 boxes has 4 MB
MOST_LIST = 64 << 20
DECLARED = (b"<!DOCTYPE", b"<!ENTITY")  # entities may stand for gigabytes, or for other files
LISTS = {"train.txt": "train", "val.txt": "validation", "test.txt": "test", "trainval.txt": "train"}
UNREADABLE = "annotations that cannot be read, whose pictures are not used"
CORNERS = ("xmin", "ymin", "xmax", "ymax")

Key = tuple[str, ...]


class _Unread(Exception):  # noqa: N818 (a reason, caught here)
    """Why an annotation is not read."""


def read_voc(place: Place, files: list[str]) -> Read:
    """The pictures of a folder with XML files. Raises DataError."""
    read = Read([], "Pascal VOC")
    parts = _lists(place, read.remarks)
    by_key: dict[Key, list[str]] = {}
    for path in place.pictures:
        by_key.setdefault(key_of(place.root, path), []).append(path)
    found = _annotations(place, files, by_key, read.remarks)
    if parts is not None:
        _note_unlisted(place, parts, by_key, read.remarks)
    for key, paths in by_key.items():
        if parts is not None and key not in parts:
            continue
        for path in paths:
            split = split_in(place.root, path) if parts is None else parts[key]
            read.pictures.append(_annotated(place, path, split, found.get(key), read.remarks))
    return read


def _annotated(place: Place, path: str, split: str, root: ElementTree.Element | None, remarks: Remarks) -> Annotated:
    name = place.name(path)
    picture = Annotated(name, path, split)
    if root is None:
        remarks.add("pictures without a readable annotation, of which nothing is known", name)
        return picture
    picture.stated = _stated(root)
    picture.boxes = [box for thing in root.findall("object") if (box := _box(thing, name, remarks)) is not None]
    return picture


def _annotations(
    place: Place, files: list[str], by_key: dict[Key, list[str]], remarks: Remarks
) -> dict[Key, ElementTree.Element]:
    """The readable annotation of each picture: by the file's name, and where that fits none by the name in it."""
    by_name = {(*key[:-1], Path(path).name.lower()): key for key, paths in by_key.items() for path in paths}
    found: dict[Key, ElementTree.Element] = {}
    for file in files:
        name = place.name(file)
        try:
            root = _root(file)
        except _Unread as reason:
            remarks.add(f"{UNREADABLE} ({reason})", name)
            continue
        key = key_of(place.root, file)
        if key not in by_key:
            inner = (root.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
            key = by_name.get((*key[:-1], inner.lower()), ())
        if not key:
            remarks.add("annotations without a picture", name)
        elif key in found or len(by_key[key]) > 1:
            if key not in found:
                what = "annotations that fit several pictures of the same name, which are not used"
            else:
                what = "annotations of a picture that has one already, passed over"
            remarks.add(what, name)
        else:
            found[key] = root
    return found


def _root(file: str) -> ElementTree.Element:
    """The parsed annotation. Raises _Unread with a reason."""
    try:
        data = read_regular(file, MOST_XML)
    except OSError as error:
        raise _Unread(why(error)) from error
    plain = data.replace(b"\0", b"")  # in UTF-16 too
    if any(word in plain for word in DECLARED):
        raise _Unread("it declares a document type or entities, which no annotation needs")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # ValueError, LookupError: of the encoding
        said = "it is empty" if not data.strip() else "it is no whole XML"
        raise _Unread(said) from error
    if root.tag != "annotation":
        raise _Unread(f"its first element is {quoted(root.tag[:30])}, not annotation")
    return root


def _stated(root: ElementTree.Element) -> tuple[int, int] | None:
    width, height = (_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    if not (math.isfinite(width) and math.isfinite(height)) or width < 1 or height < 1:
        return None
    return round(width), round(height)


def _box(thing: ElementTree.Element, name: str, remarks: Remarks) -> Marked | None:
    frame = thing.find("bndbox")
    if frame is None:
        remarks.add("objects without a box, left out", name)
        return None
    x1, y1, x2, y2 = (_number(frame.findtext(corner)) for corner in CORNERS)
    hard = (thing.findtext("difficult") or "").strip() in ("1", "true", "True")
    label = (thing.findtext("name") or "").strip()
    if x1 == x2 or y1 == y2:  # one pixel wide or high, were it meant
        return Marked(label, x1, y1, x1, y1, hard)
    low_x, high_x, low_y, high_y = (x1, x2, y1, y2)
    # what is 1-based is the smaller of two corners, also where they are swapped
    x1, x2 = (low_x - 1, high_x) if low_x < high_x else (low_x, high_x - 1)
    y1, y2 = (low_y - 1, high_y) if low_y < high_y else (low_y, high_y - 1)
    return Marked(label, x1, y1, x2, y2, hard)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _lists(place: Place, remarks: Remarks) -> dict[Key, str] | None:
    """The part of each picture that ImageSets/Main lists; None where there are no such lists.

    trainval.txt adds what train.txt and val.txt do not name. Raises DataError where a picture is in two parts.
    """
    files = [  # those of ImageSets/Segmentation are of another task
        (Path(path), LISTS[Path(path).name.lower()])
        for path in place.files(".txt")
        if Path(path).name.lower() in LISTS
        and "ImageSets" in Path(path).parts[-3:-1]
        and Path(path).parts[-2] in ("Main", "ImageSets")
    ]
    if not files:
        return None
    parts: dict[Key, str] = {}
    named: dict[Key, str] = {}
    for file, split in sorted(files, key=lambda f: list(LISTS).index(f[0].name.lower())):
        top = file.parent.parent if file.parent.name == "ImageSets" else file.parent.parent.parent
        for stem, often in _names_in(file).items():
            key = key_of(place.root, str(top / (stem + ".")))
            if often > 1:
                remarks.add(f"names that stand more than once in {shown(file.name)}, counted once", shown(stem))
            if key in parts and parts[key] != split and file.name.lower() != "trainval.txt":
                raise DataError(
                    f"{shown(str(file))} names {quoted(stem)}, which {named[key]} names too: a picture can be in one "
                    "part only, so take it out of one of these lists"
                )
            parts.setdefault(key, split)
            named.setdefault(key, shown(file.name))
    return parts


def _names_in(file: Path) -> Counter[str]:
    """The names in a list, each without ending and without the -1, 0 or 1 that lists of one class have after it."""
    try:
        text = read_regular(file, MOST_LIST).decode("utf-8", "surrogateescape")
    except OSError as error:
        raise DataError(f"{shown(str(file))} cannot be read: {why(error)}") from error
    names = []
    for line in text.lstrip("\ufeff").splitlines():
        words = line.split()
        if len(words) == 2 and words[1] in ("-1", "0", "1"):
            line = words[0]
        if line := line.strip().replace("\\", "/").rpartition("/")[2]:
            stem, dot, ending = line.rpartition(".")
            names.append(stem if dot and ending.lower() in ("jpg", "jpeg", "png", "xml") else line)
    return Counter(names)


def _note_unlisted(place: Place, parts: dict[Key, str], by_key: dict[Key, list[str]], remarks: Remarks) -> None:
    for key, paths in by_key.items():
        if key not in parts:
            for path in paths:
                remarks.add("pictures that no list of ImageSets names, not used", place.name(path))
    missing = [key for key in parts if key not in by_key]
    for key in missing:
        remarks.add("names in lists of ImageSets without a picture", shown(key[-1]))
    if parts and len(missing) == len(parts):
        raise DataError(
            f"{shown(place.root)}: none of the {len(parts):,} pictures that ImageSets lists is there, such as "
            f"{quoted(missing[0][-1])}: put them into JPEGImages"
        )
