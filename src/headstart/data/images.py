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
- Formats: FORMATS, a closed list. Left out are those that run a program (EPS, PS), draw through the system (WMF, EMF),
  unpack without a bound (FITS) or that Pillow only passes on to a plug-in (GRIB, HDF5, BUFR, MPEG). What a file is that
  is not read: formats.py.
- Limits: sizes are checked in the header, before anything is decoded. Beside its file a picture takes, measured on
  36 megapixels, 0.1 to 3 bytes a pixel as JPEG, 4 to 12 as PNG, TIFF, BMP, GIF, TGA and AVIF, 17 as WebP and 20 as
  JPEG 2000. Large ones are decoded one at a time, so that the peak does not grow with the number of threads.
- Damage: a picture that is cut short or damaged is refused with its reason, never filled with grey.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from headstart.data import dicom, formats, png, raster, tiff
from headstart.data.deep import Ends, Samples, ends_of
from headstart.data.jpeg import Needed, check_scans, fast_jpeg, floor
from headstart.data.limits import DEFAULT_LIMITS, PILLOW_CEILING, Limits, one_at_a_time
from headstart.data.modes import array_samples, array_to_image, its_own, samples_of, samples_to_rgb, to_rgb
from headstart.data.preprocess import Preprocess
from headstart.data.quiet import quiet
from headstart.data.resize import FILTERS, resized, thumbnail
from headstart.data.upright import orientation_of, turned
from headstart.errors import ImageError

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF"),
    *("QOI", "ICO", "PSD", "SGI", "SUN", "DDS", "PCX", "TGA"),  # TGA has no signature: tried last
)
JPEG = b"\xff\xd8"
DECODER_VERSION = 2  # part of the key of stored features: raise it with any change of the pixels that `load` gives
# px. Area-averaged with Pillow's HAMMING, a box with soft edges: it moves by 0.4 grey levels when the picture is
# decoded at a quarter of its size, against 1.5 to 3 for BOX at the same cost, so copies of other sizes look alike.
THUMBNAIL = 16
OTHER_BYTES = 12  # a pixel, that a decode takes where it is no JPEG; measured, see above
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


@dataclass(frozen=True)
class _Opened:
    """A decoded picture, not yet RGB and upright."""

    content: Image.Image | Samples
    mode: str
    orientation: int = 1
    remark: str = ""
    cmyk: bool = False

    def upright(self, preprocess: Preprocess | None) -> Image.Image:
        range_ = preprocess.range_of if preprocess else its_own
        if isinstance(self.content, Image.Image):
            rgb = to_rgb(self.content, range_)
        elif self.cmyk:
            inks = (self.content.values >> 8 * (self.content.values.dtype.itemsize - 1)).astype(np.uint8)
            rgb = Image.frombuffer("CMYK", inks.shape[1::-1], inks.tobytes(), "raw", "CMYK", 0, 1).convert("RGB")
        else:
            rgb = samples_to_rgb(self.content, range_)
        return turned(rgb, self.orientation)

    @property
    def samples(self) -> Samples | None:
        """Of more than 8 bits."""
        found = samples_of(self.content) if isinstance(self.content, Image.Image) else self.content
        return None if self.cmyk or found is None or found.values.dtype == np.uint8 else found


def load(source: bytes | NDArray[Any], preprocess: Preprocess, limits: Limits = DEFAULT_LIMITS) -> Pixels:
    """Decode, turn upright, crop and resize. Raises ImageError with a reason, and nothing else."""

    def needed(width: int, height: int) -> float:
        return _scale(width, height, preprocess)

    with _decoding():
        if isinstance(source, bytes) and source[:2] == JPEG and not preprocess.bands:
            limits.check_bytes(len(source))
            found = fast_jpeg(source, needed, limits)
            if found is not None:
                return _finished(*found, "", preprocess)
        with ExitStack() as held:
            opened = _opened(source, needed, limits, preprocess.bands, held)
            return _finished(opened.upright(preprocess), opened.mode, opened.remark, preprocess)


def _finished(picture: Image.Image, mode: str, remarked: str, preprocess: Preprocess) -> Pixels:
    box = _crop_box(*picture.size, preprocess)
    final = resized(picture, preprocess.size[::-1], FILTERS[preprocess.interpolation], box)
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
    bands = preprocess.bands if preprocess else ()
    with _decoding(), ExitStack() as held:
        opened = _opened(source, lambda width, height: min(1.0, side / max(width, height)), limits, bands, held)
        picture = opened.upright(preprocess)
        scale = min(1.0, side / max(picture.size))
        width, height = (max(1, round(scale * s)) for s in picture.size)
        buffer = io.BytesIO()
        whole = (0, 0, *picture.size)
        resized(picture, (width, height), Image.Resampling.BICUBIC, whole).save(buffer, "JPEG", quality=80)
        return buffer.getvalue()


