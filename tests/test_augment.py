"""Random training views: pure functions of picture, seed, content hash and epoch; each kind keeps its promises."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from headstart.data.augment import ERASED_AREA, KINDS, Augmentation, augmentation, view, views
from headstart.errors import OptionError

Picture = NDArray[np.uint8]
MOVING = [kind for kind in KINDS if kind != "none"]
HASHES = [hashlib.blake2b(bytes([n]), digest_size=16).hexdigest() for n in range(20)]
SIZES = [(33, 47), (1, 1), (1, 9), (2, 3), (224, 224)]


def picture(height: int = 48, width: int = 48) -> Picture:
    """A picture without any symmetry: bright to the right, a dark disc at the upper left, a blue floor."""
    y, x = (
        np.mgrid[0 : 1 : 1j * height, 0 : 1 : 1j * width] if height > 1 and width > 1 else np.zeros((2, height, width))
    )
    disc = (x - 0.3) ** 2 + (y - 0.25) ** 2 < 0.03
    red, green, blue = 60 + 120 * x, 90 + 60 * x - 60 * disc, 60 + 100 * (y > 0.7)
    return np.stack([red, green, blue], axis=2).astype(np.uint8)


def noise(height: int, width: int) -> Picture:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def still(kind: str) -> Augmentation:
    """This kind's flips and turns alone: pixels move, none is computed."""
    how = augmentation(kind, enlarged=False)
    return replace(
        how, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), rotate_degrees=0.0, colour=(0.0, 0.0, 0.0), erase=0.0
    )


def apart(a: Picture, b: Picture) -> float:
    """Root mean square difference of two pictures' shapes, whatever their brightness and contrast."""
    one, two = (p.astype(float) - p.mean(axis=(0, 1)) for p in (a, b))
    return float(np.sqrt(((one / (one.std() + 1e-9) - two / (two.std() + 1e-9)) ** 2).mean()))


def orientations(pixels: Picture) -> list[Picture]:
    """The eight ways in which a square can lie."""
    return [np.rot90(p, turns) for p in (pixels, pixels[:, ::-1]) for turns in range(4)]


def nearest_of(pixels: Picture, candidates: list[Picture]) -> int:
    return int(np.argmin([apart(pixels, c) for c in candidates]))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", MOVING)
@pytest.mark.parametrize("randaugment", [0, 2])
def test_a_view_is_the_same_in_any_order_and_from_any_thread(kind: str, randaugment: int, threads: None) -> None:
    how = replace(augmentation(kind, enlarged=False), randaugment=randaugment)
    jobs = [(seed, name, epoch) for seed in (0, 1) for name in HASHES[:4] for epoch in range(6)]
    torch.set_num_threads(1)
    first = [view(noise(40, 40), how, *job).tobytes() for job in jobs]
    torch.set_num_threads(2)
    order = np.random.default_rng(1).permutation(len(jobs))
    torch.manual_seed(3)
    with ThreadPoolExecutor(6) as pool:
        again = dict(zip(order, pool.map(lambda k: view(noise(40, 40), how, *jobs[k]).tobytes(), order), strict=True))
    assert [again[k] for k in range(len(jobs))] == first
    assert len(set(first)) == len(jobs)  # another seed, image or epoch: another view


def test_a_view_is_the_same_in_another_process() -> None:
    code = (
        "import hashlib, numpy as np\nfrom headstart.data.augment import augmentation, views\n"
        "pixels = np.arange(30 * 20 * 3, dtype=np.uint8).reshape(30, 20, 3)\n"
        "found = b''.join(v.tobytes() for k in ('photo', 'aerial', 'medical', 'document')\n"
        "                 for v in views(pixels, augmentation(k, False), 7, 'ab', 5))\n"
        "{say}(hashlib.sha256(found).hexdigest())"
    )
    here: list[str] = []
    exec(code.format(say="say"), {"say": here.append})
    source = Path(sys.modules["headstart"].__file__ or "").parents[1]
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": str(source)}
    run = [sys.executable, "-c", code.format(say="print")]
    there = subprocess.run(run, capture_output=True, text=True, env=environment, check=True).stdout.split()
    assert there == here


