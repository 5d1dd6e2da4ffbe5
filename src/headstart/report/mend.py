"""What to mend first: at most MOST lines, what makes the number untrue before what would make it better.

Every line has the number behind it, the place of the page that shows it, and what to type. Numbers are those of
metrics.json and of the lists beside it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.counted import count, counted
from headstart.report import measures
from headstart.report.classes import IMBALANCE, answers_counted
from headstart.report.content import ReportData
from headstart.report.numbers import ends, estimate, full, percent, points_between
from headstart.report.sections import telling_of
from headstart.report.words import FEW_IMAGES, headline_measure, headline_of, is_wide

MOST = 5  # lines: who mends these has another report to read
CLEARLY = 0.005  # gain of twice the images, sure to this, of which it is worth saying that more images pay


@dataclass(frozen=True)
class Mend:
    """One thing to mend: what it is called, a sentence with its number, the id of the section that shows it, and what
    to type."""

    name: str
    said: str
    section: str
    command: str


def mends(data: ReportData) -> list[Mend]:
    """The first of what there is to mend, what spoils the number most first."""
    found = (find(data) for find in ORDER)
    return [one for one in found if one is not None][:MOST]


def _leaks(data: ReportData) -> Mend | None:
    if not data.leak_count:
        return None
    one, what = data.leak_count == 1, headline_measure(data)
    clean = estimate(data.leak_free)
    without = "" if clean is None else f" Without them the {what.name} is {measures.value(what, clean.value)}."
    return Mend(
        "Leaks",
        f"{counted(data.leak_count, 'group')} of the same, or nearly the same, picture {'stands' if one else 'stand'} "
        f"in more than one of your splits, which flatters the score: take them out of all but one.{without}",
        "pictures" if data.duplicates else "result",
        _inspect(data),
    )


def _shift(data: ReportData) -> Mend | None:
    shift, what = data.shift, headline_measure(data)
    if shift is None:
        return None
    left_out, judged = estimate(shift.left_out), headline_of(data.headline, data.headline_name)
    if shift.dropped and left_out is not None:
        number = f"{measures.value(what, judged.value)} on them, {measures.value(what, left_out.value)} on those"
    elif shift.auroc is not None:
        number = f"told apart with an AUROC of {shift.auroc:.2f}, by chance 0.50"
    else:
        return None
    return Mend(
        "Other pictures",
        f"The judged images are of another kind than those that taught ({number}): teach it with pictures like those "
        "that it is to answer.",
        "warnings",
        _inspect(data),
    )


def _shortcut(data: ReportData) -> Mend | None:
    found = data.shortcut
    if found is None:
        return None
    return Mend(
        "Shortcut",
        f"The files give the class {found.label} away in {full(estimate(found.value))}, guessing 50 %: save the images "
        "of all classes in the same way, with the same size and compression.",
        "warnings",
        _inspect(data),
    )


def _films(data: ReportData) -> Mend | None:
    if not data.films:
        return None
    return Mend(
        "Frames of films",
        f"The names look like frames of {counted(data.films, 'film')}, and neighbours teach and judge: keep the frames "
        "of each together.",
        "warnings",
        f"headstart fit {_data(data)} -o {shlex.quote(data.model)} --group-by REGEX",
    )


def _conflicts(data: ReportData) -> Mend | None:
    if not data.conflict_count:
        return None
    one = data.conflict_count == 1
    return Mend(
        "Conflicts",
        f"{counted(data.conflict_count, 'group')} of the same, or nearly the same, picture "
        f"{'carries' if one else 'carry'} different {telling_of(data).truths}: decide which is right.",
        "pictures" if data.duplicates else "result",
        _inspect(data),
    )


def _suspects(data: ReportData) -> Mend | None:
    if not data.suspect_count or (data.shift is not None and data.shift.dropped):
        return None
    one = data.suspect_count == 1
    expected = f" ({data.suspects_said})" if data.suspects_said else ""
    return Mend(
        "Suspected labels",
        f"{counted(data.suspect_count, 'label')} {'looks' if one else 'look'} wrong{expected}: look at "
        f"{'it' if one else 'them'}, and keep, change or drop by one key each.",
        "pictures" if data.suspects else "result",
        f"headstart review {shlex.quote(data.model)} --data {_data(data)}",
    )


def _unequal(data: ReportData) -> Mend | None:
    sizes = data.images_by_class if data.task == "classify" else {}
    if data.decides or not sizes or min(sizes.values()) < 1:
        return None
    large, small = max(sizes, key=lambda c: sizes[c]), min(sizes, key=lambda c: sizes[c])
    if sizes[large] < IMBALANCE * sizes[small]:
        return None
    return Mend(
        "Unequal classes",
        f"{large} has {counted(sizes[large], 'training image')}, {small} {count(sizes[small])}, so that {small} is "
        "rarely answered: let every class count the same.",
        "data",
        f"headstart fit {_data(data)} -o {shlex.quote(data.model)} --aim balanced",
    )


def _weak_class(data: ReportData) -> Mend | None:
    """The class whose recall lies below the mean of all, beyond its own interval."""
    rows = [(est, row) for row in data.headline.score.get("per_class", ()) if (est := estimate(row["recall"]))]
    if len(rows) < 2:
        return None
    mean = float(np.mean([est.value for est, _ in rows]))
    weak, row = min(rows, key=lambda pair: pair[0].value)
    if weak.high is None or weak.high >= mean:
        return None
    return Mend(
        "Weakest class",
        f"{full(weak, int(row['n']))} of the images of {row['class']} are found, of all classes {percent(mean)} on "
        f"average{_mixed_up(data, str(row['class']))}: more or clearer images of it pay most.{_promise(data)}",
        "classes",
        _suggest(data),
    )


def _unreadable(data: ReportData) -> Mend | None:
    n = len(data.set_aside)
    if not n:
        return None
    left = "was left out: mend it or take it out" if n == 1 else "were left out: mend them or take them out"
    return Mend("Unreadable files", f"{counted(n, 'file')} could not be used and {left}.", "set-aside", _inspect(data))


def _few_judged(data: ReportData) -> Mend | None:
    n, est, what = int(data.headline.score["n"]), headline_of(data.headline, data.headline_name), headline_measure(data)
    if n >= FEW_IMAGES and not is_wide(est):
        return None
    if est.low is None or est.high is None:
        return None
    span = measures.between(what, est) + (" %" if what.kind == "share" else "")
    return Mend(
        "Few judged images",
        f"Only {counted(n, 'image')} judged the model, so its {what.name} may be anywhere in {span}: judge it on more.",
        "result",
        f"headstart evaluate {shlex.quote(data.model)} MORE-IMAGES/",
    )


def _more_images(data: ReportData) -> Mend | None:
    promised, weak = estimate(data.twice), _weak_class(data)
    if weak is not None or promised is None or promised.low is None or promised.low < CLEARLY:
        return None
    return Mend("More images", _promise(data).strip(), "curve" if data.curve else "result", _suggest(data))


ORDER: tuple[Callable[[ReportData], Mend | None], ...] = (
    _leaks,
    _shift,
    _shortcut,
    _films,
    _conflicts,
    _suspects,
    _unequal,
    _weak_class,
    _unreadable,
    _few_judged,
    _more_images,
)


def _promise(data: ReportData) -> str:
    """What the continued learning curve promises for twice the images; "" where it cannot tell."""
    gain = estimate(data.twice)
    if gain is None or gain.low is None or gain.high is None:
        return ""
    low, high = ends(gain.low, gain.high, True)
    return f" Twice the images of all classes: about {points_between(gain.value, 0.0)} ({low} to {high})."


def _mixed_up(data: ReportData, name: str) -> str:
    """With which class one is mixed up most; "" where with none."""
    matrix: Any = answers_counted(data.headline)
    if matrix is None or name not in data.classes:
        return ""
    own = data.classes.index(name)
    both = matrix[own] + matrix[:, own]
    both[own] = 0
    other = int(both.argmax())
    return f"; mixed up most with {data.classes[other]}, {counted(int(both[other]), 'time')}" if both[other] else ""


def _data(data: ReportData) -> str:
    """What the user gave to fit, as it is typed."""
    try:
        words = shlex.split(data.command)
    except ValueError:
        words = []
    given = words[2] if len(words) > 2 and words[:2] == ["headstart", "fit"] else "DATA"
    return shlex.quote(given)


def _inspect(data: ReportData) -> str:
    return f"headstart inspect {_data(data)} -o inspect.html"


def _suggest(data: ReportData) -> str:
    return f"headstart suggest {shlex.quote(data.model)} UNLABELLED/ -o to_label.csv"
