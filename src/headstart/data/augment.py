"""Random training views: (picture, seed, content hash, epoch) -> another picture of the same thing.

A view is a pure function of those four: the same whatever was drawn before, in whichever order, batch, thread or
process, so that a run that is taken up again sees the views that it would have seen. (On another processor or version
of torchvision the last bit of a resized pixel may differ.) Nothing is drawn from the global generators of numpy and
torch. The transforms are torchvision's, given their parameters.

Never for validation or test images.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torchvision.transforms.v2.functional as F  # type: ignore[import-untyped]  # noqa: N812, its usual name
from numpy.typing import NDArray

from headstart.errors import OptionError, nearest

BILINEAR = F.InterpolationMode.BILINEAR
ERASED_AREA = (
    0.02,
    1 / 3,
)  # share of the picture that erasing hides: timm's and torchvision's range (Zhong et al.: 0.4)
ERASED_RATIO = (0.3, 1 / 0.3)  # height : width of what is hidden (Zhong et al. 2017)


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training picture. All of it is in the fields: equal fields, equal views."""

    kind: str
    crop_scale: tuple[float, float]  # share of the picture's area that a crop keeps
    crop_ratio: tuple[float, float]  # stretch of the width against the height, drawn evenly on a logarithmic scale
    flip: bool  # left and right, in every other epoch (which ones: by the image)
    vertical_flip: bool  # top and bottom, in every other pair of epochs
    rotate_quarters: bool  # by 0, 90, 180, 270 degrees: with `flip` eight epochs show all eight orientations
    rotate_degrees: float  # largest small rotation, either way
    colour: tuple[float, float, float]  # largest relative change of brightness, contrast, saturation, either way
    randaugment: int  # further random operations a view: 0 none, 1 TrivialAugment, 2 RandAugment
    erase: float  # probability that a rectangle is hidden


_NONE = Augmentation("none", (1.0, 1.0), (1.0, 1.0), False, False, False, 0.0, (0.0, 0.0, 0.0), 0, 0.0)
_PHOTO = replace(
    _NONE,
    kind="photo",
    crop_scale=(
        0.5,
        1.0,
    ),  # training from scratch uses 0.08 (Szegedy et al. 2015); few epochs need milder (methods.md 1)
    crop_ratio=(3 / 4, 4 / 3),  # Szegedy et al. 2015
    flip=True,  # a mirrored photograph is a photograph; not upside down
    colour=(0.2, 0.2, 0.2),  # half the 0.4 of timm's training from scratch
    randaugment=0,  # an option: Mueller and Hutter 2021 (1), Cubuk et al. 2020 (2) gain in long training
    erase=0.25,  # Touvron et al. 2021 (DeiT), half the 0.5 of Zhong et al. 2017
)
_AERIAL = replace(
    _PHOTO,
    kind="aerial",
    crop_ratio=(9 / 10, 10 / 9),  # a camera that looks straight down does not stretch
    vertical_flip=True,  # seen from above there is no up
    rotate_quarters=True,  # exact, where free angles would resample and leave empty corners
    colour=(0.2, 0.2, 0.1),  # light and haze change; hue and saturation tell crops and water apart
    erase=0.0,  # the thing to be told may be a few pixels wide
)
_MEDICAL = replace(
    _NONE,
    kind="medical",
    crop_scale=(0.8, 1.0),  # a finding near the edge stays inside
    crop_ratio=(9 / 10, 10 / 9),  # shape is evidence
    flip=False,  # sides differ: heart, liver, and markers such as L and R
    rotate_degrees=10.0,  # our choice: how differently patients lie, less than would need new shading
    colour=(0.1, 0.1, 0.0),  # exposure and window differ between scanners; stains and grey values carry meaning
    erase=0.0,  # would hide the finding and keep its label
)
_DOCUMENT = replace(
    _NONE,
    kind="document",
    crop_scale=(0.9, 1.0),  # text at the edges counts
    crop_ratio=(0.95, 1 / 0.95),  # letters are told apart by their proportions
    flip=False,  # mirrored text is no text
    rotate_degrees=3.0,  # our choice: the skew of a page laid on a scanner by hand
    colour=(0.15, 0.15, 0.0),  # paper and toner
    erase=0.0,  # would hide the letter that tells
)
_BY_KIND = {how.kind: how for how in (_PHOTO, _AERIAL, _MEDICAL, _DOCUMENT, _NONE)}
KINDS = tuple(_BY_KIND)

# CIFAR's usual crop (4 px of padding around 32) shows at least (28 / 32)^2 = 0.77 of a picture: thumbnails are framed
# tightly, and have few pixels to lose.
SMALL_CROP_SCALE, SMALL_CROP_RATIO = 0.8, (9 / 10, 10 / 9)


