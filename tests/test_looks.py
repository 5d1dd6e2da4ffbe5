"""Odd pictures, shortcuts, what is kept of training images: laws."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from headstart.cli.looking import fail_on
from headstart.cli.reasons import REASONS, reasons
from headstart.data.facts import Facts, facts_of
from headstart.data.quality import Looks, faults, frame_of, looks_of
from headstart.errors import DataError, OptionError
from headstart.heads import reference
from headstart.judge import shortcut
from headstart.report.inspection import Alike, Card, FactTable, FaultSheet, Inspection, Sheet, Thumb, render_inspection

RNG = np.random.default_rng(5)


def scene(rng: np.random.Generator, height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    """Soft shapes with fine grain: something like a photograph."""
    coarse = rng.integers(0, 255, (8, 10, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.int64)
    return (smooth + rng.integers(-25, 26, (height, width, 1))).clip(0, 255).astype(np.uint8)


def jpeg(array: NDArray[np.uint8], **how: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "JPEG", **how)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def scenes() -> list[NDArray[np.uint8]]:
    return [scene(RNG) for _ in range(60)]


def measured(pictures: list[NDArray[np.uint8]]) -> tuple[list[Facts], list[Looks]]:
    return [facts_of(picture) for picture in pictures], [looks_of(picture) for picture in pictures]


def soft(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    small = Image.fromarray(picture).resize((10, 8), Image.Resampling.BOX)
    return np.asarray(small.resize(picture.shape[1::-1], Image.Resampling.BICUBIC))


PLANTED = {
    "blank": lambda picture: np.full_like(picture, 90),
    "dark": lambda picture: (picture // 12).astype(np.uint8),
    "washed out": lambda picture: (120 + picture // 16).astype(np.uint8),
    "blurred": soft,
    "tiny": lambda picture: picture[:9, :12],
    "odd shape": lambda picture: np.tile(picture, (1, 4, 1)),
    "huge": lambda picture: np.tile(picture, (36, 36, 1)),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_named_and_nothing_else(fault: str, scenes: list[NDArray[np.uint8]]) -> None:
    pictures = [*scenes[:40], PLANTED[fault](scenes[50]), *scenes[40:50]]
    facts, looks = measured(
        [*pictures[:40], pictures[40][::8, ::8] if fault == "huge" else pictures[40], *scenes[40:50]]
    )
    if fault == "huge":
        facts[40] = facts_of(pictures[40])
    assert [(odd.row, odd.fault) for odd in faults(facts, looks)] == [(40, fault)]


def test_a_whole_set_of_dark_smooth_or_small_pictures_is_not_accused(scenes: list[NDArray[np.uint8]]) -> None:
    for change in (PLANTED["dark"], PLANTED["washed out"], soft, PLANTED["tiny"]):
        assert not faults(*measured([change(picture) for picture in scenes]))


def test_the_order_of_the_pictures_changes_nothing(scenes: list[NDArray[np.uint8]]) -> None:
    pictures = [*scenes, *(make(scenes[0]) for name, make in PLANTED.items() if name != "huge")]
    facts, looks = measured(pictures)
    order = np.random.default_rng(1).permutation(len(pictures))
    again = faults([facts[k] for k in order], [looks[k] for k in order])
    assert {(int(order[odd.row]), odd.fault) for odd in again} == {(o.row, o.fault) for o in faults(facts, looks)}


def test_a_frame_is_told_from_a_background(scenes: list[NDArray[np.uint8]]) -> None:
    framed = scenes[0].copy()
    framed[:5], framed[-5:], framed[:, :5], framed[:, -5:] = 128, 128, 128, 128
    on_black = np.zeros_like(framed)
    rows, columns = np.mgrid[: framed.shape[0], : framed.shape[1]]
    inside = (rows - 30) ** 2 + (columns - 40) ** 2 < 24**2
    on_black[inside] = scenes[1][inside]
    assert frame_of(framed) == "top bottom left right 128 128 128"
    assert frame_of(on_black) == frame_of(scenes[0]) == ""


def facts_by_class(scenes: list[NDArray[np.uint8]], quality: int) -> tuple[list[Facts], NDArray[Any]]:
    labels = np.array(["a", "b"] * 30, dtype=object)
    coded = [jpeg(p, quality=quality if label == "a" else 90) for p, label in zip(scenes, labels, strict=True)]
    return [facts_of(data) for data in coded], labels


def test_a_class_saved_at_another_quality_is_named_by_it(scenes: list[NDArray[np.uint8]]) -> None:
    facts, labels = facts_by_class(scenes, 70)
    assert facts[0].packing.startswith("quality 70 ")
    assert facts[1].packing.startswith("quality 90 ")
    found = shortcut.told_by(shortcut.of_files(facts), labels, 0)
    assert found is not None
    assert found.clear
    assert found.facts[0] == ("JPEG quality", 1.0)
    facts, labels = facts_by_class(scenes, 90)
    assert shortcut.told_by(shortcut.of_files(facts), labels, 0) is None  # nothing differs


def test_random_labels_are_not_accused() -> None:
    rng = np.random.default_rng(2)
    for seed in range(60):
        labels = rng.integers(0, 3, 90).astype(str).astype(object)
        columns = {"size": rng.normal(size=90), "camera": rng.integers(0, 6, 90).astype(str).astype(object)}
        found = shortcut.told_by(columns, labels, seed)
        assert found is not None
        assert not found.clear


def test_images_that_belong_together_count_once() -> None:
    labels = np.array(["a"] * 60 + ["b"] * 60, dtype=object)
    assert len(shortcut.drawn(labels, np.arange(120), 0)) == 120
    assert not len(shortcut.drawn(labels, np.arange(120) // 10, 0))  # six of each class are too few


def test_what_is_kept_is_small_evenly_drawn_and_one_of_each_group() -> None:
    rows, placed = np.arange(3000), (np.arange(3000) < 300).astype(float)
    wide = {"pre_logits": np.zeros((3000, 1280))}
    found = reference.reference_of(wide, "pre_logits", rows, placed, rows // 2, 0)
    assert found is not None
    assert found.rows.nbytes <= reference.MOST_BYTES
    assert abs((found.placed == 1).sum() - (found.placed == 0).sum()) <= max(1, len(found.rows) - 2 * 150)
    again = reference.read(found.tensors(), "pre_logits", 1280)
    assert (again.placed == found.placed).all()
    assert (again.rows == found.rows).all()
    with pytest.raises(ValueError, match="reference has the shapes"):
        reference.read(found.tensors(), "pre_logits", 1281)


def test_other_pictures_are_told_and_another_mixture_of_classes_is_not() -> None:
    rng = np.random.default_rng(3)
    placed = (np.arange(300) % 2).astype(float)
    axis = 6 * np.eye(20)[0]
    rows = rng.normal(size=(300, 20)) + placed[:, None] * axis
    known = reference.Reference("pre_logits", rows.astype(np.float16), placed.astype(np.float32))
    new = rng.normal(size=(120, 20)) + axis
    same = reference.shift(known, {"pre_logits": new}, np.ones(120))  # all of one class
    other = reference.shift(known, {"pre_logits": new + np.eye(20)[3] * 2}, np.ones(120))
    assert same is not None
    assert other is not None
    assert not same.clear
    assert other.clear
    assert reference.shift(known, {"pre_logits": new[:40]}, np.ones(40)) is None


def test_fail_on_takes_what_it_knows_and_ends_only_where_it_was_found() -> None:
    assert reasons("leaks, shift,leaks") == ("leaks", "shift")
    assert reasons(None) == ()
    for wrong in ("leak", "", "leaks,all"):
        with pytest.raises(OptionError, match="--fail-on"):
            reasons(wrong)
    found = dict.fromkeys(REASONS, 0) | {"conflicts": 2}
    fail_on(("leaks", "shift"), found)
    with pytest.raises(DataError, match=r"conflicts \(2\)"):
        fail_on(("leaks", "conflicts"), found)


def test_a_page_holds_names_as_text_and_nothing_from_outside() -> None:
    hostile = '<script>alert("x")</script>&\u202egpj.exe'
    thumb = Thumb(b"\xff\xd8", hostile, hostile, "train", hostile)
    page = render_inspection(
        Inspection(
            hostile,
            hostile,
            3,
            (Card("bad", hostile, hostile, "leaks"),),
            (Sheet("leaks", "Leaks", "said", (Alike("exact", (thumb, thumb), 50),), 40),),
            ((hostile, hostile),) * 12,
            (FaultSheet("Dark", "said", (thumb,), 44),),
            (FactTable(hostile, ((hostile, 0.9),)),),
            (hostile,),
            {hostile: {"train": 3, "test": 1}},
            hostile,
            (hostile,),
        )
    )
    assert "<script" not in page
    assert "\u202e" not in page
    assert not re.search("https?:|url\\(", page)
    assert 'src="/' not in page
    assert "and 48 more" in page
    assert "and 39 more sets" in page
    assert "and 43 more" in page
    assert (
        page.index('id="leaks"') < page.index('id="unreadable"') < page.index('id="faults"') < page.index('id="data"')
    )
