"""Pictures of more than 8 bits: which value is black and which is white.

A 16-bit file does not say that its camera has 12 bits, a CT has no natural white, and a float may mean anything. What
a set of pictures shows is known only from the set, so the range is found from the images that teach, kept in the saved
model and used for every picture after that. A picture alone (no set, or a kind of samples that the set did not have)
is shown by its own range, by the same rule.

The rule has no step in it: a pixel more or less, or a value a little larger, moves the range a little.

- Ends: the darkest and the brightest value, but no further beyond the value that one pixel in RARE is beyond than
  OVERSHOOT of the span, so that a hot pixel costs a few grey levels and not all. Of a set: the same of its pictures'
  ends, so that one odd file costs as little.
- White: the brightest value. A picture without a set is drawn to a full scale that is near above it (1 for floats, 255,
  65535): one that reaches half of a full scale was meant for it, and the same picture in 8 and in 16 bits looks the
  same; one that stays below an eighth was not. Between the two, white moves evenly.
- Black: 0 where the darkest value is small beside the brightest, the darkest itself where all lie close together (a
  thermal camera) or below 0 (Hounsfield units). A picture without a set begins at 0 where its values are unsigned
  integers, or no larger than 255: it may well have no black in it.
- Left out: no-data values (GDAL's tag; in float and signed rasters -9999 and the type's least value), NaN and
  infinity. They are drawn black, infinity white.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RARE = 10_000  # pixels; a sensor has fewer hot ones
OVERSHOOT = 0.25  # of the span: 0..4095 with a hot pixel keeps 204 grey levels
FEW = 1_000  # samples, below which each counts
MANY = 1 << 22  # samples that are sorted of a large picture, evenly spread
FEW_PICTURES, RARE_PICTURES = 5, 50
STRIP = 1 << 20  # values converted at a time, so that a large picture needs no second copy in floating point
INFINITE = 3e38  # float32's ends stand for "no data" too
NO_DATA = -9999.0  # as GDAL, ESRI and most of elevation data write it
SIXTEEN_BIT_TYPES = (np.dtype(np.uint16), np.dtype(np.int16))
NAMES = {
    "unsigned": "32-bit pictures",
    "signed": "pictures of signed integers",
    "float": "pictures of floating-point numbers",
}


@dataclass(frozen=True)
class Samples:
    """A picture of more than 8 bits, as its file holds it.

    values: (height, width) grey or (height, width, 3) RGB of any integer or float type. missing: the value that means
    "no data", by the file; None for none. inverted: the least value is white (WhiteIsZero, MONOCHROME1). alpha: uint8
    (height, width), 255 = opaque.
    """

    values: NDArray[Any]
    missing: float | None = None
    inverted: bool = False
    alpha: NDArray[np.uint8] | None = None
    premultiplied: bool = False

    @property
    def kind(self) -> str:
        return {"u": "unsigned", "i": "signed"}.get(self.values.dtype.kind, "float")


Ends = tuple[float, float]


def ends_of(samples: Samples) -> Ends | None:
    """The darkest and the brightest value that count; None where no value does."""
    values = valid(samples)
    if not values.size:
        return None
    return _ends(values, values, values.size // RARE if values.size >= FEW else 0, values.size >= FEW)


def set_range(ends: Sequence[Ends], kind: str) -> Ends | None:
    """(black, white) of a set, from the ends of its pictures in any order; None where they do not span a range."""
    if not ends:
        return None
    n = len(ends)
    darkest, brightest = (np.array(side, np.float64) for side in zip(*ends, strict=True))
    low, high = _ends(darkest, brightest, n // RARE_PICTURES, n >= FEW_PICTURES)
    black, white = shown(low, high, kind, False)
    return (black, white) if black < white else None


def shown(low: float, high: float, kind: str, alone: bool) -> Ends:
    """(black, white) for values from low to high; `alone`: for one picture without a set."""
    white = _white(high, kind) if alone and high > 0 else high
    if low < 0:
        return low, white
    close = min(1.0, max(0.0, (low / high if high > 0 else 0.0) - 0.25) * 2)  # 0 up to a quarter, 1 from 3/4 on
    if alone:  # one picture of 0..1, 0..255 or 0..65535 may well have no black in it
        close *= 0.0 if kind == "unsigned" else min(1.0, max(0.0, high / 255 - 1))
    return close * low, close * high + (1 - close) * white


def to_eight(samples: Samples, range_: Ends | None) -> NDArray[np.uint8]:
    """The values as 0..255, by the set's range, or by the picture's own where it is None."""
    values = samples.values
    if range_ is None:
        ends = ends_of(samples)
        range_ = shown(*ends, samples.kind, True) if ends else (0.0, 0.0)
    if values.dtype in SIXTEEN_BIT_TYPES and values.size > 1 << 16:
        every = np.arange(1 << 16, dtype=np.uint16).view(values.dtype)
        table = _scaled(every, range_, samples)
        return table[values.view(np.uint16)]
    flat = np.ascontiguousarray(values).reshape(-1)
    out = np.empty(flat.shape, np.uint8)
    for at in range(0, flat.size, STRIP):
        out[at : at + STRIP] = _scaled(flat[at : at + STRIP], range_, samples)
    return out.reshape(values.shape)


def said(ranges: Iterable[tuple[str, float, float]]) -> list[str]:
    """One line for each kind of samples: what is black and what is white."""
    lines = []
    for kind, low, high in ranges:
        sixteen = kind == "unsigned" and high <= 65535
        what = "16-bit pictures" if sixteen else NAMES[kind]
        lines.append(
            f"{what}: the training images use {low:.6g} to {high:.6g}{' of 65535' if sixteen else ''}; {low:.6g} is "
            f"black and {high:.6g} is white, here and wherever the model is used"
        )
    return lines


def valid(samples: Samples) -> NDArray[Any]:
    """The values that are data, flat."""
    flat = samples.values.reshape(-1)
    left_out = _no_data(flat, samples.missing)
    return flat if left_out is None else flat[~left_out]


def _no_data(flat: NDArray[Any], missing: float | None) -> NDArray[np.bool_] | None:
    """Where no data are; None for nowhere."""
    kind, left_out = flat.dtype.kind, np.zeros(flat.shape, bool)
    if kind == "f":
        left_out |= ~(np.abs(flat) < INFINITE)  # NaN too
    if kind in "fi":
        left_out |= flat == NO_DATA
    if kind == "i":
        left_out |= flat == np.iinfo(flat.dtype).min
    if missing is not None and math.isfinite(missing):
        left_out |= flat == (flat.dtype.type(missing) if kind == "f" else missing)
    return left_out if left_out.any() else None


def _ends(dark: NDArray[Any], bright: NDArray[Any], rare: int, some: bool) -> Ends:
    """The least of `dark` and the largest of `bright`, held within OVERSHOOT of what `rare` of them are beyond."""
    low, high = float(dark.min()), float(bright.max())
    if not some:
        return low, high
    step = max(1, dark.size // MANY)
    dark, bright, rare = dark[::step], bright[::step], rare // step
    rare = min(max(1, rare), dark.size - 1)
    usual_low = float(np.partition(dark, rare)[rare])
    usual_high = float(np.partition(bright, bright.size - 1 - rare)[bright.size - 1 - rare])
    beyond = OVERSHOOT * max(0.0, usual_high - usual_low)
    return max(low, usual_low - beyond), min(high, usual_high + beyond)


def _white(high: float, kind: str) -> float:
    """The value that is white where `high` is the brightest: `high`, or a full scale near above it."""
    for full in (1.0, 255.0, 65535.0) if kind == "float" else (255.0, 65535.0):
        if full / 8 < high <= full:
            return min(full, full / 8 * (8 * high / full) ** 1.5)
    return high


def _scaled(part: NDArray[Any], range_: Ends, samples: Samples) -> NDArray[np.uint8]:
    low, high = range_
    span = max(high - low, float(np.finfo(np.float64).tiny))
    missing = _no_data(part, samples.missing)
    values = np.nan_to_num(part.astype(np.float64), nan=low, posinf=high, neginf=low)
    grey = np.rint(255 * ((values - low) / span).clip(0, 1)).astype(np.uint8)
    if samples.inverted:
        grey = 255 - grey
    if missing is not None:
        grey[missing & ~(part == np.inf) if part.dtype.kind == "f" else missing] = 0
    return grey
