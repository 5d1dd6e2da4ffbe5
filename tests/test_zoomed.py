"""Views of a picture and its mask: both show the same window, and nothing else moves."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.data.placing import VOID
from headstart.data.zoomed import Window, Zoom, drawn_window, mask_in, picture_in, relit

FRAME = (48, 64)
RNG = np.random.default_rng(0)
MASK = np.kron(RNG.integers(0, 3, (6, 8)), np.ones((8, 8), int)).astype(np.uint8)
PICTURE = np.stack([MASK * 80 + c for c in range(3)], axis=-1).astype(np.uint8)


def test_the_whole_frame_at_its_own_size_is_the_picture_and_its_mask() -> None:
    window = drawn_window(FRAME, Zoom(FRAME), np.random.default_rng(0))
    assert window == Window(0, 0, *FRAME)
    np.testing.assert_array_equal(picture_in(PICTURE, window, FRAME), PICTURE)
    np.testing.assert_array_equal(mask_in(MASK, FRAME, window, FRAME), MASK)


def test_a_window_moved_by_a_pixel_moves_both_by_a_pixel() -> None:
    window, size = Window(5, 7, 32, 40), (32, 40)
    np.testing.assert_array_equal(picture_in(PICTURE, window, size), PICTURE[5:37, 7:47])
    np.testing.assert_array_equal(mask_in(MASK, FRAME, window, size), MASK[5:37, 7:47])


def test_a_mask_at_another_size_than_the_frame_shows_the_same() -> None:
    fine = np.kron(MASK, np.ones((2, 2), np.uint8))
    window, size = Window(8, 16, 16, 24), (32, 48)
    np.testing.assert_array_equal(mask_in(fine, FRAME, window, size), mask_in(MASK, FRAME, window, size))


@pytest.mark.parametrize("seed", range(20))
def test_picture_and_mask_show_the_same_window_which_lies_in_the_frame(seed: int) -> None:
    zoom, rng = Zoom((32, 48), (0.4, 3.0)), np.random.default_rng(seed)
    window = drawn_window(FRAME, zoom, rng)
    assert window.top >= 0
    assert window.left >= 0
    assert window.top + window.height <= FRAME[0] + 1e-9
    assert window.left + window.width <= FRAME[1] + 1e-9
    seen, mask = picture_in(PICTURE, window, zoom.size), mask_in(MASK, FRAME, window, zoom.size)
    assert seen.shape == (32, 48, 3)
    shown = np.rint(seen[..., 0] / 80).astype(int)
    plain = np.abs(seen[..., 0] / 80 - shown) < 0.01
    middle = plain & (shown == np.roll(shown, 1, 0)) & (shown == np.roll(shown, 1, 1))
    assert (shown == mask)[middle].mean() > 0.97  # edges between classes 0 and 2 pass through 1


def test_proportions_are_kept_also_where_more_is_asked_than_there_is() -> None:
    for scale in (0.1, 1.0, 2.5):
        window = drawn_window(FRAME, Zoom((32, 32), (scale, scale)), np.random.default_rng(0))
        assert window.height == pytest.approx(window.width)


def test_void_stays_void_and_views_are_what_the_generator_says() -> None:
    nothing = np.full(FRAME, VOID, np.uint8)
    window = drawn_window(FRAME, Zoom((32, 48), (0.8, 1.6)), np.random.default_rng(3))
    assert window == drawn_window(FRAME, Zoom((32, 48), (0.8, 1.6)), np.random.default_rng(3))
    assert window != drawn_window(FRAME, Zoom((32, 48), (0.8, 1.6)), np.random.default_rng(4))
    assert (mask_in(nothing, FRAME, window, (32, 48)) == VOID).all()


def test_light_changes_pixels_within_their_range_and_none_of_it_nothing() -> None:
    np.testing.assert_array_equal(relit(PICTURE, 0.0, np.random.default_rng(0)), PICTURE)
    found = [relit(PICTURE, 0.3, np.random.default_rng(seed)) for seed in range(8)]
    assert all(one.shape == PICTURE.shape and one.dtype == np.uint8 for one in found)
    means = [float(one.mean()) for one in found]
    assert min(means) < PICTURE.mean() < max(means)
    assert max(means) < 2 * PICTURE.mean()
