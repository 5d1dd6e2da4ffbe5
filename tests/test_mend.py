"""What to mend first: in order, few, with the numbers of the data, and with places that the page has."""

from __future__ import annotations

import shlex
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import pytest

from headstart.cli.arguments import parser
from headstart.report import Shift, Shortcut, mend, render_report
from headstart.report.inspection import Alike, Card, Inspection, Sheet, Thumb, render_inspection
from headstart.report.mend import ORDER, mends
from headstart.report.page import contents
from test_report import Page, bare, sample, variant, wilson

LEFT_OUT = {"value": 0.99, "low": 0.97, "high": 1.0}
NOTHING = {"duplicates": (), "n_suspects": 0, "suspects": (), "set_aside": (), "gain": None}
# what is to be mended, in the order in which it stands on the page -> what of the data shows it
FAULTS: dict[str, dict[str, Any]] = {
    "Leaks": {"n_leaks": 3, "leak_free": wilson(130, 140)},
    "Other pictures": {"shift": Shift(LEFT_OUT, False, 0.98)},
    "Shortcut": {"shortcut": Shortcut("ants", {"value": 0.74, "low": 0.66, "high": 0.8}, "The class is given away.")},
    "Frames of films": {"films": 4},
    "Conflicts": {"n_conflicts": 2},
    "Suspected labels": {"n_suspects": 12, "suspects_said": "about 8 of these 12 (5 to 10)"},
    "Unequal classes": {"counts": {"train": {"ants": 500, "bees": 20}}},
    "Unreadable files": {"set_aside": (("a.gif", "damaged"),)},
    "More images": {"twice": {"value": 0.03, "low": 0.01, "high": 0.05}},
}


@pytest.mark.parametrize("chosen", [*combinations(FAULTS, 1), *pairwise(FAULTS), tuple(FAULTS)])
def test_only_what_is_there_is_told_worst_first_and_at_places_of_the_page(chosen: tuple[str, ...]) -> None:
    given: dict[str, Any] = dict(NOTHING)
    for name in chosen:
        given |= FAULTS[name]
    data = sample(**given)
    found = mends(data)
    assert [one.name for one in found] == list(chosen)[: mend.MOST]
    read = Page(render_report(data))
    ids = {attrs["id"] for _, attrs in read.tags if "id" in attrs}
    assert {one.section for one in found} <= ids
    assert "Nothing to mend was found" not in read.text
    for one in found:
        assert one.command in read.text


def test_every_command_is_one_that_headstart_takes() -> None:
    for fault in FAULTS.values():
        (one,) = mends(sample(**NOTHING | fault))
        words = shlex.split(one.command)
        assert words[0] == "headstart"
        given = parser().parse_args(words[1:])
        assert getattr(given, "data", "hymenoptera/") == "hymenoptera/"
        assert getattr(given, "model", "model/") == "model/"


def test_the_numbers_are_those_of_the_data() -> None:
    said = {name: mends(sample(**NOTHING | fault))[0].said for name, fault in FAULTS.items()}
    assert "3 groups" in said["Leaks"]
    assert "92.9 %" in said["Leaks"]
    assert "0.98" in said["Other pictures"]
    assert "74.0 % (95 % interval 66.0\u201380.0)" in said["Shortcut"]
    assert "about 8 of these 12" in said["Suspected labels"]
    assert "500 training images, bees 20" in said["Unequal classes"]
    assert "+3.0 points (1.0 to 5.0)" in said["More images"]


def test_the_weakest_class_is_one_beyond_its_interval_and_says_with_what_it_is_mixed_up() -> None:
    data = sample(3, 60, **NOTHING)
    rows = list(data.headline.score["per_class"])
    weak = {**rows[1], "recall": wilson(30, 60)}
    confusion = [[60, 0, 0], [9, 30, 21], [0, 0, 60]]
    faulty = variant(data, per_class=[rows[0], weak, rows[2]], confusion=confusion)
    (one,) = mends(replace(faulty, twice=FAULTS["More images"]["twice"]))
    assert one.name == "Weakest class"
    assert "species 001" in one.said
    assert "mixed up most with species 002, 21 times" in one.said
    assert "50.0 %" in one.said
    assert "+3.0 points" in one.said
    level = variant(data, per_class=[{**row, "recall": wilson(55 + k, 60)} for k, row in enumerate(rows)])
    assert mends(level) == []


def test_few_judged_images_are_told_with_what_they_leave_open() -> None:
    score = {**sample().headline.score, "n": 40, "accuracy": wilson(36, 40)}
    data = bare(sample())
    (one,) = mends(replace(data, headline=replace(data.headline, score=score)))
    assert one.name == "Few judged images"
    assert "40 images" in one.said


def test_nothing_to_mend_is_one_line() -> None:
    data = sample(**NOTHING)
    assert mends(data) == []
    assert "Nothing to mend was found." in Page(render_report(data)).text


def test_what_is_told_is_of_a_kind_each() -> None:
    assert len(ORDER) == len(FAULTS) + 2  # the weakest class, and few judged images


@pytest.mark.parametrize("data", [sample(), sample(40, 8), bare(sample())], ids=["2", "40", "bare"])
def test_the_contents_name_every_section_of_the_report_in_its_order(data: Any) -> None:
    html = render_report(data)
    read = Page(html)
    assert [attrs["href"] for tag, attrs in read.tags if tag == "a"][: len(read.sections)] == [
        f"#{key}" for key in read.sections
    ]
    assert [key for key, _ in contents(html)] == read.sections  # type: ignore[arg-type]


def test_the_contents_of_an_inspection_too() -> None:
    card = Card("good", "Can all files be read?", "All.")
    html = render_inspection(
        Inspection("t", "", 3, (card,), (), (("<a>.png", "damaged"),), (), (), (), {"ants": {"none": 3}}, "", ())
    )
    read = Page(html)
    assert [attrs["href"][1:] for tag, attrs in read.tags if tag == "a"] == read.sections


def test_a_page_of_an_inspection_stays_small_whatever_its_pictures_are() -> None:
    thumbs = tuple(Thumb(b"\xff\xd8" + bytes(40_000), "a.jpg", "ants", "train") for _ in range(4))
    sheets = tuple(
        Sheet(key, key, "", (Alike("near", thumbs, 9),) * 12, 99) for key in ("leaks", "conflicts", "exact", "near")
    )
    html = render_inspection(Inspection("t", "", 3, (), sheets, (), (), (), (), {"ants": {"none": 3}}, "", ()))
    assert 0 < html.count("<img ") < 4 * 12 * 4
    assert len(html) < 3_000_000
