"""What a file truly is that is no picture, and what to do about it: one line each."""

from __future__ import annotations

import re
import zlib
from importlib.util import find_spec

PEEK = 4096  # bytes that are looked at
HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"})
AVIF_BRANDS = frozenset({b"avif", b"avis"})
NO_HEIC = 'a HEIC picture: pip install "headstart[phone]" to read it, or save it as JPEG'
RAW = "a camera's raw picture: develop it and save it as JPEG, PNG or TIFF"
VIDEO = "a video, not a picture: save its frames as JPEG"
LINEAR = "a picture in linear light, which has no white: save it as PNG or JPEG with the look that you want"
ARCHIVE = "an archive, not a picture: unpack it first"
FETCH = "it was saved in place of the picture, so fetch the picture again"
SIGNATURES = {
    rb"version https://git-lfs": 'a Git LFS pointer, not the picture itself: run "git lfs pull"',
    rb"[/.\\]*(\.git/)?annex/objects/": 'a git-annex pointer, not the picture itself: run "git annex get"',
    rb"%!PS|\xc5\xd0\xd3\xc6": "an EPS or PostScript file is a program, not a picture: save it as PNG",
    rb"%PDF": "a PDF file is a document, not a picture: save its pages as PNG",
    rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF": "a WMF or EMF file is a list of drawing commands: save it as PNG",
    rb"....ftypcrx |FUJIFILMCCD-RAW|IIR[OS]|MMOR|IIU\0|\0MRM|FOVb": RAW,
    rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n": "a JPEG XL file, which is not supported: save it as PNG or JPEG",
    rb"II\xbc": "a JPEG XR file, which is not supported: save it as PNG or JPEG",
    rb"BPG\xfb|FLIF": "a BPG or FLIF file, which is not supported: save it as PNG or JPEG",
    rb"\xff\xd8\xff\xf7": "a JPEG-LS file, which is not supported: save it as PNG",
    rb"v/1\x01": f"an OpenEXR file, {LINEAR}",
    rb"#\?(RADIANCE|RGBE)": f"a Radiance HDR file, {LINEAR}",
    rb"P[fF]\s": f"a PFM file, {LINEAR}",
    rb"SIMPLE  =": "a FITS file of measurements: save it as PNG or TIFF, stretched as you want to see it",
    rb"\x89HDF\r\n\x1a\n|CDF[\x01\x02\x05]": "an HDF5 or NetCDF file of arrays: save each picture as PNG or TIFF",
    rb"\x93NUMPY": "a NumPy array: save it as PNG or TIFF, or hand it over in Python",
    rb"MATLAB 5\.0 MAT": "a MATLAB file: save each picture as PNG or TIFF",
    rb".{344}(n\+1|ni1)\0": "a NIfTI volume, not a picture: save its slices as PNG or TIFF",
    rb".{128}DICM": 'a DICOM file: pip install "headstart[medical]" to read it, or save it as PNG',
    rb"\0\x05\x16\x07": "a macOS sidecar file (AppleDouble), not the picture itself",
    rb"8BPS.{18}\0[\x10\x20]": "a Photoshop file of more than 8 bits, which is not supported: save it as PNG or TIFF",
    rb"gimp xcf": "a GIMP file, which is not supported: save it as PNG",
    rb"icns": "an Apple icon, which is not supported: save it as PNG",
    rb"AT&TFORM": "a DjVu document, not a picture: save its pages as PNG",
    rb"PK\x03\x04|PK\x05\x06": f"a zip file is {ARCHIVE}",
    rb"7z\xbc\xaf'\x1c|Rar!\x1a|\xfd7zXZ\0|BZh[1-9]1AY|\x28\xb5\x2f\xfd": f"a compressed file is {ARCHIVE}",
    rb".{257}ustar": f"a tar file is {ARCHIVE}",
    rb"PAR1": "a Parquet file, which may hold pictures: name it as the data, not among the pictures",
    rb"\x1aE\xdf\xa3|\0\0\x01[\xba\xb3]|FLV\x01|OggS|\x30\x26\xb2\x75\x8e\x66\xcf\x11|RIFF....AVI ": VIDEO,
    rb"....ftyp(mp4|isom|iso\d|qt|M4V|3g|avc1|mmp4|dash|MSNV|f4v)": VIDEO,
}
ANY_SIGNATURE = re.compile(b"|".join(b"(?:%s)" % signature for signature in SIGNATURES), re.DOTALL)
TEXTS = {
    rb"(<\?xml[^>]*>\s*)?(<!--[^>]*>\s*)*<(!DOCTYPE\s+svg|svg)": "an SVG drawing, not a picture: save it as PNG",
    rb"<!DOCTYPE\s+html|<html|<head|<body|<script": f"a web page (HTML), not a picture: {FETCH}",
    rb"<\?xml|<!DOCTYPE|<[A-Za-z]+[\s>]": f"an XML text, not a picture: {FETCH}",
    rb"[\[{]\s*[\"\[{\]}\d]": f"a JSON text, not a picture: {FETCH}",
}


def what(data: bytes) -> str | None:
    """What a file is that is never read as a picture, and the remedy; None for all that a decoder may judge."""
    head = data[:PEEK]
    if ANY_SIGNATURE.match(head):  # one pattern for all: most files are pictures
        return next(reason for signature, reason in SIGNATURES.items() if re.match(signature, head, re.DOTALL))
    if head[:2] == b"\x1f\x8b":
        return _in_gzip(head)
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = head[2:].replace(b"\0", b"").lstrip()
    if text[:1] not in (b"<", b"{", b"["):
        return None
    return next((why for start, why in TEXTS.items() if re.match(start, text, re.DOTALL | re.IGNORECASE)), None)


def is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"


def is_heif(data: bytes) -> bool:
    """Whether a file is HEIF with anything but AVIF inside, by its major and compatible brands."""
    if data[4:8] != b"ftyp":
        return False
    length = min(max(16, int.from_bytes(data[:4])), PEEK)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, length - 3, 4))}
    return bool(brands & HEIF_BRANDS) and not brands & AVIF_BRANDS


def installed(package: str) -> bool:
    return find_spec(package) is not None


def unknown(data: bytes) -> str:
    """For what no decoder knows and no signature tells."""
    if not data.strip(b"\0"):
        return "the file holds nothing but zeros: copy it again"
    head = data[:PEEK]
    try:
        printable = head.decode("utf-8").isprintable() or all(c.isprintable() or c.isspace() for c in head.decode())
    except UnicodeDecodeError:
        printable = False
    if printable:
        return "a text, not a picture in a format that headstart reads"
    return "not a picture in a format that headstart reads, or its header is damaged"


def _in_gzip(head: bytes) -> str:
    try:
        inside = zlib.decompressobj(wbits=31).decompress(head, 352)
    except zlib.error:
        inside = b""
    if inside[344:348] in (b"n+1\0", b"ni1\0"):
        return "a NIfTI volume, packed with gzip: save its slices as PNG or TIFF"
    return f"a gzip file is {ARCHIVE}"
