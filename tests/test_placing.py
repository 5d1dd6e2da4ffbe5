"""Places of the picture and of the frame: what lies at one px comes back at that px."""

import numpy as np
import pytest
from PIL import Image

from headstart.data import placing
from headstart.data.placing import VOID
from headstart.data.upright import turned

FRAME = (64, 96)
SIDES = (1, 2, 7, 31, 64, 97)
SIZES = [(h, w) for h in SIDES for w in SIDES]


def _grids(size: tuple[int, int]) -> list[tuple[int, int]]:
    return [(16, 24), (2, 3), size, (1, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_a_place_comes_back_from_the_frame(size: tuple[int, int]) -> None:
    height, width = size
    boxes = np.array([[x, y, x + 1, y + 1] for y in range(height) for x in range(width)], np.float32)
    framed = placing.to_frame(boxes, size, FRAME)
    assert framed.min() >= 0
    assert (framed.max(axis=0)[2:] <= np.array(FRAME[::-1]) + 1e-9).all()
    back = placing.to_picture(framed, size, FRAME)
    np.testing.assert_allclose(back, boxes, atol=1e-9)
    np.testing.assert_array_equal(placing.to_frame(boxes[:, :2], size, FRAME), framed[:, :2])
    mirrored = placing.to_picture(placing.flipped(framed, FRAME[1]), size, FRAME)
    np.testing.assert_allclose(mirrored, placing.flipped(boxes, width), atol=1e-9)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pixel_and_its_box_turn_alike(orientation: int) -> None:
    for size in ((1, 1), (1, 5), (4, 3), (5, 7)):
        for place in range(size[0] * size[1]):
            stored = np.zeros(size, np.uint8)
            stored.flat[place] = 1
            y, x = divmod(place, size[1])
            shown = placing.upright(stored, orientation)
            np.testing.assert_array_equal(shown, np.asarray(turned(Image.fromarray(stored), orientation)))
            assert shown.shape == placing.upright_size(size, orientation)
            left, top, right, bottom = (
                placing.upright_boxes(np.array([[x, y, x + 1, y + 1]]), size, orientation)[0].astype(int).tolist()
            )
            assert (right - left, bottom - top) == (1, 1)
            assert shown[top, left] == 1


@pytest.mark.parametrize("size", SIZES)
def test_a_pixel_is_found_in_its_cell_and_comes_back_within_half_a_cell(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(size))
    for grid in _grids(size):
        y, x = (int(rng.integers(side)) for side in size)
        pixel = np.zeros(size, np.uint8)
        pixel[y, x] = 1
        only = np.where(pixel, 3, VOID).astype(np.uint8)  # void counts only where it covers most
        row, column = int((y + 0.5) * grid[0] / size[0]), int((x + 0.5) * grid[1] / size[1])
        if size[0] <= grid[0] and size[1] <= grid[1]:
            assert placing.mask_at(only, grid)[row, column] == 3
            assert placing.mask_at(pixel, grid)[row, column] == 1
        hot = np.zeros((1, *grid), np.float32)
        hot[0, row, column] = 1
        seen = placing.values_in(hot, size)[0]
        largest = np.argwhere(seen >= seen.max() - 1e-6)  # constant beyond the outermost centres
        away = np.abs(largest - (y, x)).min(axis=0)
        half = np.array(size) / grid / 2
        assert (away <= np.maximum(half + 0.5, 1)).all()


@pytest.mark.parametrize("size", [(7, 31), (50, 97), (64, 96), (1, 3)])
def test_a_mirrored_mask_is_a_mirrored_grid(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    mask = rng.choice(np.array([0, 1, 2, VOID], np.uint8), size)
    values = rng.normal(size=(3, 16, 24)).astype(np.float32)
    for grid in _grids(size):
        np.testing.assert_array_equal(placing.mask_at(mask[:, ::-1], grid), placing.mask_at(mask, grid)[:, ::-1])
        np.testing.assert_array_equal(placing.mask_at(mask[::-1], grid), placing.mask_at(mask, grid)[::-1])
    seen = placing.values_in(values, size)
    np.testing.assert_allclose(placing.values_in(values[:, :, ::-1], size), seen[:, :, ::-1], atol=1e-6)
    np.testing.assert_allclose(placing.values_in(values[:, ::-1], size), seen[:, ::-1], atol=1e-6)


def _slow_mask_at(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Each pixel cut into so many parts that cells consist of whole ones."""
    fine = np.repeat(np.repeat(mask, grid[0], 0), grid[1], 1)
    cells = fine.reshape(grid[0], mask.shape[0], grid[1], mask.shape[1]).swapaxes(1, 2).reshape(*grid, -1)
    found = np.empty(grid, np.uint8)
    for place in np.ndindex(grid):
        counts = np.bincount(cells[place], minlength=VOID + 1)
        found[place] = VOID if 2 * counts[VOID] > counts.sum() else counts[:VOID].argmax()
    return found


@pytest.mark.parametrize("size", [(5, 9), (16, 4), (3, 31)])
def test_a_cell_has_the_class_of_most_of_its_area(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(2).choice(np.array([0, 4, 7, VOID], np.uint8), size)
    for grid in ((4, 6), (2, 2), (7, 5)):
        expected = _slow_mask_at(mask, grid)
        np.testing.assert_array_equal(placing.mask_at(mask, grid), expected)
        with monkeypatch.context() as small:
            small.setattr(placing, "SEGMENTS", 20)
            np.testing.assert_array_equal(placing.mask_at(mask, grid), expected)


def test_all_void_is_void_and_half_of_it_is_not() -> None:
    mask = np.full((4, 4), VOID, np.uint8)
    assert (placing.mask_at(mask, (2, 2)) == VOID).all()
    mask[:, ::2] = 6
    assert (placing.mask_at(mask, (2, 2)) == 6).all()


def test_a_large_picture_in_strips_is_the_same_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=(4, 9, 11)).astype(np.float16)
    whole = placing.values_in(values, (97, 50))
    numbers = placing.numbers_in(values, (97, 50))
    np.testing.assert_array_equal(numbers, whole.argmax(axis=0))
    monkeypatch.setattr(placing, "STRIP", 1)
    assert len(list(placing.strips_in(values, (97, 50)))) == 97
    np.testing.assert_allclose(placing.values_in(values, (97, 50)), whole, atol=1e-6)


def test_values_are_those_that_torch_gives() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(4).normal(size=(3, 7, 5)).astype(np.float32)
    for size in ((31, 20), (7, 5), (3, 2), (1, 97)):
        expected = torch.nn.functional.interpolate(torch.from_numpy(values)[None], size, mode="bilinear")[0].numpy()
        np.testing.assert_allclose(placing.values_in(values, size), expected, atol=1e-5)


def test_the_frame_has_the_shape_of_the_pictures_in_whole_cells() -> None:
    assert placing.frame_for(np.array([[360, 480]] * 3 + [[2000, 90]]), 32, 10**6) == (352, 480)
    assert placing.frame_for(np.array([[1080, 1920]]), 32, 300_000) == (416, 704)
    assert placing.frame_for(np.array([[8, 3000]]), 32, 10**6) == (32, 3008)
    assert placing.frame_for(np.array([[100, 100]]), 32, 10) == (32, 32)
    for size in SIZES:
        frame = placing.frame_for(np.array([size]), 16, 64 * 64)
        assert frame[0] % 16 == frame[1] % 16 == 0
        assert frame[0] * frame[1] <= 64 * 64
    with pytest.raises(ValueError, match="there are none"):
        placing.frame_for(np.zeros((0, 2)), 32, 100)


def test_tiles_cover_a_picture_and_overlap() -> None:
    for size, tile, overlap in (((100, 301), (40, 64), 0.25), ((10, 500), (40, 64), 0.5), ((40, 64), (40, 64), 0.25)):
        boxes = placing.tiles_of(size, tile, overlap)
        seen = np.zeros(size, int)
        for left, top, right, bottom in boxes:
            assert 0 <= left < right <= size[1]
            assert 0 <= top < bottom <= size[0]
            assert (bottom - top, right - left) == (min(size[0], tile[0]), min(size[1], tile[1]))
            seen[top:bottom, left:right] += 1
        assert seen.min() >= 1
        starts = np.unique(boxes[:, 0])
        assert (np.diff(starts) <= np.floor(min(size[1], tile[1]) * (1 - overlap)) + 1).all()
    with pytest.raises(ValueError, match="overlap"):
        placing.tiles_of((5, 5), (2, 2), 1.0)
