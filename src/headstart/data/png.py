"""PNG and PPM pictures of 16 bits in colour, whole; PNG with more metadata than Pillow takes.

Pillow keeps the upper 8 of 16 bits a channel. Asked for the lower bytes it gives those: its raw modes for 16 bits take
one of the two bytes, and which one is a word. So a picture is decoded twice, once for each half.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from headstart.data.deep import Samples
from headstart.data.limits import Limits
from headstart.errors import ImageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
DECORATION = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")  # chunks that do not change a pixel of ours
LOW = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}  # the raw mode that takes the lower byte of a big-endian value
PPM = re.compile(rb"P6(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)(?:\s+|#[^\n]*\n)+(\d+)\s")


def is_deep_png(data: bytes) -> bool:
    """Whether it is a PNG of 16 bits in RGB or with alpha; grey ones Pillow reads whole."""
    return data[:8] == SIGNATURE and data[24:25] == b"\x10" and data[25:26] in (b"\x02", b"\x04", b"\x06")


def deep_png(data: bytes, picture: ImageFile.ImageFile) -> Samples | None:
    """All 16 bits of a PNG that Pillow has opened and not decoded; None where it is not such a one."""
    rawmode = picture.tile[0][3] if picture.tile else None
    if rawmode == "LA;16B":  # four bytes a pixel: grey and alpha, each with its lower byte
        both = _decoded(data, "RGBA", "RGBA")
        return Samples(_joined(both[:, :, 0], both[:, :, 1]), alpha=both[:, :, 2])
    if rawmode not in LOW:
        return None
    mode = str(rawmode).partition(";")[0]
    upper, lower = _decoded(data, mode, str(rawmode)), _decoded(data, mode, LOW[str(rawmode)])
    values = _joined(upper[:, :, :3], lower[:, :, :3])
    clear = picture.info.get("transparency")
    if mode == "RGBA":
        return Samples(values, alpha=upper[:, :, 3])
    if isinstance(clear, tuple):
        return Samples(values, alpha=np.where((values == clear).all(axis=2), np.uint8(0), np.uint8(255)))
    return Samples(values)


def deep_ppm(data: bytes, limits: Limits) -> Samples | None:
    """A binary PPM of more than 8 bits, its stated maximum drawn to 65535; None for any other file."""
    found = PPM.match(data[:1024])
    if not found or not 255 < int(found[3]) <= 65535:
        return None
    width, height, most = (int(number) for number in found.groups())
    limits.check_size(width, height)
    if len(data) < found.end() + width * height * 6:
        raise ImageError("the file is cut short")
    values = np.frombuffer(data, ">u2", width * height * 3, found.end()).reshape(height, width, 3).astype(np.uint16)
    if most != 65535:
        values = (values.astype(np.uint32).clip(0, most) * 65535 // most).astype(np.uint16)
    return Samples(values)


def undecorated(data: bytes) -> bytes:
    """The PNG without its texts and its colour profile."""
    return SIGNATURE + b"".join(chunk for name, chunk in _chunks(data) if name not in DECORATION)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 8], data[at:end]
        at = end


def _joined(upper: NDArray[np.uint8], lower: NDArray[np.uint8]) -> NDArray[np.uint16]:
    joined: NDArray[np.uint16] = upper.astype(np.uint16) * np.uint16(256) + lower
    return joined


def _decoded(data: bytes, mode: str, rawmode: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        inside: Any = picture
        inside._mode = mode
        inside.tile = [tile._replace(args=rawmode) for tile in inside.tile]
        inside.load()
        return np.asarray(picture)
