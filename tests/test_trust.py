"""A model that is judged on pictures of another kind says so, and one that is judged on its own kind does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import TINY, Run, picture
from headstart.data.images import write_png
from headstart.judge.crossing import Measure
from headstart.judge.marks import Interval
from headstart.report import Shift
from headstart.report.mend import mends
from headstart.report.sections import verdict, warnings
from headstart.story.trust import _worse
from test_report import sample


def interval(value: float, low: float | None, high: float | None) -> Interval:
    return {"value": value, "low": low, "high": high}


def measure(better: bool) -> Measure:
    def nothing(*given: Any) -> Any:
        raise AssertionError

    return Measure("m", nothing, nothing, nothing, higher_is_better=better)


@pytest.mark.parametrize("better", [True, False])
def test_only_what_is_worse_beyond_both_intervals_is_an_alarm(better: bool) -> None:
    low, high, overlapping = interval(0.3, 0.2, 0.4), interval(0.9, 0.8, 0.95), interval(0.6, 0.35, 0.85)
    assert _worse(measure(better), low, high) == better
    assert _worse(measure(better), high, low) != better
    assert not _worse(measure(better), low, overlapping)
    assert not _worse(measure(better), interval(0.3, None, None), high)


def test_the_page_under_a_shift_neither_accuses_labels_nor_calls_the_model_usable() -> None:
    usual = sample()
    shifted = sample(shift=Shift(interval(0.99, 0.97, 1.0), True, 0.98))
    assert "look wrong" in " ".join(one.said for one in mends(usual))
    assert "look wrong" not in " ".join(one.said for one in mends(shifted))
    moods = {advice.question: (advice.mood, advice.answer) for advice in verdict(shifted)}
    assert moods["Is it usable?"][0] == "bad"
    first, second = warnings(shifted)[:2]
    assert "99.0 %" in first.replace("%", " %").replace("  ", " ")
    assert "AUROC 0.98" in second
    only_looks = sample(shift=Shift(interval(0.95, 0.9, 0.97), False, 0.91))
    assert {a.question: a.answer for a in verdict(only_looks)} == {a.question: a.answer for a in verdict(usual)}
    assert "AUROC 0.91" in warnings(only_looks)[0]
    assert not any("AUROC" in line for line in warnings(usual))


def test_a_fit_judged_on_other_pictures_says_so_and_one_judged_on_its_own_kind_does_not(
    tmp_path: Path, run: Run
) -> None:
    rng = np.random.default_rng(0)
    for kind in ("same", "odd"):
        for colour, name in enumerate(("moss", "sand", "sea")):
            for number in range(40):
                part = "train" if number < 20 else "test"
                pixels = picture(colour, rng)
                if kind == "odd" and part == "test":
                    pixels = np.rot90(255 - pixels[..., [1, 2, 0]]).copy()
                file = tmp_path / kind / part / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                write_png(pixels, file)
    said = {}
    for kind in ("same", "odd"):
        model = tmp_path / f"{kind}-model"
        ran = run("fit", tmp_path / kind, "-o", model, *TINY)
        assert ran.code == 0, ran.err
        said[kind] = ran.out, json.loads((model / "metrics.json").read_text())["trust"], (model / "report.html")
    out, trust, page = said["same"]
    assert "shift" not in out
    assert not trust["dropped"]
    assert not trust["told_apart"]["clear"]
    assert "by chance 0.50" not in page.read_text()
    out, trust, page = said["odd"]
    assert trust["dropped"]
    assert trust["told_apart"]["clear"]
    assert "are of another kind" in out
    assert "Not on pictures like the judged ones" in page.read_text()
    assert "by chance 0.50" in page.read_text()


def test_what_is_cross_validated_has_no_other_part_to_compare(model: Path) -> None:
    assert json.loads((model / "metrics.json").read_text())["trust"] is None
