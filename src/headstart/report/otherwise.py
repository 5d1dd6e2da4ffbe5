"""A task that has no file of its own here: what the page says of any."""

from __future__ import annotations

from typing import Any

from headstart.report import measures
from headstart.report.content import ReportData
from headstart.report.numbers import estimate
from headstart.report.telling import Hub, Telling, Use
from headstart.report.words import BASELINES, Advice, article, blind_one, headline_measure, headline_of


def headline(data: ReportData) -> str:
    """The result in one sentence."""
    what, n = headline_measure(data), int(data.headline.score["n"])
    told = measures.full(what, headline_of(data.headline, data.headline_name), n)
    return f"On images that it has never seen the model reaches {article(what.name)} of {told}."


def usable(data: ReportData) -> Advice:
    """Whether it beats a model that never looks."""
    question = "Is it usable?"
    blind = blind_one(data)
    gain = None if blind is None else estimate(blind.difference)
    if blind is None or gain is None or gain.low is None or gain.high is None:
        return Advice(question, "That depends on what the number means to you.", "unsure")
    name = BASELINES.get(blind.kind, (blind.kind, ""))[0].lower()
    least = gain.low if data.higher_is_better else -gain.high
    if least <= 0:
        return Advice(question, f"No: it is not shown to be better than always the same answer ({name}).", "bad")
    answer = f"It is better than always the same answer ({name}); whether that is enough depends on the use."
    return Advice(question, answer, "unsure")


def _nothing(data: ReportData) -> list[str]:
    return []


def _no_sections(data: ReportData) -> dict[str, Any]:
    return {}


def _limits(data: ReportData) -> list[str]:
    return ["The model always answers, also for a picture of something else."]


TELLING = Telling(
    nouns=("kind of answer", "kinds of answers"),
    counts="Images of each kind",
    does="gives",
    headline=headline,
    usable=usable,
    steps=_nothing,
    warnings=_nothing,
    further=None,
    sections=_no_sections,
    galleries={
        "worst": ("Worst mistakes", "Answers that are farthest from the truth."),
        "least_certain": ("Least certain", "Answers of which the model was least certain."),
        "most_certain": ("Most certain and right", "Right answers of which the model was most certain."),
    },
    limits=_limits,
    card_limits=_limits,
    use=Use(
        "Answer for new images, and write the answers to a table:",
        "Measure it on other images with their truth:",
        "list.csv",
    ),
    hub=Hub("", "Transfer learning", ("image-feature-extraction",), {}),
    truths="answers",
    outputs="answers",
    loss=("loss", "loss"),
    tried=("loss", "quality"),
    tried_share=False,
)
