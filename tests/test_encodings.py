"""One picture in many encodings gives the same pixels; what is more than that is said."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from headstart.data import images
from headstart.data.images import Preprocess, load, size_of
from headstart.errors import ImageError

tifffile = pytest.importorskip("tifffile", reason="writes the TIFFs; pip install headstart[science]")

EXACT = Preprocess((48, 80), 1.0, "bicubic", "squash", (0.5,) * 3, (0.25,) * 3)
Pixels = NDArray[Any]


def colours() -> Pixels:
    """A smooth picture (48, 80, 3) without symmetry that uses 0..255."""
    small = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    found = np.asarray(Image.fromarray(small).resize((80, 48), Image.Resampling.BICUBIC)).copy()
    found[0, 0], found[0, 1] = 0, 255
    return found


RGB = colours()
GREY = np.ascontiguousarray(RGB[:, :, 1])
GREY[0, :2] = 0, 255
AS_RGB = np.repeat(GREY[:, :, None], 3, axis=2)


def tiff(array: Pixels, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, metadata=None, **options)
    return buffer.getvalue()


def packed(array: Pixels, order: str, bands: int, compression: int = 1, predictor: int = 1) -> bytes:
    """A TIFF of one strip by hand, for what tifffile does not write without more packages."""
    height, width = array.shape[:2]
    raw = array.astype(array.dtype.newbyteorder(order)).tobytes()
    if predictor == 2:
        steps = np.diff(array.reshape(height, width, bands), axis=1, prepend=np.zeros((height, 1, bands), array.dtype))
        raw = steps.astype(array.dtype).astype(array.dtype.newbyteorder(order)).tobytes()
    if predictor == 3:
        size = array.dtype.itemsize
        planes = array.astype(f">f{size}").view(np.uint8).reshape(height, width * bands, size).transpose(0, 2, 1)
        lines = planes.reshape(height, -1, bands).astype(np.int16)
        raw = np.diff(lines, axis=1, prepend=np.zeros((height, 1, bands), np.int16)).astype(np.uint8).tobytes()
    data = zlib.compress(raw) if compression == 8 else raw
    bits, kind = array.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    tags = [(256, width), (257, height), (258, bits), (259, compression), (262, 2 if bands == 3 else 1)]
    tags += [(273, 0), (277, bands), (278, height), (279, len(data)), (317, predictor), (339, kind)]
    start = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack(order + "HHII", t, 4, 1, start if t == 273 else v) for t, v in tags)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "IH", 8, len(tags)) + entries + bytes(4) + data


def by_pillow(array: Pixels, kind: str, compression: str | None = None) -> bytes:
    buffer = io.BytesIO()
    options = {"compression": compression} if compression else {}
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def png16(samples: Pixels) -> bytes:
    """A 16-bit PNG of (height, width, 2, 3 or 4) samples, each row filtered by "up"."""
    height, width, bands = samples.shape
    rows = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    raw = np.hstack([np.full((height, 1), 2, np.uint8), rows - above]).tobytes()

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def greys() -> Iterator[tuple[str, bytes]]:
    """GREY, in 8 to 64 bits."""
    wide = GREY.astype(np.uint16) * 257
    for order, tile, compression in itertools.product("<>", (None, (16, 32)), (None, "zlib")):
        options: dict[str, Any] = {"byteorder": order, "tile": tile, "compression": compression}
        where = f"{order} {tile} {compression}"
        for name, array in (("8", GREY), ("16", wide), ("32", GREY.astype(np.uint32)), ("s16", GREY.astype(np.int16))):
            yield f"{name} {where}", tiff(array, photometric="minisblack", **options)
        for name, array in (("f32", GREY / np.float32(255)), ("f64", GREY / 255.0), ("f32 255", GREY.astype("f4"))):
            yield f"{name} {where}", tiff(array, photometric="minisblack", **options)
        for name, array in (("8", GREY), ("16", wide)):
            yield f"white is 0, {name} {where}", tiff(~array, photometric="miniswhite", **options)
        table = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
        yield f"palette {where}", tiff(GREY, photometric="palette", colormap=table, **options)
    for kind in ("PNG", "JPEG2000", "PPM"):
        yield f"16 {kind}", by_pillow(wide, kind)
    for order, predictor in itertools.product("<>", (1, 2)):
        yield f"predictor {predictor} {order}", packed(wide, order, 1, 8, predictor)
    yield "predictor 3", packed(GREY / np.float32(255), "<", 1, 8, 3)
    for name in ("tiff_lzw", "packbits", "tiff_deflate"):
        yield f"16 {name}", by_pillow(wide, "TIFF", name)
    for name, predictor in itertools.product(("tiff_lzw", "packbits"), (1, 2)):  # in strips of 7 rows
        buffer = io.BytesIO()
        Image.fromarray(wide).save(buffer, "TIFF", compression=name, tiffinfo={317: predictor, 278: 7})
        yield f"{name} {predictor}", buffer.getvalue()
    yield "BigTIFF", tiff(wide, bigtiff=True, photometric="minisblack")
    twelve = (GREY.astype(np.uint32) * 4095 // 255).astype(np.uint16)
    yield "12 of 16", tiff(twelve, photometric="minisblack")
    yield "12 of 16, white is 0", tiff(4095 - twelve, photometric="miniswhite")


def colour_pictures() -> Iterator[tuple[str, bytes]]:
    """RGB, in 8 to 64 bits."""
    wide = RGB.astype(np.uint16) * 257
    for order, tile, compression, planar in itertools.product("<>", (None, (16, 32)), (None, "zlib"), (True, False)):
        options: dict[str, Any] = {"byteorder": order, "tile": tile, "compression": compression}
        options["planarconfig"] = "separate" if planar else "contig"
        where = f"{order} {tile} {compression} {options['planarconfig']}"
        for name, array in (("8", RGB), ("16", wide), ("f32", RGB / np.float32(255)), ("s16", RGB.astype(np.int16))):
            stored = np.ascontiguousarray(np.moveaxis(array, 2, 0)) if planar else array
            yield f"{name} {where}", tiff(stored, photometric="rgb", **options)
        inks = np.dstack([255 - RGB, np.zeros_like(GREY)])
        for name, array in (("8", inks), ("16", inks.astype(np.uint16) * 257)):
            stored = np.ascontiguousarray(np.moveaxis(array, 2, 0)) if planar else array
            yield f"CMYK {name} {where}", tiff(stored, photometric="separated", **options)
    twelve = (RGB.astype(np.uint32) * 4095 // 255).astype(np.uint16)
    opaque = np.full_like(wide[:, :, :1], 65535)
    for name, array in (("16", wide), ("12 of 16", twelve)):
        yield f"PNG {name}", png16(array)
        yield f"PNG with alpha {name}", png16(np.dstack([array, opaque]))
        yield f"PPM {name}", b"P6 # a comment\n80 48\n65535\n" + array.astype(">u2").tobytes()
    yield "PPM of 4095", b"P6 80 48 4095 " + twelve.astype(">u2").tobytes()
    for order, predictor in itertools.product("<>", (1, 2)):
        yield f"predictor {predictor} {order}", packed(wide, order, 3, 8, predictor)
    yield "predictor 3", packed(RGB / np.float32(255), ">", 3, 8, 3)
    yield "three bands unmarked", tiff(wide, photometric="minisblack", planarconfig="contig")


@pytest.mark.parametrize(("wanted", "encodings"), [(AS_RGB, greys()), (RGB, colour_pictures())], ids=["grey", "colour"])
def test_one_picture_in_many_encodings(wanted: Pixels, encodings: Iterator[tuple[str, bytes]]) -> None:
    """Within one grey level, at 8, 12, 16, 32 and 64 bits."""
    wrong, known = [], dict(encodings)
    assert len(known) > 60
    for name, data in known.items():
        found = load(data, EXACT)
        apart = np.abs(found.array.astype(int) - wanted).max()
        if apart > 1 or size_of(data) != (80, 48):
            wrong.append(f"{name}: {apart} ({found.mode})")
    assert not wrong


def test_alpha_is_laid_on_white_at_every_depth() -> None:
    alpha = np.full_like(GREY, 255)
    alpha[:, 40:] = 0
    wide = np.dstack([RGB, alpha]).astype(np.uint16) * 257
    grey = np.dstack([GREY, alpha]).astype(np.uint16) * 257
    for data, whole in (
        (png16(wide), RGB),
        (png16(grey), AS_RGB),
        (tiff(wide, photometric="rgb", extrasamples=["unassalpha"]), RGB),
        (tiff((wide >> 8).astype(np.uint8), photometric="rgb", extrasamples=["unassalpha"]), RGB),
        (tiff(grey, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"]), AS_RGB),
    ):
        found = load(data, EXACT)
        assert (found.array[:, 40:] == 255).all()
        assert np.abs(found.array[:, :40].astype(int) - whole[:, :40]).max() <= 1
        assert not found.remark


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("marked", ["unassalpha", "assocalpha"])
def test_infrared_marked_as_alpha_is_no_mask(depth: type, marked: str) -> None:
    factor = 257 if depth is np.uint16 else 1
    for infrared in (GREY, np.full_like(GREY, 60), GREY * 0):
        bands = np.dstack([RGB, infrared]).astype(depth) * depth(factor)
        found = load(tiff(bands, photometric="rgb", extrasamples=[marked]), EXACT)
        assert np.abs(found.array.astype(int) - RGB).max() <= 1
        assert "no mask" in found.remark


def test_more_bands_than_colours_are_said_or_refused_with_the_remedy() -> None:
    bands = np.stack([RGB[:, :, k % 3] // (1 + k // 3) for k in range(13)], axis=2)
    for array, photometric in ((bands, "minisblack"), (bands[:, :, :5].astype("f4"), "minisblack")):
        for planar in ("contig", "separate"):
            stored = array if planar == "contig" else np.ascontiguousarray(np.moveaxis(array, 2, 0))
            data = tiff(stored, photometric=photometric, planarconfig=planar)
            with pytest.raises(ImageError, match=rf"a TIFF of {array.shape[2]} bands.*--bands 4,3,2"):
                load(data, EXACT)
            np.testing.assert_allclose(load(data, replace(EXACT, bands=(1, 2, 3))).array.astype(int), RGB, atol=1)
            assert apart(load(data, replace(EXACT, bands=(3, 2, 1))).array, RGB[:, :, ::-1]) <= 1
            grey = load(data, replace(EXACT, bands=(2,))).array
            assert apart(grey, np.repeat(RGB[:, :, 1:2], 3, axis=2)) <= 1
            with pytest.raises(ImageError, match="band 99 is asked for"):
                load(data, replace(EXACT, bands=(1, 2, 99)))
    assert apart(load(bands, replace(EXACT, bands=(1, 2, 3))).array, RGB) <= 1
    with pytest.raises(ImageError, match="no TIFF"):
        load(by_pillow(RGB, "PNG"), replace(EXACT, bands=(1, 2, 3)))
    found = load(tiff(bands[:, :, :5], photometric="rgb", extrasamples=[0, 0]), EXACT)
    assert apart(found.array, RGB) <= 1
    assert "of 5 bands the first three" in found.remark
    with pytest.raises(ImageError, match="2 bands"):
        load(tiff(np.dstack([GREY, GREY]).astype("f4"), photometric="minisblack", planarconfig="contig"), EXACT)


def apart(first: Pixels, second: Pixels) -> int:
    return int(np.abs(first.astype(int) - second).max())


@pytest.mark.parametrize("empty", [0, 1, 3])
@pytest.mark.parametrize("array", [RGB, RGB.astype(np.uint16) * 257, GREY / np.float32(255)])
def test_of_a_stack_the_first_page_that_is_not_empty(empty: int, array: Pixels) -> None:
    pages = np.stack([array * 0] * empty + [array, array[::-1]])
    photometric = "rgb" if array.ndim == 3 else "minisblack"
    data = tiff(pages, photometric=photometric)
    found = load(data, EXACT)
    assert apart(found.array, RGB if array.ndim == 3 else AS_RGB) <= 1
    assert f"a stack of {empty + 2} pages: page {empty + 1} is the picture" in found.remark
    assert images.remark(data, EXACT) == found.remark
    blank = load(tiff(np.stack([array * 0] * 3), photometric=photometric), EXACT)
    assert not blank.array.any()
    assert "page 1" in blank.remark


def test_reduced_copies_are_no_pages() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(RGB, photometric="rgb", metadata=None)
        file.write(RGB[::2, ::2], photometric="rgb", subfiletype=1, metadata=None)
    found = load(buffer.getvalue(), EXACT)
    assert apart(found.array, RGB) == 0
    assert not found.remark


@pytest.mark.parametrize("tag", [True, False])
@pytest.mark.parametrize(
    ("missing", "kind"),
    [(-9999, "f4"), (-9999, "i2"), (-32768, "i2"), (-2147483648, "i4"), (-3.4028234663852886e38, "f4")],
)
def test_no_data_is_black_and_not_in_the_range(missing: float, kind: str, tag: bool) -> None:
    terrain = (GREY.astype(float) * 3 + 100).astype(kind)
    terrain[10:20, 10:20] = missing
    extra = [(42113, 2, 0, str(missing), True)] if tag else []
    found = load(tiff(terrain, photometric="minisblack", extratags=extra), EXACT).array[:, :, 0]
    assert (found[10:20, 10:20] == 0).all()
    assert len(np.unique(found)) > 180
    clean = terrain.copy()
    clean[10:20, 10:20] = 400
    whole = load(tiff(clean, photometric="minisblack"), EXACT).array[:, :, 0]
    assert apart(np.delete(found, slice(10, 20), 0), np.delete(whole, slice(10, 20), 0)) <= 1


def test_no_data_by_the_tag_of_unsigned_integers() -> None:
    values = GREY.astype(np.uint16) * 16
    values[5:9, 5:9] = 65535
    extra = [(42113, 2, 0, "65535", True)]
    found = load(tiff(values, photometric="minisblack", extratags=extra), EXACT).array[:, :, 0]
    assert (found[5:9, 5:9] == 0).all()
    assert found.max() > 250


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiffs_of_every_depth_are_turned(orientation: int) -> None:
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]
    upright = Image.fromarray(RGB)
    stored = np.asarray(upright if undo is None else upright.transpose(Image.Transpose(undo)))
    for factor in (np.uint8(1), np.uint16(257)):
        data = tiff(stored * factor, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
        assert apart(load(data, EXACT).array, RGB) <= 1


def test_damaged_tiffs_are_refused_in_words() -> None:
    wide = RGB.astype(np.uint16) * 257
    for data in (tiff(wide, photometric="rgb"), packed(wide, "<", 3, 8), packed(wide, ">", 3, 1)):
        with pytest.raises(ImageError, match=r"cut short|damaged"):
            load(data[: len(data) * 2 // 3], EXACT)
    huge = packed(wide, "<", 3).replace(struct.pack("<HHII", 256, 4, 1, 80), struct.pack("<HHII", 256, 4, 1, 10**9))
    with pytest.raises(ImageError, match="more than the limit"):
        load(huge, EXACT)
    with pytest.raises(ImageError, match="complex"):
        load(tiff(np.ones((8, 8), np.complex64), photometric="minisblack"), EXACT)


def test_png_with_more_metadata_than_pillow_takes() -> None:
    plain = by_pillow(RGB, "PNG")

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    text = bytes(b"x" * (3 << 20))
    for extra in (
        chunk(b"iCCP", b"profile\0\0" + zlib.compress(text)),
        chunk(b"tEXt", b"Comment\0" + text) * 30,
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(text)),
        chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(text)),
    ):
        np.testing.assert_array_equal(load(plain[:33] + extra + plain[33:], EXACT).array, RGB)


def test_avif_by_its_compatible_brands() -> None:
    data = bytearray(by_pillow(RGB, "AVIF"))
    assert data[8:12] == b"avif"
    data[8:12] = b"mif1"
    assert apart(load(bytes(data), EXACT).array, load(by_pillow(RGB, "AVIF"), EXACT).array) == 0