def test_views_are_the_epochs_from_0_on() -> None:
    how = augmentation("photo", enlarged=True)
    found = views(picture(), how, 3, "a", 5)
    assert len(found) == 5
    for epoch, one in enumerate(found):
        np.testing.assert_array_equal(one, view(picture(), how, 3, "a", epoch))


def test_the_global_generators_stay_as_they_were() -> None:
    def state() -> tuple[bytes, bytes]:
        return torch.get_rng_state().numpy().tobytes(), np.random.get_state(legacy=False)["state"]["key"].tobytes()  # type: ignore[call-overload,index]  # noqa: NPY002

    before = state()
    for kind in KINDS:
        views(picture(), replace(augmentation(kind, enlarged=False), randaugment=2, erase=0.5), 0, "a", 20)
    assert state() == before


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_size_and_dtype_are_kept_and_the_input_is_not_touched(kind: str, size: tuple[int, int]) -> None:
    pixels = picture(*size)
    pixels.setflags(write=False)
    before = pixels.tobytes()
    for randaugment in (0, 1):
        how = replace(augmentation(kind, enlarged=False), randaugment=randaugment, erase=0.5)
        for epoch, one in enumerate(views(pixels, how, 0, HASHES[0], 16 if size[0] < 224 else 4)):
            assert (one.shape, one.dtype) == (pixels.shape, np.dtype(np.uint8)), epoch
            assert one.flags.c_contiguous
            assert one.flags.writeable
            assert not np.shares_memory(one, pixels)
    assert pixels.tobytes() == before


def test_a_strided_picture_gives_the_same_view() -> None:
    wide = noise(40, 80)
    for kind in KINDS:
        how = augmentation(kind, enlarged=False)
        strided, plain = wide[::-1, ::2], np.ascontiguousarray(wide[::-1, ::2])
        np.testing.assert_array_equal(view(strided, how, 0, "a", 1), view(plain, how, 0, "a", 1))


@pytest.mark.parametrize("size", SIZES)
def test_none_gives_the_very_same_pixels(size: tuple[int, int]) -> None:
    for enlarged in (False, True):
        for one in views(noise(*size), augmentation("none", enlarged), 0, "a", 5):
            np.testing.assert_array_equal(one, noise(*size))


@pytest.mark.parametrize("kind", ["document", "medical"])
@pytest.mark.parametrize("randaugment", [0, 2])
def test_documents_and_scans_are_never_mirrored_or_turned(kind: str, randaugment: int) -> None:
    how = replace(augmentation(kind, enlarged=False), randaugment=randaugment)
    pixels = picture()
    assert {nearest_of(one, orientations(pixels)) for one in views(pixels, how, 0, "page", 100)} == {0}


def test_photographs_are_mirrored_and_never_upside_down() -> None:
    pixels = picture()
    candidates = [pixels, pixels[:, ::-1], pixels[::-1], pixels[::-1, ::-1]]
    found = [nearest_of(one, candidates) for one in views(pixels, augmentation("photo", False), 0, "a", 100)]
    assert set(found) == {0, 1}


@pytest.mark.parametrize("kind", ["photo", "aerial"])
def test_two_epochs_in_a_row_see_both_sides(kind: str) -> None:
    pixels, how = noise(9, 9), replace(still(kind), vertical_flip=False, rotate_quarters=False)
    first = []
    for name in HASHES:
        shown = views(pixels, how, 0, name, 8)
        for even, odd in zip(shown[::2], shown[1::2], strict=True):
            np.testing.assert_array_equal(odd, even[:, ::-1])
        first.append(np.array_equal(shown[0], pixels))
        assert all(np.array_equal(one, shown[0]) for one in shown[::2])
    assert 3 < sum(first) < 17  # the image decides which side comes first


def test_a_photograph_with_everything_on_alternates_too() -> None:
    pixels = picture()
    shown = views(pixels, augmentation("photo", enlarged=False), 4, "b", 40)
    sides = [nearest_of(one, [pixels, pixels[:, ::-1]]) for one in shown]
    assert sides == [sides[0], 1 - sides[0]] * 20


