"""Resizing: one order of passes, ours, in every Pillow; checked against its arithmetic written out in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from headstart.data.images import Preprocess, load, preview
from headstart.data.resize import FILTERS, GRID, SUPPORT, resized, thumbnail

BITS = 22  # of Pillow's fixed point
STATS = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SHAPES = [(60, 100), (100, 60), (83, 83), (21, 120), (20, 20), (300, 31)]  # (height, width)


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def kernel(filter_: Image.Resampling, x: float) -> float:
    """The value of a filter at a distance, as in Pillow's Resample.c."""
    x = abs(x)
    if x >= SUPPORT[filter_]:
        return 0.0
    if filter_ == Image.Resampling.BILINEAR:
        return 1 - x
    if filter_ == Image.Resampling.HAMMING:
        return 1.0 if x == 0 else math.sin(x * math.pi) / (x * math.pi) * (0.54 + 0.46 * math.cos(x * math.pi))
    if filter_ == Image.Resampling.BICUBIC:
        return ((1.5 * x - 2.5) * x) * x + 1 if x < 1 else ((x - 5) * x + 8) * x * -0.5 + 2
    wave = [1.0 if v == 0 else math.sin(v * math.pi) / (v * math.pi) for v in (x, x / 3)]
    return wave[0] * wave[1]


def one_axis(
    values: NDArray[np.uint8], size: int, low: float, high: float, filter_: Image.Resampling
) -> NDArray[np.uint8]:
    """Axis 1 from low..high to `size`, in integers as Pillow computes it."""
    scale = (high - low) / size
    wide = max(1.0, scale)
    reach, out = SUPPORT[filter_] * wide, []
    for k in range(size):
        centre = low + (k + 0.5) * scale
        first, last = max(0, int(centre - reach + 0.5)), min(values.shape[1], int(centre + reach + 0.5))
        weights = np.array([kernel(filter_, (at - centre + 0.5) / wide) for at in range(first, last)])
        fixed = np.array([int(w * (1 << BITS) + math.copysign(0.5, w)) for w in weights / weights.sum()], np.int64)
        sums = np.tensordot(values[:, first:last].astype(np.int64), fixed, ([1], [0])) + (1 << (BITS - 1))
        out.append((sums >> BITS).clip(0, 255))
    return np.stack(out, axis=1).astype(np.uint8)


def across_then_down(
    values: NDArray[np.uint8], size: tuple[int, int], box: tuple[float, float, float, float], filter_: Image.Resampling
) -> NDArray[np.uint8]:
    left, top, right, bottom = (round(edge * GRID) / GRID for edge in box)
    rows = one_axis(values, size[0], left, right, filter_)
    return one_axis(rows.swapaxes(0, 1), size[1], top, bottom, filter_).swapaxes(0, 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
def test_first_across_then_down_to_the_bit(shape: tuple[int, int], name: str) -> None:
    """For crops, portraits and landscapes, smaller and larger: in every Pillow, since NumPy says what is right."""
    height, width = shape
    values = picture(height, width)
    side = 0.83 * min(shape)
    left, top = (width - side) / 2, (height - side) / 3
    for box in ((0, 0, width, height), (left, top, left + side, top + side)):
        found = np.asarray(resized(Image.fromarray(values), (37, 29), FILTERS[name], box))
        np.testing.assert_array_equal(found, across_then_down(values, (37, 29), box, FILTERS[name]))


@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_two_calls_of_one_axis_each(shape: tuple[int, int]) -> None:
    height, width = shape
    whole = Image.fromarray(picture(height, width, 1))
    for name, filter_ in FILTERS.items():
        first = whole.resize((40, height), filter_, (0, 0, width, height))
        np.testing.assert_array_equal(
            np.asarray(resized(whole, (40, 30), filter_, (0, 0, width, height))),
            np.asarray(first.resize((40, 30), filter_, (0, 0, 40, height))),
            err_msg=name,
        )


@pytest.mark.parametrize("shape", [(120, 160), (160, 120), (16, 16), (40, 500), (500, 40)])
def test_load_and_thumbnail_keep_the_rule(shape: tuple[int, int]) -> None:
    height, width = shape
    values = picture(height, width, 2)
    wanted = Preprocess((32, 32), 0.875, "bicubic", "shortest", *STATS)
    scale = round(32 / 0.875) / min(shape)
    side = 32 / scale
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    found = load(values, wanted)
    np.testing.assert_array_equal(found.array, across_then_down(values, (32, 32), box, Image.Resampling.BICUBIC))
    across, down = max(1, width // 48), max(1, height // 48)
    reduced = np.asarray(Image.fromarray(values).reduce((across, down)))
    small = across_then_down(reduced, (16, 16), (0, 0, width / across, height / down), Image.Resampling.HAMMING)
    np.testing.assert_array_equal(found.thumbnail, small)
    np.testing.assert_array_equal(np.asarray(thumbnail(Image.fromarray(values), 16)), small)
    assert len(preview(values, 20)) > 100
