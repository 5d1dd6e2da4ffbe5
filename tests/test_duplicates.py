"""Exact and near duplicates: what must be tied, what must not, and how groups are made of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from headstart.data import duplicates
from headstart.data.duplicates import DuplicateSet, find_conflicts, find_duplicates, find_leaks, tie_groups
from headstart.errors import DataError

Thumbnails = NDArray[np.uint8]
NONE = np.array([], dtype=object)


def photos(n: int, seed: int = 0) -> tuple[list[str], NDArray[np.float32], Thumbnails]:
    """n unrelated pictures: hashes, features (image, 256) and thumbnails with smooth content."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (n, 4, 4, 3)).astype(np.uint8)
    small = np.stack([np.asarray(Image.fromarray(c).resize((16, 16), Image.Resampling.BILINEAR)) for c in coarse])
    return [f"{i:032x}" for i in rng.permutation(n)], np.maximum(rng.normal(size=(n, 256)), 0).astype(np.float32), small


def nudge(features: NDArray[np.float32], cosine: float, seed: int = 1) -> NDArray[np.float32]:
    """Features at the given cosine from each row."""
    noise = np.random.default_rng(seed).normal(size=features.shape).astype(np.float32)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    noise -= (noise * unit).sum(axis=1, keepdims=True) * unit
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return np.asarray(cosine * unit + np.sqrt(1 - cosine**2) * noise, dtype=np.float32)


def thumbnail(image: Image.Image) -> Thumbnails:
    return np.asarray(image.resize((16, 16), Image.Resampling.HAMMING))


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def test_equal_hashes_are_exact_sets_and_nothing_else_is_tied() -> None:
    hashes, features, thumbs = photos(200)
    hashes[7] = hashes[40] = hashes[3]
    features[[7, 40]], thumbs[[7, 40]] = features[3], thumbs[3]
    assert find_duplicates(hashes, features, thumbs) == [DuplicateSet("exact", (3, 7, 40))]


def test_both_keys_must_agree() -> None:
    hashes, features, thumbs = photos(300)
    features[1], thumbs[1] = nudge(features[:1], 0.97)[0], thumbs[0]  # a copy
    features[3] = nudge(features[2:3], 0.995)[0]  # features alone: same kind of scene, another picture
    noise = np.random.default_rng(1).integers(-8, 9, thumbs[4].shape)
    thumbs[5] = np.clip(thumbs[4] + noise, 0, 255)  # thumbnail alone: same layout, another thing
    assert find_duplicates(hashes, features, thumbs) == [DuplicateSet("near", (0, 1))]


def test_pictures_without_contrast_are_not_tied() -> None:
    """Satellite tiles of open sea: nearly the same features, thumbnails of one grey with rounding noise."""
    rng = np.random.default_rng(0)
    hashes, features, thumbs = photos(300)
    features[:100] = nudge(np.repeat(features[:1], 100, axis=0), 0.995)
    thumbs[:100] = 80 + rng.integers(0, 2, (100, 16, 16, 3))
    assert find_duplicates(hashes, features, thumbs) == []


@pytest.mark.parametrize("change", ["jpeg", "half size", "darker", "contrast", "mirror", "both at once"])
def test_copies_of_real_photographs_are_tied(shared: Path, change: str) -> None:
    """With features at the lowest cosine measured for such a copy (0.77), the thumbnails carry the decision."""
    files = sorted((shared / "data" / "hymenoptera" / "val" / "bees").glob("*.jpg"))[:40]
    images = [Image.open(file).convert("RGB").resize((256, 256)) for file in files]
    made: dict[str, Callable[[Image.Image], Image.Image]] = {
        "jpeg": lambda i: jpeg(i, 50),
        "half size": lambda i: i.resize((128, 128)),
        "darker": lambda i: ImageEnhance.Brightness(i).enhance(0.8),
        "contrast": lambda i: ImageEnhance.Contrast(i).enhance(0.8),
        "mirror": lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "both at once": lambda i: jpeg(i.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((180, 180)), 75),
    }
    _, features, _ = photos(len(images))
    thumbs = np.stack([thumbnail(i) for i in images] + [thumbnail(made[change](i)) for i in images])
    both = np.concatenate([features, nudge(features, 0.77)])
    found = find_duplicates([f"{i:032x}" for i in range(len(both))], both, thumbs)
    assert [s.rows for s in found] == [(i, i + len(images)) for i in range(len(images))]


