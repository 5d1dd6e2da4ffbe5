"""TIFF pictures that Pillow does not read, or reads wrong: many bands, more than 8 bits, planes, no data.

Of a TIFF of 8 bits in grey, RGB, CMYK, YCbCr, L*a*b* or a palette Pillow reads every arrangement right, and does. Of
others it reads planes of 16 bits as if they were interleaved, knows WhiteIsZero at 8 bits alone, keeps the upper half
of 16-bit colour, and refuses signed, floating and many-banded ones. Those are read here: strips or tiles, interleaved
or in planes, either byte order, classic or BigTIFF, 8 to 64 bits, integer or float, with either predictor. What a strip
is packed with is unpacked by zlib or by Pillow's libtiff (`_by_libtiff`), and else by tifffile where it is installed.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.data.limits import Limits
from headstart.errors import ImageError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MOST_PAGES = 10_000  # that are looked at; a microscope's stack has some thousands
MOST_TAGS, MOST_ENTRIES = 4096, 500_000  # of a page, of all pages: real ones have some dozens
MOST_VALUES = 65535  # of a tag that is no list of places
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
MANY = 64  # values of a tag, above which they are not turned into Python's numbers: a file may hold millions
CODES = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
# The tags that are read: https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf, GDAL's 42113, DNG's 50706
SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 254, 256, 257, 258, 259, 262, 266
MAKE, STRIPS, ORIENTATION, BANDS, ROWS, STRIP_BYTES, PLANAR, PREDICTOR = 271, 273, 274, 277, 278, 279, 284, 317
COLOUR_MAP, TILE_WIDTH, TILE_HEIGHT, TILES, TILE_BYTES, SUB_PAGES, EXTRA, FORMAT = (
    320,
    322,
    323,
    324,
    325,
    330,
    338,
    339,
)
NO_DATA, DNG = 42113, 50706
LISTS = (STRIPS, STRIP_BYTES, TILES, TILE_BYTES, COLOUR_MAP)
WANTED = frozenset({*range(SUBFILE, COLOUR_MAP), *range(TILE_WIDTH, FORMAT + 1), COLOUR_MAP, NO_DATA, DNG})
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 5, 6, 8
RAW = (32803, 34892)  # photometric: a mosaic of coloured pixels, or its linear form
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # sample formats
PLAIN, LZW, DEFLATE, PACKBITS, JPEGS = 1, 5, (8, 32946), 32773, (6, 7)
BY_LIBTIFF = (LZW, PACKBITS, 34925, 50000)  # LZMA and Zstandard too


Values = tuple[Any, ...] | NDArray[Any]


@dataclass(frozen=True)
class Page:
    """One image of a TIFF, as its header says."""

    number: int
    order: str  # "<" or ">"
    tags: dict[int, Values]

    def one(self, tag: int, default: int) -> int:
        value = self.tags.get(tag, (default,))
        return int(value[0]) if len(value) and isinstance(value[0], int | np.integer) else default

    @property
    def size(self) -> tuple[int, int]:
        return self.one(WIDTH, 0), self.one(HEIGHT, 0)

    @property
    def bands(self) -> int:
        return self.one(BANDS, 1)

    @property
    def bits(self) -> int:
        """Of every sample; 0 where they differ."""
        bits = set(map(int, self.tags.get(BITS, (1,))))
        return bits.pop() if len(bits) == 1 else 0

    @property
    def sample_format(self) -> int:
        formats = set(map(int, self.tags.get(FORMAT, (UNSIGNED,))))
        return formats.pop() if len(formats) == 1 else 0

    @property
    def photometric(self) -> int:
        return self.one(PHOTOMETRIC, BLACK_IS_ZERO)

    @property
    def extra(self) -> tuple[int, ...]:
        """What the bands after the colours are: 0 unknown, 1 alpha that is in the colours already, 2 alpha."""
        return tuple(map(int, self.tags.get(EXTRA, ())))

    @property
    def missing(self) -> float | None:
        """The value that means "no data" (GDAL)."""
        text = self.tags.get(NO_DATA, (b"",))
        try:
            return float(text[0]) if isinstance(text[0], bytes) else None
        except (ValueError, IndexError):
            return None

    @property
    def block(self) -> tuple[int, int]:
        """(width, height) of its tiles or strips."""
        width, height = self.size
        if TILES in self.tags:
            return self.one(TILE_WIDTH, 0), self.one(TILE_HEIGHT, 0)
        return width, min(height, self.one(ROWS, height))

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Of the samples as they lie in the file; None for what is not read here."""
        letter = {UNSIGNED: "u", 4: "u", SIGNED: "i", FLOAT: "f"}.get(self.sample_format)
        allowed = (16, 32, 64) if letter == "f" else (8, 16, 32, 64)
        return np.dtype(f"{self.order}{letter}{self.bits // 8}") if letter and self.bits in allowed else None


