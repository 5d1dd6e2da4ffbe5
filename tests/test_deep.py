"""Pictures of more than 8 bits: black and white have no step in them, belong to the set, and go with the model."""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from conftest import TINY, Run
from headstart.data import images
from headstart.data.deep import Samples, ends_of, said, set_range, shown, to_eight
from headstart.data.images import Preprocess, load, preview
from headstart.data.ranges import SAMPLE, ranges_of
from headstart.data.table import list_images, read_table, table_of
from headstart.errors import OptionError

EXACT = Preprocess((48, 80), 1.0, "bicubic", "squash", (0.5,) * 3, (0.25,) * 3)
GRADIENT = np.linspace(0, 1, 80 * 48).reshape(48, 80)


def saved(array: NDArray[Any], kind: str = "TIFF") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def levels(source: bytes | NDArray[Any], preprocess: Preprocess = EXACT) -> int:
    return len(np.unique(load(source, preprocess).array))


@pytest.mark.parametrize("most", [255, 300, 900, 1023, 4095, 4096, 10_000, 30_000, 40_000, 65535])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "array"])
def test_whatever_part_of_16_bits_is_used_its_grey_levels_are_kept(most: int, kind: str) -> None:
    """By the set all of them; without one half of them at least, since a picture may be dark."""
    values = np.rint(GRADIENT * most).astype(np.uint16)
    source = values if kind == "array" else saved(values, kind)
    assert levels(source) >= (200 if most <= 8191 else 128)
    range_ = set_range([(0.0, float(most))] * 9, "unsigned")
    assert range_ is not None
    assert levels(source, replace(EXACT, ranges=(("unsigned", *range_),))) >= 250


@pytest.mark.parametrize(
    ("one", "other"), [(255, 256), (4095, 4096), (8191, 8192), (32767, 32768), (65534, 65535), (900, 901)]
)
@pytest.mark.parametrize("kind", ["u2", "i4", "f4"])
def test_no_jump_at_a_threshold(one: int, other: int, kind: str) -> None:
    first, second = (load(saved((GRADIENT * most).astype(kind)), EXACT).array.astype(int) for most in (one, other))
    assert np.abs(first - second).max() <= 2
    spot = (GRADIENT * one).astype(kind)
    spot[-1, -1] = other
    assert np.abs(load(saved(spot), EXACT).array.astype(int) - first).max() <= 2


@pytest.mark.parametrize("high", [0.99, 1.0, 1.01, 1.5, 254.9, 255.1])
def test_no_jump_in_floats(high: float) -> None:
    first, second = (load(saved((GRADIENT * v).astype("f4")), EXACT).array.astype(int) for v in (high, high * 1.01))
    assert np.abs(first - second).max() <= 4


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e5, 1e5), st.floats(1e-3, 2e5), st.sampled_from(["unsigned", "signed", "float"]), st.booleans())
def test_the_range_moves_evenly_with_its_ends(low: float, span: float, kind: str, alone: bool) -> None:
    """A thousandth more or less of the brightest value moves white by a little; black stays below white."""
    low = abs(low) if kind == "unsigned" else low
    high = low + span
    black, white = shown(low, high, kind, alone)
    assert black < white
    assert white >= high - 1e-9
    assert black <= low + 1e-9
    for factor in (0.999, 1.001):
        other = shown(low, low + span * factor, kind, alone)
        size = max(abs(white), abs(black), 1e-3)
        assert abs(other[1] - white) <= 0.005 * size
        assert abs(other[0] - black) <= 0.005 * size


def test_a_hot_pixel_and_an_odd_file_cost_a_few_levels() -> None:
    values = np.rint(GRADIENT * 4095).astype(np.uint16)
    hot = values.copy()
    hot[7, 7] = 65535
    assert levels(saved(hot)) >= 200
    usual = [ends for _ in range(9) if (ends := ends_of(Samples(values))) is not None]
    assert set_range(usual, "unsigned") == (0.0, 4095.0)
    range_ = set_range([*usual, (0.0, 65535.0)], "unsigned")
    assert range_ is not None
    assert len(np.unique(to_eight(Samples(values), range_))) >= 200


def test_the_set_decides_by_what_its_pictures_are() -> None:
    """Hounsfield units, a thermal camera, elevations; in any order of the pictures."""
    for pictures, kind, black, white in (
        ([(-1024.0, 3000.0), (-1000.0, 2500.0)] * 4, "signed", -1024, 3000),
        ([(29_000.0, 31_000.0), (29_100.0, 31_500.0)] * 4, "unsigned", 29_000, 31_500),
        ([(1200.0, 1500.0)] * 6, "float", 1200, 1500),
        ([(0.0, 60_000.0)] * 6, "unsigned", 0, 60_000),
        ([(0.05, 0.9)] * 6, "float", 0, 0.9),
    ):
        range_ = set_range(pictures, kind)
        assert range_ == pytest.approx((black, white))
        mixed = pictures.copy()
        random.Random(1).shuffle(mixed)
        assert set_range(mixed, kind) == range_
    assert set_range([(5.0, 5.0)] * 6, "float") is None
    assert set_range([], "float") is None