def test_a_near_set_holds_the_exact_copies_of_its_members() -> None:
    hashes, features, thumbs = photos(150)
    features[1], thumbs[1] = nudge(features[:1], 0.98)[0], thumbs[0]
    hashes[2], features[2], thumbs[2] = hashes[1], features[1], thumbs[1]
    assert find_duplicates(hashes, features, thumbs) == [DuplicateSet("exact", (1, 2)), DuplicateSet("near", (0, 1, 2))]


def test_row_order_does_not_matter() -> None:
    hashes, features, thumbs = photos(200)
    features[100:120], thumbs[100:120] = nudge(features[:20], 0.95), thumbs[:20]
    order = np.random.default_rng(5).permutation(200)
    moved = find_duplicates([hashes[i] for i in order], features[order], thumbs[order])
    back = {tuple(sorted(int(order[row]) for row in s.rows)) for s in moved}
    assert back == {s.rows for s in find_duplicates(hashes, features, thumbs)} == {(i, i + 100) for i in range(20)}


def test_a_chain_does_not_tie_a_class_together() -> None:
    """100 frames of a slow pan: neighbours agree, the ends have nothing in common. True copies elsewhere stay tied."""
    hashes, features, thumbs = photos(400)
    path = np.linspace(0, 1, 100)[:, None]
    features[:100] = (1 - path) * features[:1] + path * features[1:2]
    blend = path[:, :, None, None]
    thumbs[:100] = ((1 - blend) * thumbs[:1].astype(float) + blend * thumbs[1:2]).round().astype(np.uint8)
    features[200:210], thumbs[200:210] = nudge(features[300:301].repeat(10, axis=0), 0.98), thumbs[300]
    found = find_duplicates(hashes, features, thumbs)
    assert max(len(s.rows) for s in found) <= 40
    assert (*range(200, 210), 300) in [s.rows for s in found]


def test_features_that_say_nothing_do_not_tie_look_alikes() -> None:
    """A network with random weights finds all images alike (cosine 0.99); that must not make look-alikes copies."""
    hashes, features, thumbs = photos(300)
    blurred = np.clip(thumbs[:1].astype(int) + np.random.default_rng(1).integers(-28, 29, thumbs.shape), 0, 255)
    alike = nudge(np.repeat(features[:1], 300, axis=0), 0.995)
    assert find_duplicates(hashes, alike, blurred.astype(np.uint8)) == []


def test_unusable_features_cost_only_the_near_search() -> None:
    hashes, features, thumbs = photos(120)
    features[5], features[6] = np.nan, 0
    thumbs[5] = thumbs[6] = thumbs[7]
    hashes[9] = hashes[8]
    assert find_duplicates(hashes, features, thumbs) == [DuplicateSet("exact", (8, 9))]
    assert find_duplicates([], np.zeros((0, 4)), np.zeros((0, 16, 16, 3), np.uint8)) == []
    with pytest.raises(DataError, match="do not belong together"):
        find_duplicates(hashes[:-1], features, thumbs)


@dataclass
class Compared:
    """How many pairs of images were compared at a time, in either key."""

    thumbnails: list[int]
    features: list[int]


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Compared:
    found, screen = Compared([], []), duplicates._screen
    confirm, confirm_tile = duplicates._confirm, duplicates._confirm_tile

    class Counted(np.ndarray[Any, Any]):
        def __matmul__(self, other: Any) -> Any:
            found.thumbnails.append(len(self) * other.shape[1])
            return np.asarray(self) @ np.asarray(other)

    def counted(keys: Any) -> Any:
        return screen(keys).view(Counted)

    def confirmed(keys: Any, a: Any, b: Any) -> Any:
        found.features.append(len(a))
        return confirm(keys, a, b)

    def confirmed_whole(keys: Any, rows: Any, columns: Any, ahead: int) -> Any:
        found.features.append(len(rows) * len(columns))
        return confirm_tile(keys, rows, columns, ahead)

    monkeypatch.setattr(duplicates, "_screen", counted)
    monkeypatch.setattr(duplicates, "_confirm_tile", confirmed_whole)
    monkeypatch.setattr(duplicates, "_confirm", confirmed)
    return found