def pages(data: bytes) -> list[Page]:
    """The images of a TIFF that are pictures of their own: no reduced copies and no masks; [] if it is damaged."""
    found = list(_chain(data))
    whole = [page for page in found if not page.one(SUBFILE, 0) & 5]
    return whole or found[:1]


def is_unpacked_here(page: Page) -> bool:
    """Whether `read` needs no tifffile for it."""
    known = page.one(COMPRESSION, PLAIN) in (PLAIN, *DEFLATE, *BY_LIBTIFF)
    return known and page.dtype is not None and page.one(FILL_ORDER, 1) == 1


def is_camera_raw(data: bytes, found: list[Page]) -> bool:
    """Whether a TIFF is a camera's raw picture, whose first page is a thumbnail: DNG, NEF, ARW, CR2, PEF, SRW."""
    if data[8:10] == b"CR" or any(DNG in page.tags for page in found):
        return True
    inner = [int(at) for page in found[:4] for at in page.tags.get(SUB_PAGES, ())[:16]]
    every = [*found, *(page for at in inner for page in _chain(data, at, 1))]
    return any(page.photometric in RAW or page.one(COMPRESSION, 1) in (32767, 34713, 65535) for page in every)


def read(data: bytes, page: Page, bands: tuple[int, ...], limits: Limits) -> NDArray[Any]:
    """The samples (height, width, band) in the machine's byte order, of the bands asked for, counted from 0.

    Raises ImageError where the page is too large, damaged or packed in a way that is not known.
    """
    width, height = page.size
    limits.check_size(width, height)
    if page.dtype is None or not is_unpacked_here(page):
        return _by_tifffile(data, page, bands, limits)
    limits.check_unpacked(width * height * page.bands * page.dtype.itemsize)
    out = np.zeros((height, width, len(bands)), page.dtype.newbyteorder("="))
    for plane, top, left, block in _blocks(data, page, page.dtype, bands):
        rows, columns = min(block.shape[0], height - top), min(block.shape[1], width - left)
        place = slice(None) if plane is None else slice(plane, plane + 1)
        chosen = block[:rows, :columns]
        out[top : top + rows, left : left + columns, place] = chosen[:, :, list(bands)] if plane is None else chosen
    return out


def _chain(data: bytes, first: int | None = None, most: int = MOST_PAGES) -> Iterator[Page]:
    """Every directory of the file in turn, or those from an offset on; ends where one is damaged or comes again."""
    order, big = ("<" if data[:2] == b"II" else ">"), data[2:4] in (b"+\0", b"\0+")
    counted, entry, offset = ("Q", 20, "Q") if big else ("H", 12, "I")
    try:
        at = struct.unpack_from(order + offset, data, 8 if big else 4)[0] if first is None else first
        seen: set[int] = set()
        entries = 0
        while at and at not in seen and len(seen) < most:
            seen.add(at)
            count = struct.unpack_from(order + counted, data, at)[0]
            at += struct.calcsize(order + counted)
            entries += count
            if count > MOST_TAGS or entries > MOST_ENTRIES or at + count * entry > len(data):
                return
            yield Page(len(seen) - 1, order, dict(_tags(data, at, count, order, big)))
            at = struct.unpack_from(order + offset, data, at + count * entry)[0]
    except (struct.error, OverflowError):  # beyond the file, or beyond any file
        return


def _tags(data: bytes, at: int, count: int, order: str, big: bool) -> Iterator[tuple[int, Values]]:
    inline, length = (8, "Q") if big else (4, "I")
    for place in range(at, at + count * (20 if big else 12), 20 if big else 12):
        tag, kind = struct.unpack_from(order + "HH", data, place)
        if tag not in WANTED or kind not in SIZES:
            continue
        number = struct.unpack_from(order + length, data, place + 4)[0]
        size, start = number * SIZES[kind], place + 4 + inline
        if size > inline:
            start = struct.unpack_from(order + length, data, start)[0]
        if start + size > len(data) or (number > MOST_VALUES and tag not in LISTS):
            continue
        if kind == 2:
            yield tag, (data[start : start + size].split(b"\0")[0].strip(),)
        elif kind in CODES and number > MANY:
            yield tag, np.frombuffer(data, np.dtype(order + CODES[kind]), number, start)
        elif kind in CODES:
            yield tag, struct.unpack_from(f"{order}{number}{CODES[kind]}", data, start)


