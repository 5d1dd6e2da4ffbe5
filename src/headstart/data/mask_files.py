"""A mask file as the values that stand in it: numbers, or colours, before anything is known of classes.

| mode of the file | its values |
|---|---|
| grey of 8 or 16 bits, 1 bit (as 0 and 255) | numbers |
| palette | numbers, the palette's indices; or its colours, where a file of classes names those |
| RGB or RGBA (alpha is not heeded) | numbers where it is grey all over, else colours, written r,g,b |
| JPEG | 0 and 255 where it is black and white; any other is refused, since JPEG changes values |
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.data.decoders import FORMATS, decoding
from headstart.data.limits import DEFAULT_LIMITS
from headstart.data.placing import VOID
from headstart.data.sources import FileSource
from headstart.errors import ImageError

MOST_COLOURS = 4096  # of one mask: more are those of a photograph
NEAR = 16  # grey levels from black or white that a JPEG of a black and white mask keeps to, but at its edges
BETWEEN = 0.02  # share of its pixels, at most, that do not: the ringing along edges
Key = str  # a value as a text: "7", or "128,64,0"


@dataclass(frozen=True, eq=False)
class Values:
    """codes (height, width): numbers, or colours as red * 65536 + green * 256 + blue. palette (index, 3): of numbers
    that stand for colours. coloured: whether codes are colours."""

    codes: NDArray[np.integer[Any]]
    coloured: bool = False
    palette: NDArray[np.uint8] | None = None

    def counts(self) -> dict[int, int]:
        """Pixels of each code that is there."""
        if not self.coloured:
            found = np.bincount(self.codes.ravel())
            return {int(code): int(found[code]) for code in np.flatnonzero(found)}
        codes, counts = np.unique(self.codes, return_counts=True)
        return dict(zip(codes.tolist(), counts.tolist(), strict=True))

    def key(self, code: int, by_colour: bool) -> Key:
        """A code as a text; by_colour: as the colour that the palette gives it."""
        if self.coloured:
            return f"{code >> 16},{code >> 8 & 255},{code & 255}"
        if by_colour and self.palette is not None and code < len(self.palette):
            return ",".join(map(str, self.palette[code].tolist()))
        return str(code)


def mask_bytes(path: str) -> bytes:
    """Of a mask file. Raises ImageError with a reason."""
    try:
        return FileSource(path).read()
    except ImageError as error:
        raise ImageError(str(error).replace("the file", "the file of the mask", 1)) from error


def values_of(data: bytes) -> Values:
    """Of a mask file. Raises ImageError with a reason."""
    if not data:
        raise ImageError("the mask is empty")
    try:
        with decoding("the mask"), Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            DEFAULT_LIMITS.check_size(*picture.size)
            picture.load()
            return _values(picture) if picture.format not in ("JPEG", "MPO") else _black_and_white(picture)
    except ImageError as error:
        said = str(error)
        raise ImageError(f"the mask is {said}" if said.startswith("not ") else said) from error


def _values(picture: Image.Image) -> Values:
    if picture.mode == "P":
        palette = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
        return Values(np.asarray(picture, np.uint8), palette=palette)
    if picture.mode == "1":
        return Values(np.asarray(picture.convert("L")))
    if picture.mode in ("L", "I;16", "I;16B", "I;16L"):
        return Values(np.asarray(picture).astype(np.uint8 if picture.mode == "L" else np.uint16, copy=False))
    if picture.mode in ("LA", "La"):
        return Values(np.asarray(picture.getchannel("L")))
    if picture.mode == "I":
        numbers = np.asarray(picture)
        if numbers.min() < 0 or numbers.max() > 65535:
            raise ImageError(f"the mask holds {numbers.min()} to {numbers.max()}: class numbers are 0 to 254")
        return Values(numbers.astype(np.uint16))
    if picture.mode not in ("RGB", "RGBA", "RGBX", "CMYK", "PA"):
        raise ImageError(f"the mask is of mode {picture.mode}: save it as a PNG of class numbers")
    rgb = np.asarray(picture.convert("RGB"))
    if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all():
        return Values(np.ascontiguousarray(rgb[..., 0]))
    if picture.convert("RGB").getcolors(MOST_COLOURS) is None:
        raise ImageError(f"the mask has more than {MOST_COLOURS:,} colours, as a photograph: it is no mask")
    red, green, blue = (rgb[..., k].astype(np.uint32) for k in range(3))
    return Values(red << 16 | green << 8 | blue, coloured=True)


def _black_and_white(picture: Image.Image) -> Values:
    """Of a JPEG: 0 and 255, which it changes by a little. Raises ImageError for one that holds anything else."""
    grey = np.asarray(picture.convert("L"))
    far = np.minimum(grey, 255 - grey) > NEAR
    if far.mean() > BETWEEN or (grey.any() and grey.max() < 255 - NEAR):
        raise ImageError("the mask is a JPEG, which changes class numbers and colours: save it as PNG")
    return Values(np.where(grey < 128, 0, 255).astype(np.uint8))


def numbers_of(values: Values, meant: dict[Key, int] | None) -> NDArray[np.uint8]:
    """Class numbers (height, width), VOID = 255. meant: of each value; None: numbers as they are.

    Raises ImageError for a value that means no class.
    """
    by_colour = meant is not None and any("," in key for key in meant)
    found = values.counts()
    number: dict[int, int] = {}
    for code in found:
        key = values.key(code, by_colour)
        told = meant.get(key) if meant is not None else code if not values.coloured and code <= VOID else None
        if told is None and key == str(VOID):
            told = VOID
        if told is None:
            raise ImageError(f"the mask holds {key} in {found[code]:,} px, which is no class")
        number[code] = told
    if not values.coloured:
        table = np.zeros(max(found) + 1, np.uint8)
        table[list(number)] = list(number.values())
        return table[values.codes]
    codes = np.array(sorted(number), np.uint32)
    return np.array([number[int(code)] for code in codes], np.uint8)[np.searchsorted(codes, values.codes)]
