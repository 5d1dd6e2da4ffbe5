"""Pictures that are not like the others of their set, by measurement: tiny, huge, oddly shaped, blank, dark, washed
out, blurred.

A slice of MRI is dark and smooth, a digit is small, a tile of open sea has hardly any contrast: what most pictures of a
set are is no fault. So each measure is compared with the set's own: a picture is named where it lies beyond the tenth
that lies farthest out, FAR times as far from the median as that tenth begins, and is bad by itself as well. Less than a
tenth of a set is therefore ever named for one reason. A blank picture is blank in any set.

Blur is measured by blurring again (Crete et al. 2007): a sharp picture loses much of its differences between
neighbouring pixels, a blurred one little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headstart.data.facts import Facts

SIDE = 256  # px, the longer side at which pictures are measured: about what a network sees
ENOUGH = 20  # images: fewer have no usual look
OUTER = 0.1  # of the images: where the outer part of a measure begins
FAR = 3.0  # times its distance from the median
# bad by themselves, whatever the set
SMALL = 64  # px, the shorter side
LARGE = 4_000_000  # px
LONG = 2.0  # longer side to shorter
ONE_GREY = 3.0  # levels of 255 between darkest and brightest: what JPEG makes of one colour
DARK = 64.0  # levels: the brightest fiftieth of the picture is darker
FLAT = 60.0  # levels between the darkest and the brightest fiftieth
SMOOTH = 0.6  # of the differences between neighbours survive blurring
REACH = 9  # px of the blur that measures blur
TOLERANCE = 12  # levels: what JPEG does to a frame of one colour
LEAST_FRAMED = 16  # px, the shorter side: on fewer any line may look like a frame
ALIKE, OTHER = 0.98, 0.6  # of a line: inside a frame, and just after it

Fault = Literal["tiny", "huge", "odd shape", "blank", "dark", "washed out", "blurred"]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Looks:
    """Measures of one picture, in levels of 255 where nothing else is said.

    `colour` (red, green, blue) means; `dark`, `bright`: the darkest and brightest fiftieth; `span`: from the darkest
    pixel to the brightest; `blur`, 0 to 1; `frame`: a border of one colour that ends in straight lines, "" for none.
    """

    colour: tuple[float, float, float]
    dark: float
    bright: float
    span: float
    blur: float
    frame: str


@dataclass(frozen=True)
class Odd:
    """Image `row` has a `fault`; `measured`: in words, beside what is usual in the set."""

    row: int
    fault: Fault
    measured: str


def looks_of(picture: NDArray[np.uint8]) -> Looks:
    """Of upright RGB pixels (height, width, 3), the longer side SIDE px at most."""
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1)).reshape(
        3, -1
    )  # many times faster than along the last axis
    grey = planes.mean(axis=0, dtype=np.float32).reshape(picture.shape[:2])
    dark, bright = np.percentile(grey, (2, 98))
    span = float((planes.max(axis=1).astype(np.int64) - planes.min(axis=1)).max())
    red, green, blue = (float(plane.mean()) for plane in planes)
    return Looks((red, green, blue), float(dark), float(bright), span, _blur(grey), frame_of(picture))


def _blur(grey: NDArray[np.float32]) -> float:
    """The share of the differences between neighbours that blurring leaves, in the direction where it leaves more."""
    return max(_left(grey), _left(grey.T))


def _left(grey: NDArray[np.float32]) -> float:
    if grey.shape[1] <= REACH:
        return 0.0
    sums = np.cumsum(grey, axis=1, dtype=np.float64)
    soft = (sums[:, REACH:] - sums[:, :-REACH]) / REACH
    inner = grey[:, REACH // 2 + 1 : REACH // 2 + 1 + soft.shape[1]]
    sharp, smooth = np.abs(np.diff(inner, axis=1)), np.abs(np.diff(soft, axis=1))
    total = float(sharp.sum())
    return 1 - float(np.maximum(sharp - smooth, 0).sum()) / total if total > 0 else 0.0


def frame_of(picture: NDArray[np.uint8]) -> str:
    """A border of one colour on at least two opposite sides, as "top bottom 128 128 128"; "" if there is none.

    The background of an object reaches the edges too, but goes on beside it: a frame ends at once, along the whole
    side.
    """
    if min(picture.shape[:2]) < LEAST_FRAMED:
        return ""
    values = picture.astype(np.int16)
    top, low = _edge(values), _edge(values[::-1])
    rows = slice(top[0], len(values) - low[0])
    inner = values[rows].transpose(1, 0, 2)
    left, right = _edge(inner), _edge(inner[::-1])
    pairs = [("top bottom", top, low), ("left right", left, right)]
    found = [
        (name, one[1])
        for name, one, other in pairs
        if one[0] and other[0] and (np.abs(one[1] - other[1]) <= TOLERANCE).all()
    ]
    if not found:
        return ""
    colour = (np.round(found[0][1] / 32) * 32).astype(int).clip(0, 255)
    return f"{' '.join(name for name, _ in found)} {' '.join(map(str, colour))}"


def _edge(lines: NDArray[np.int16]) -> tuple[int, NDArray[np.float64]]:
    """(lines of the frame at this end, its colour) of lines (line, place, 3); 0 lines where there is none."""
    colour = np.median(lines[0], axis=0)
    after = 0.0
    for depth, line in enumerate(lines[: len(lines) // 2 + 1]):
        other = float((np.abs(line - colour) > TOLERANCE).any(axis=1).mean())
        if after or other > 1 - ALIKE:
            if not depth or other >= OTHER or after:  # the first line after it may be half of either
                return (depth - bool(after) if other >= OTHER else 0), colour
            after = other
    return 0, colour


def faults(facts: Sequence[Facts], looks: Sequence[Looks]) -> list[Odd]:
    """The pictures that are named, by row. facts, looks (image,)."""
    found = [
        Odd(row, "blank", f"one colour throughout (within {look.span:.0f} of 255 levels)")
        for row, look in enumerate(looks)
        if look.span <= ONE_GREY
    ]
    seen = {odd.row for odd in found}
    if len(facts) >= ENOUGH:
        for odd in (*_of_sizes(facts), *_of_looks(looks)):
            if odd.row not in seen or odd.fault in ("tiny", "huge", "odd shape"):
                found.append(odd)
    return sorted(found, key=lambda odd: odd.row)


def _of_sizes(facts: Sequence[Facts]) -> list[Odd]:
    known = np.array([row for row, f in enumerate(facts) if f.width and f.height], dtype=np.int64)
    if len(known) < ENOUGH:
        return []
    sides = np.array([(facts[row].width, facts[row].height) for row in known], dtype=np.float64)
    short, pixels = sides.min(axis=1), sides.prod(axis=1)
    long = sides.max(axis=1) / short
    usual = f"{np.median(sides[:, 0]):.0f} x {np.median(sides[:, 1]):.0f} px are usual"
    chosen: list[tuple[Fault, NDArray[np.bool_]]] = [
        ("tiny", (short < SMALL) & outlying(-np.log(short))),
        ("huge", (pixels > LARGE) & outlying(np.log(pixels))),
        ("odd shape", (long > LONG) & outlying(np.log(long))),
    ]
    return [
        Odd(int(known[k]), fault, f"{sides[k, 0]:.0f} x {sides[k, 1]:.0f} px, where {usual}")
        for fault, here in chosen
        for k in np.flatnonzero(here)
    ]


def _of_looks(looks: Sequence[Looks]) -> list[Odd]:
    bright = np.array([look.bright for look in looks])
    span = bright - np.array([look.dark for look in looks])
    blur = np.array([look.blur for look in looks])
    dark = (bright < DARK) & outlying(-np.log(bright + 1))
    flat = (span < FLAT) & outlying(-np.log(span + 1)) & ~dark
    soft = (blur > SMOOTH) & outlying(blur) & ~flat & ~dark
    said: list[tuple[Fault, NDArray[np.bool_], Floats, str]] = [
        ("dark", dark, bright, "its brightest parts have {:.0f} of 255 levels, where {:.0f} are usual"),
        ("washed out", flat, span, "{:.0f} of 255 levels between dark and bright, where {:.0f} are usual"),
        ("blurred", soft, 100 * blur, "blurring it once more leaves {:.0f} % of its detail, where {:.0f} % are usual"),
    ]
    return [
        Odd(int(row), fault, words.format(values[row], float(np.median(values))))
        for fault, here, values, words in said
        for row in np.flatnonzero(here)
    ]


def outlying(values: Floats) -> NDArray[np.bool_]:
    """Which of the values (image,) lie far above the others."""
    middle, outer = np.quantile(values, (0.5, 1 - OUTER))
    return np.asarray(values > middle + max(FAR * (outer - middle), 1e-9))