def _blocks(
    data: bytes, page: Page, dtype: np.dtype[Any], bands: tuple[int, ...]
) -> Iterator[tuple[int | None, int, int, NDArray[Any]]]:
    """(place among `bands`, or None for all of them; top; left; block (row, column, sample)) of strips or tiles."""
    width, height = page.size
    tiled = TILES in page.tags
    across, down = page.block
    if across < 1 or down < 1 or across * down > 4 * max(width * height, 1 << 24):
        raise ImageError("the TIFF is damaged: its strips or tiles have no size that is possible")
    offsets = page.tags.get(TILES if tiled else STRIPS, ())
    counts = page.tags.get(TILE_BYTES if tiled else STRIP_BYTES, ())
    columns, rows = math.ceil(width / across), math.ceil(height / down)
    apart = page.one(PLANAR, 1) == 2 and page.bands > 1
    if len(offsets) < columns * rows * (page.bands if apart else 1):
        raise ImageError("the TIFF is damaged or cut short: it names fewer strips or tiles than it has")
    samples = 1 if apart else page.bands
    for place, band in enumerate(bands) if apart else [(None, 0)]:
        for k in range(columns * rows):
            top, left = k // columns * down, k % columns * across
            shape = (down if tiled else min(down, height - top), across, samples)
            number = band * columns * rows + k
            start, packed = int(offsets[number]), int(counts[number]) if number < len(counts) else len(data)
            yield place, top, left, _block(data, start, packed, page, dtype, shape)


def _block(
    data: bytes, start: int, packed: int, page: Page, dtype: np.dtype[Any], shape: tuple[int, int, int]
) -> NDArray[Any]:
    """One strip or tile, unpacked, in the machine's byte order."""
    size, compression = math.prod(shape) * dtype.itemsize, page.one(COMPRESSION, PLAIN)
    if compression == PLAIN:
        raw = data[start : start + size]
    elif compression in DEFLATE:
        try:
            raw = zlib.decompressobj().decompress(data[start : start + packed], size)
        except zlib.error as error:
            raise ImageError(f"the file is damaged ({error})") from None
    else:
        raw = _by_libtiff(data[start : start + packed], compression, shape[0], size // shape[0])
    if len(raw) < size:
        raise ImageError("the file is cut short")
    predictor = 1 if compression in (PLAIN, PACKBITS) else page.one(PREDICTOR, 1)  # as libtiff: these know none
    if predictor == 3 and dtype.kind == "f":
        return _undo_float_predictor(raw, dtype, shape)
    block = np.frombuffer(raw, dtype, math.prod(shape)).reshape(shape)
    if predictor == 2:
        steps = block.view(dtype.str.replace("f", "u").replace("i", "u")).astype(f"=u{dtype.itemsize}")
        block = np.add.accumulate(steps, axis=1, dtype=steps.dtype).view(dtype.newbyteorder("="))
    return block


def _undo_float_predictor(raw: bytes, dtype: np.dtype[Any], shape: tuple[int, int, int]) -> NDArray[Any]:
    """Predictor 3 (Adobe, TIFF Technical Note 3): differences of bytes, the highest byte of every value first."""
    rows, columns, samples = shape
    steps = np.frombuffer(raw, np.uint8, rows * columns * samples * dtype.itemsize)
    lines = np.add.accumulate(steps.reshape(rows, -1, samples), axis=1, dtype=np.uint8)
    values = lines.reshape(rows, dtype.itemsize, columns * samples).transpose(0, 2, 1)
    return np.ascontiguousarray(values).view(f">f{dtype.itemsize}").reshape(shape)


def _by_libtiff(packed: bytes, compression: int, rows: int, row_bytes: int) -> bytes:
    """Bytes that libtiff unpacks: handed to Pillow as the one strip of an 8-bit grey TIFF of so many bytes a row."""
    tags = [
        (WIDTH, row_bytes),
        (HEIGHT, rows),
        (BITS, 8),
        (COMPRESSION, compression),
        (PHOTOMETRIC, BLACK_IS_ZERO),
        (STRIPS, 8 + 2 + 9 * 12 + 4),
        (BANDS, 1),
        (ROWS, rows),
        (STRIP_BYTES, len(packed)),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    file = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + packed
    with Image.open(io.BytesIO(file), formats=("TIFF",)) as picture:
        return picture.tobytes()


def _by_tifffile(data: bytes, page: Page, bands: tuple[int, ...], limits: Limits) -> NDArray[Any]:
    """The same by tifffile, which is in headstart[science]."""
    what = f"a TIFF of {page.bands} x {page.bits or 'mixed'} bits in compression {page.one(COMPRESSION, PLAIN)}"
    try:
        import tifffile
    except ImportError:
        raise ImageError(
            f'{what}, which needs tifffile: pip install "headstart[science]", or save it uncompressed'
        ) from None
    limits.check_unpacked(math.prod(page.size) * page.bands * max(1, page.bits // 8))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        array = _bands_last(file.pages[page.number].asarray(), page)
    return array[:, :, list(bands)].astype(array.dtype.newbyteorder("="))


def _bands_last(array: NDArray[Any], page: Page) -> NDArray[Any]:
    width, height = page.size
    if page.one(PLANAR, 1) == 2 and page.bands > 1:
        return np.moveaxis(array.reshape(page.bands, height, width), 0, 2)
    return array.reshape(height, width, page.bands)
