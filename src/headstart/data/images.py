"""A file's bytes, or an array, into upright RGB pixels: the one decoder of fit, predict, serve and export.

The same bytes give the same pixels, whichever path or thread decodes them.

JPEG, the common case, goes to simplejpeg (libjpeg-turbo), at the smallest of the scales n/8 that keeps the picture at
or above twice the size needed; Pillow then crops and resizes in one step. Of simplejpeg, Pillow's `draft` and
torchvision it was the fastest on photographs, on 12 megapixels and on 32 px thumbnails (benchmarks/decode.md), it is
the only one that offers every n/8, and the only one that reports damaged data which the others paint grey. A JPEG that
it does not take (CMYK, YCCK, odd sampling, harmless stray bytes) goes to Pillow, as every other format does.

- Orientation: EXIF (or XMP) orientation is always applied, in every format that carries one.
- Colour: modes.py states how each mode becomes RGB. An animation or a file of many pages gives its first.
- Formats: FORMATS, a closed list. Left out are those that run a program (EPS, PS), draw through the system (WMF, EMF),
  unpack without a bound (FITS) or that Pillow only passes on to a plug-in (GRIB, HDF5, BUFR, MPEG).
- Limits: sizes are checked in the header, before anything is decoded. Beside its file a picture takes, measured on
  36 megapixels, 0.1 to 3 bytes a pixel as JPEG, 4 to 12 as PNG, TIFF, BMP, GIF, TGA and AVIF, 17 as WebP and 20 as
  JPEG 2000. Large ones are decoded one at a time, so that the peak does not grow with the number of threads.
- Damage: a picture that is cut short or damaged is refused with its reason, never filled with grey.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from headstart.data.modes import array_to_image, to_rgb
from headstart.data.quiet import quiet
from headstart.errors import ImageError, OptionError, nearest
from headstart.forks import Lock

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF"),
    *("QOI", "ICO", "PSD", "SGI", "SUN", "DDS", "PCX", "TGA"),  # TGA has no signature: tried last
)
REFUSED = {
    rb"%!PS|\xc5\xd0\xd3\xc6": "an EPS or PostScript file is a program, not a picture: save it as PNG",
    rb"%PDF": "a PDF file is a document, not a picture: save its pages as PNG",
    rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF": "a WMF or EMF file is a list of drawing commands: save it as PNG",
    rb"\s*(<\?xml|<svg|<!DOCTYPE|<html)": "an SVG, XML or HTML text, not a picture: save it as PNG",
    rb"....ftyp(heic|heix|hevc|mif1|msf1)": "a HEIC file, which is not supported: save it as JPEG",
    rb"....ftyp(mp4|isom|qt|M4V)|\x1aE\xdf\xa3": "a video, not a picture: save its frames as JPEG",
}
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
RESIZES = ("shortest", "squash")
DECODER_VERSION = 1  # part of the key of stored features: raise it with any change of the pixels that `load` gives
OVERSAMPLING = 2.0  # the JPEG is decoded at or above this many times the size needed; the rest is a filtered resize
# px. Area-averaged with Pillow's HAMMING, a box with soft edges: it moves by 0.4 grey levels when the picture is
# decoded at a quarter of its size, against 1.5 to 3 for BOX at the same cost, so copies of other sizes look alike.
THUMBNAIL = 16
# Baseline, extended and progressive. Never others: simplejpeg 1.9.0 sizes its buffer for the reduced scale, but a
# lossless JPEG (SOF3) has no scales, is written at full size and corrupts the heap (measured: the process aborts).
DCT_FRAMES = (0xC0, 0xC1, 0xC2)
LARGE = 320_000_000  # bytes that a decode is expected to take, above which there is one at a time
JPEG_BYTES, OTHER_BYTES = 3, 12  # a pixel, to estimate that; measured, see above
# Bytes that a decode may take. Two decoders take far more than the others, measured on 120 megapixels: JPEG 2000 6.1 a
# band and pixel (2.8 GB from a file of 2 KB with four bands), WebP 15.6 a pixel. A whole process should stay below
# 2.5 GB, of which the network and its libraries take 0.7.
MOST_DECODED, JPEG2000_BYTES, WEBP_BYTES = 1_600_000_000, 6.2, 15.7
PILLOW_CEILING = 178_956_970  # pixels at which Pillow itself refuses (twice its MAX_IMAGE_PIXELS)
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Preprocess:
    """How a network wants its pictures; it belongs to the weights. Raises OptionError on nonsense.

    size: (height, width) in px. crop_fraction: part of the resized picture that the centre crop keeps, in (0, 1].
    resize: "shortest" scales until the picture just covers round(size / crop_fraction), then crops the centre;
    "squash" scales both sides to size and crops nothing. mean, std: of RGB in 0..1, applied inside the network's graph.
    """

    size: tuple[int, int]
    crop_fraction: float
    interpolation: str
    resize: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not (len(self.size) == 2 and all(isinstance(s, int) and 1 <= s <= 4096 for s in self.size)):
            raise OptionError(f"size {self.size!r}: (height, width), each a whole number of px in 1..4096")
        if not 0 < self.crop_fraction <= 1:
            raise OptionError(f"crop_fraction {self.crop_fraction!r}: more than 0, at most 1")
        for name, value, allowed in (
            ("interpolation", self.interpolation, tuple(FILTERS)),
            ("resize", self.resize, RESIZES),
        ):
            if value not in allowed:
                raise OptionError(f"{name} {value!r}: one of {', '.join(allowed)}{nearest(str(value), allowed)}")
        for name, triple in (("mean", self.mean), ("std", self.std)):
            if not (len(triple) == 3 and all(math.isfinite(v) for v in triple)):
                raise OptionError(f"{name} {triple!r}: three finite numbers, for red, green and blue")
        if min(self.std) <= 0:
            raise OptionError(f"std {self.std!r}: each more than 0")

    def to_json(self) -> dict[str, object]:
        """Plain JSON values under the field names."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Preprocess:
        """The inverse of to_json. Raises OptionError if a field is missing, unknown or nonsense."""
        names = {f.name for f in fields(cls)}
        if set(values) != names:
            raise OptionError(f"preprocess has the fields {sorted(values)}: needed are {sorted(names)}")
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        try:
            return cls(**given)
        except TypeError as error:
            raise OptionError(f"preprocess {dict(values)!r}: {error}") from None


