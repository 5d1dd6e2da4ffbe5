"""Pictures with what is said of their pixels, checked: each mask is opened once, and what does not fit is set aside.

A mask belongs to the picture as it is displayed. Where its size is that of the picture as it is stored, and not as it
is displayed, it belongs to that and is turned with it. A picture that is stored upside down or mirrored has the same
size either way: its mask is taken as those are whose size decides; where none does, as displayed. A mask with an EXIF
orientation of its own is displayed by that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial

from headstart.counted import counted
from headstart.data.limits import DEFAULT_LIMITS
from headstart.data.mask_classes import Classes, classes_seen
from headstart.data.mask_files import mask_bytes, number_of, values_of
from headstart.data.mask_text import Drawn, Shape, drawn
from headstart.data.placing import VOID, Size, upright_size
from headstart.data.shapes import Shape as Stored
from headstart.data.shapes import shape_of
from headstart.data.sources import FileSource, Found, Row
from headstart.data.tree import shown, some
from headstart.errors import DataError, ImageError
from headstart.files.cores import n_cores

UNDECIDED = (2, 3, 4)  # EXIF orientations under which the size is the same


@dataclass(frozen=True)
class Pictured:
    """A picture and where its mask is, or the shapes in it; neither: nothing is known of it, and `why` says why.

    name: as it is shown. shapes: class numbers with corners, on `size` (height, width) as the annotation states it, or
    None where it states none; what lies in none of them is of class `rest`.
    """

    name: str
    path: str
    split: str = "none"
    mask: str | None = None
    shapes: tuple[Shape, ...] | None = None
    size: Size | None = None
    rest: int = VOID
    why: str = ""
    group: str = ""
    time: str = ""

    @property
    def annotated(self) -> bool:
        return self.mask is not None or self.shapes is not None


@dataclass
class Remarks:
    """What is said of pictures, and of which: a reason -> their names, in order."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: str) -> None:
        self.found.setdefault(reason, []).append(name)

    def notes(self) -> list[str]:
        return [
            f"{reason}: {counted(len(names), 'picture')}, {some(names) if len(names) < 4 else f'the first {names[0]}'}"
            for reason, names in self.found.items()
        ]


@dataclass(frozen=True)
class Looked:
    """What a mask holds. size: (height, width) px. own: the EXIF orientation of its file. pixels: of each value as a
    text, of shapes of each class number. stored: of the picture; None where that cannot be read, which is said when it
    is decoded. why: it is set aside."""

    size: Size = (0, 0)
    pixels: dict[str, int] = field(default_factory=dict)
    stored: Stored | None = None
    own: int = 1
    why: str = ""


def found_in(
    pictures: Sequence[Pictured], kind: str, where: str, classes: Classes | None, notes: Sequence[str] = ()
) -> Found:
    """The rows of pictures with masks or shapes, for the task "segment". kind: what they were read as. classes: as the
    user or a file names them; shapes have numbers in it. Raises DataError where no picture has a mask that fits."""
    with ThreadPoolExecutor(n_cores()) as pool:
        looked = list(pool.map(partial(_look, meant=None if classes is None else classes.meant), pictures))
    named, note = _classes(pictures, looked, classes, where)
    remarks, turning = Remarks(), _turning(looked)
    meant = _unless_plain(named)
    rows, pixels = list[Row](), [0] * len(named.names)
    for one, seen in zip(pictures, looked, strict=True):
        truth = _truth(one, seen, named, turning, remarks)
        if truth is not None:
            truth = replace(truth, values=meant if truth.mask is not None else None)
            for number, n in truth.pixels.items():
                pixels[number] += n
        text = "" if truth is None else truth.text
        rows.append(Row(one.name, FileSource(one.path), text, one.split, one.group, one.time))
    if not any(row.label for row in rows):
        said = "; ".join(remarks.notes()[:2]) or "it holds none"
        raise DataError(f"{where}: no picture has a mask that can be used: {said}")
    told = [*notes, *([note] if note else []), *remarks.notes(), *_said_of_void(named), *_absent(named, pixels)]
    return Found(rows, told, f"{where}: {kind}, {_said(rows, named)}", "segment", named.names)


def _look(one: Pictured, meant: dict[str, int] | None) -> Looked:
    """Never raises: a mask that cannot be read says why. meant: as in `Classes`, where something names them."""
    if not one.annotated:
        return Looked(why=one.why or "without a mask, so neither taught by nor judged")
    try:
        stored = shape_of(FileSource(one.path).read())
    except ImageError:
        stored = None
    try:
        if one.mask is None:
            return _looked_at_shapes(one, stored)
        data = mask_bytes(one.mask)
        values, own = values_of(data), shape_of(data).orientation
    except ImageError as error:
        return Looked(why=f"set aside, {error}")
    pixels: dict[str, int] = {}
    for code, n in values.counts().items():  # of a palette two may be one colour
        key = values.key(code, meant)
        pixels[key] = pixels.get(key, 0) + n
    height, width = values.codes.shape
    return Looked((height, width), pixels, stored, own)


