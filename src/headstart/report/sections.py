"""A task chooses what is said of it: the sentences of a page, by the task of its data."""

from __future__ import annotations

from headstart.report import boxes, classes, identities, oddities, otherwise, segments, tags, values
from headstart.report.content import ReportData
from headstart.report.telling import Telling
from headstart.report.words import (
    Advice,
    data_warnings,
    more_images,
    sequence_warning,
    shift_warnings,
    shifted,
    transfer,
)

TELLINGS: dict[str, Telling] = {
    "classify": classes.TELLING,
    "tag": tags.TELLING,
    "regress": values.TELLING,
    "recognise": identities.TELLING,
    "anomaly": oddities.TELLING,
    "segment": segments.TELLING,
    "detect": boxes.TELLING,
}


def telling_of(data: ReportData) -> Telling:
    return TELLINGS.get(data.task, otherwise.TELLING)


def headline(data: ReportData) -> str:
    """The result in one sentence."""
    return telling_of(data).headline(data)


def verdict(data: ReportData) -> list[Advice]:
    """Does transfer help, is the result usable: each with its reason."""
    return [advice for advice in (transfer(data), shifted(data) or telling_of(data).usable(data)) if advice is not None]


def next_steps(data: ReportData) -> list[str]:
    """What to do once what is to be mended is (`mend.py`), most useful first."""
    telling = telling_of(data)
    return [
        *telling.steps(data),
        *more_images(data),
        "Try it on images from the place where it will be used: these numbers hold for images like yours, "
        "not for another camera, season or hospital.",
    ]


def warnings(data: ReportData) -> list[str]:
    """What makes the numbers weaker than they look, worst first; the pipeline's own warnings last."""
    first, last = data_warnings(data)
    own = telling_of(data).warnings(data)
    shortcut = [] if data.shortcut is None else [data.shortcut.said]
    films = [sequence_warning(data.films)] if data.films else []
    return [*shift_warnings(data), *first, *own, *last, *data.warnings, *shortcut, *films]
