"""Laws of tiles: cut and put together a picture is what it was; masks as files come back as they were written."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.data import tiles
from headstart.data.mask_drawing import mask_png, painted, palette
from headstart.data.mask_files import numbers_of, values_of
from headstart.data.masks import mask_targets
from headstart.data.placing import VOID, tiles_of
from headstart.data.table import list_images, read_table
from headstart.data.tiles import stitched, tiled
from headstart.files.bundle import read_bundle
from headstart.heads.box_answers import once
from headstart.ship.placed import Said, predict, unpack
from headstart.ship.placed_tiles import predict_tiled
from headstart.tasks.detection import DETECTION
from headstart.tasks.known import PLACED
from scenes import Fit

TILE = (8, 10)


def made(root: Path, sizes: list[tuple[int, int]], orientation: int = 1) -> Path:
    rng = np.random.default_rng(0)
    for k, size in enumerate(sizes):
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture = Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8))
        picture.save(root / "images" / f"{k}.png", exif=exif)
        Image.fromarray(rng.integers(0, 3, size, dtype=np.uint8)).save(root / "masks" / f"{k}.png")
    return root


@pytest.mark.parametrize("orientation", [1, 6, 8])
def test_tiles_are_parts_of_their_picture_and_of_its_mask(orientation: int, tmp_path: Path) -> None:
    made(tmp_path, [(8, 9), (31, 27), (20, 10)], orientation)
    table = read_table(tmp_path, task="segment")
    cut = tiled(table, TILE)
    whole, parts = mask_targets(table), mask_targets(cut.table)
    turned = orientation >= 5
    assert cut.sizes.tolist() == [[9, 8], [27, 31], [10, 20]] if turned else [[8, 9], [31, 27], [20, 10]]
    for k, (row, box) in enumerate(zip(cut.picture, cut.boxes, strict=True)):
        left, top, right, bottom = box
        own = tiles.images.small(table.read(row), 100)
        seen = cut.table.read(k)
        seen = seen if isinstance(seen, np.ndarray) else tiles.images.small(seen, 100)
        np.testing.assert_array_equal(seen, own[top:bottom, left:right])
        np.testing.assert_array_equal(parts.mask(k), whole.mask(row)[top:bottom, left:right])
        np.testing.assert_array_equal(parts.pixels[k], np.bincount(parts.mask(k).ravel(), minlength=3))
        assert tuple(parts.sizes[k]) == (bottom - top, right - left)
    many = np.bincount(cut.picture)
    assert many[0] == 1
    assert many[1] > 4
    assert not cut.table.groups[0]
    assert set(cut.table.groups[cut.picture == 1]) == {"images/1.png"}


def test_a_picture_that_cannot_be_read_stays_one_row(tmp_path: Path) -> None:
    made(tmp_path, [(40, 40), (40, 40), (40, 40)])
    table = read_table(tmp_path, task="segment")
    (tmp_path / "images/0.png").write_bytes(b"nothing")
    (tmp_path / "masks/2.png").unlink()
    cut = tiled(table, TILE)
    assert np.bincount(cut.picture)[[0, 2]].tolist() == [1, 1]
    assert cut.table.names[0] == "images/0.png"


def test_what_is_cut_and_put_together_is_the_whole() -> None:
    rng = np.random.default_rng(1)
    for size in ((31, 27), (8, 10), (9, 97), (5, 3)):
        values = rng.normal(size=(4, *size)).astype(np.float32)
        boxes = tiles_of(size, TILE, 0.25)

        def part(number: int, values: np.ndarray = values, boxes: np.ndarray = boxes) -> np.ndarray:
            left, top, right, bottom = boxes[number]
            return values[:, top:bottom, left:right]

        np.testing.assert_array_equal(stitched(size, boxes, part), values.argmax(axis=0))


def test_where_tiles_overlap_the_one_in_whose_middle_it_lies_says_more() -> None:
    boxes = tiles_of((4, 12), (4, 8), 0.5)
    assert boxes[:, 0].tolist() == [0, 4]
    answers = [np.stack([np.full((4, 8), 1.0), np.zeros((4, 8))]), np.stack([np.zeros((4, 8)), np.full((4, 8), 1.0)])]
    found = stitched((4, 12), boxes, lambda number: answers[number])
    assert found[0].tolist() == [0] * 6 + [1] * 6


def test_a_decoded_picture_is_kept_for_its_next_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = tiled(read_table(made(tmp_path, [(31, 27), (31, 27)]), task="segment"), TILE)
    decoded: list[int] = []
    small = tiles.images.small
    monkeypatch.setattr(tiles.images, "small", lambda *given: decoded.append(1) or small(*given))
    monkeypatch.setattr(tiles, "CACHED_BYTES", 31 * 27 * 3)
    for k in range(len(cut.table)):
        cut.table.read(k)
    assert len(decoded) == 2


def test_a_mask_as_a_file_comes_back() -> None:
    numbers = np.random.default_rng(2).choice(np.array([0, 1, 17, 254, VOID], np.uint8), (13, 11))
    data = mask_png(numbers)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), numbers)
    np.testing.assert_array_equal(numbers_of(values_of(data), None), numbers)
    colours = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(colours, palette()[numbers])
    meant = {",".join(map(str, palette()[number])): int(number) for number in np.unique(numbers)}
    np.testing.assert_array_equal(numbers_of(values_of(data), meant), numbers)


def test_no_two_classes_have_one_colour() -> None:
    assert len(np.unique(palette(), axis=0)) == VOID + 1
    first = palette()[:20].astype(int)
    apart = np.abs(first[:, None] - first[None]).sum(axis=-1) + 999 * np.eye(20, dtype=int)
    assert apart.min() > 60


def test_a_painted_picture_has_its_classes_where_they_are() -> None:
    picture = np.full((40, 60, 3), 120, np.uint8)
    numbers = np.zeros((20, 30), np.uint8)
    numbers[5:15, 10:20] = 1
    numbers[:, 25:] = VOID
    seen = np.asarray(Image.open(io.BytesIO(painted(picture, numbers, clear=(0, VOID))))).astype(int)
    inside = (picture[0, 0].astype(float) + palette()[1]) / 2
    assert np.abs(seen[16:24, 26:34] - inside).max() < 20
    assert np.abs(seen[:6, :16] - 120).max() < 12
    assert np.abs(seen[:, 53:] - 120).max() < 12


def test_boxes_of_tiles_are_each_thing_once() -> None:
    """The better of two that are one thing; what a tile has cut is a part of the whole, however sure; kinds apart."""
    rows = [
        (0, 0, 40, 40, 0.8, 0),
        (1, 1, 41, 41, 0.9, 0),
        (0, 0, 20, 40, 0.95, 0),  # cut
        (0, 0, 20, 40, 0.7, 1),  # cut, of another class
        (60, 0, 80, 40, 0.6, 0),  # cut, and nothing covers it
        (5, 5, 5, 9, 0.9, 0),  # of no area
    ]
    boxes = np.array(rows, dtype=np.float64)
    partly = np.array([False, False, True, True, True, False])
    assert once(boxes, partly).tolist() == [1, 3, 4]
    assert once(boxes[:0], partly[:0]).tolist() == []


def test_what_two_tiles_find_lies_where_it_is_in_the_picture() -> None:
    """A thing in the overlap of two tiles, one that a tile has cut, one that the other tile alone sees."""
    boxes, size, frame = np.array([[0, 0, 100, 80], [60, 0, 160, 80]]), (80, 160), (40, 50)  # tiles are twice the frame
    things = np.array([[65, 20, 90, 40], [80, 50, 120, 70], [130, 0, 160, 30]])  # px of the picture
    outputs = np.zeros((2, 5, 6), np.float32)
    outputs[0, :2] = [(32.5, 10, 45, 20, 0.8, 0), (40, 25, 50, 35, 0.9, 1)]  # the second ends with the tile
    outputs[1, :4] = [
        (2.5, 10, 15, 20, 0.7, 0),
        (10, 25, 30, 35, 0.6, 1),
        (35, 0, 50, 15, 0.5, 0),
        (0, 30, 9, 38, 0.1, 0),  # of a score that is neither shown nor counted
    ]
    rule = {"shown_from": (0.3, 0.3), "counted_from": (0.4, 0.4)}
    found = DETECTION.joined(list(outputs), boxes, size, frame, rule)
    assert found[:, 4].tolist() == pytest.approx([0.8, 0.6, 0.5])
    np.testing.assert_allclose(found[:, :4], things)


@pytest.mark.parametrize("task", PLACED)
def test_pictures_are_answered_whole_from_their_tiles(fitted: Fit, scenes: Path, tmp_path: Path, task: str) -> None:
    """Four pictures in two rows, one that cannot be read, and one that is no larger than a tile."""
    model = unpack(read_bundle(fitted(task)[1]))
    files = sorted((scenes / "test" / "images").iterdir())[:4]
    pixels = [np.asarray(Image.open(file)) for file in files]
    height, width = pixels[0].shape[:2]
    whole = np.concatenate([np.concatenate(pixels[:2], axis=1), np.concatenate(pixels[2:], axis=1)])
    Image.fromarray(whole).save(tmp_path / "whole.png")
    (tmp_path / "none.png").write_bytes(b"none")
    found: list[Said] = []
    paths = [tmp_path / "whole.png", tmp_path / "none.png", files[0]]
    predict_tiled(model, list_images(paths), max(height, width), found.append)
    assert [said.row for said in found] == [0, 1, 2]
    large, unread, small = found
    assert unread.answer is None
    assert unread.error
    plain: list[Said] = []
    predict(model, list_images(files), plain.append)
    np.testing.assert_array_equal(small.answer, plain[0].answer)
    assert large.size == (2 * height, 2 * width)
    assert large.answer is not None
    if task == "segment":
        rows = [np.concatenate([one.answer for one in plain[k : k + 2]], axis=1) for k in (0, 2)]  # type: ignore[misc]
        assert (np.concatenate(rows) == large.answer).mean() > 0.9  # neighbours say something of the edges
    else:
        assert (large.answer[:, 2:4] <= [2 * width, 2 * height]).all()
        assert (large.answer[:, :2].max(axis=0) > [width, height]).all()


@pytest.mark.parametrize("task", PLACED)
def test_predict_takes_tiles(
    fitted: Fit, scenes: Path, tmp_path: Path, run: Callable[..., tuple[int, str, str]], task: str
) -> None:
    folder, images = fitted(task)[1], scenes / "test" / "images"
    code, text, errors = run("predict", folder, images, "--tiles", "64", "--json")
    assert code == 0, errors
    assert len(json.loads(text)) == 8
    code, _, errors = run("predict", folder, images, "--tiles", "9")
    assert code == 2
    assert "--tiles 9: px of a tile's longer side, from 64 on" in errors
