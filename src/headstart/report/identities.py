"""Who or what is it: what the page says of a recogniser, and its section."""

from __future__ import annotations

from typing import Any

from headstart.counted import count, counted
from headstart.report import numbers, plots
from headstart.report.content import ReportData
from headstart.report.measures import measure
from headstart.report.numbers import decimal, estimate, full, percent
from headstart.report.telling import Hub, Table, Telling, Use
from headstart.report.words import FEW_IMAGES, Advice, article, blind_one, few_judged, headline_of, is_wide

TITLES = {
    "identification_rate": "Identification rate: images of enrolled identities that are most similar to the right one",
    "open_set_rate": "Open-set rate: images of enrolled identities named rightly and accepted at the threshold",
    "eer": "Equal error rate: as many pairs of strangers accepted as pairs of one identity rejected",
    "tar_at_far_1e2": "Pairs of one identity accepted where 1 % of the pairs of strangers are",
    "tar_at_far_1e3": "Pairs of one identity accepted where 0.1 % of the pairs of strangers are",
}


def headline(data: ReportData) -> str:
    """The result in one sentence, by what could be judged."""
    score = data.headline.score
    est, n = headline_of(data.headline, data.headline_name), int(score["n"])
    if data.headline_name == "identification_rate":
        text = f"The model names the right identity for {full(est, n)} of images that it has never seen"
    else:
        name = measure(data.headline_name).name
        text = f"On images of identities that it has never seen the model has {article(name)} of {full(est)}"
    eer = estimate(score.get("eer"))
    if eer is None or data.headline_name == "eer":
        return f"{text}."
    return f"{text}; the equal error rate of pairs of images is {full(eer)}."


def usable(data: ReportData) -> Advice:
    """What goes wrong how often, at the threshold."""
    question, score = "Is it usable?", data.headline.score
    known, right = estimate(score.get("identification_rate")), estimate(score.get("open_set_rate"))
    strangers = estimate(score.get("false_accept_rate"))
    blind = blind_one(data)
    guess = None if blind is None else estimate(blind.value)
    if guess is not None and known is not None and (known.value if known.low is None else known.low) <= guess.value:
        text = "No: it is not shown to be better than always naming the identity with the most images"
        return Advice(question, f"{text} ({percent(guess.value)}).", "bad")
    parts = []
    if known is not None:
        parts.append(f"{percent(1 - known.value)} of the images of enrolled identities are taken for another one")
    if right is not None:
        parts.append(f"{percent(1 - right.value)} of them are not both named rightly and accepted at the threshold")
    if strangers is not None:
        parts.append(f"{percent(strangers.value)} of the images of strangers are given a name")
    if not parts:
        return Advice(question, "Not shown: too few identities or images to judge it.", "unsure")
    est = headline_of(data.headline, data.headline_name)
    answer = f"If it is acceptable that {_and(parts)}, yes, on images like these."
    return Advice(question, answer, "unsure" if is_wide(est) or strangers is None else "good")