@dataclass(frozen=True)
class Limits:
    """What is refused before decoding.

    max_pixels: width * height. 120 million passes the largest ordinary cameras (108 megapixel phones, medium format)
    and bounds the memory of one decode to about 1.4 GB (WebP 2, JPEG 2000 2.4 GB). max_bytes: 6 bytes a pixel of the
    largest picture, which is 16-bit RGB without compression.
    """

    max_pixels: int = 120_000_000
    max_bytes: int = 720_000_000

    def __post_init__(self) -> None:
        if not 1 <= self.max_pixels <= PILLOW_CEILING:
            raise OptionError(f"max_pixels {self.max_pixels!r}: 1 to {PILLOW_CEILING}, where Pillow itself refuses")
        if self.max_bytes < 1:
            raise OptionError(f"max_bytes {self.max_bytes!r}: at least 1")

    def check_bytes(self, count: int) -> None:
        if count > self.max_bytes:
            raise ImageError(f"the file has {count:,} bytes, more than the limit of {self.max_bytes:,}")

    def check_size(self, width: int, height: int) -> None:
        if width < 1 or height < 1:
            raise ImageError(f"the picture is {width} x {height} px: it has no pixels")
        if width * height > self.max_pixels:
            raise ImageError(f"the picture is {width} x {height} px, more than the limit of {self.max_pixels:,} pixels")

    def check_decoder(self, picture: Image.Image) -> None:
        """Before it is decoded."""
        heavy = {"JPEG2000": JPEG2000_BYTES * len(picture.getbands()), "WEBP": WEBP_BYTES}
        size = heavy.get(picture.format or "", 0) * picture.width * picture.height
        if size > MOST_DECODED:
            raise ImageError(
                f"the picture is {picture.width} x {picture.height} px, and its {picture.format} decoder would take "
                f"{size / 1e9:.1f} GB, more than the limit of {MOST_DECODED / 1e9:.1f}: save it as JPEG, PNG or TIFF"
            )


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Pixels:
    """One decoded image.

    array: uint8 (height, width, 3), RGB, of the size asked. mode: what it was, such as "JPEG RGB" or "PNG I;16".
    thumbnail: uint8 (16, 16, 3), the whole picture averaged over areas.
    """

    array: NDArray[np.uint8]
    mode: str
    thumbnail: NDArray[np.uint8]