def test_colours_share_one_range() -> None:
    values = (np.dstack([GRADIENT, GRADIENT / 2, GRADIENT / 4]) * 4095).astype(np.uint16)
    grey = to_eight(Samples(values), (0, 4095))
    assert grey[-1, -1].tolist() == [255, 127, 64]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, most in (("dim", 2000), ("bright", 4095)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(8):
            noise = rng.integers(0, most + 1, (40, 40)).astype(np.uint16)
            Image.fromarray(noise).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


def test_the_range_is_that_of_the_images_that_teach(folder: Path) -> None:
    table = read_table(folder)
    found = ranges_of(table)
    assert [kind for kind, _, _ in found] == ["unsigned"]
    assert found[0][1:] == pytest.approx((0, 4095), abs=5)
    order = np.random.default_rng(2).permutation(len(table))
    assert ranges_of(table.take(order)) == found
    assert ranges_of(table_of([np.asarray(Image.open(p)) for p in sorted(folder.glob("*/*.png"))])) == found
    assert ranges_of(table_of([Image.open(p) for p in sorted(folder.glob("*/*.png"))])) == found
    judged = replace(table, splits=np.where(table.labels == "dim", "train", "test").astype(object))
    assert ranges_of(judged)[0][2] == pytest.approx(2000, abs=5)


def test_a_large_set_is_sampled_by_name_not_by_order(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.data.ranges.SAMPLE", 5)
    table = read_table(folder)
    assert SAMPLE > 5
    assert ranges_of(table) == ranges_of(table.take(np.arange(len(table))[::-1]))


def test_pictures_of_8_bits_have_none_and_are_not_decoded(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "opened", None)
    assert ranges_of(list_images([pictures])) == ()
    assert "ranges" not in EXACT.to_json()


def test_range_and_bands_survive_json_and_nonsense_is_refused() -> None:
    found = replace(EXACT, ranges=(("unsigned", 0.0, 4095.0), ("float", -1.5, 2.0)), bands=(4, 3, 2))
    assert Preprocess.from_json(json.loads(json.dumps(found.to_json()))) == found
    plain = EXACT.to_json()
    for change in (
        {"ranges": {"unsigned": [5, 5]}},
        {"ranges": {"unsigned": [0]}},
        {"ranges": {"unsigned": [0, float("nan")]}},
        {"ranges": {"colour": [0, 1]}},
        {"ranges": 5},
        {"ranges": {"float": ["a", "b"]}},
        {"bands": [1, 2]},
        {"bands": [0, 1, 2]},
        {"bands": ["1"]},
        {"bands": 3},
        {"bands": [True]},
    ):
        with pytest.raises(OptionError):
            Preprocess.from_json(plain | change)
    for nonsense in ([], "text", None):
        with pytest.raises(OptionError):
            Preprocess.from_json(nonsense)  # type: ignore[arg-type]


def test_the_model_keeps_the_range_and_every_command_uses_it(folder: Path, tmp_path: Path, run: Run) -> None:
    """fit says it and saves it, the report names it, predict shows a dim picture as dim."""
    fitted = run("fit", folder, "-o", tmp_path / "model", *TINY)
    assert fitted.code == 0, fitted.err
    line = "16-bit pictures: the training images use 0 to 4095 of 65535"
    assert line in fitted.err
    assert line in (tmp_path / "model" / "report.html").read_text()
    saved_as = json.loads((tmp_path / "model" / "headstart.json").read_text())["preprocess"]["ranges"]
    assert list(saved_as) == ["unsigned"]
    assert saved_as["unsigned"] == pytest.approx([0, 4095], abs=5)
    wanted = Preprocess.from_json(json.loads((tmp_path / "model" / "headstart.json").read_text())["preprocess"])
    dim = (folder / "dim" / "0.png").read_bytes()
    assert load(dim, wanted).array.max() < 140
    assert load(dim, replace(wanted, ranges=())).array.max() > 240
    shown_small = np.asarray(Image.open(io.BytesIO(preview(dim, 40, preprocess=wanted))))
    assert shown_small.max() < 160
    labels = [r["label"] for r in json.loads(run("predict", tmp_path / "model", folder, "--json").out)]
    assert labels == ["bright"] * 8 + ["dim"] * 8


def test_what_is_said() -> None:
    assert said((("unsigned", 0.0, 4095.0),)) == [
        "16-bit pictures: the training images use 0 to 4095 of 65535; 0 is black and 4095 is white, here and wherever "
        "the model is used"
    ]
    assert len(said((("signed", -1024.0, 3000.0), ("float", 0.0, 1.0)))) == 2