def _and(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def steps(data: ReportData) -> list[str]:
    """The pair that is confused most."""
    found = data.headline.score.get("confused") or []
    if not found or found[0]["n"] < 2:
        return []
    worst = found[0]
    return [
        f"{worst['identity']} is taken for {worst['taken_for']} in {count(worst['n'])} images: enrol more and clearer "
        "images of both."
    ]


def warnings(data: ReportData) -> list[str]:
    """Few images, few pairs, strangers that were not judged."""
    score = data.headline.score
    found = few_judged(data) if data.headline_name == "identification_rate" else []
    if estimate(score.get("eer")) is None:
        found.append("Pairs of strangers were not judged: too few identities, or none with two images.")
    elif 0 < (score.get("pairs") or {}).get("genuine", 0) < FEW_IMAGES:
        found.append(f"Only {counted(score['pairs']['genuine'], 'pair')} of images of one identity were judged.")
    far = score.get("false_accept_rate") or {}
    strangers = estimate(far)
    if strangers is not None and strangers.low is not None and far.get("asked") and strangers.low > far["asked"]:
        found.append(
            f"More strangers are accepted than asked: {full(strangers)}, and the threshold was chosen for "
            f"{percent(far['asked'])}."
        )
    return found


def sections(data: ReportData) -> dict[str, Any]:
    """The numbers, the threshold in plain words, the ROC, and who is confused."""
    score = data.headline.score
    points = [(p["false_accept_rate"], p["true_accept_rate"]) for p in score.get("roc") or []]
    section = {
        "facts": facts(data),
        "threshold": threshold_said(data),
        "roc": plots.roc(points),
        "roc_rows": [(percent(x), percent(y)) for x, y in points],
        "pairs": _pairs_said(score),
        "confused": [(c["identity"], c["taken_for"], count(c["n"])) for c in score.get("confused") or []],
        "closest": [(c["first"], c["second"], decimal(c["similarity"])) for c in score.get("closest") or []],
    }
    return {"recognised": section}


def facts(data: ReportData) -> list[tuple[str, str]]:
    """Every rate with its interval; one that could not be judged says so."""
    score, lines = data.headline.score, []
    for name, title in TITLES.items():
        est = estimate(score.get(name))
        n = int(score["n"]) if name == "identification_rate" else None
        lines.append((title, "too few images to say" if est is None else full(est, n)))
    far = score.get("false_accept_rate") or {}
    strangers = estimate(far)
    if strangers is not None:
        lines.append((f"Strangers accepted{_asked(far.get('asked'))}", full(strangers)))
    return lines


def _asked(rate: float | None) -> str:
    return "" if rate is None else f" at the threshold, which was chosen for {percent(rate)}"


def _pairs_said(score: Any) -> str:
    pairs = score.get("pairs") or {}
    if not pairs.get("genuine") or not pairs.get("impostor"):
        return ""
    return (
        f"Judged on {counted(pairs['genuine'], 'pair')} of images of one identity and "
        f"{counted(pairs['impostor'], 'pair')} of images of two, of identities that the metric had never seen."
    )


def threshold_said(data: ReportData) -> list[str]:
    """What the thresholds mean, in plain words."""
    told = data.acceptance
    if told is None:
        return []
    said = []
    if not told.identify_from:
        said.append(
            "There were too few identities to choose a threshold: every image is unknown, and the most similar names "
            "are only listed."
        )
    elif not told.shown(told.identify_from):
        said.append(
            f"An image gets a name only from a similarity of {numbers.decimal(told.identify)}, which lies above that "
            f"of every stranger seen: {counted(told.identify_from, 'score')} of strangers cannot tell a rate of "
            f"{percent(told.rate)}. Else the answer is \u201cunknown\u201d."
        )
    else:
        said.append(
            f"An image gets the most similar name where the similarity is at least {numbers.decimal(told.identify)} (a "
            "cosine: 1 is the same, 0 has nothing in common); else the answer is \u201cunknown\u201d. With this "
            f"threshold {percent(told.rate)} of the images of strangers would get a name: a higher one lets in fewer "
            "strangers and turns away more of the enrolled."
        )
    if told.shown(told.verify_from):
        said.append(
            f"Two images are taken for the same identity from a similarity of {numbers.decimal(told.verify)}, where "
            f"{percent(told.rate)} of the pairs of two identities would be too."
        )
    return said


def tables(data: ReportData) -> list[Table]:
    """What could be judged."""
    return [Table("Recognition", "", ("measure", "value"), facts(data))]


def _limits(data: ReportData) -> list[str]:
    return [
        "It compares whole pictures. Finding the face or the object in a picture is not part of it: give it pictures "
        "cut out as those that it learned from.",
        "\u201cUnknown\u201d is an answer, but no proof: the stated share of strangers gets a name, and more of "
        "look-alikes.",
    ]


TELLING = Telling(
    nouns=("identity", "identities"),
    counts="Images of each identity",
    does="recognises",
    headline=headline,
    usable=usable,
    steps=steps,
    warnings=warnings,
    further={},
    sections=sections,
    galleries={
        "worst": ("Worst mistakes", "Taken for another identity with the highest similarity."),
        "least_certain": ("Least certain", "The highest similarity is the lowest here: a bad picture, or a change."),
        "most_certain": ("Most similar and right", "Pictures that are most like the others of their identity."),
    },
    limits=_limits,
    card_limits=_limits,
    use=Use(
        "Name who or what is on new images, or \u201cunknown\u201d, and write the answers to a table:",
        "Measure it on other images, one folder per identity:",
        "folder/",
        "TransferRecogniser",
        more=(
            ("Add a person or a product without training:", "headstart enrol {model} NAME images/"),
            ("Say whether two images show the same one:", "headstart verify {model} a.jpg b.jpg"),
        ),
    ),
    hub=Hub(
        "image-feature-extraction",
        "Recognition",
        ("image-feature-extraction", "recognition", "metric-learning"),
        {
            "identification_rate": ("accuracy", "Identification rate"),
            "open_set_rate": ("open_set_rate", "Open-set rate"),
            "eer": ("eer", "Equal error rate"),
            "tar_at_far_1e2": ("tar_at_far_1e2", "True accepts at 1 % false accepts"),
            "tar_at_far_1e3": ("tar_at_far_1e3", "True accepts at 0.1 % false accepts"),
        },
    ),
    tables=tables,
    outputs="answers",
    tried=("mean of two error rates", "1 less that of pairs"),
)
