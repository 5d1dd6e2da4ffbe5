"""Which reader reads a picture, and what it makes of it: RGB, or the samples of more than 8 bits.

FORMATS, a closed list, are Pillow's. Left out are those that run a program (EPS, PS), draw through the system (WMF,
EMF), unpack without a bound (FITS) or that Pillow only passes on to a plug-in (GRIB, HDF5, BUFR, MPEG). What a file is
that is not read: formats.py.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from headstart.data import dicom, formats, png, raster, tiff
from headstart.data.deep import Samples
from headstart.data.jpeg import SCAN, Needed, check_count, check_scans, fast_jpeg, floor
from headstart.data.jpeg import what as what_jpeg
from headstart.data.limits import PILLOW_CEILING, Limits, one_at_a_time
from headstart.data.modes import array_samples, array_to_image, its_own, samples_of, samples_to_rgb, to_rgb
from headstart.data.preprocess import Preprocess
from headstart.data.quiet import quiet
from headstart.data.upright import orientation_of, turned
from headstart.errors import ImageError

FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF"),
    *("QOI", "ICO", "PSD", "SGI", "SUN", "DDS", "PCX", "TGA"),  # TGA has no signature: tried last
)
JPEG = b"\xff\xd8"
OTHER_BYTES = 12  # a pixel, that a decode takes where it is no JPEG; measured, see above


@dataclass(frozen=True)
class Opened:
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


def opened(
    source: bytes | NDArray[Any], needed: Needed, limits: Limits, bands: tuple[int, ...], held: ExitStack
) -> Opened:
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
    jpeg = fast_jpeg(source, needed, limits) if source[:2] == JPEG else None
    return other_formats(source, needed, limits, held) if jpeg is None else Opened(*jpeg)


def other_formats(source: bytes, needed: Needed, limits: Limits, held: ExitStack) -> Opened:
    """What is neither a TIFF nor an ordinary JPEG."""
    if formats.is_dicom(source) and formats.installed("pydicom"):
        with decoding("the DICOM file"):
            samples, mode, remarked = dicom.read_dicom(source, limits, held)
        return Opened(samples, mode, 1, remarked)
    if formats.is_heif(source):
        return _of_heif(source, limits, held)
    reason = formats.what(source) or (what_jpeg(source) if source[:2] == JPEG else None)
    if reason:
        raise ImageError(reason)
    deep = png.deep_ppm(source, limits)
    return Opened(deep, "PPM RGB;16") if deep else _any_format(source, needed, limits, held)


def _of_array(array: NDArray[Any], limits: Limits, bands: tuple[int, ...]) -> Opened:
    if array.ndim >= 2:
        limits.check_size(array.shape[1], array.shape[0])
    if bands:
        if array.ndim != 3 or array.shape[2] < max(bands):
            raise ImageError(f"an array of shape {array.shape}, and band {max(bands)} of its last axis is asked for")
        array = array[:, :, [b - 1 for b in bands]]
    return Opened(array_samples(array) or array_to_image(array), f"array {array.dtype}")


def _of_tiff(data: bytes, limits: Limits, bands: tuple[int, ...], held: ExitStack) -> Opened | None:
    """The page of a TIFF that is the picture: the first that is not empty. None where its header is damaged."""
    pages = tiff.pages(data)
    if not pages:
        return None
    if tiff.is_camera_raw(data, pages):
        raise ImageError(formats.RAW)
    held.enter_context(one_at_a_time(OTHER_BYTES * max(page.size[0] * page.size[1] for page in pages)))
    first: Opened | None = None
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


def _of_page(data: bytes, page: tiff.Page, limits: Limits, bands: tuple[int, ...]) -> Opened:
    found = raster.read_page(data, page, bands, limits)
    if found.samples is not None:
        orientation = page.one(tiff.ORIENTATION, 1)
        return Opened(found.samples, found.mode, orientation, found.remark, found.cmyk)
    if page.one(tiff.COMPRESSION, tiff.PLAIN) in tiff.JPEGS:
        check_count(data.count(SCAN), *page.block)
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as picture:
        limits.check_size(*picture.size)
        if page.number:
            picture.seek(page.number)
            limits.check_size(*picture.size)
        mode = f"TIFF {picture.mode}"
        picture.load()
        seen = Opened(picture, mode, orientation_of(picture))
    if picture.mode == "RGBA" and not raster.is_mask(np.asarray(picture.getchannel("A"))):
        return replace(seen, content=picture.convert("RGB"), remark=raster.NO_MASK)
    return seen


def _is_empty(page: Opened) -> bool:
    if isinstance(page.content, Samples):
        return raster.is_empty(page.content)
    ends: Any = page.content.convert("RGB").getextrema()
    return all(low == high for low, high in ends)


def heif(data: bytes) -> Any:
    import pillow_heif

    return pillow_heif.open_heif(io.BytesIO(data))


def _of_heif(data: bytes, limits: Limits, held: ExitStack) -> Opened:
    """HEIC by pillow-heif (headstart[phone]), which turns it as its container says; its EXIF orientation is void."""
    if not formats.installed("pillow_heif"):
        raise ImageError(formats.NO_HEIC)
    with decoding("the HEIC picture"):
        found = heif(data)
        limits.check_size(*found.size)
        held.enter_context(one_at_a_time(OTHER_BYTES * found.size[0] * found.size[1]))
        return Opened(found.to_pillow(), f"HEIC {found.mode}")


def _any_format(data: bytes, needed: Needed, limits: Limits, held: ExitStack) -> Opened:
    """Any format of FORMATS by way of Pillow."""
    try:
        return _by_pillow(data, needed, limits, held)
    except UnidentifiedImageError:
        raise ImageError(formats.unknown(data)) from None
    except ValueError as error:
        if data[:8] != png.SIGNATURE or not re.search("MAX_TEXT|text chunk", str(error)):
            raise
    return _by_pillow(png.undecorated(data), needed, limits, held)  # sound, with more metadata than Pillow takes


def _by_pillow(data: bytes, needed: Needed, limits: Limits, held: ExitStack) -> Opened:
    with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
        limits.check_size(*picture.size)
        limits.check_decoder(picture.format or "", picture.size, len(picture.getbands()))
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
        return Opened(deep or picture, mode + (";16" if deep else ""), orientation_of(picture))


def _check_icon(data: bytes, limits: Limits) -> None:
    """An icon's directory may say 16 x 16 px of a PNG that is far larger."""
    for found in re.finditer(rb"\x89PNG\r\n\x1a\n.{4}IHDR(.{4})(.{4})", data, re.DOTALL):
        limits.check_size(int.from_bytes(found[1]), int.from_bytes(found[2]))


@contextmanager
def decoding(what: str = "the file") -> Iterator[None]:
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