def augmentation(kind: str, enlarged: bool) -> Augmentation:
    """The views for a kind of picture; `enlarged`: the network's input is larger than the pictures are.

    Raises OptionError for an unknown kind.
    """
    if kind not in _BY_KIND:
        raise OptionError(f"unknown augmentation {kind!r}{nearest(kind, KINDS)}: choose one of {', '.join(KINDS)}")
    how = _BY_KIND[kind]
    if not enlarged:
        return how
    low, high = how.crop_ratio
    return replace(
        how,
        crop_scale=(max(how.crop_scale[0], SMALL_CROP_SCALE), how.crop_scale[1]),
        crop_ratio=(max(low, SMALL_CROP_RATIO[0]), min(high, SMALL_CROP_RATIO[1])),
    )


def views(
    pixels: NDArray[np.uint8], how: Augmentation, seed: int, content_hash: str, n: int
) -> list[NDArray[np.uint8]]:
    """The views (height, width, 3) of an image in epochs 0 to n - 1."""
    return [view(pixels, how, seed, content_hash, epoch) for epoch in range(n)]


def view(pixels: NDArray[np.uint8], how: Augmentation, seed: int, content_hash: str, epoch: int) -> NDArray[np.uint8]:
    """The view (height, width, 3) of an image (height, width, 3) in an epoch; a new array of the same size.

    Each option draws from numbers of its own: changing one leaves what the others do as it was.
    """
    drawn = np.random.Generator(np.random.PCG64(int.from_bytes(_digest(b"view", seed, content_hash, epoch), "big")))
    crop, angle, colour, erase = np.split(drawn.random(13), (4, 5, 8))
    mirrored, upended, turns = _orientation(how, seed, content_hash, epoch)
    height, width = pixels.shape[:2]
    size = (width, height) if turns % 2 else (height, width)
    top, left, h, w = _box(crop, (height, width), size, how)
    picture = np.array(pixels[top : top + h, left : left + w])
    if (h, w) != size:
        picture = _array(F.resize(_tensor(picture), list(size), interpolation=BILINEAR, antialias=True))
    if how.rotate_degrees:
        degrees = how.rotate_degrees * _either_way(angle[0])
        picture = _array(_warped(_tensor(picture), _edge_colour(picture), angle=degrees))
    picture = _recoloured(picture, colour, how)
    for which, level in drawn.random((how.randaugment, 2)):
        picture = _operated(picture, which, _either_way(level), how.kind)
    picture = picture[:: -1 if upended else 1, :: -1 if mirrored else 1]
    picture = np.ascontiguousarray(np.rot90(picture, turns))
    if erase[0] < how.erase:
        _hide(picture, erase[1:])
    return picture


