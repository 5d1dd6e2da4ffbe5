"""A file's bytes, or an array, into upright RGB pixels: the one decoder of fit, predict, serve and export.

The same bytes give the same pixels, whichever path or thread decodes them, and in every release of Pillow allowed.

JPEG, the common case, goes to simplejpeg (libjpeg-turbo), at the smallest of the scales n/8 that keeps the picture at
or above twice the size needed; it is then cropped and resized (resize.py). Of simplejpeg, Pillow's `draft` and
torchvision it was the fastest on photographs, on 12 megapixels and on 32 px thumbnails (benchmarks/decode.md), it is
the only one that offers every n/8, and the only one that reports damaged data which the others paint grey. A JPEG that
it does not take (CMYK, YCCK, odd sampling, harmless stray bytes) goes to Pillow, as every other format does, but for
what Pillow reads wrong or not at all: see tiff.py, png.py, dicom.py.

- Orientation: EXIF (or XMP) orientation is always applied, in every format that carries one. HEIC turns itself.
- Colour: modes.py states how each mode becomes RGB, deep.py what is black and white in more than 8 bits.
- Animations: the first frame. Pages of a TIFF: raster.py.
- Formats, and which reader reads what: decoders.py.
- Limits: sizes are checked in the header, before anything is decoded. Beside its file a picture takes, measured on
  36 megapixels, 0.1 to 3 bytes a pixel as JPEG, 4 to 12 as PNG, TIFF, BMP, GIF, TGA and AVIF, 17 as WebP and 20 as
  JPEG 2000. Large ones are decoded one at a time, so that the peak does not grow with the number of threads.
- Damage: a picture that is cut short or damaged is refused with its reason, never filled with grey.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from headstart.data import dicom, formats, png, raster, tiff
from headstart.data.decoders import FORMATS, JPEG, decoding, heif, opened, other_formats
from headstart.data.deep import Ends, ends_of
from headstart.data.jpeg import fast_jpeg
from headstart.data.limits import DEFAULT_LIMITS, Limits
from headstart.data.modes import samples_of, to_rgb
from headstart.data.preprocess import Preprocess
from headstart.data.resize import FILTERS, resized, thumbnail
from headstart.data.upright import orientation_of, turned
from headstart.errors import ImageError

DECODER_VERSION = 2  # part of the key of stored features: raise it with any change of the pixels that `load` gives
# px. Area-averaged with Pillow's HAMMING, a box with soft edges: it moves by 0.4 grey levels when the picture is
# decoded at a quarter of its size, against 1.5 to 3 for BOX at the same cost, so copies of other sizes look alike.
THUMBNAIL = 16
LIBRARIES = ("jpg", "libjpeg_turbo", "zlib", "zlib_ng", "libtiff", "webp", "avif", "jpg_2000", "littlecms2")
PACKAGES = ("pillow", "simplejpeg", "tifffile", "imagecodecs", "pydicom", "pillow-heif")


@dataclass(frozen=True)
class Pixels:
    """One decoded image.

    array: uint8 (height, width, 3), RGB, of the size asked. mode: what it was, such as "JPEG RGB" or "PNG I;16".
    thumbnail: uint8 (16, 16, 3), the whole picture averaged over areas. remark: what the user should know of how it
    was read, "" for nothing.
    """

    array: NDArray[np.uint8]
    mode: str
    thumbnail: NDArray[np.uint8]
    remark: str = ""


def load(source: bytes | NDArray[Any], preprocess: Preprocess, limits: Limits = DEFAULT_LIMITS) -> Pixels:
    """Decode, turn upright, crop and resize. Raises ImageError with a reason, and nothing else."""

    def needed(width: int, height: int) -> float:
        return _scale(width, height, preprocess)

    with decoding():
        if isinstance(source, bytes) and source[:2] == JPEG and not preprocess.bands:  # the common case
            limits.check_bytes(len(source))
            jpeg = fast_jpeg(source, needed, limits)
            if jpeg is not None:
                return _finished(*jpeg, "", preprocess)
            with ExitStack() as held:
                found = other_formats(source, needed, limits, held)
                return _finished(found.upright(preprocess), found.mode, found.remark, preprocess)
        with ExitStack() as held:
            found = opened(source, needed, limits, preprocess.bands, held)
            return _finished(found.upright(preprocess), found.mode, found.remark, preprocess)


def _finished(picture: Image.Image, mode: str, remarked: str, preprocess: Preprocess) -> Pixels:
    box = crop_box(*picture.size, preprocess)
    left, top, across, down = place_in_frame(*picture.size, preprocess)
    final = resized(picture, (across, down), FILTERS[preprocess.interpolation], box)
    if preprocess.resize == "pad":
        inside, final = final, Image.new("RGB", preprocess.size[::-1], preprocess.fill)
        final.paste(inside, (left, top))
    return Pixels(_array(final), mode, _array(thumbnail(picture, THUMBNAIL)), remarked)


def _array(picture: Image.Image) -> NDArray[np.uint8]:
    """An RGB picture as numpy.asarray gives it, in two thirds of the time."""
    return np.frombuffer(picture.tobytes(), np.uint8).reshape(picture.height, picture.width, 3)


def preview(
    source: bytes | NDArray[Any], side: int, limits: Limits = DEFAULT_LIMITS, preprocess: Preprocess | None = None
) -> bytes:
    """The whole picture as a small JPEG, its longer side at most `side` px, in the range and the bands of `preprocess`.

    Raises ImageError.
    """
    with decoding(), ExitStack() as held:
        buffer = io.BytesIO()
        _small(source, side, limits, preprocess, held).save(buffer, "JPEG", quality=80)
        return buffer.getvalue()


def small(
    source: bytes | NDArray[Any], side: int, limits: Limits = DEFAULT_LIMITS, preprocess: Preprocess | None = None
) -> NDArray[np.uint8]:
    """The same as pixels (height, width, 3). Raises ImageError."""
    with decoding(), ExitStack() as held:
        return _array(_small(source, side, limits, preprocess, held))


def _small(
    source: bytes | NDArray[Any], side: int, limits: Limits, preprocess: Preprocess | None, held: ExitStack
) -> Image.Image:
    bands = preprocess.bands if preprocess else ()
    found = opened(source, lambda width, height: min(1.0, side / max(width, height)), limits, bands, held)
    picture = found.upright(preprocess)
    scale = min(1.0, side / max(picture.size))
    width, height = (max(1, round(scale * s)) for s in picture.size)
    return resized(picture, (width, height), Image.Resampling.BICUBIC, (0, 0, *picture.size))


def deep_ends(
    source: bytes | NDArray[Any], bands: tuple[int, ...] = (), limits: Limits = DEFAULT_LIMITS
) -> tuple[str, Ends] | None:
    """(kind of samples, (darkest, brightest)) of a picture of more than 8 bits; None for others. Raises ImageError."""
    if not _may_be_deep(source):
        return None
    with decoding(), ExitStack() as held:
        samples = opened(source, lambda width, height: 1.0, limits, bands, held).samples
        ends = None if samples is None else ends_of(samples)
        return None if samples is None or ends is None else (samples.kind, ends)


def remark(source: bytes | NDArray[Any], preprocess: Preprocess) -> str:
    """What `load` would remark; nearly all pictures are not decoded for it. Raises ImageError."""
    if not isinstance(source, bytes):
        return ""
    may_be = formats.is_dicom(source) or (source[:4] in tiff.MAGIC and raster.may_be_remarked(source))
    return load(source, preprocess).remark if may_be else ""


def size_of(source: bytes | NDArray[Any]) -> tuple[int, int]:
    """(width, height) in px, from the header alone; orientation not applied. Raises ImageError."""
    if isinstance(source, np.ndarray):
        if source.ndim < 2:
            raise ImageError(f"an array of shape {source.shape} is no picture")
        return source.shape[1], source.shape[0]
    with decoding():
        if source[:4] in tiff.MAGIC and (pages := tiff.pages(source)):
            DEFAULT_LIMITS.check_size(*pages[0].size)
            return pages[0].size
        if formats.is_dicom(source) and formats.installed("pydicom"):
            return dicom.size_of(source)
        if formats.is_heif(source) and formats.installed("pillow_heif"):
            width, height = heif(source).size
            return int(width), int(height)
        with Image.open(io.BytesIO(source), formats=FORMATS) as picture:
            return picture.size


def array_of(picture: Image.Image, limits: Limits = DEFAULT_LIMITS) -> NDArray[Any]:
    """A Pillow image as an upright array: uint8 (height, width, 3) by the rules of `load`, or uint16 (height, width).

    Raises ImageError.
    """
    with decoding():
        limits.check_size(*picture.size)
        picture.load()
        found = samples_of(picture)
        if found is not None and found.values.dtype == np.uint16 and found.alpha is None:
            return np.asarray(turned(Image.fromarray(found.values), orientation_of(picture)))
        return np.asarray(turned(to_rgb(picture), orientation_of(picture)))


@cache
def versions() -> dict[str, str]:
    """The releases of everything that can change a pixel; the same whatever was imported before."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    libraries = {name: features.version(name) for name in LIBRARIES}
    return found | {name: version for name, version in libraries.items() if version}