# (width, height) of an upright picture in px -> the scale at which it is needed, in final px a picture px
Needed = Callable[[int, int], float]


def load(source: bytes | NDArray[Any], preprocess: Preprocess, limits: Limits = DEFAULT_LIMITS) -> Pixels:
    """Decode, turn upright, crop and resize. Raises ImageError with a reason, and nothing else."""
    with _decoding():
        picture, mode = _upright_rgb(source, lambda width, height: _scale(width, height, preprocess), limits)
        resized = picture.resize(
            preprocess.size[::-1], FILTERS[preprocess.interpolation], box=_crop_box(*picture.size, preprocess)
        )
        small = picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.HAMMING, reducing_gap=3.0)
        return Pixels(np.asarray(resized), mode, np.asarray(small))


def preview(source: bytes | NDArray[Any], side: int, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The whole picture as a small JPEG, its longer side at most `side` px. Raises ImageError."""
    with _decoding():
        picture, _ = _upright_rgb(source, lambda width, height: min(1.0, side / max(width, height)), limits)
        scale = min(1.0, side / max(picture.size))
        width, height = (max(1, round(scale * s)) for s in picture.size)
        buffer = io.BytesIO()
        picture.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=80)
        return buffer.getvalue()


def size_of(source: bytes | NDArray[Any]) -> tuple[int, int]:
    """(width, height) in px, from the header alone; orientation not applied. Raises ImageError."""
    if isinstance(source, np.ndarray):
        if source.ndim < 2:
            raise ImageError(f"an array of shape {source.shape} is no picture")
        return source.shape[1], source.shape[0]
    with _decoding(), Image.open(io.BytesIO(source), formats=FORMATS) as picture:
        return picture.size


def array_of(picture: Image.Image, limits: Limits = DEFAULT_LIMITS) -> NDArray[np.uint8]:
    """A Pillow image as an upright uint8 array (height, width, 3), by the rules of `load`. Raises ImageError."""
    with _decoding():
        limits.check_size(*picture.size)
        picture.load()
        return np.asarray(_turned(to_rgb(picture), _orientation(picture)))


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
    return max(round(preprocess.size[0] / part) / height, round(preprocess.size[1] / part) / width)


def _crop_box(width: int, height: int, preprocess: Preprocess) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the part that is kept, in px of the picture; only that part is ever resized."""
    if preprocess.resize == "squash":
        return (0, 0, width, height)
    scale = _scale(width, height, preprocess)
    across, down = min(width, preprocess.size[1] / scale), min(height, preprocess.size[0] / scale)
    left, top = (width - across) / 2, (height - down) / 2
    return (left, top, min(width, left + across), min(height, top + down))


def _upright_rgb(source: bytes | NDArray[Any], needed: Needed, limits: Limits) -> tuple[Image.Image, str]:
    """The picture upright in RGB, no smaller than OVERSAMPLING times what is needed, and what it was."""
    if isinstance(source, np.ndarray):
        if source.ndim >= 2:
            limits.check_size(source.shape[1], source.shape[0])
        return to_rgb(array_to_image(source)), f"array {source.dtype}"
    limits.check_bytes(len(source))
    if not source:
        raise ImageError("the file is empty")
    if source[:2] == b"\xff\xd8":
        found = _fast_jpeg(source, needed, limits)
        if found is not None:
            return found
    return _any_format(source, needed, limits)


def _fast_jpeg(data: bytes, needed: Needed, limits: Limits) -> tuple[Image.Image, str] | None:
    """An ordinary JPEG by way of simplejpeg, or None if Pillow should judge it. Raises ImageError if it is damaged."""
    if _jpeg_frame(data) not in DCT_FRAMES:
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    limits.check_size(width, height)
    ordinary = space in ("YCbCr", "RGB", "Gray")
    orientation = _jpeg_orientation(data) if ordinary else 1
    across, down = _floor((width, height), orientation, needed) if ordinary else (1, 1)
    try:
        with _one_at_a_time(JPEG_BYTES * width * height):
            array = simplejpeg.decode_jpeg(
                data, "RGB" if ordinary else "CMYK", min_height=down, min_width=across, min_factor=1
            )
    except ValueError as error:  # strict: libjpeg's warnings count as errors
        if re.search("premature end|bad Huffman code", str(error), re.IGNORECASE):
            raise ImageError("the JPEG data is cut short or damaged") from None
        return None
    if not ordinary:  # CMYK: decoded at 1/8 only to see that the data is whole; Pillow knows Adobe's inversion
        return None
    return _turned(Image.fromarray(array), orientation), "JPEG L" if space == "Gray" else "JPEG RGB"


def _jpeg_frame(data: bytes) -> int:
    """The second byte of the frame marker (SOF0 is 0xC0); 0 unless it is 8-bit and the segments before are in order."""
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # tables and an extension share the range
            return marker if data[at + 4] == 8 else 0
        if not (0xC0 <= marker <= 0xFE) or 0xD0 <= marker <= 0xD9 or length < 2:
            return 0
        at += 2 + length
    return 0


def _any_format(data: bytes, needed: Needed, limits: Limits) -> tuple[Image.Image, str]:
    """Any format of FORMATS by way of Pillow."""
    for signature, reason in REFUSED.items():
        if re.match(signature, data[:256], re.DOTALL):
            raise ImageError(reason)
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        limits.check_size(*picture.size)
        limits.check_decoder(picture)
        if picture.format == "ICO":
            _check_icon(data, limits)
        mode = f"{picture.format} {picture.mode}"
        with _one_at_a_time(OTHER_BYTES * picture.width * picture.height):
            if picture.format in ("JPEG", "MPO"):
                picture.draft(picture.mode, _floor(picture.size, _orientation(picture), needed))
            picture.load()
            limits.check_size(*picture.size)
            return _turned(to_rgb(picture), _orientation(picture)), mode


def _check_icon(data: bytes, limits: Limits) -> None:
    """An icon's directory may say 16 x 16 px of a PNG that is far larger."""
    for found in re.finditer(rb"\x89PNG\r\n\x1a\n.{4}IHDR(.{4})(.{4})", data, re.DOTALL):
        limits.check_size(int.from_bytes(found[1]), int.from_bytes(found[2]))


def _floor(size: tuple[int, int], orientation: int, needed: Needed) -> tuple[int, int]:
    """The least (width, height) in px, not yet upright, at which a JPEG may be decoded."""
    width, height = size
    scale = OVERSAMPLING * (needed(height, width) if orientation >= 5 else needed(width, height))
    return tuple(min(s, max(1, math.ceil(scale * s - 1e-6))) for s in size)  # type: ignore[return-value]


def _jpeg_orientation(data: bytes) -> int:
    """The orientation that Pillow reads; most files carry none, and are not parsed for it."""
    if b"Exif\0\0" not in data and b"tiff:Orientation" not in data:
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            return _orientation(picture)
    except Exception:  # the metadata is broken, not the picture
        return 1


def _orientation(picture: Image.Image) -> int:
    """The EXIF or XMP orientation, 1 to 8; 1 if there is none or it is nonsense."""
    try:
        value = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # the metadata is broken, not the picture
        return 1
    return value if isinstance(value, int) and value in UPRIGHT else 1


def _turned(picture: Image.Image, orientation: int) -> Image.Image:
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


_LARGE_PICTURE = Lock()


def _one_at_a_time(expected_bytes: int) -> AbstractContextManager[object]:
    """A lock for large pictures, nothing for others."""
    return _LARGE_PICTURE if expected_bytes > LARGE else nullcontext()


@contextmanager
def _decoding() -> Iterator[None]:
    """Decoders keep quiet, and whatever they raise becomes an ImageError."""
    with quiet():
        try:
            yield
        except ImageError:
            raise
        except Exception as error:  # the decoders' boundary: any of them may raise anything
            raise ImageError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """One short line in plain words."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a format that headstart reads, or its header is damaged"
    if isinstance(error, Image.DecompressionBombError):
        return f"the picture has more pixels than the limit of {PILLOW_CEILING:,}"
    if isinstance(error, MemoryError):
        return "the picture needs more memory than there is"
    text = " ".join(str(error).split())[:120]
    if re.search("truncated|unexpected end|not enough|unexpected EOF", text, re.IGNORECASE):
        return f"the file is cut short ({text})"
    return f"the file is damaged ({text or type(error).__name__})"
