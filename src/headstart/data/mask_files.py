"""A mask file as the values that stand in it: numbers, or colours, before anything is known of classes.

| mode of the file | its values |
|---|---|
| grey of 8 or 16 bits, 1 bit (as 0 and 255) | numbers |
| palette | numbers, the palette's indices; its colours where a file of classes gives colours |
| RGB or RGBA (alpha is not heeded) | numbers where it is grey all over, else colours, written r,g,b |
| JPEG | 0 and 255 where it is black and white; any other is refused, since JPEG changes values |
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
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
STRIP = 1 << 20  # px that are counted at a time
NEAR = 16  # grey levels from black or white that a JPEG of a black and white mask keeps to, but at its edges
BETWEEN = 0.02  # share of its pixels, at most, that do not: the ringing along edges
Key = str  # a value as a text: "7", or "128,64,0"


@dataclass(frozen=True, eq=False)
class Values:
    """codes (height, width): numbers, or colours as red * 65536 + green * 256 + blue. palette (index, 3): of numbers
    that stand for colours. coloured: whether codes are colours. rgb: whether numbers are the grey of a file in RGB."""

    codes: NDArray[np.integer[Any]]
    coloured: bool = False
    palette: NDArray[np.uint8] | None = None
    rgb: bool = False

    def counts(self) -> dict[int, int]:
        """Pixels of each code that is there."""
        found = Counter[int]()
        for part in self.strips():
            codes, counts = np.unique(part, return_counts=True) if self.coloured else (None, np.bincount(part.ravel()))
            codes = np.flatnonzero(counts) if codes is None else codes
            counts = counts[codes] if not self.coloured else counts
            found.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))
        return dict(sorted(found.items()))

    def strips(self) -> Iterator[NDArray[np.integer[Any]]]:
        """The codes some rows at a time: what is counted takes 8 bytes a px."""
        step = max(1, STRIP // max(1, self.codes.shape[1]))
        for top in range(0, self.codes.shape[0], step):
            yield self.codes[top : top + step]

    def key(self, code: int, meant: Mapping[Key, int] | None) -> Key:
        """A code as a text, as those of `meant` are written; None: a number, or the colour of a file in colours."""
        if self.coloured:
            return f"{code >> 16},{code >> 8 & 255},{code & 255}"
        if meant is None or not any("," in key for key in meant):
            return str(code)
        if self.palette is not None and code < len(self.palette):
            colour = ",".join(map(str, self.palette[code].tolist()))
            return str(code) if code == VOID and colour not in meant else colour
        grey = f"{code},{code},{code}"
        return grey if grey in meant and (self.rgb or str(code) not in meant) else str(code)


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
        return Values(np.ascontiguousarray(rgb[..., 0]), rgb=True)
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


def number_of(key: Key, meant: Mapping[Key, int] | None) -> int | None:
    """The class number of a value, VOID for void; None for what is no class. meant: None: numbers are class numbers."""
    if meant is not None:
        return meant.get(key, VOID if key == str(VOID) else None)
    return int(key) if key.isdecimal() and int(key) <= VOID else None


def numbers_of(values: Values, meant: Mapping[Key, int] | None) -> NDArray[np.uint8]:
    """Class numbers (height, width), VOID = 255. meant: of each value; None: numbers as they are.

    Raises ImageError for a value that means no class.
    """
    number: dict[int, int] = {}
    for code, n in values.counts().items():
        key = values.key(code, meant)
        told = number_of(key, meant)
        if told is None:
            raise ImageError(f"the mask holds {key} in {n:,} px, which is no class")
        number[code] = told
    codes, told_of = np.array(list(number)), np.array(list(number.values()), np.uint8)
    if not values.coloured:
        table = np.zeros(int(codes.max()) + 1, np.uint8)
        table[codes] = told_of
        return table[values.codes]
    return np.concatenate([told_of[np.searchsorted(codes, part)] for part in values.strips()])