def deep_ends(
    source: bytes | NDArray[Any], bands: tuple[int, ...] = (), limits: Limits = DEFAULT_LIMITS
) -> tuple[str, Ends] | None:
    """(kind of samples, (darkest, brightest)) of a picture of more than 8 bits; None for others. Raises ImageError."""
    if not _may_be_deep(source):
        return None
    with _decoding(), ExitStack() as held:
        samples = _opened(source, lambda width, height: 1.0, limits, bands, held).samples
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
    with _decoding():
        if source[:4] in tiff.MAGIC and (pages := tiff.pages(source)):
            return pages[0].size
        if formats.is_dicom(source) and formats.installed("pydicom"):
            return dicom.size_of(source)
        if formats.is_heif(source) and formats.installed("pillow_heif"):
            width, height = _heif(source).size
            return int(width), int(height)
        with Image.open(io.BytesIO(source), formats=FORMATS) as picture:
            return picture.size


def array_of(picture: Image.Image, limits: Limits = DEFAULT_LIMITS) -> NDArray[Any]:
    """A Pillow image as an upright array: uint8 (height, width, 3) by the rules of `load`, or uint16 (height, width).

    Raises ImageError.
    """
    with _decoding():
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
    return max(round(preprocess.size[0] / part) / height, round(preprocess.size[1] / part) / width)


