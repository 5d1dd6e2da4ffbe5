"""Ordinary JPEGs by way of simplejpeg (libjpeg-turbo): at the smallest scale that is enough, and strict on damage."""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Callable, Iterator

import simplejpeg
from PIL import Image

from headstart.data.limits import MOST_SCANNED, Limits, one_at_a_time
from headstart.data.upright import orientation_of, turned
from headstart.errors import ImageError

OVERSAMPLING = 2.0  # the JPEG is decoded at or above this many times the size needed; the rest is a filtered resize
# Baseline, extended and progressive. Never others: simplejpeg 1.9.0 sizes its buffer for the reduced scale, but a
# lossless JPEG (SOF3) has no scales, is written at full size and corrupts the heap (measured: the process aborts).
DCT_FRAMES = (0xC0, 0xC1, 0xC2)
PROGRESSIVE, START_OF_SCAN = 0xC2, 0xDA
LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
TABLES = (0xC4, 0xC8, 0xCC)  # and an extension: they share the range of the frames
FRAME = struct.Struct(">BHHB").unpack_from  # bits, height, width, colours
SCAN = b"\xff\xda"  # starts one: in the compressed data 0xFF is followed by 0 or by a restart
SCAN_BYTES = 8  # that the header of a scan takes at least
BYTES = 3  # a pixel, that a decode takes; measured, see images.py

# (width, height) of an upright picture in px -> the scale at which it is needed, in final px a picture px
Needed = Callable[[int, int], float]


def fast_jpeg(data: bytes, needed: Needed, limits: Limits) -> tuple[Image.Image, str] | None:
    """An ordinary JPEG by way of simplejpeg, or None if Pillow should judge it. Raises ImageError if it is damaged."""
    marker, width, height, colours = _frame(data)
    if marker not in DCT_FRAMES or not width or not height or colours not in (1, 3, 4):
        return None
    limits.check_size(width, height)
    check_scans(data, width, height)
    ordinary = colours != 4
    orientation = _jpeg_orientation(data) if ordinary else 1
    across, down = floor((width, height), orientation, needed) if ordinary else (1, 1)
    try:
        with one_at_a_time(BYTES * width * height):
            array = simplejpeg.decode_jpeg(
                data, "RGB" if ordinary else "CMYK", min_height=down, min_width=across, min_factor=1
            )
    except ValueError as error:  # strict: libjpeg's warnings count as errors
        if re.search("premature end|bad Huffman code", str(error), re.IGNORECASE):
            raise ImageError("the JPEG data is cut short or damaged") from None
        return None
    if not ordinary:  # CMYK: decoded at 1/8 only to see that the data is whole; Pillow knows Adobe's inversion
        return None
    picture = Image.frombytes("RGB", array.shape[1::-1], array)
    return turned(picture, orientation), "JPEG L" if colours == 1 else "JPEG RGB"


def check_scans(data: bytes, width: int, height: int) -> None:
    """A progressive JPEG is decoded as often as it has scans. Raises ImageError where that is beyond MOST_SCANNED."""
    if len(data) // SCAN_BYTES * width * height <= MOST_SCANNED or _one_scan(data):
        return  # counting takes 2 ms a megabyte, an ordinary file needs none
    check_count(data.count(SCAN), width, height)


def check_count(scans: int, width: int, height: int) -> None:
    """Raises ImageError where so many scans of so many pixels are beyond MOST_SCANNED."""
    if scans * width * height > MOST_SCANNED:
        raise ImageError(
            f"a JPEG of {scans} scans at {width} x {height} px: scans times pixels are more than the limit of "
            f"{MOST_SCANNED:,}; save it again as an ordinary JPEG"
        )


def what(data: bytes) -> str | None:
    """What a JPEG is that no decoder here reads; None for others."""
    for marker, at in _segments(data):
        if marker in LOSSLESS:
            return "a lossless JPEG, not a picture in a format that headstart reads: save it as PNG"
        if 0xC0 <= marker <= 0xCF and marker not in TABLES and data[at + 4] in (12, 16):
            return (
                f"a JPEG of {data[at + 4]} bits, not a picture in a format that headstart reads: save it as PNG or TIFF"
            )
    return None


def _frame(data: bytes) -> tuple[int, int, int, int]:
    """(second byte of the frame's marker, such as 0xC0 of SOF0; width; height; number of colours) as the header says.

    The marker is 0 unless the picture is of 8 bits and the segments before are in order.
    """
    for marker, at in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in TABLES:
            bits, height, width, colours = FRAME(data, at + 4)
            return (marker if bits == 8 else 0), width, height, colours
    return 0, 0, 0, 0


def _one_scan(data: bytes) -> bool:
    """Whether it is a sequential JPEG whose first scan has all colours: libjpeg reads no scan after that."""
    colours = 0
    for marker, at in _segments(data):
        if marker in DCT_FRAMES:
            if marker == PROGRESSIVE:
                return False
            colours = data[at + 9]
        if marker == START_OF_SCAN:
            return data[at + 4] == colours
    return False


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """(second byte of the marker, its place) of the segments up to the first scan, as long as they are in order."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], data[at + 2] << 8 | data[at + 3]
        if not (0xC0 <= marker <= 0xFE) or 0xD0 <= marker <= 0xD9 or length < 2:
            return
        yield marker, at
        at += 2 + length


def floor(size: tuple[int, int], orientation: int, needed: Needed) -> tuple[int, int]:
    """The least (width, height) in px, not yet upright, at which a JPEG may be decoded."""
    width, height = size
    scale = OVERSAMPLING * (needed(height, width) if orientation >= 5 else needed(width, height))
    across, down = max(1, math.ceil(scale * width - 1e-6)), max(1, math.ceil(scale * height - 1e-6))
    return min(width, across), min(height, down)


def _jpeg_orientation(data: bytes) -> int:
    """The orientation that Pillow reads; most files carry none, and are not parsed for it."""
    if b"Exif\0\0" not in data and b"tiff:Orientation" not in data:
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            return orientation_of(picture)
    except Exception:  # the metadata is broken, not the picture
        return 1