def test_buckets_find_close_copies_in_very_large_sets(monkeypatch: pytest.MonkeyPatch, compared: Compared) -> None:
    hashes, features, thumbs = photos(1000)
    features[500:600], thumbs[500:600] = nudge(features[:100], 0.99), thumbs[:100]
    monkeypatch.setattr(duplicates, "SEARCH_ALL", 400)
    monkeypatch.setattr(duplicates, "BUCKET", 250)
    found = {s.rows for s in find_duplicates(hashes, features, thumbs)}
    assert found <= {(i, i + 500) for i in range(100)}
    assert len(found) >= 80
    assert len(compared.thumbnails) == 4
    assert sum(compared.thumbnails) < 0.5 * 1000**2  # a bucket is one tile here, and four equal ones were a quarter


def test_dense_tiles_give_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes, features, thumbs = photos(300)
    features[100:140], thumbs[100:140] = nudge(features[:40], 0.9), thumbs[:40]
    sparse = find_duplicates(hashes, features, thumbs)
    monkeypatch.setattr(duplicates, "DENSE", -1.0)
    monkeypatch.setattr(duplicates, "TILE", (64, 96))
    assert find_duplicates(hashes, features, thumbs) == sparse
    assert len(sparse) == 40


def test_a_pair_of_thumbnails_is_screened_at_most_once_and_few_are_compared(compared: Compared) -> None:
    hashes, features, thumbs = photos(5000)
    pairs = 5000 * 4999 / 2
    assert find_duplicates(hashes, features, thumbs) == []
    # and the half below, of tiles on the diagonal
    assert sum(compared.thumbnails) <= pairs + 5000 * duplicates.TILE[0]
    assert 0 < sum(compared.features) < 0.003 * pairs  # each image with itself among them


def test_pairs_that_are_passed_over_do_not_agree(monkeypatch: pytest.MonkeyPatch, compared: Compared) -> None:
    """With tiles so small that many are out of each other's reach, nothing less is found; nor on more threads."""
    hashes, features, thumbs = photos(600)
    thumbs[:300] = thumbs[:300] // 4 * np.linspace(0, 3, 16).astype(np.uint8)[:, None, None]  # bright to one side
    features[500:600], thumbs[500:550], thumbs[550:600] = (
        nudge(features[:100], 0.99),
        thumbs[:50],
        thumbs[50:100, :, ::-1],
    )
    monkeypatch.setattr(duplicates, "TILE", (16, 16))
    monkeypatch.setattr(duplicates, "n_cores", lambda: 4)
    found = find_duplicates(hashes, features, thumbs)
    assert sum(compared.thumbnails) < 0.8 * 600**2 / 2
    monkeypatch.setattr(duplicates, "REACH", np.pi)
    assert find_duplicates(hashes, features, thumbs) == found
    assert {s.rows for s in found} >= {(i, i + 500) for i in range(100)}


def test_the_screen_never_rules_out_a_pair_that_agrees() -> None:
    """What it says of a pair is at least the pair's correlation; mirrored copies, dull and dark pictures among them."""
    _, features, thumbs = photos(200)
    thumbs[100:150], thumbs[150:160], thumbs[160:170] = thumbs[:50, :, ::-1], 7, thumbs[:10] // 8
    keys = duplicates._Keys.of(features, thumbs, np.arange(200))
    screen = duplicates._screen(keys)
    correlation = keys.even @ keys.even.T + np.abs(keys.odd @ keys.odd.T)
    assert (screen @ screen.T >= correlation - duplicates.SLACK).all()
    assert screen.shape[1] < keys.even.shape[1] / 4


def test_groups_join_duplicates_and_the_users_groups() -> None:
    near = DuplicateSet("near", (1, 4))
    groups = np.array(["", "p1", "p2", "p2", "", "p3"], dtype=object)
    assert tie_groups(6, [near], groups).tolist() == [0, 1, 2, 2, 1, 3]
    assert tie_groups(6, [near, DuplicateSet("exact", (2, 4))], groups).tolist() == [0, 1, 1, 1, 1, 2]
    assert tie_groups(0, [], NONE).tolist() == []


