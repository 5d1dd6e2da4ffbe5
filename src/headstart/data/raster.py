"""Which page and which bands of a TIFF are the picture, and what their samples mean.

| what the file holds | what is taken |
|---|---|
| grey, RGB, CMYK, YCbCr, L*a*b*, palette of 8 bits | as Pillow reads it |
| RGB and more bands | the first three; said |
| a fourth band marked as alpha | laid on white where it is a mask, else left out, and said: GDAL marks infrared so |
| three bands that are not marked as colours | red, green and blue; said |
| any other number of bands | refused, unless `--bands` names three of them, or one |
| several pages | the first that is not of one value throughout; said |
| a reduced copy, a mask | passed over |

A mask hides and shows: of its pixels at least MASK are clear or opaque, and some are opaque; or the colours are
darkened by it already, as the file says, and nowhere exceed it. Infrared does none of this.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data import tiff
from headstart.data.deep import Samples, valid
from headstart.data.limits import Limits
from headstart.data.preprocess import MOST_BANDS
from headstart.errors import ImageError

MASK = 0.9  # of the pixels; the soft edges of a cut-out take less than a tenth
ALPHA = (1, 2)  # ExtraSamples: premultiplied, and not
NO_MASK = "the fourth band, marked as alpha, is no mask: the first three are taken as red, green and blue"
UNMARKED = "the three bands are not marked as colours: they are taken as red, green and blue"


@dataclass(frozen=True)
class Raster:
    """What a page is read as. `samples` of uint8 are 0..255 as they are; None: Pillow reads the page."""

    page: tiff.Page
    samples: Samples | None
    remark: str = ""
    cmyk: bool = False

    @property
    def mode(self) -> str:
        bits = f"{self.page.bits}-bit {('', '', 'signed ', 'float ')[min(self.page.sample_format, 3)]}"
        return f"TIFF {bits}{self.page.bands} band{'s' if self.page.bands != 1 else ''}"


def read_page(data: bytes, page: tiff.Page, asked: tuple[int, ...], limits: Limits) -> Raster:
    """One page of a TIFF; `asked`: bands counted from 1, () for the usual. Raises ImageError."""
    if not asked and _is_pillows(page):
        return Raster(page, None)
    if page.sample_format not in (tiff.UNSIGNED, tiff.SIGNED, tiff.FLOAT, 4):
        raise ImageError("a TIFF of complex numbers, not a picture: save their magnitude")
    bands, alpha, remark = _chosen(page, tuple(b - 1 for b in asked))
    samples = Samples(
        _values(page, tiff.read(data, page, bands + alpha, limits)),
        page.missing,
        page.photometric == tiff.WHITE_IS_ZERO and not asked,
    )
    if alpha:
        band, samples = samples.values[:, :, -1], replace(samples, values=samples.values[:, :, : len(bands)])
        darkened = page.extra[0] == 1 and band.max() > 0 and bool((samples.values.max(axis=2) <= band).all())
        if not (darkened or is_mask(band)):
            remark = NO_MASK if len(bands) == 3 else "the second band, marked as alpha, is no mask: the first is taken"
        elif band.max() != band.min() or band.flat[0] != _full(band):
            samples = replace(samples, alpha=_eight(band), premultiplied=darkened)
    if samples.values.shape[2] == 1:
        samples = replace(samples, values=samples.values[:, :, 0])
    return Raster(page, samples, remark, page.photometric == tiff.CMYK and not asked)


def is_empty(samples: Samples) -> bool:
    """Whether all of a page is of one value."""
    values = valid(samples)
    return not values.size or bool((values == values[0]).all())


def is_mask(alpha: NDArray[Any]) -> bool:
    """Whether a fourth band says what is seen of a picture."""
    most = alpha.max()
    full = 1 if alpha.dtype.kind == "f" else 255 if most <= 255 else np.iinfo(alpha.dtype).max
    opaque = np.count_nonzero(alpha == full)
    return bool(opaque and opaque + np.count_nonzero(alpha == 0) >= MASK * alpha.size)


def may_be_remarked(data: bytes) -> bool:
    """Whether its pages might have something to say, from the header alone."""
    found = tiff.pages(data)
    return len(found) > 1 or any(page.bands > 1 and not _is_pillows(page) for page in found)


def _is_pillows(page: tiff.Page) -> bool:
    """Whether it is of the kinds that Pillow reads right in every arrangement; or of one that it has to judge."""
    if page.bands > MOST_BANDS:
        return True  # which refuses it
    if page.bits not in (8, 16, 32, 64):
        return page.bands <= 4  # 1, 2, 4 and 12 bits
    if page.bits > 8 or page.sample_format not in (tiff.UNSIGNED, 4):
        return page.photometric in (tiff.YCBCR, tiff.CIELAB)
    usual = {tiff.RGB: (3,), tiff.CMYK: (4,), tiff.YCBCR: (3,), tiff.CIELAB: (3,), tiff.PALETTE: (1, 2)}
    packed = page.photometric == tiff.RGB and page.bands == 4 and not tiff.is_unpacked_here(page)
    return page.bands in usual.get(page.photometric, (1,)) or packed


def _chosen(page: tiff.Page, asked: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    """(the bands that are the picture, the one that may be alpha, a remark)."""
    n, has_alpha = page.bands, bool(page.extra) and page.extra[0] in ALPHA
    if asked:
        if max(asked) >= n:
            raise ImageError(f"a TIFF of {n} band{'s' if n != 1 else ''}, and band {max(asked) + 1} is asked for")
        return asked, (), ""
    rgb = page.photometric == tiff.RGB
    if page.photometric == tiff.CMYK and n >= 4:
        return (0, 1, 2, 3), (), ""
    if n == 1:
        return (0,), (), ""
    if n == 2 and has_alpha:
        return (0,), (1,), ""
    if n == 3:
        return (0, 1, 2), (), "" if rgb else UNMARKED
    if n > 3 and rgb:
        return (0, 1, 2), ((3,) if has_alpha else ()), "" if has_alpha and n == 4 else _first_three(n)
    raise ImageError(
        f"a TIFF of {n} bands, which is no picture as it is: save three of them as RGB, or name them, such as "
        f"--bands {'4,3,2' if n >= 4 else '1'}"
    )


def _first_three(n: int) -> str:
    return f"of {n} bands the first three are taken as red, green and blue"


def _values(page: tiff.Page, values: NDArray[Any]) -> NDArray[Any]:
    """The samples themselves, or the colours of a palette of 16 bits."""
    table = page.tags.get(tiff.COLOUR_MAP, ())
    if page.photometric != tiff.PALETTE or page.bits != 16 or len(table) != 3 << 16:
        return values
    return np.asarray(table, np.uint16).reshape(3, -1).T[values[:, :, 0]]


def _full(alpha: NDArray[Any]) -> float:
    return 1 if alpha.dtype.kind == "f" else 255 if alpha.max() <= 255 else float(np.iinfo(alpha.dtype).max)


def _eight(alpha: NDArray[Any]) -> NDArray[np.uint8]:
    return np.rint(alpha.astype(np.float64).clip(0, None) * (255 / _full(alpha))).clip(0, 255).astype(np.uint8)
