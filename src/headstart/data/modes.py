"""Any picture as 8-bit RGB, by a rule that looks at that picture alone.

| what the file holds | how it becomes RGB |
|---|---|
| RGB, YCbCr, HSV | converted to RGB; 16 bits a channel: Pillow keeps the upper 8 |
| L (greyscale) | R = G = B |
| 1 (two colours) | 0 and 255 |
| P (palette) | the palette's colours |
| alpha: LA, PA, RGBA, premultiplied La and RGBa, a transparent palette entry or colour | laid on white |
| I;16 and its byte orders; I from PGM, PNG and JPEG 2000 | value / 257, rounded, so 0..65535 is 0..255 |
| I (32-bit or signed integers) | largest value <= 255: unchanged; <= 65535: / 257; else, or if negative: own range |
| F (floating point) | largest value <= 1: * 255; else as I. NaN and -inf are black, +inf is white |
| CMYK, and YCCK by way of CMYK (Adobe's inverted ones too) | R = (255 - C) (255 - K) / 255, and so on |
| LAB | CIE L*a*b* (D50) to sRGB with LittleCMS |

White, because a transparent picture is nearly always drawn for a white page: dark ink on nothing stays visible, and it
is what browsers, viewers and paper show. Pixels that are opaque keep their colour to the bit.
ICC profiles are ignored: the networks were trained on pictures whose profiles were ignored. A 12-bit picture kept in
16 bits without saying so comes out dark; a guess from its values would turn a dark 16-bit picture bright.

An array that a program hands over states its range by its type: bool, uint8 0..255, uint16 0..65535, float 0..1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.errors import ImageError

WHITE = (255, 255, 255)
STRIP = 1 << 20  # values converted at a time, so that a large picture needs no second copy in floating point
SIXTEEN_BIT_FORMATS = ("PPM", "PNG", "JPEG2000")  # their mode I is 0..65535 by definition
ARRAYS_ALLOWED = (
    "allowed are (height, width), (height, width, 1), (height, width, 3) and (height, width, 4) of uint8, uint16, "
    "bool, or float between 0 and 1"
)


def to_rgb(picture: Image.Image) -> Image.Image:
    """The picture in mode RGB, by the table above. Its size and orientation stay as they are."""
    mode = picture.mode
    if mode == "RGB" and "transparency" not in picture.info:
        return picture
    if mode.startswith("I;16"):
        return _grey(_sixteen_bit(np.asarray(picture)))
    if mode == "I" and picture.format in SIXTEEN_BIT_FORMATS:
        return _grey(_sixteen_bit(np.asarray(picture).clip(0, 65535)))
    if mode in ("I", "F"):
        return _grey(_by_range(np.asarray(picture)))
    if mode == "LAB":
        return _lab(picture)
    if mode == "La":
        picture = picture.convert("LA")
    if picture.has_transparency_data or mode in ("LA", "PA", "RGBA", "RGBa"):
        return _on_white(picture)
    return picture.convert("RGB")


def array_to_image(array: NDArray[np.generic]) -> Image.Image:
    """An array (height, width[, 1, 3 or 4 channels]) as a picture in mode L, RGB or RGBA. Raises ImageError."""
    shown = f"an array of shape {array.shape} and type {array.dtype}"
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(f"{shown} is no image: {ARRAYS_ALLOWED}")
    if array.size == 0:
        raise ImageError(f"{shown} has no pixels")
    if array.dtype == np.bool_:
        values = np.where(array, np.uint8(255), np.uint8(0))
    elif array.dtype == np.uint8:
        values = array.astype(np.uint8, copy=False)
    elif array.dtype == np.uint16:
        values = _sixteen_bit(array)
    elif array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # false for NaN too
            raise ImageError(f"{shown} holds values outside 0..1 ({array.min():g} to {array.max():g})")
        values = np.rint(np.multiply(array, 255)).astype(np.uint8)
    else:
        raise ImageError(f"{shown} is no image: {ARRAYS_ALLOWED}")
    return Image.fromarray(np.ascontiguousarray(values))


def _grey(values: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(values).convert("RGB")


def _sixteen_bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """0..65535 to 0..255, rounded to the nearest; 257 = 65535 / 255."""
    flat = values.reshape(-1)
    out = np.empty(flat.shape, np.uint8)
    for at in range(0, flat.size, STRIP):
        out[at : at + STRIP] = (flat[at : at + STRIP].astype(np.uint32) + 128) // 257
    return out.reshape(values.shape)


def _by_range(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Integers or floats of unstated range to 0..255, by the smallest customary range that holds them."""
    flat = values.reshape(-1)
    low, high = _finite_range(flat)
    if low >= 0 and high <= 1 and values.dtype.kind == "f":
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 65535:
        low, high = 0.0, 255.0 if high <= 255 else 65535.0
    out = np.empty(flat.shape, np.uint8)
    span = max(high - low, np.finfo(np.float64).tiny)
    for at in range(0, flat.size, STRIP):
        part = flat[at : at + STRIP].astype(np.float64)
        part = np.nan_to_num(part, nan=low, posinf=high, neginf=low)
        out[at : at + STRIP] = np.rint(255 * ((part - low) / span).clip(0, 1)).astype(np.uint8)
    return out.reshape(values.shape)


def _finite_range(flat: NDArray[np.generic]) -> tuple[float, float]:
    """The smallest and largest finite value; (0, 0) if there is none."""
    low, high = np.inf, -np.inf
    for at in range(0, flat.size, STRIP):
        part = flat[at : at + STRIP].astype(np.float64)
        finite = part[np.isfinite(part)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _lab(picture: Image.Image) -> Image.Image:
    from PIL import ImageCms  # LittleCMS is rarely needed and absent from some builds of Pillow

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB")
    if converted is None:
        raise ImageError("a LAB picture that LittleCMS cannot convert")
    return converted


def _on_white(picture: Image.Image) -> Image.Image:
    """A transparent picture laid on white, band by band; opaque pixels keep their colour to the bit."""
    page = Image.new("RGB", picture.size, WHITE)
    rows = max(1, STRIP // picture.width)
    for top in range(0, picture.height, rows):
        band = picture.crop((0, top, picture.width, min(picture.height, top + rows))).convert("RGBA")
        page.paste(band.convert("RGB"), (0, top), band.getchannel("A"))
    return page
