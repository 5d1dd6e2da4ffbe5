"""Pictures with stated boxes as rows of a table: each box held against its picture, and what is wrong noted.

| what is stated | what is made of it |
|---|---|
| a box that reaches out of the picture | cut at its edges; noted where more than a pixel goes |
| a box outside, of no area, with an edge that is no number, without a class | left out |
| corners that are swapped | put in order |
| the same box of the same class twice | counts once |
| another size than the picture's | the file is believed; the boxes are scaled where they were drawn on the other size |
| the size as it is stored, of a picture that is shown turned by a quarter | the boxes are turned with it |
| another orientation in EXIF, and no size that tells | the boxes are of the picture as it is displayed |
| edges between 0 and 1 where px are expected | shares, if all boxes of the set are; else the picture's are left out |
| px where shares are expected | the boxes of that picture are not known |

What is left out is one box; the picture and its other boxes stay.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np

from headstart.counted import counted
from headstart.data.annotated import Annotated, Marked, Read, Remarks
from headstart.data.box_text import Box, boxes_text
from headstart.data.decoders import JPEG
from headstart.data.given import sorted_names
from headstart.data.placing import upright_boxes
from headstart.data.shapes import Shape, shape_of
from headstart.data.sources import FileSource, Found, Row
from headstart.data.tree import some
from headstart.errors import DataError, ImageError
from headstart.files.cells import quoted
from headstart.files.reading import open_regular

SLACK = 1.0  # px that a box may reach out unmentioned: annotations count from 0 or from 1, and round
ALIKE = 0.01  # relative: sizes of one shape, one of which was rounded
HEAD = 1 << 16  # bytes of a JPEG in which its size mostly stands: the rest need not be read
MANY = 8  # boxes: of a picture twice as large all would lie in its upper left quarter in one of 60,000 cases
TOO_LARGE = 2.0  # shares of the picture's side above which numbers are px: boxes at the edge reach 1 and a little more

Size = tuple[int, int]
Edges = tuple[float, float, float, float]


def found_of(where: str, read: Read) -> Found:
    """The rows, in the order of their names, with the classes as columns. Raises DataError."""
    if not read.pictures:
        raise DataError(f"{where} was read as {read.kind}, and no picture with boxes is there: {_said(read)}")
    pictures = sorted(read.pictures, key=lambda p: p.name.encode("utf-8", "surrogatepass"))
    shapes = [_shape(picture, read.remarks) for picture in pictures]
    scaled = _scaled(pictures, shapes, read.remarks)
    check_shares(where, pictures, read)
    _note_turned(pictures, shapes, read.remarks)
    boxes = [
        None if picture.boxes is None or shape is None else list(checked(picture, shape, scaled, read.remarks))
        for picture, shape in zip(pictures, shapes, strict=True)
    ]
    names = _classes(where, pictures, boxes, read)
    number = {name: k for k, name in enumerate(names)}
    rows = [
        Row(
            picture.name,
            FileSource(picture.path),
            "" if held is None else boxes_text(Box(number[b.label], *b[1:5], b.hard) for b in held),
            picture.split,
            picture.group,
            picture.time,
        )
        for picture, held in zip(pictures, boxes, strict=True)
    ]
    notes = [*read.notes, *read.remarks.notes()]
    return Found(rows, notes, f"{where}: {read.kind}, {_counts(pictures, boxes, names)}", "detect", names)


def _said(read: Read) -> str:
    return "; ".join([*read.notes, *read.remarks.notes()][:2]) or "it lists none"


def _shape(picture: Annotated, remarks: Remarks) -> Shape | None:
    """None for a file that is no picture: nothing is known of where its boxes lie."""
    source = FileSource(picture.path)
    try:
        with suppress(OSError, ValueError, ImageError), open_regular(picture.path) as file:
            head = file.read(HEAD)
            if head[:2] == JPEG:
                return shape_of(head)
        return shape_of(source.read())
    except ImageError:
        remarks.add("pictures that cannot be read", picture.name)
        return None


# Another size than the picture's


def _scaled(pictures: Sequence[Annotated], shapes: Sequence[Shape | None], remarks: Remarks) -> set[bool]:
    """Of pictures whose stated size is of their shape (True), and of the others (False): whose boxes were drawn on the
    stated size.

    So it is where more pictures have boxes that fit it alone than boxes that fit the file alone. Where all fit both,
    a size of another shape is not believed; one of the same shape is, as that of a picture that was resized later,
    unless it is the larger one and MANY boxes more keep to the smaller, as those of a larger picture would not.
    """
    votes, kept = Counter[bool](), Counter[bool]()
    changed = [
        (picture, picture.stated, shape.upright)
        for picture, shape in zip(pictures, shapes, strict=True)
        if shape is not None and picture.stated is not None and _differs(picture, shape)
    ]
    for picture, stated, own in changed:
        kind, boxes = _same_shape(stated, own), picture.boxes or ()
        votes[kind] += _fit(boxes, stated) - _fit(boxes, own)
        kept[kind] += len(boxes) if stated > own else -len(boxes)
    scaled = {kind for kind in votes if votes[kind] > 0 or (kind and votes[kind] == 0 and kept[kind] < MANY)}
    for picture, stated, own in changed:
        what = "scaled to it" if _same_shape(stated, own) in scaled else "taken as they are"
        remarks.add(
            f"pictures of another size than their annotation says; the file's is believed, the boxes are {what}",
            f"{picture.name} ({own[0]} x {own[1]} px, stated {stated[0]} x {stated[1]})",
        )
    return scaled


def _differs(picture: Annotated, shape: Shape) -> bool:
    return picture.stated is not None and not picture.relative and picture.stated not in (shape.upright, shape.stored)


def _is_stored(picture: Annotated, shape: Shape) -> bool:
    """Whether the annotation says that it is of the picture as it is stored, which is shown turned by a quarter."""
    return not picture.relative and picture.stated == shape.stored != shape.upright


def _note_turned(pictures: Sequence[Annotated], shapes: Sequence[Shape | None], remarks: Remarks) -> None:
    for picture, shape in zip(pictures, shapes, strict=True):
        if shape is not None and shape.orientation != 1 and picture.boxes:
            how = "stored, and turned with it" if _is_stored(picture, shape) else "displayed"
            remarks.add(f"pictures that EXIF turns, whose boxes are taken as drawn on it as it is {how}", picture.name)


def _same_shape(one: Size, other: Size) -> bool:
    return abs(math.log(one[0] * other[1] / (one[1] * other[0]))) <= ALIKE


def _fit(boxes: Sequence[Marked], size: Size) -> bool:
    """Whether all boxes that are whole lie in a picture of that size."""
    return all(
        max(box.x1, box.x2) <= size[0] + SLACK and max(box.y1, box.y2) <= size[1] + SLACK
        for box in boxes
        if all(map(math.isfinite, box[1:5]))
    )


def _in_picture(picture: Annotated, shape: Shape, scaled: set[bool]) -> Iterator[Marked]:
    """The boxes in px of the upright picture."""
    width, height = shape.upright
    across, down, turn = 1.0, 1.0, 1
    if picture.relative:
        across, down = width, height
    elif picture.stated is not None and _differs(picture, shape):
        if _same_shape(picture.stated, shape.upright) in scaled:
            across, down = width / picture.stated[0], height / picture.stated[1]
    elif _is_stored(picture, shape):
        turn = shape.orientation
    for label, x1, y1, x2, y2, hard in picture.boxes or ():
        edges = x1 * across, y1 * down, x2 * across, y2 * down
        yield Marked(label, *(edges if turn == 1 else _turned(edges, shape, turn)), hard)


def _turned(edges: Edges, shape: Shape, turn: int) -> Edges:
    """Edges in the picture as it is stored, in the picture as it is displayed."""
    width, height = shape.stored
    x1, y1, x2, y2 = upright_boxes(np.array(edges), (height, width), turn).tolist()
    return x1, y1, x2, y2


# Each box


def check_shares(where: str, pictures: Sequence[Annotated], read: Read) -> None:
    """What are shares and what px, changed in place where numbers show that it is the other. Raises DataError where
    most pictures have px instead of shares."""
    stated = [picture for picture in pictures if picture.boxes]
    if not stated:
        return
    if not any(picture.relative for picture in stated):
        shares = [picture for picture in stated if _are_shares(picture.boxes or ())]
        if len(shares) == len(stated):
            read.notes.append("all boxes lie between 0 and 1 and were taken as shares of their pictures")
        for picture in shares:
            if len(shares) == len(stated):
                picture.relative = True
            else:
                picture.boxes = None
                read.remarks.add(
                    "pictures whose boxes lie between 0 and 1 where px are expected, of which nothing is known",
                    picture.name,
                )
        return
    large = [picture for picture in stated if picture.relative and _are_px(picture.boxes or ())]
    if 2 * len(large) > len(stated):
        raise DataError(
            f"{where}: the boxes of {counted(len(large), 'picture')}, such as {large[0].name}, are px, and {read.kind} "
            "has shares of the picture: divide x and width by the picture's width, y and height by its height"
        )
    for picture in large:
        picture.boxes = None
        read.remarks.add(
            "pictures whose boxes are px where shares are expected, of which nothing is known", picture.name
        )


def _are_shares(boxes: Sequence[Marked]) -> bool:
    edges = [value for box in boxes for value in box[1:5]]
    return all(-0.01 <= value <= 1.01 for value in edges) and any(value % 1 for value in edges)


def _are_px(boxes: Sequence[Marked]) -> bool:
    return any(abs(value) > TOO_LARGE for box in boxes for value in box[1:5])


def checked(picture: Annotated, shape: Shape, scaled: set[bool], remarks: Remarks) -> Iterator[Marked]:
    """The boxes that are left, within the picture."""
    seen = set()
    for box in _in_picture(picture, shape, scaled):
        what, kept = _judged(box, shape.upright)
        if kept is not None and kept in seen:
            what, kept = "boxes that are there twice, counted once", None
        if what:
            remarks.add(what, picture.name)
        if kept is not None:
            seen.add(kept)
            yield kept


def _judged(box: Marked, size: Size) -> tuple[str, Marked | None]:
    """(what is to be said of it, the box within the picture, or None)."""
    if not box.label:
        return "boxes without a class, left out", None
    if not all(map(math.isfinite, box[1:5])):
        return "boxes with an edge that is no number, left out", None
    (x1, x2), (y1, y2) = sorted((box.x1, box.x2)), sorted((box.y1, box.y2))
    if x1 == x2 or y1 == y2:
        return "boxes of no area, left out", None
    left, right = (min(max(x, 0.0), size[0]) for x in (x1, x2))
    top, bottom = (min(max(y, 0.0), size[1]) for y in (y1, y2))
    if left == right or top == bottom:
        return "boxes outside their picture, left out", None
    said = ""
    if max(left - x1, top - y1, x2 - right, y2 - bottom) > SLACK:
        said = "boxes that reach out of their picture, cut at its edges"
    if (x1, y1) != (box.x1, box.y1):
        said = "boxes whose corners are swapped, put in order"
    return said, Marked(box.label, left, top, right, bottom, box.hard)


# Classes


def _classes(
    where: str, pictures: Sequence[Annotated], boxes: Sequence[list[Marked] | None], read: Read
) -> tuple[str, ...]:
    """The names that boxes of training pictures have, in the order of the file, or sorted. Raises DataError where
    others have a class that these lack, or where there is no box."""
    teaching = [p.split in ("train", "none") for p in pictures]
    if not any(teaching):
        teaching = [True] * len(pictures)
    taught = Counter(b.label for held, teaches in zip(boxes, teaching, strict=True) if teaches for b in held or ())
    if not taught:
        raise DataError(
            f"{where} was read as {read.kind}, and no training picture has a box ({_said(read)}): a detector learns "
            "from boxes"
        )
    for picture, held in zip(pictures, boxes, strict=True):
        strange = next((box.label for box in held or () if box.label not in taught), None)
        if strange is not None:
            raise DataError(
                f"class {strange!r} is in the {picture.split} split of {where}, such as {picture.name}, but in no "
                "training picture: add some there, or take its boxes out"
            )
    if read.classes is None:
        return sorted_names(set(taught), "str")
    bare = [name for name in read.classes if name not in taught]
    if bare:
        read.notes.append(
            f"{counted(len(bare), 'class', 'classes')} without a box in the training pictures, left out: "
            f"{some([quoted(name) for name in bare])}"
        )
    known = [name for name in dict.fromkeys(read.classes) if name in taught]
    return (*known, *sorted_names(set(taught) - set(known), "str"))


def _counts(pictures: Sequence[Annotated], boxes: Sequence[list[Marked] | None], names: Sequence[str]) -> str:
    """How many pictures of which part, and how many boxes of each class, in one line."""
    parts = Counter(picture.split for picture in pictures)
    sizes = [
        counted(parts[s], "picture") if s == "none" else f"{s} {parts[s]:,}"
        for s in ("train", "validation", "test", "none")
        if parts[s]
    ]
    bare, unknown = sum(held == [] for held in boxes), sum(held is None for held in boxes)
    sizes += [f"{bare:,} without boxes"] if bare else []
    sizes += [f"{unknown:,} of which nothing is known"] if unknown else []
    each = Counter(box.label for held in boxes for box in held or ())
    hard = sum(box.hard for held in boxes for box in held or ())
    kinds = f"{counted(len(names), 'class', 'classes')} ({some([f'{name} {each[name]:,}' for name in names], 10)})"
    return f"{', '.join(sizes)}, {counted(sum(each.values()), 'box', 'boxes')} of {kinds}" + (
        f", {hard:,} of them difficult or crowds and not counted" if hard else ""
    )
