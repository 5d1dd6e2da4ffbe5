"""What a page says of a task, as a frozen dataclass of words and functions: each task fills it in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.report.content import ReportData
from headstart.report.words import Advice


@dataclass(frozen=True)
class Use:
    """How a saved model is used: what `predict` and `evaluate` are said to do, what is given to the latter, the Python
    class ("" where there is none), and further (sentence, command) with {model} in it."""

    predict: str
    evaluate: str
    given: str
    python: str = ""
    more: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Hub:
    """The front matter of the card: the Hub's task ("" where it has none), the task and its name in the results, tags,
    and metric of a score -> (Hub metric, name shown)."""

    pipeline: str
    name: str
    tags: tuple[str, ...]
    metrics: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Table:
    """A table written out: a heading, what it says, columns, rows; the first of a row is a name from the data."""

    heading: str
    caption: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


LOOKED = (
    "Below each picture is where the network looked: orange spoke for the answer, blue against it, and what is darker "
    "it does not see."
)


def no_tables(data: ReportData) -> list[Table]:
    """Of a task whose card has a table of its own."""
    return []


@dataclass(frozen=True)
class Telling:
    """One task's part of the page and of the card.

    `nouns`: what it answers with, one and several; `counts`: the title of the table of images of each; `does`: what the
    model does, up to the number of them.
    `headline`: the result in one sentence; `usable`: is it; `steps`, `warnings`: further ones, of the task.
    `further`: other numbers of the headline's score, key -> title; None for all by their names.
    `sections`: contexts of the template's sections; one without a context is left out.
    `galleries`: name -> (heading, sentence). `tables`: those of the card.
    `limits`: what may go wrong, first of all. `truths`: what an image carries. `outputs`: what the model gives.
    `looked`: what is drawn below the pictures. `loss`: of a training, and its unit. `tried`: the two numbers of a
    candidate; `tried_share`: whether the second is told in percent.
    """

    nouns: tuple[str, str]
    counts: str
    does: str
    headline: Callable[[ReportData], str]
    usable: Callable[[ReportData], Advice]
    steps: Callable[[ReportData], list[str]]
    warnings: Callable[[ReportData], list[str]]
    further: Mapping[str, str] | None
    sections: Callable[[ReportData], dict[str, Any]]
    galleries: Mapping[str, tuple[str, str]]
    limits: Callable[[ReportData], list[str]]
    card_limits: Callable[[ReportData], list[str]]
    use: Use
    hub: Hub
    tables: Callable[[ReportData], list[Table]] = no_tables
    truths: str = "labels"
    outputs: str = "probabilities"
    looked: str = LOOKED
    loss: tuple[str, str] = ("log-loss", "log-loss, nats")
    tried: tuple[str, str] = ("log-loss", "accuracy")
    tried_share: bool = True
