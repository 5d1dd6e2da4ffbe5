"""Any picture as 8-bit RGB.

| what the file holds | how it becomes RGB |
|---|---|
| RGB, YCbCr, HSV | converted to RGB |
| L (greyscale) | R = G = B |
| 1 (two colours) | 0 and 255 |
| P (palette) | the palette's colours |
| alpha: LA, PA, RGBA, premultiplied La and RGBa, a transparent palette entry or colour | laid on white |
| I;16, I, F, and 16-bit colour: more than 8 bits | by the range of the set (deep.py), the same for R, G and B |
| CMYK, and YCCK by way of CMYK (Adobe's inverted ones too) | R = (255 - C) (255 - K) / 255, and so on |
| LAB | CIE L*a*b* (D50) to sRGB with LittleCMS |

White, because a transparent picture is nearly always drawn for a white page: dark ink on nothing stays visible, and it
is what browsers, viewers and paper show. Pixels that are opaque keep their colour to the bit.
ICC profiles are ignored: the networks were trained on pictures whose profiles were ignored. Of 16-bit colours in
JPEG 2000 and SGI the upper 8 bits are kept, as Pillow gives them.

An array that a program hands over: bool; uint8 0..255; float 0..1, and a rounding error more; uint16 as a 16-bit file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from headstart.data.deep import Ends, Samples, to_eight
from headstart.errors import ImageError

WHITE = (255, 255, 255)
STRIP = 1 << 20  # pixels laid on white at a time, so that a large picture needs no second copy
SIXTEEN_BIT_FORMATS = ("PPM", "PNG", "JPEG2000")  # their mode I is 0..65535 by definition
ROUNDING = 1e-3  # that a float may lie outside 0..1: a quarter of a grey level
ARRAYS_ALLOWED = (
    "allowed are (height, width), (height, width, 1), (height, width, 3) and (height, width, 4) of uint8, uint16, "
    "bool, or float between 0 and 1"
)
Range = Callable[[str], Ends | None]  # a kind of samples -> the set's (black, white), None: the picture's own


def its_own(_kind: str) -> Ends | None:
    """Without a set."""
    return None


def to_rgb(picture: Image.Image, range_: Range = its_own) -> Image.Image:
    """The picture in mode RGB, by the table above. Its size and orientation stay as they are."""
    mode = picture.mode
    if mode == "RGB" and "transparency" not in picture.info:
        return picture
    deep = samples_of(picture)
    if deep is not None:
        return samples_to_rgb(deep, range_)
    if mode == "LAB":
        return _lab(picture)
    if mode == "La":
        picture = picture.convert("LA")
    if picture.has_transparency_data or mode in ("LA", "PA", "RGBA", "RGBa"):
        return _on_white(picture)
    return picture.convert("RGB")


def samples_of(picture: Image.Image) -> Samples | None:
    """The samples of a Pillow image of more than 8 bits; None for others."""
    if not (picture.mode.startswith("I;16") or picture.mode in ("I", "F")):
        return None
    values = np.asarray(picture)
    if picture.mode == "I" and picture.format in SIXTEEN_BIT_FORMATS:
        values = values.clip(0, 65535).astype(np.uint16)
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    clear = picture.info.get("transparency")
    if isinstance(clear, int):
        return Samples(values, alpha=np.where(values == clear, np.uint8(0), np.uint8(255)))
    return Samples(values)


def samples_to_rgb(samples: Samples, range_: Range = its_own) -> Image.Image:
    """A picture of samples as they lie in the file; of 8 bits they are 0..255."""
    if samples.values.dtype == np.uint8:
        grey = 255 - samples.values if samples.inverted else samples.values
    else:
        grey = to_eight(samples, range_(samples.kind))
    picture = Image.fromarray(np.ascontiguousarray(grey)).convert("RGB")
    if samples.alpha is None:
        return picture
    alpha = Image.fromarray(samples.alpha)
    if samples.premultiplied:  # the colours are darkened already: only the white is missing
        white = ImageChops.invert(alpha)
        return ImageChops.add(picture, Image.merge("RGB", (white, white, white)))
    page = Image.new("RGB", picture.size, WHITE)
    page.paste(picture, (0, 0), alpha)
    return page


def array_to_image(array: NDArray[np.generic], range_: Range = its_own) -> Image.Image:
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
        return samples_to_rgb(_sixteen_bit(array), range_)
    elif array.dtype.kind == "f":
        if not (array.min() >= -ROUNDING and array.max() <= 1 + ROUNDING):  # false for NaN too
            raise ImageError(f"{shown} holds values outside 0..1 ({array.min():g} to {array.max():g})")
        values = np.rint(np.multiply(array, 255)).clip(0, 255).astype(np.uint8)
    else:
        raise ImageError(f"{shown} is no image: {ARRAYS_ALLOWED}")
    return Image.fromarray(np.ascontiguousarray(values))


def array_samples(array: NDArray[np.generic]) -> Samples | None:
    """The samples of an array of more than 8 bits whose range is not stated by its type; None for others."""
    shape_fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    return _sixteen_bit(array) if array.dtype == np.uint16 and shape_fits and array.size else None


def _sixteen_bit(array: NDArray[Any]) -> Samples:
    values = np.ascontiguousarray(array).astype(np.uint16, copy=False)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim == 3 and values.shape[2] == 4:
        return Samples(np.ascontiguousarray(values[:, :, :3]), alpha=(values[:, :, 3] >> 8).astype(np.uint8))
    return Samples(values)


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
