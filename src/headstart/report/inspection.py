"""What `headstart inspect -o page.html` writes: the faults of a set of images, the worst first, as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from headstart.counted import count, counted
from headstart.report import figures
from headstart.report.classes import SHORT_TABLE
from headstart.report.numbers import Estimate, full, percent
from headstart.report.page import MOST_EMBEDDED, OF_A_CLASS, Embedded, clean, environment

MOST_SETS = 12  # of copies shown in a section
MOST_OF_SET = 4  # pictures of one
MOST_PICTURES = 12  # of a fault
MOST_UNREADABLE = 200  # lines


@dataclass(frozen=True)
class Thumb:
    """A picture by its small JPEG (b"" = no preview), `name`, `label`, the part it stands in, and what is odd of it."""

    jpeg: bytes
    name: str
    label: str
    split: str
    note: str = ""


@dataclass(frozen=True)
class Alike:
    """Copies, of which the first are shown: `total` of them."""

    kind: Literal["exact", "near"]
    thumbs: tuple[Thumb, ...]
    total: int


@dataclass(frozen=True)
class Sheet:
    """Copies of one kind: `key` its place in the page; `total` sets, of which the first are shown."""

    key: str
    title: str
    said: str
    sets: tuple[Alike, ...]
    total: int


@dataclass(frozen=True)
class FaultSheet:
    """Pictures with one fault; `total` of them, of which the first are shown."""

    title: str
    said: str
    thumbs: tuple[Thumb, ...]
    total: int


@dataclass(frozen=True)
class Card:
    """One question with its answer, on the first screen; `mood` is good, unsure or bad."""

    mood: Literal["good", "unsure", "bad"]
    question: str
    answer: str
    key: str = ""


@dataclass(frozen=True)
class FactTable:
    """How well facts tell one class, by each of them alone: shares of 1, .5 by guessing."""

    said: str
    facts: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Inspection:
    """Everything that the page says. counts: class -> part -> images."""

    title: str
    layout: str
    images: int
    cards: tuple[Card, ...]
    copies: tuple[Sheet, ...]
    unreadable: tuple[tuple[str, str], ...]
    faults: tuple[FaultSheet, ...]
    shortcuts: tuple[FactTable, ...]
    shifts: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    imbalance: str
    notes: tuple[str, ...]
    created: str = ""


def render_inspection(data: Inspection) -> str:
    """The whole page as the text of one HTML file (UTF-8, no outside resources, no scripts)."""
    page = environment().get_template("inspection.html.jinja")
    first = [sheet for sheet in data.copies if sheet.key in ("leaks", "conflicts")]
    return clean(
        page.render(
            data=data,
            first=first,
            others=[sheet for sheet in data.copies if sheet not in first],
            unreadable=data.unreadable[:MOST_UNREADABLE],
            facts=[(table.said, [_fact(*fact) for fact in table.facts]) for table in data.shortcuts],
            source_of=Embedded(MOST_EMBEDDED - OF_A_CLASS * len(data.counts)),
            **_classes(data.counts),
        )
    )


def _fact(name: str, value: float) -> tuple[str, str, Markup]:
    return name, percent(value), figures.bar(Estimate(value), "model")


def _classes(counts: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The rows of the table of classes, the largest class first, and what stands over it."""
    splits = sorted({split for row in counts.values() for split in row}, key=_rank)
    totals = {name: sum(row.values()) for name, row in counts.items()}
    top = max(totals.values(), default=0)
    rows = [
        (
            name,
            [count(counts[name].get(split, 0)) for split in splits],
            figures.stacked([(f"s{min(k, 3)}", counts[name].get(split, 0)) for k, split in enumerate(splits)], top),
        )
        for name in sorted(counts, key=lambda one: -totals[one])
    ]
    label = f"Images per class, largest first: from {count(top)} down to {count(min(totals.values(), default=0))}"
    whole = [(split, count(sum(row.get(split, 0) for row in counts.values()))) for split in splits]
    shown = figures.skyline(list(totals.values()), label) if len(totals) > SHORT_TABLE else ""
    return {"class_counts": rows, "splits": whole, "skyline": shown, "skyline_said": label}


def _rank(split: str) -> int:
    order = ("train", "validation", "test", "none")
    return order.index(split) if split in order else len(order)


def told_sentence(label: str, value: float, low: float, high: float, n: int, what: str) -> str:
    """How well a class is told, in words."""
    told = full(Estimate(value, low, high), n)
    return f"The class {label} is told from the others by {what} in {told}; guessing gives 50 %."


def more(total: int, shown: Sequence[object]) -> str:
    """ "and 43 more", "" where all are shown."""
    return f"and {counted(total - len(shown), 'more', 'more')}" if total > len(shown) else ""
