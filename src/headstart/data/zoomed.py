"""Random views of a picture together with its mask: a window of the picture, enlarged or reduced, in another light.

What is drawn comes from the generator that is given and from nothing else. Never for images that choose or judge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headstart.data.placing import Size
from headstart.data.resize import part_of

Pixels = NDArray[np.uint8]
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue in the brightness (ITU-R BT.601)


@dataclass(frozen=True)
class Zoom:
    """What a view may be. `size`: (height, width) of a view in px; `scale`: how many times as large things are in it as
    in the frame, drawn evenly on a logarithmic scale; `light`: largest relative change of brightness, contrast and
    saturation, either way, of the logarithm of gamma, and a third of it of each colour."""

    size: Size
    scale: tuple[float, float] = (1.0, 1.0)
    light: float = 0.0


@dataclass(frozen=True)
class Window:
    """A part of the frame, in its px: its upper left corner and its sides."""

    top: float
    left: float
    height: float
    width: float


def drawn_window(frame: Size, zoom: Zoom, rng: np.random.Generator) -> Window:
    """A window of the proportions of the view that lies in the frame."""
    low, high = (math.log(s) for s in zoom.scale)
    least = max(side / whole for side, whole in zip(zoom.size, frame, strict=True))  # below it the view shows more
    scale = max(least, math.exp(rng.uniform(low, high)))
    height, width = (min(float(whole), side / scale) for side, whole in zip(zoom.size, frame, strict=True))
    return Window(rng.uniform(0, frame[0] - height), rng.uniform(0, frame[1] - width), height, width)


def picture_in(pixels: Pixels, window: Window, size: Size) -> Pixels:
    """What a picture (height, width, 3) shows in a window, at a size in px."""
    box = (window.left, window.top, window.left + window.width, window.top + window.height)
    return part_of(pixels, (size[1], size[0]), box)


def mask_in(mask: Pixels, frame: Size, window: Window, size: Size) -> Pixels:
    """The same of its mask, which covers the frame at any size: the class numbers at the centres of the pixels."""
    y = _places(window.top, window.height, size[0], frame[0], mask.shape[0])
    x = _places(window.left, window.width, size[1], frame[1], mask.shape[1])
    return mask[y[:, None], x]


def _places(start: float, length: float, n: int, whole: int, cells: int) -> NDArray[np.intp]:
    at = (start + (np.arange(n) + 0.5) * length / n) * cells / whole
    return np.minimum(at.astype(np.intp), cells - 1)


def relit(pixels: Pixels, most: float, rng: np.random.Generator) -> Pixels:
    """A picture (height, width, 3) in another light; `most` as in `Zoom.light`."""
    if not most:
        return pixels
    brightness, contrast, saturation, gamma, *colours = rng.uniform(-most, most, 7)
    mean = float(pixels.mean())
    values = ((np.arange(256) - mean) * (1 + contrast) + mean) * (1 + brightness)
    values = 255 * (values.clip(0, 255) / 255) ** math.exp(gamma)
    x = values.astype(np.float32)[pixels]
    grey = (x @ GREY)[..., None]
    x = (grey + (1 + saturation) * (x - grey)) * (1 + np.array(colours, np.float32) / 3)
    found: Pixels = np.rint(x.clip(0, 255)).astype(np.uint8)
    return found
