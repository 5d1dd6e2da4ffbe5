"""What a file truly is that is no picture, in one true line with the remedy; and the bound of work for one picture."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data import formats
from headstart.data.folders import NO_IMAGE
from headstart.data.images import Preprocess, load, versions
from headstart.errors import ImageError

WANTED = Preprocess((32, 32), 1.0, "bicubic", "squash", (0.5,) * 3, (0.25,) * 3)


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.txt", "text")
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("a.txt"))
    return buffer.getvalue()


def array_file() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((4, 4)))
    return buffer.getvalue()


def ifd(tags: list[tuple[int, int, int]], order: str = "<") -> bytes:
    magic = b"II*\0" if order == "<" else b"MM\0*"
    body = b"".join(
        struct.pack(order + ("HHIHH" if kind == 3 else "HHII"), tag, kind, 1, *((value, 0) if kind == 3 else (value,)))
        for tag, kind, value in tags
    )
    return magic + struct.pack(order + "IH", 8, len(tags)) + body + bytes(4 + 400)


NIFTI = struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(100)
THUMBNAIL = [(254, 4, 1), (256, 4, 4), (257, 4, 4), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200), (279, 4, 16)]
FILES: dict[str, tuple[bytes, str]] = {
    "LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", 'run "git lfs pull"'),
    "annex": (b"/annex/objects/SHA256E-s9--0.jpg\n", 'run "git annex get"'),
    "HTML": (b"\n <!doctype HTML><html>", "web page.*fetch the picture again"),
    "html": (b"\xef\xbb\xbf<html lang=en>", "web page"),
    "UTF-16 HTML": (b"\xff\xfe" + "<!DOCTYPE html>".encode("utf-16-le"), "web page"),
    "JSON": (b'{"error": "rate limit"}', "JSON.*fetch the picture again"),
    "JSON list": (b'[ {"a": 1}]', "JSON"),
    "XML": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    "SVG": (b"<?xml version='1.0'?>\n<!-- drawn -->\n<svg xmlns='x'/>", "SVG drawing"),
    "zip": (zipped(), "zip file.*unpack"),
    "tar": (tarred(), "tar file.*unpack"),
    "gzip": (gzip.compress(b"hello"), "gzip file.*unpack"),
    "7z": (b"7z\xbc\xaf'\x1c" + bytes(40), "unpack"),
    "NIfTI": (NIFTI, "NIfTI.*slices"),
    "NIfTI, packed": (gzip.compress(NIFTI), "NIfTI.*slices"),
    "CR2": (b"II*\0\x10\0\0\0CR\x02\0" + bytes(4) + ifd(THUMBNAIL)[8:], "raw picture"),
    "CR3": (b"\0\0\0\x18ftypcrx " + bytes(40), "raw picture: develop"),
    "RAF": (b"FUJIFILMCCD-RAW 0201" + bytes(80), "raw picture"),
    "ORF": (b"IIRO\x08\0\0\0" + bytes(80), "raw picture"),
    "RW2": (b"IIU\0\x18\0\0\0" + bytes(80), "raw picture"),
    "DNG": (ifd([*THUMBNAIL, (50706, 1, 0x0401)]), "raw picture"),
    "ARW": (ifd([(256, 4, 4), (257, 4, 4), (258, 3, 14), (259, 3, 32767), (262, 3, 32803)]), "raw picture"),
    "JPEG XL": (b"\xff\x0a" + bytes(40), "JPEG XL"),
    "JPEG XL box": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
    "JPEG XR": (b"II\xbc\x01" + bytes(40), "JPEG XR"),
    "EXR": (b"v/1\x01\2\0\0\0" + bytes(40), "OpenEXR.*linear light"),
    "HDR": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "Radiance.*linear light"),
    "FITS": (b"SIMPLE  =                    T" + bytes(80), "FITS"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
    "NPY": (array_file(), "NumPy array"),
    "PDF": (b"%PDF-1.7\n", "PDF"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "program"),
    "MP4": (b"\0\0\0\x18ftypmp42" + bytes(40), "video.*frames"),
    "MOV": (b"\0\0\0\x14ftypqt  " + bytes(40), "video"),
    "WebM": (b"\x1aE\xdf\xa3" + bytes(40), "video"),
    "AVI": (b"RIFF\x10\0\0\0AVI LIST" + bytes(40), "video"),
    "Parquet": (b"PAR1" + bytes(40), "Parquet"),
    "AppleDouble": (b"\0\x05\x16\x07\0\x02\0\0" + bytes(40), "AppleDouble"),
    "12-bit JPEG": (b"\xff\xd8\xff\xc1\0\x0b\x0c\0\x10\0\x10\1\1\x11\0" + bytes(40), "JPEG of 12 bits"),
    "lossless JPEG": (b"\xff\xd8\xff\xc3\0\x0b\x08\0\x10\0\x10\1\1\x11\0" + bytes(40), "lossless JPEG"),
    "16-bit PSD": (b"8BPS\0\1" + bytes(6) + b"\0\3\0\0\0\x10\0\0\0\x10\0\x10\0\3" + bytes(40), "Photoshop.*PNG"),
    "text": (b"Downloads are limited.\n", "a text, not a picture"),
    "zeros": (bytes(4096), "nothing but zeros"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_truly_is(name: str) -> None:
    data, reason = FILES[name]
    with pytest.raises(ImageError, match=reason) as found:
        load(data, WANTED)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 200


def test_raw_pictures_with_their_mosaic_in_an_inner_page() -> None:
    """NEF, PEF and SRW: the first page is a thumbnail, which must not be taken for the picture."""
    for make in ("<", ">"):
        outer = ifd([*THUMBNAIL, (330, 4, 0)], make)
        inner = ifd([(256, 4, 40), (257, 4, 40), (258, 3, 14), (262, 3, 32803)], make)[8:]
        place = struct.pack(make + "HHII", 330, 4, 1, 0)
        data = outer.replace(place, struct.pack(make + "HHII", 330, 4, 1, len(outer))) + inner
        with pytest.raises(ImageError, match="raw picture: develop"):
            load(data, WANTED)


@pytest.mark.parametrize(
    "kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA", "QOI", "ICO"]
)
def test_no_picture_is_taken_for_something_else(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (9, 60, 120)).save(buffer, kind)
    assert formats.what(buffer.getvalue()) is None
    assert load(buffer.getvalue(), WANTED).array.shape == (32, 32, 3)


def test_brands_tell_heic_from_avif() -> None:
    def box(major: bytes, *others: bytes) -> bytes:
        return struct.pack(">I", 16 + 4 * len(others)) + b"ftyp" + major + bytes(4) + b"".join(others) + bytes(40)

    assert formats.is_heif(box(b"heic", b"mif1"))
    assert formats.is_heif(box(b"mif1", b"heic"))
    assert formats.is_heif(box(b"mif1"))
    assert not formats.is_heif(box(b"mif1", b"avif", b"miaf"))
    assert not formats.is_heif(box(b"avif", b"mif1"))
    assert not formats.is_heif(b"\xff\xd8\xff\xe0" + bytes(60))


@pytest.mark.parametrize("name", ["pydicom", "pillow_heif", "tifffile"])
def test_without_the_extra_its_name_is_the_remedy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, extra = {
        "pydicom": (bytes(128) + b"DICM" + bytes(200), "medical"),
        "pillow_heif": (b"\0\0\0\x18ftypheic" + bytes(60), "phone"),
        "tifffile": (ifd([*THUMBNAIL[1:4], (259, 3, 34887), *THUMBNAIL[5:], (339, 3, 2)]), "science"),
    }[name]
    monkeypatch.setattr(formats, "installed", lambda package: package != name)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImageError, match=rf'pip install "headstart\[{extra}\]"'):
        load(data, WANTED)


@pytest.mark.parametrize("ending", ["dcm", "heic", "heif", "nii", "tif", "tiff", "dng", "nef", "avif", "jxl"])
def test_such_files_reach_the_decoder(ending: str) -> None:
    assert ending not in NO_IMAGE


def bomb(scans: int, side: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    buffer = io.BytesIO()
    Image.new("L", (64, 64), 90).save(buffer, "JPEG", progressive=True)
    data = bytearray(buffer.getvalue())
    frame = data.index(b"\xff\xc2")
    data[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    last = data.rindex(b"\xff\xda")
    return bytes(data[:-2] + data[last:-2] * scans + data[-2:])


@pytest.mark.parametrize(("scans", "side"), [(400, 10_000), (40, 10_000), (4000, 1000)])
def test_scans_times_pixels_are_bounded(scans: int, side: int) -> None:
    with pytest.raises(ImageError, match=rf"a JPEG of {scans + 6} scans at {side} x {side} px"):
        load(bomb(scans, side), WANTED)


def test_ordinary_progressive_pictures_are_far_from_the_bound() -> None:
    buffer = io.BytesIO()
    Image.effect_noise((1200, 900), 60).convert("RGB").save(buffer, "JPEG", progressive=True, quality=95)
    assert load(buffer.getvalue(), WANTED).mode == "JPEG RGB"
    with pytest.raises(ImageError, match=r"cut short|damaged"):  # few scans: it is decoded, and found to be broken
        load(bomb(3, 2000), WANTED)


def test_what_can_change_pixels_is_in_the_key() -> None:
    found = versions()
    assert {"pillow", "simplejpeg", "libjpeg_turbo", "libtiff"} <= set(found)
    assert all(isinstance(version, str) for version in found.values())
    ask = "import json; from headstart.data.images import versions; print(json.dumps(versions()))"
    env = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    alone = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, env=env).stdout
    assert json.loads(alone) == found  # whatever this process has imported before


def test_all_cases_are_read_or_refused_in_one_line(shared: Path) -> None:
    """Every small input of the shared cases, whatever it is."""
    files = [p for p in sorted((shared / "cases").rglob("*")) if p.is_file() and p.suffix not in ("", ".csv", ".txt")]
    assert len(files) > 50
    reasons = [reason for path in files if (reason := refused(path.read_bytes()))]
    assert len(reasons) > 5
    assert all("\n" not in reason and len(reason) < 250 for reason in reasons)


def refused(data: bytes) -> str:
    try:
        load(data, WANTED)
    except ImageError as error:
        return str(error)
    return ""