def test_aerial_shows_all_eight_orientations_in_any_eight_epochs() -> None:
    pixels = noise(8, 8)
    expected = {p.tobytes() for p in orientations(pixels)}
    assert len(expected) == 8
    for name in HASHES:
        shown = [p.tobytes() for p in views(pixels, still("aerial"), 0, name, 24)]
        assert {frozenset(shown[k : k + 8]) for k in range(0, 17, 2)} == {frozenset(expected)}
    with_crops = views(picture(), augmentation("aerial", enlarged=False), 0, "a", 32)
    assert {nearest_of(p, orientations(picture())) for p in with_crops} == set(range(8))


@pytest.mark.parametrize("kind", MOVING)
@pytest.mark.parametrize("enlarged", [False, True])
def test_a_crop_shows_the_promised_share_at_the_promised_stretch(kind: str, enlarged: bool) -> None:
    """Each pixel says where it is: red its column, green its row. The slopes of a view give the crop's size back."""
    side = 200
    y, x = np.mgrid[0:side, 0:side]
    pixels = np.stack([x, y, 0 * x], axis=2).astype(np.uint8)
    how = augmentation(kind, enlarged)
    only_crop = replace(
        how, flip=False, vertical_flip=False, rotate_quarters=False, rotate_degrees=0, colour=(0, 0, 0), erase=0
    )
    shown = [p.astype(float) for p in views(pixels, only_crop, 0, "a", 60)]
    inner = slice(20, 180)  # away from the edges, where the resizing sees less
    w = np.array([np.polyfit(np.arange(160), p[inner, inner, 0].mean(axis=0), 1)[0] for p in shown])
    h = np.array([np.polyfit(np.arange(160), p[inner, inner, 1].mean(axis=1), 1)[0] for p in shown])
    low, high = how.crop_scale
    assert (w * h > low - 0.02).all()
    assert (w * h < high + 0.02).all()
    assert (w / h > how.crop_ratio[0] - 0.03).all()
    assert (w / h < how.crop_ratio[1] + 0.03).all()
    assert (w * h).min() < low + (high - low) / 4  # small ones occur
    assert (w / h).min() < 1 < (w / h).max()
    middle = np.array([p[99:101, 99:101, :2].mean(axis=(0, 1)) for p in shown]) - (side - 1) / 2
    room = side / 2 * (1 - np.stack([w, h], axis=1)) + 1.0
    assert (np.abs(middle) < room + 2).all()
    assert ((middle / room).min(axis=0) < -0.7).all()  # the crop reaches both sides, across and down
    assert ((middle / room).max(axis=0) > 0.7).all()


@pytest.mark.parametrize("kind", MOVING)
def test_the_mean_colour_stays_in_the_stated_range_and_uses_it(kind: str) -> None:
    how = augmentation(kind, enlarged=False)
    flat = np.full((24, 24, 3), (120, 90, 60), dtype=np.uint8)
    shown = views(flat, how, 0, "a", 300)
    assert all((p == p[0, 0]).all() for p in shown)  # a flat picture stays flat, corners of rotations included
    change = np.array([p.mean() / flat.mean() - 1 for p in shown])
    most = how.colour[0]
    assert np.abs(change).max() < most + 0.03  # 0.03: the change of saturation keeps luma, not the mean
    assert change.min() < -0.8 * most
    assert change.max() > 0.8 * most
    spread = np.array([np.ptp(p[0, 0].astype(float)) for p in shown]) / 60
    assert spread.min() > (1 - how.colour[1]) * (1 - how.colour[2]) * (1 - most) - 0.04
    assert spread.max() < (1 + how.colour[1]) * (1 + how.colour[2]) * (1 + most) + 0.04