def _crop_box(width: int, height: int, preprocess: Preprocess) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of the part that is kept, in px of the picture; only that part is ever resized."""
    if preprocess.resize == "squash":
        return (0, 0, width, height)
    scale = _scale(width, height, preprocess)
    across, down = min(width, preprocess.size[1] / scale), min(height, preprocess.size[0] / scale)
    left, top = (width - across) / 2, (height - down) / 2
    return (left, top, min(width, left + across), min(height, top + down))


def _opened(
    source: bytes | NDArray[Any], needed: Needed, limits: Limits, bands: tuple[int, ...], held: ExitStack
) -> _Opened:
    """The picture, no smaller than twice what is needed. `held` keeps large pictures one at a time."""
    if isinstance(source, np.ndarray):
        return _of_array(source, limits, bands)
    limits.check_bytes(len(source))
    if not source:
        raise ImageError("the file is empty")
    found = _of_tiff(source, limits, bands, held) if source[:4] in tiff.MAGIC else None
    if found is not None:
        return found
    if bands:
        raise ImageError(f"no TIFF, and bands {','.join(map(str, bands))} are asked for")
    return _of_others(source, needed, limits, held)


def _of_others(source: bytes, needed: Needed, limits: Limits, held: ExitStack) -> _Opened:
    if source[:2] == JPEG:
        jpeg = fast_jpeg(source, needed, limits)
        if jpeg is not None:
            return _Opened(*jpeg)
    if formats.is_dicom(source) and formats.installed("pydicom"):
        with _decoding("the DICOM file"):
            samples, mode, remarked = dicom.read_dicom(source, limits)
        return _Opened(samples, mode, 1, remarked)
    if formats.is_heif(source):
        return _of_heif(source, limits, held)
    reason = formats.what(source)
    if reason:
        raise ImageError(reason)
    deep = png.deep_ppm(source, limits)
    return _Opened(deep, "PPM RGB;16") if deep else _any_format(source, needed, limits, held)


def _of_array(array: NDArray[Any], limits: Limits, bands: tuple[int, ...]) -> _Opened:
    if array.ndim >= 2:
        limits.check_size(array.shape[1], array.shape[0])
    if bands:
        if array.ndim != 3 or array.shape[2] < max(bands):
            raise ImageError(f"an array of shape {array.shape}, and band {max(bands)} of its last axis is asked for")
        array = array[:, :, [b - 1 for b in bands]]
    return _Opened(array_samples(array) or array_to_image(array), f"array {array.dtype}")


def _of_tiff(data: bytes, limits: Limits, bands: tuple[int, ...], held: ExitStack) -> _Opened | None:
    """The page of a TIFF that is the picture: the first that is not empty. None where its header is damaged."""
    pages = tiff.pages(data)
    if not pages:
        return None
    if tiff.is_camera_raw(data, pages):
        raise ImageError(formats.RAW)
    held.enter_context(one_at_a_time(OTHER_BYTES * max(page.size[0] * page.size[1] for page in pages)))
    first: _Opened | None = None
    taken, looked_at = 0, 0
    for number, page in enumerate(pages):
        looked_at += page.size[0] * page.size[1]
        if number and looked_at > limits.max_pixels:
            break
        found = _of_page(data, page, limits, bands)
        if first is None or not _is_empty(found):
            first, taken = found, number
        if len(pages) == 1 or not _is_empty(found):
            break
    if first is None or len(pages) == 1:
        return first
    which = f"page {taken + 1} is the picture" + (", the first that is not empty" if taken else "")
    said = f"a stack of {len(pages)} pages: {which}" + (f"; {first.remark}" if first.remark else "")
    return replace(first, remark=said)


def _of_page(data: bytes, page: tiff.Page, limits: Limits, bands: tuple[int, ...]) -> _Opened:
    found = raster.read_page(data, page, bands, limits)
    if found.samples is not None:
        orientation = page.one(tiff.ORIENTATION, 1)
        return _Opened(found.samples, found.mode, orientation, found.remark, found.cmyk)
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as picture:
        limits.check_size(*picture.size)
        if page.number:
            picture.seek(page.number)
            limits.check_size(*picture.size)
        mode = f"TIFF {picture.mode}"
        picture.load()
        opened = _Opened(picture, mode, orientation_of(picture))
    if picture.mode == "RGBA" and not raster.is_mask(np.asarray(picture.getchannel("A"))):
        return replace(opened, content=picture.convert("RGB"), remark=raster.NO_MASK)
    return opened


def _is_empty(opened: _Opened) -> bool:
    if isinstance(opened.content, Samples):
        return raster.is_empty(opened.content)
    values = np.asarray(opened.content.convert("RGB"))
    return bool((values == values[0, 0]).all())


def _heif(data: bytes) -> Any:
    import pillow_heif

    return pillow_heif.open_heif(io.BytesIO(data))


def _of_heif(data: bytes, limits: Limits, held: ExitStack) -> _Opened:
    """HEIC by pillow-heif (headstart[phone]), which turns it as its container says; its EXIF orientation is void."""
    if not formats.installed("pillow_heif"):
        raise ImageError(formats.NO_HEIC)
    with _decoding("the HEIC picture"):
        found = _heif(data)
        limits.check_size(*found.size)
        held.enter_context(one_at_a_time(OTHER_BYTES * found.size[0] * found.size[1]))
        return _Opened(found.to_pillow(), f"HEIC {found.mode}")


def _any_format(data: bytes, needed: Needed, limits: Limits, held: ExitStack) -> _Opened:
    """Any format of FORMATS by way of Pillow."""
    try:
        return _by_pillow(data, needed, limits, held)
    except UnidentifiedImageError:
        raise ImageError(formats.unknown(data)) from None
    except ValueError as error:
        if data[:8] != png.SIGNATURE or not re.search("MAX_TEXT|text chunk", str(error)):
            raise
    return _by_pillow(png.undecorated(data), needed, limits, held)  # sound, with more metadata than Pillow takes


def _by_pillow(data: bytes, needed: Needed, limits: Limits, held: ExitStack) -> _Opened:
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        limits.check_size(*picture.size)
        if picture.format == "ICO":
            _check_icon(data, limits)
        mode = f"{picture.format} {picture.mode}"
        held.enter_context(one_at_a_time(OTHER_BYTES * picture.width * picture.height))
        if picture.format in ("JPEG", "MPO"):
            check_scans(data, *picture.size)
            picture.draft(picture.mode, floor(picture.size, orientation_of(picture), needed))
        deep = png.deep_png(data, picture) if png.is_deep_png(data) else None
        picture.load()
        limits.check_size(*picture.size)
        return _Opened(deep or picture, mode + (";16" if deep else ""), orientation_of(picture))


def _may_be_deep(source: bytes | NDArray[Any]) -> bool:
    """Whether it is worth decoding to learn; most pictures are not, by their first bytes."""
    if isinstance(source, np.ndarray):
        return source.dtype == np.uint16
    if source[:4] in tiff.MAGIC or formats.is_dicom(source):
        return True
    if source[:8] == png.SIGNATURE:
        return source[24:25] == b"\x10"
    return source[:2] in (b"P5", b"P6") or source[4:8] == b"jP  " or source[:4] == b"\xff\x4f\xff\x51"


def _check_icon(data: bytes, limits: Limits) -> None:
    """An icon's directory may say 16 x 16 px of a PNG that is far larger."""
    for found in re.finditer(rb"\x89PNG\r\n\x1a\n.{4}IHDR(.{4})(.{4})", data, re.DOTALL):
        limits.check_size(int.from_bytes(found[1]), int.from_bytes(found[2]))


@contextmanager
def _decoding(what: str = "the file") -> Iterator[None]:
    """Decoders keep quiet, and whatever they raise becomes an ImageError."""
    with quiet():
        try:
            yield
        except ImageError:
            raise
        except Exception as error:  # the decoders' boundary: any of them may raise anything
            raise ImageError(_reason(error, what)) from error


def _reason(error: Exception, what: str) -> str:
    """One short line in plain words."""
    if isinstance(error, UnidentifiedImageError):
        return "not a picture in a format that headstart reads, or its header is damaged"
    if isinstance(error, Image.DecompressionBombError):
        return f"the picture has more pixels than the limit of {PILLOW_CEILING:,}"
    if isinstance(error, MemoryError):
        return "the picture needs more memory than there is"
    text = " ".join(str(error).split())[:120]
    if re.search("requires the|unable to decompress|missing dependencies", text, re.IGNORECASE):
        return f"{what} is packed in a way that no installed decoder knows ({text}): save it uncompressed"
    if re.search("truncated|unexpected end|not enough|unexpected EOF|insufficient", text, re.IGNORECASE):
        return f"{what} is cut short ({text})"
    return f"{what} is damaged ({text or type(error).__name__})"