def _looked_at_shapes(one: Pictured, stored: Stored | None) -> Looked:
    """Raises ImageError."""
    size = one.size or (None if stored is None else stored.upright[::-1])
    if size is None:
        raise ImageError("the picture cannot be read, and nothing states its size")
    DEFAULT_LIMITS.check_size(size[1], size[0])
    numbers = drawn(one.shapes or (), one.rest, size)
    counts = {str(number): int((numbers == number).sum()) for number in {one.rest, *(n for n, _ in one.shapes or ())}}
    return Looked(size, {key: n for key, n in counts.items() if n}, stored)


def _classes(
    pictures: Sequence[Pictured], looked: Sequence[Looked], given: Classes | None, where: str
) -> tuple[Classes, str]:
    """(classes, a note or ""). Raises DataError."""
    if any(one.shapes is not None for one in pictures):
        assert given is not None, "shapes come with the names of their classes"
        return given, ""
    keys = sorted(set().union(*(seen.pixels for seen in looked)))
    if not keys and given is None:
        reasons = list(dict.fromkeys(seen.why for seen in looked if seen.why))
        raise DataError(f"{where}: no picture has a mask that can be read: {'; '.join(reasons[:2])}")
    return classes_seen(keys, given, where)


def _turning(looked: Iterable[Looked]) -> bool:
    """Whether masks whose size does not say it belong to the pictures as they are stored."""
    known = [(seen.size, seen.stored) for seen in looked if seen.stored is not None and not seen.why]
    decisive = [
        (size, stored) for size, stored in known if stored.orientation >= 5 and stored.stored[0] != stored.stored[1]
    ]
    as_stored = sum(size == stored.stored[::-1] for size, stored in decisive)
    return as_stored > sum(size == stored.upright[::-1] for size, stored in decisive)


def _orientation(seen: Looked, turning: bool) -> int | None:
    """By which a mask is turned to lie as its picture is displayed; None where it has another size."""
    if seen.stored is None:
        return 1
    shown_as, kept_as = seen.stored.upright[::-1], seen.stored.stored[::-1]
    if seen.own != 1 and upright_size(seen.size, seen.own) == shown_as:
        return seen.own
    if seen.size == kept_as and (kept_as != shown_as or turning):
        return seen.stored.orientation
    return 1 if seen.size == shown_as else None


def _truth(one: Pictured, seen: Looked, named: Classes, turning: bool, remarks: Remarks) -> Drawn | None:
    """The truth of a picture; None, with a remark, where there is none."""

    def aside(reason: str) -> None:
        remarks.add(reason, one.name)

    if seen.why:
        return aside(seen.why)
    orientation = _orientation(seen, turning)
    if orientation is None:
        assert seen.stored is not None
        return aside(f"set aside, the mask is {_px(seen.size)} and the picture {_px(seen.stored.upright[::-1])}")
    if orientation != 1:
        remarks.add("the mask belongs to the picture as it is stored, and is turned with it", one.name)
    pixels: dict[int, int] = {}
    for key, n in seen.pixels.items():
        number = number_of(key, named.meant if one.mask is not None else None)
        if number is None:
            return aside(f"set aside, the mask holds {key}, which is no class of {named.where}")
        pixels[number] = pixels.get(number, 0) + n
    if not set(pixels) - {VOID}:
        return aside("set aside, the mask is void all over")
    pixels.pop(VOID, None)
    return Drawn(seen.size, pixels, one.mask, None, one.shapes or (), one.rest, orientation)


def _unless_plain(named: Classes) -> dict[str, int] | None:
    """What values mean; None where they are class numbers."""
    plain = all(key == str(number) for key, number in named.meant.items())
    return None if plain else named.meant


def _px(size: Size) -> str:
    return f"{size[1]} x {size[0]} px"


def _said_of_void(named: Classes) -> list[str]:
    if not named.void:
        return []
    return [f"void, which neither teaches nor judges: {some([repr(shown(name)) for name in named.void], 8)}"]


def _absent(named: Classes, pixels: Sequence[int]) -> list[str]:
    absent = [repr(shown(name)) for name, n in zip(named.names, pixels, strict=True) if not n]
    return [f"no mask has a pixel of {some(absent, 8)}"] if absent else []


def _said(rows: Sequence[Row], named: Classes) -> str:
    parts = []
    for split in ("train", "validation", "test", "none"):
        mine = [row for row in rows if row.split == split]
        if mine:
            bare = sum(not row.label for row in mine)
            what = counted(len(mine), "image") if split == "none" else f"{split} {len(mine):,}"
            parts.append(what + (f" ({bare:,} without mask)" if bare else ""))
    listed = some([shown(name) for name in named.names], 12)
    return f"{', '.join(parts)}, {counted(len(named.names), 'class', 'classes')} ({listed})"