def write_png(array: NDArray[np.uint8], path: Path) -> None:
    """Write uint8 pixels (height, width) or (height, width, 3) as PNG. Raises OSError."""
    Image.fromarray(array).save(path, "PNG")


def content_hash(source: bytes | NDArray[Any]) -> str:
    """32 hex digits of BLAKE2b over a file's bytes, or over an array's type, shape and values."""
    if isinstance(source, bytes):
        return hashlib.blake2b(source, digest_size=16).hexdigest()
    digest = hashlib.blake2b(f"{source.dtype.str} {source.shape}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(source).data)
    return digest.hexdigest()


def _scale(width: int, height: int, preprocess: Preprocess) -> float:
    """Final px a picture px, for an upright picture of width x height px; the larger of the two where they differ."""
    part = preprocess.crop_fraction if preprocess.resize == "shortest" else 1.0
    down, across = (round(s / part) / length for s, length in zip(preprocess.size, (height, width), strict=True))
    return min(down, across) if preprocess.resize == "pad" else max(down, across)


def crop_box(width: int, height: int, preprocess: Preprocess) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the part that is kept, in px of the picture; only that part is ever resized."""
    if preprocess.resize != "shortest":
        return (0, 0, width, height)
    scale = _scale(width, height, preprocess)
    across, down = min(width, preprocess.size[1] / scale), min(height, preprocess.size[0] / scale)
    left, top = (width - across) / 2, (height - down) / 2
    return (left, top, min(width, left + across), min(height, top + down))


def place_in_frame(width: int, height: int, preprocess: Preprocess) -> tuple[int, int, int, int]:
    """(left, top, width, height) in px of the part of the network's input that shows the picture: all of it, but for
    "pad". What is left is the same on both sides, so that a mirrored picture lies as the picture does."""
    down, across = preprocess.size
    if preprocess.resize != "pad":
        return (0, 0, across, down)
    scale = _scale(width, height, preprocess)
    left, top = (
        min((side - 1) // 2, max(0, round((side - scale * length) / 2)))
        for side, length in ((across, width), (down, height))
    )
    return (left, top, across - 2 * left, down - 2 * top)


def _may_be_deep(source: bytes | NDArray[Any]) -> bool:
    """Whether it is worth decoding to learn; most pictures are not, by their first bytes."""
    if isinstance(source, np.ndarray):
        return source.dtype == np.uint16
    if source[:4] in tiff.MAGIC or formats.is_dicom(source):
        return True
    if source[:8] == png.SIGNATURE:
        return source[24:25] == b"\x10"
    return source[:2] in (b"P5", b"P6") or source[4:8] == b"jP  " or source[:4] == b"\xff\x4f\xff\x51"