def test_saturation_changes_colours_and_not_their_brightness() -> None:
    how = replace(still("photo"), colour=(0.0, 0.0, 0.2))
    flat = np.full((4, 4, 3), (120, 90, 60), dtype=np.uint8)
    luma, shown = np.array([0.299, 0.587, 0.114]), np.array([p[0, 0] for p in views(flat, how, 0, "a", 200)], float)
    assert np.abs((shown - flat[0, 0]) @ luma).max() < 1.5  # 0.5 of rounding, and truncation inside
    change = (shown[:, 0] - shown[:, 2]) / 60 - 1
    assert -0.24 < change.min() < -0.15
    assert 0.15 < change.max() < 0.24


def test_grey_scans_stay_grey() -> None:
    grey = np.repeat(noise(32, 32)[:, :, :1], 3, axis=2)
    for one in views(grey, augmentation("medical", enlarged=False), 0, "a", 20):
        np.testing.assert_array_equal(one, np.repeat(one[:, :, :1], 3, axis=2))


def test_erasing_hides_one_rectangle_of_the_stated_area_and_nothing_else_changes() -> None:
    pixels, how = noise(60, 60), augmentation("photo", enlarged=False)
    places = []
    for epoch in range(60):
        plain, hidden = (view(pixels, replace(how, erase=p), 0, "a", epoch) for p in (0.0, 1.0))
        rows, columns = np.nonzero((plain != hidden).any(axis=2))
        box = hidden[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        np.testing.assert_array_equal(box, np.broadcast_to(np.rint(plain.mean(axis=(0, 1))), box.shape))
        share = box.shape[0] * box.shape[1] / 3600
        assert ERASED_AREA[0] * 0.8 < share < ERASED_AREA[1] * 1.1
        places.append((rows.min(), columns.min()))
    assert len(set(places)) > 40
    without = replace(how, erase=0.0)
    erased = [not np.array_equal(view(pixels, how, 0, "b", e), view(pixels, without, 0, "b", e)) for e in range(400)]
    assert 0.17 < np.mean(erased) < 0.33  # 0.25 +- 4 standard errors


def test_a_turned_scan_is_filled_from_its_own_edge() -> None:
    how = replace(still("medical"), rotate_degrees=10.0)
    page = np.full((64, 64, 3), 250, dtype=np.uint8)
    page[20:44, 28:36] = 10
    shown = views(page, how, 0, "a", 20)
    assert all((p[[0, 0, -1, -1], [0, -1, 0, -1]] == 250).all() for p in shown)
    y, x = np.mgrid[0:64, 0:64]
    angles = []
    for p in shown:  # the main axis of the dark bar, from its second moments
        weight = 250.0 - p[:, :, 0]
        dx, dy = (c - (weight * c).sum() / weight.sum() for c in (x, y))
        xy, xx, yy = ((weight * m).sum() for m in (dx * dy, dx * dx, dy * dy))
        angles.append(np.degrees(0.5 * np.arctan2(2 * xy, yy - xx)))
    assert np.abs(angles).max() < 10.5
    assert min(angles) < -5
    assert max(angles) > 5


def test_randaugment_reaches_many_operations_and_keeps_its_hands_off_documents() -> None:
    def found(kind: str) -> list[Picture]:
        return views(picture(), replace(still(kind), flip=False, randaugment=1), 0, "a", 200)

    photo = found("photo")
    assert len({p.tobytes() for p in photo}) > 100
    assert sum(apart(p, picture()) > 0.5 for p in photo) > 20  # moved, bent or inverted
    assert max(apart(p, picture()) for p in found("document")) < 0.5


def test_small_pictures_get_gentler_crops() -> None:
    for kind in KINDS:
        usual, small = augmentation(kind, enlarged=False), augmentation(kind, enlarged=True)
        assert small.crop_scale[0] >= max(0.8, usual.crop_scale[0])
        assert small.crop_ratio[0] >= usual.crop_ratio[0]
        assert small.crop_ratio[1] <= usual.crop_ratio[1]
        assert replace(small, crop_scale=usual.crop_scale, crop_ratio=usual.crop_ratio) == usual


def test_an_unknown_kind_says_what_there_is() -> None:
    assert KINDS == ("photo", "aerial", "medical", "document", "none")
    with pytest.raises(OptionError, match=r"'photos' \(did you mean photo\?\): choose one of photo, aerial, .* none"):
        augmentation("photos", enlarged=False)
