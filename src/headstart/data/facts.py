"""What a file says of itself before anybody looks at the picture: size, format, how it was packed, by which camera.

None of this is what a picture shows. Where it tells the class all the same (`judge/shortcut.py`) a model may learn how
the files were made. It is read from the header; nothing is decoded.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from headstart.data.decoders import FORMATS, decoding
from headstart.errors import ImageError

CAMERA = (0x010F, 0x0110)  # EXIF: make, model
SAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}
ANNEX_K = 3688  # the sum of the luma table in JPEG's annex K, of quality 50: what nearly every program scales
MOST_WORDS = 60  # characters of a camera's name


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one file. `width` and `height` in px as stored, 0 where no header could be read; `n_bytes` of the file;
    `kind`: format and mode, such as "JPEG RGB"; `packing`: how strongly it was packed, "" for what is no JPEG;
    `sampling` of its colours; `camera`, "" if none is named."""

    width: int
    height: int
    n_bytes: int
    kind: str
    packing: str = ""
    sampling: str = ""
    camera: str = ""


def facts_of(source: bytes | NDArray[Any]) -> Facts:
    """From the header alone. An array has a shape and a type."""
    if not isinstance(source, bytes):
        height, width = source.shape[:2] if source.ndim >= 2 else (0, 0)
        return Facts(width, height, source.nbytes, f"array {source.dtype}")
    try:
        with decoding(), Image.open(io.BytesIO(source), formats=FORMATS) as picture:
            kind = f"{picture.format} {picture.mode}"
            return Facts(*picture.size, len(source), kind, *_jpeg(picture), _camera(picture))
    except ImageError:  # DICOM, HEIC, deep TIFF: not Pillow's; a header that Pillow doubts
        return Facts(0, 0, len(source), "another format")


def _jpeg(picture: Image.Image) -> tuple[str, str]:
    """(packing, sampling) of a JPEG."""
    tables = getattr(picture, "quantization", None)
    if not tables:
        return "", ""
    luma = [int(value) for value in next(iter(tables.values()))]
    told = f"quality {_quality(luma)} ({sum(sum(table) for table in tables.values())})"
    return told, SAMPLINGS.get(JpegImagePlugin.get_sampling(picture), "another")


def _quality(luma: list[int]) -> int:
    """The quality by which libjpeg would have made such a table, 1 to 100, from its sum."""
    scale = 100 * sum(luma) / ANNEX_K
    return max(1, min(100, round(5000 / scale if scale > 100 else (200 - scale) / 2)))


def _camera(picture: Image.Image) -> str:
    found = picture.getexif() if picture.format in ("JPEG", "MPO", "TIFF", "WEBP", "PNG") else {}
    words = [str(found[tag]).strip("\0 ") for tag in CAMERA if found.get(tag)]
    return " ".join(words)[:MOST_WORDS]