def test_leaks_and_conflicts() -> None:
    sets = [DuplicateSet("exact", (0, 1)), DuplicateSet("near", (2, 3)), DuplicateSet("near", (4, 5))]
    splits = np.array(["train", "test", "train", "train", "none", "train"], dtype=object)
    labels = np.array(["a", "a", "a", "b", "", "b"], dtype=object)
    assert find_leaks(sets, splits) == sets[:1]
    assert find_conflicts(sets, labels) == sets[1:2]


def family(n: int, ways: int, seed: int) -> tuple[list[str], NDArray[np.float32], Thumbnails]:
    """n pictures of one thing in all its forms (a handwritten digit): they differ in so many ways, each a little."""
    rng = np.random.default_rng(seed)
    how = rng.normal(size=(n, ways))
    y, x = np.mgrid[:16, :16] / 15
    forms = [np.sin((2 + k % 3) * 2 * x + k) * np.cos((1 + k // 2) * 2 * y + k) for k in range(ways)]
    grey = 128 + 60 * np.sin(6 * x) * np.cos(5 * y) + 16 * np.tensordot(how, np.stack(forms), 1)
    features = np.abs(rng.normal(size=64)) + 0.3 * how @ rng.normal(size=(ways, 64))
    thumbs = np.repeat(np.clip(grey, 0, 255).round().astype(np.uint8)[..., None], 3, axis=3)
    return [f"{i:032x}" for i in rng.permutation(n)], features.astype(np.float32), thumbs


@pytest.mark.parametrize(("ways", "seed"), [(8, 0), (8, 1), (6, 0), (6, 1), (4, 0)])
def test_where_look_alikes_are_the_rule_they_are_not_tied_and_copies_are(ways: int, seed: int) -> None:
    """However close they lie: the set's own distances say what is near."""
    hashes, features, thumbs = family(500, ways, seed)
    made = nudge(features[:25], 0.9999), np.clip(thumbs[:25] * 0.95, 0, 255).round().astype(np.uint8)
    hashes += [f"copy {i}" for i in range(25)]
    found = find_duplicates(hashes, np.concatenate([features, made[0]]), np.concatenate([thumbs, made[1]]))
    assert sum((i, 500 + i) in [s.rows for s in found] for i in range(25)) >= 20
    assert sum(max(s.rows) < 500 for s in found) <= 5


def test_many_copies_of_each_picture_are_no_crowd_of_look_alikes() -> None:
    """A set that was enlarged by eight changed copies of each photograph keeps every one of them together."""
    hashes, features, thumbs = photos(40)
    rng = np.random.default_rng(0)
    again = np.concatenate([nudge(features, 0.85, seed) for seed in range(8)])
    changed = np.concatenate([np.clip(thumbs + rng.integers(-3, 4, thumbs.shape), 0, 255) for _ in range(8)])
    hashes += [f"copy {i}" for i in range(320)]
    found = find_duplicates(
        hashes, np.concatenate([features, again]), np.concatenate([thumbs, changed.astype(np.uint8)])
    )
    assert [s.rows for s in found] == [tuple(range(i, 360, 40)) for i in range(40)]


def test_in_a_crowd_pictures_that_differ_in_colour_alone_are_not_tied() -> None:
    """Chequerboards: in grey they are one. Of photographs, a copy in other colours is a copy."""
    rng = np.random.default_rng(0)
    hues = np.stack([np.roll([220, 60, 20], k % 3) if k < 3 else 240 - np.roll([220, 60, 20], k % 3) for k in range(6)])
    mask = (np.indices((16, 16)).sum(axis=0) // 4 % 2)[..., None]
    thumbs = np.stack([mask * hues[k % 6] + (1 - mask) * (hues[k % 6] // 3) for k in range(60)]).astype(np.uint8)
    hashes, features, photo = photos(200)
    near = nudge(np.repeat(features[:1], 60, axis=0), 0.98)
    for s in find_duplicates([f"{i:032x}" for i in rng.permutation(60)], near, thumbs):
        assert len({row % 6 for row in s.rows}) == 1
    features[1], photo[1] = nudge(features[:1], 0.98)[0], photo[0].mean(axis=2, keepdims=True)
    features[3], photo[3] = nudge(features[2:3], 0.98)[0], photo[2][..., ::-1]
    assert [s.rows for s in find_duplicates(hashes, features, photo)] == [(0, 1), (2, 3)]


def test_a_frame_that_pictures_share_ties_none_of_them() -> None:
    """Of the same frame around other pictures most of the thumbnail agrees; a framed picture's own copies stay tied."""
    hashes, features, thumbs = photos(400)
    inside = (60 + thumbs[:6, 2:-2, 2:-2] * 0.2).astype(np.uint8)
    thumbs[:6] = 255
    thumbs[:6, 2:-2, 2:-2] = inside
    thumbs[4:6, 3:-3, 3:-3] = 70  # nothing to see inside
    features[10:13], thumbs[10:13] = nudge(features[:3], 0.98), thumbs[:3]
    assert [s.rows for s in find_duplicates(hashes, features, thumbs)] == [(0, 10), (1, 11), (2, 12)]


def test_dull_pictures_saved_again_are_tied_and_others_as_dull_are_not() -> None:
    """Satellite tiles: of their little contrast JPEG leaves much less alike, but no pixel moves far."""
    rng = np.random.default_rng(3)
    hashes, features, thumbs = photos(300)
    dull = (100 + (thumbs.astype(float) - 127) / 8).round()
    saved = (dull[:60] + rng.normal(0, 1.5, (60, 16, 16, 3))).round()
    both = np.concatenate([features, nudge(features[:60], 0.65)])
    found = find_duplicates(
        [*hashes, *(f"copy {k}" for k in range(60))], both, np.concatenate([dull, saved]).astype(np.uint8)
    )
    assert {s.rows for s in found} <= {(k, 300 + k) for k in range(60)}
    assert len(found) >= 45


@cache
def textures(n: int, seed: int = 0) -> list[Image.Image]:
    """n unrelated pictures with coarse and fine content, 120 x 96 px."""
    rng = np.random.default_rng(seed)
    layers = [rng.integers(0, 255, (n, side, side + 2)).astype(np.uint8) for side in (4, 9, 24)]
    made = []
    for parts in zip(*layers, strict=True):
        seen = [np.asarray(Image.fromarray(part).resize((120, 96), Image.Resampling.BICUBIC), float) for part in parts]
        made.append(Image.fromarray((0.5 * seen[0] + 0.3 * seen[1] + 0.2 * seen[2]).astype(np.uint8)).convert("RGB"))
    return made


@pytest.mark.parametrize(
    "change",
    [
        lambda i: i.crop((3, 2, 117, 93)),
        lambda i: i.crop((10, 8, 119, 95)),
        lambda i: ImageOps.expand(i, 10, "white"),
        lambda i: ImageOps.expand(i, 6, "black").resize((66, 54)),
        lambda i: i.crop((6, 5, 114, 91)).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    ],
    ids=["crop 5 %", "crop 10 % to a corner", "white border", "black border, half size", "crop and mirror"],
)
def test_a_second_look_finds_cropped_and_framed_copies_and_no_others(
    change: Callable[[Image.Image], Image.Image],
) -> None:
    n, images = 40, textures(120)
    hashes, features, _ = photos(len(images))
    pictures = images + [change(image) for image in images[:n]]
    both = np.concatenate([features, nudge(features[:n], 0.85)])
    looks: list[int] = []

    def look(row: int) -> Thumbnails:
        looks.append(row)
        return np.asarray(pictures[row].resize((32, 32), Image.Resampling.HAMMING))

    thumbs = np.stack([thumbnail(picture) for picture in pictures])
    names = [*hashes, *(f"copy {i}" for i in range(n))]
    found = [s.rows for s in find_duplicates(names, both, thumbs, look)]
    assert set(found) <= {(i, i + 120) for i in range(n)}
    assert len(found) >= 0.95 * n
    assert len(looks) == len(set(looks))  # each file is read once at most
    assert find_duplicates(names, both, thumbs, lambda row: None) == find_duplicates(names, both, thumbs)
