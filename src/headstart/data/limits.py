"""What is refused before anything is decoded, from the sizes that a header states."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from headstart.errors import ImageError, OptionError
from headstart.files.forks import Lock

PILLOW_CEILING = 178_956_970  # pixels at which Pillow itself refuses (twice its MAX_IMAGE_PIXELS)
LARGE = 320_000_000  # bytes that a decode is expected to take, above which there is one at a time
# Bytes that a decode may take. Two decoders take far more than the others, measured on 120 megapixels: JPEG 2000 6.1 a
# band and pixel (2.8 GB from a file of 2 KB with four bands), WebP 15.6 a pixel. A whole process should stay below
# 2.5 GB, of which the network and its libraries take 0.7.
MOST_DECODED, JPEG2000_BYTES, WEBP_BYTES = 1_600_000_000, 6.2, 15.7
# Scans times pixels of one JPEG. A progressive one has 10 scans as libjpeg writes it, so that the largest picture
# allowed comes to 1.2 billion; each is read and written once a scan, at 2 to 6 ns a pixel: about 15 s at this bound.
MOST_SCANNED = 3_000_000_000


@dataclass(frozen=True)
class Limits:
    """What is refused before decoding.

    max_pixels: width * height. 120 million passes the largest ordinary cameras (108 megapixel phones, medium format)
    and bounds the memory of one decode to about 1.4 GB; see check_decoder. max_bytes: 6 bytes a pixel of the
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

    def check_decoder(self, kind: str, size: tuple[int, int], bands: int) -> None:
        """Before a picture (width, height) of this format is decoded."""
        heavy = {"JPEG2000": JPEG2000_BYTES * bands, "WEBP": WEBP_BYTES}
        needed = heavy.get(kind, 0) * size[0] * size[1]
        if needed > MOST_DECODED:
            raise ImageError(
                f"the picture is {size[0]} x {size[1]} px, and its {kind} decoder would take {needed / 1e9:.1f} GB, "
                f"more than the limit of {MOST_DECODED / 1e9:.1f}: save it as JPEG, PNG or TIFF"
            )

    def check_unpacked(self, count: int) -> None:
        """`count`: bytes of all samples of a picture, whatever they are packed to."""
        if count > self.max_bytes:
            raise ImageError(f"the picture unpacks to {count:,} bytes, more than the limit of {self.max_bytes:,}")


DEFAULT_LIMITS = Limits()
_LARGE_PICTURE = Lock()


def one_at_a_time(expected_bytes: int) -> AbstractContextManager[object]:
    """A lock for large pictures, nothing for others."""
    return _LARGE_PICTURE if expected_bytes > LARGE else nullcontext()