def _digest(what: bytes, *parts: object) -> bytes:
    """16 bytes that depend on all the parts and on nothing else."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16, person=what).digest()


def _orientation(how: Augmentation, seed: int, content_hash: str, epoch: int) -> tuple[bool, bool, int]:
    """(mirrored, upside down, quarter turns).

    Not drawn but alternating, from a start that the image decides: two epochs in a row see both sides, where drawn
    flips show the same side twice half of the time (alternating flip, airbench94, Jordan 2024).
    """
    start = _digest(b"orientation", seed, content_hash)[0]
    pair = epoch // 2
    mirrored = how.flip and (epoch + start) % 2 == 1
    upended = how.vertical_flip and (pair + start // 2) % 2 == 1
    return mirrored, upended, (pair + start // 4) % 4 if how.rotate_quarters else 0


def _either_way(u: float) -> float:
    """From 0..1 to -1..1."""
    return 2.0 * float(u) - 1.0


def _between(u: float, low: float, high: float) -> float:
    """From 0..1 to low..high, evenly on a logarithmic scale."""
    return float(math.exp(math.log(low) + u * (math.log(high) - math.log(low))))


def _box(
    u: NDArray[np.float64], whole: tuple[int, int], size: tuple[int, int], how: Augmentation
) -> tuple[int, int, int, int]:
    """(top, left, height, width) in px of a crop of a `whole` (height, width), to be resized to `size`.

    The proportions are those of `size`, stretched by the ratio; a box that reaches beyond the picture is made smaller,
    so that none is drawn in vain.
    """
    height, width = whole
    low, high = how.crop_scale
    area = (low + float(u[0]) * (high - low)) * height * width
    ratio = size[1] / size[0] * _between(float(u[1]), *how.crop_ratio)
    h, w = math.sqrt(area / ratio), math.sqrt(area * ratio)
    fit = min(1.0, height / h, width / w)
    h, w = max(1, round(h * fit)), max(1, round(w * fit))
    return int(u[2] * (height - h + 1)), int(u[3] * (width - w + 1)), h, w


def _tensor(picture: NDArray[np.uint8]) -> torch.Tensor:
    """(height, width, 3) as (3, height, width), of the same memory."""
    return torch.from_numpy(picture).permute(2, 0, 1)


def _array(picture: torch.Tensor) -> NDArray[np.uint8]:
    """(3, height, width) as (height, width, 3)."""
    return np.ascontiguousarray(picture.permute(1, 2, 0).numpy())


def _edge_colour(picture: NDArray[np.uint8]) -> list[float]:
    """The median colour (3,) of the border, for what a rotation leaves empty: black on a scan, white on paper."""
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    return [float(value) for value in np.median(border, axis=0)]


def _recoloured(picture: NDArray[np.uint8], u: NDArray[np.float64], how: Augmentation) -> NDArray[np.uint8]:
    """Brightness and contrast (about the picture's own mean) in one table of 256 values, then saturation."""
    brightness, contrast, saturation = (1.0 + most * _either_way(x) for most, x in zip(how.colour, u, strict=True))
    if any(how.colour[:2]):
        mean = float(picture.mean())
        values = ((np.arange(256) - mean) * contrast + mean) * brightness
        picture = np.take(np.rint(values.clip(0, 255)).astype(np.uint8), picture, mode="clip")
    return _array(F.adjust_saturation(_tensor(picture), saturation)) if how.colour[2] else picture


def _hide(picture: NDArray[np.uint8], u: NDArray[np.float64]) -> None:
    """Fills a rectangle of a picture with its mean colour, in place (Zhong et al. 2017).

    They found noise slightly better in training from scratch; the mean leaves the statistics of BatchNorm alone.
    """
    height, width = picture.shape[:2]
    area = (ERASED_AREA[0] + float(u[0]) * (ERASED_AREA[1] - ERASED_AREA[0])) * height * width
    ratio = _between(float(u[1]), *ERASED_RATIO)
    h = min(height, max(1, round(math.sqrt(area * ratio))))
    w = min(width, max(1, round(math.sqrt(area / ratio))))
    top, left = int(u[2] * (height - h + 1)), int(u[3] * (width - w + 1))
    picture[top : top + h, left : left + w] = np.rint(picture.mean(axis=(0, 1))).astype(np.uint8)


def _warped(
    picture: torch.Tensor,
    fill: list[float],
    angle: float = 0.0,
    shift: tuple[float, float] = (0, 0),
    shear: float = 0.0,
) -> torch.Tensor:
    """Rotated by `angle` degrees, moved by `shift` (x, y) in shares of the size, sheared along x by `shear`.

    What comes from outside is zero after the fill is taken away: torchvision's own `fill` darkens the seam.
    """
    pixels = [round(shift[0] * picture.shape[2]), round(shift[1] * picture.shape[1])]
    degrees = [math.degrees(math.atan(shear)), 0.0]
    ground = torch.tensor(fill)[:, None, None]
    warped: torch.Tensor = F.affine(picture - ground, angle, pixels, 1.0, degrees, interpolation=BILINEAR)
    return (warped + ground).round_().clamp_(0, 255).to(torch.uint8)


Operation = Callable[[torch.Tensor, float, list[float]], torch.Tensor]

# The operations of RandAugment with torchvision's largest values, at a level of -1..1; the fill is the edge's colour.
# Levels are drawn evenly, as in TrivialAugment: there is nothing to tune.
_SHADES: tuple[Operation, ...] = (
    lambda picture, level, fill: picture,
    lambda picture, level, fill: F.adjust_brightness(picture, 1.0 + 0.9 * level),
    lambda picture, level, fill: F.adjust_contrast(picture, 1.0 + 0.9 * level),
    lambda picture, level, fill: F.adjust_sharpness(picture, 1.0 + 0.9 * level),
    lambda picture, level, fill: F.autocontrast(picture),
)
_OPERATIONS: tuple[Operation, ...] = (
    *_SHADES,
    lambda picture, level, fill: F.adjust_saturation(picture, 1.0 + 0.9 * level),
    lambda picture, level, fill: F.posterize(picture, bits=8 - round(4 * abs(level))),
    lambda picture, level, fill: F.solarize(picture, threshold=255.0 * (1.0 - abs(level))),
    lambda picture, level, fill: F.equalize(picture),
    lambda picture, level, fill: _warped(picture, fill, angle=30.0 * level),
    lambda picture, level, fill: _warped(picture, fill, shear=0.3 * level),
    lambda picture, level, fill: _warped(picture.mT, fill, shear=0.3 * level).mT,
    lambda picture, level, fill: _warped(picture, fill, shift=(150 / 331 * level, 0)),
    lambda picture, level, fill: _warped(picture, fill, shift=(0, 150 / 331 * level)),
)


def _operated(picture: NDArray[np.uint8], which: float, level: float, kind: str) -> NDArray[np.uint8]:
    """One random operation: `which` 0..1 chooses it. Medical pictures and documents are not bent, nor inverted."""
    among = _SHADES if kind in ("medical", "document") else _OPERATIONS
    operation = among[int(which * len(among))]
    return _array(operation(_tensor(picture), level, _edge_colour(picture)))
