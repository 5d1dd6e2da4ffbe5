"""Is anything odd about it: what the page says of a model that learned from good pictures alone, and its section."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from headstart.counted import count, counted
from headstart.report import measures, numbers
from headstart.report.content import ReportData
from headstart.report.diagnostic import roc_curve
from headstart.report.figures import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, axes
from headstart.report.measures import measure
from headstart.report.numbers import estimate, full, percent
from headstart.report.telling import Hub, Table, Telling, Use
from headstart.report.words import Advice

ALARMS, FOUND = "false_alarms", "found"
TITLES = {
    "auroc": "AUROC: how often an odd picture has a higher score than a good one",
    "average_precision": "Average precision of the odd pictures, ranked by their scores",
    FOUND: "Odd pictures that are called odd",
    ALARMS: "Good pictures that are called odd: false alarms",
}
MOST_KINDS = 50
CHANCE = 0.5  # AUROC of a model that never looks


def headline(data: ReportData) -> str:
    """The result in one sentence: what is told apart, else how often good pictures raise an alarm."""
    score = data.headline.score
    auroc, alarms, found = (estimate(score.get(name)) for name in ("auroc", ALARMS, FOUND))
    good = counted(score.get("good", 0), "good picture")
    if auroc is None:
        told = full(alarms, score.get("good"))
        return (
            f"Of good pictures that it has never seen the model calls {told} odd; no odd picture was there to judge by."
        )
    both = f"{counted(score.get('odd', 0), 'odd picture')} and {good}"
    text = f"On {both} that it has never seen the model has an AUROC of {measures.full(measure('auroc'), auroc)}"
    if found is None or alarms is None:
        return f"{text}."
    return f"{text}; it finds {full(found)} of the odd ones, with {full(alarms)} of the good ones as false alarms."


def usable(data: ReportData) -> Advice:
    """What is found at what price."""
    question, score = "Is it usable?", data.headline.score
    auroc, alarms, found = (estimate(score.get(name)) for name in ("auroc", ALARMS, FOUND))
    if auroc is None or found is None or alarms is None:
        return Advice(question, "Not shown: there is no odd picture to judge by; give it some.", "unsure")
    if auroc.low is not None and auroc.low <= CHANCE:
        return Advice(question, "No: it is not shown to tell odd pictures from good ones better than chance.", "bad")
    text = (
        f"If it is acceptable that {percent(1 - found.value)} of the odd pictures are missed and "
        f"{percent(alarms.value)} of the good ones raise an alarm, yes, on images like these."
    )
    return Advice(question, text, "good" if found.low is not None and found.low > CHANCE else "unsure")


def steps(data: ReportData) -> list[str]:
    """Where few odd ones are found although they rank well, another threshold."""
    score = data.headline.score
    auroc, found, asked = estimate(score.get("auroc")), estimate(score.get(FOUND)), score.get("asked")
    if auroc is None or found is None or found.value > auroc.value - 0.2 or not asked:
        return []
    return [
        f"The order of the scores is better than the threshold: with --false-alarms above {asked:g} more odd pictures "
        "are found, and more good ones raise an alarm."
    ]


def warnings(data: ReportData) -> list[str]:
    """More alarms than asked, a rate that so few cannot tell, few odd pictures."""
    score, found = data.headline.score, []
    alarms, asked = estimate(score.get(ALARMS)), score.get("asked")
    if alarms is not None and alarms.low is not None and asked and alarms.low > asked:
        found.append(f"More good pictures raise an alarm than asked: {full(alarms)}, and {percent(asked)} was asked.")
    told = data.detection
    if told is not None and not told.supported:
        found.append(
            f"{counted(told.n, 'good picture')} cannot tell a false-alarm rate of {percent(told.rate)}: the threshold "
            "lies above all of them, so that odd pictures are missed. Add good ones, or ask for a higher rate."
        )
    if 0 < score.get("odd", 0) < 20:
        found.append(f"Only {counted(score['odd'], 'odd picture')} to judge by.")
    return found


def sections(data: ReportData) -> dict[str, Any]:
    """The numbers, the threshold in plain words, the scores, the ROC, each kind."""
    score = data.headline.score
    scores = score.get("scores") or {}
    section = {
        "facts": facts(data),
        "threshold": _threshold_said(data),
        "scores": histogram(scores),
        "scores_said": _scores_said(scores),
        "roc": roc_curve([tuple(point) for point in score.get("roc") or []]),
        "kinds": kinds(data),
    }
    return {"odd": section}


def facts(data: ReportData) -> list[tuple[str, str]]:
    """Every number with its interval; one that could not be judged says so."""
    score, lines = data.headline.score, []
    n = {FOUND: score.get("odd"), ALARMS: score.get("good")}
    for name, title in TITLES.items():
        est = estimate(score.get(name))
        told = "no odd picture to judge by" if est is None else measures.full(measure(name), est, n.get(name))
        lines.append((title, told))
    return lines


def kinds(data: ReportData) -> list[tuple[str, str, str, str]]:
    """(kind, images, found, AUROC)."""
    what = measure("auroc")
    return [
        (
            row["kind"],
            count(row["n"]),
            full(estimate(row[FOUND])),
            numbers.NOTHING if (est := estimate(row["auroc"])) is None else measures.full(what, est),
        )
        for row in (data.headline.score.get("kinds") or [])[:MOST_KINDS]
    ]


def _threshold_said(data: ReportData) -> list[str]:
    told = data.detection
    if told is None:
        return []
    where = (
        f"so that of new good pictures {percent(told.rate)} at most should have a higher one: it comes from "
        f"{counted(told.n, 'good picture')}, each scored by what the others taught"
        if told.supported
        else f"above all {counted(told.n, 'good picture')} that were left out in turn, too few for {percent(told.rate)}"
    )
    return [f"A picture is called odd from a score of 1, which lies {where}. Scores are compared, not probabilities."]


def _scores_said(scores: Any) -> str:
    if not scores:
        return ""
    odd = ", below it those of the odd ones" if sum(scores["odd"]) else ""
    return f"Scores of the good pictures above the line{odd}; the dashed line is the threshold of 1 (log scale)."


def histogram(scores: Any) -> Markup:
    """Bars of the good pictures upwards and of the odd ones downwards, over the logarithm of the score; "" without."""
    if not scores:
        return Markup("")
    good, odd = scores["good"], scores["odd"]
    n, most = len(good), max(*good, *odd, 1)
    wide, tall = WIDTH - LEFT - RIGHT - 8, HEIGHT - TOP - BOTTOM
    share = max(good) / max(max(good) + max(odd), 1)
    base, unit, each = TOP + tall * share, tall / max(max(good) + max(odd), 1), wide / n
    bars = "".join(
        f'<rect class="{mark}" x="{LEFT + 8 + k * each + 0.5:.1f}" y="{base - (height * unit if up else 0):.1f}" '
        f'width="{each - 1:.1f}" height="{height * unit:.1f}"/>'
        for values, mark, up in ((good, "fill", True), (odd, "fill s2", False))
        for k, height in enumerate(values)
        if height
    )
    edges = scores["edges"]
    at = next(k for k, edge in enumerate(edges) if abs(edge - 1) < 1e-9)
    line = f'<path class="diagonal" d="M{LEFT + 8 + at * each:.1f} {TOP}V{TOP + tall}"/>'
    labels = [(LEFT + 8 + k * each, f"{edges[k]:.2g}") for k in sorted({0, at, n})]
    side = f'<text x="{LEFT - 5}" y="{TOP + 4}" text-anchor="end">{count(max(good))}</text>' if max(good) else ""
    said = f"Scores of {count(sum(good))} good and {count(sum(odd))} odd pictures, at most {count(most)} in a bar"
    zero = f'<path class="grid" d="M{LEFT} {base:.1f}H{WIDTH - RIGHT}"/>'
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">{zero}{side}'
        f"{axes((), [], labels, 'score', 'images')}{bars}{line}</svg>"
    )


def tables(data: ReportData) -> list[Table]:
    """What could be judged, and each kind."""
    rows = kinds(data)
    found = [Table("Good or odd", "", ("measure", "value"), facts(data))]
    each = Table("Each kind of oddity", "Each against all good pictures.", ("kind", "images", "found", "AUROC"), rows)
    return [*found, each] if rows else found


def _limits(data: ReportData) -> list[str]:
    return [
        "It knows good pictures alone: whatever differs from them is odd, a new lamp or camera as much as a defect.",
        "The stated share of good pictures raises a false alarm, where new ones are taken as those that taught it.",
    ]


TELLING = Telling(
    nouns=("kind of picture", "kinds of pictures"),
    counts="Images of each kind",
    does="calls a picture good or odd; it was judged by",
    headline=headline,
    usable=usable,
    steps=steps,
    warnings=warnings,
    further={},
    sections=sections,
    galleries={
        "worst": ("Worst mistakes", "Good pictures with the highest scores, and odd ones with the lowest."),
        "least_certain": ("Nearest to the threshold", "A little more or less would change the verdict."),
        "most_certain": ("The oddest that were found", "Odd pictures with the highest scores."),
    },
    limits=_limits,
    card_limits=_limits,
    use=Use(
        "Score new images, good or odd, and write the answers to a table:",
        "Measure it on other images, one folder of good ones and one for each kind of oddity:",
        "folder/",
        "AnomalyDetector",
        more=(("Draw where each picture is odd:", "headstart predict {model} images/ --explain overlays/"),),
    ),
    hub=Hub(
        "",
        "Anomaly detection",
        ("anomaly-detection", "image-feature-extraction"),
        {"auroc": ("roc_auc", "AUROC"), ALARMS: ("false_alarms", "False alarms"), FOUND: ("recall", "Found")},
    ),
    tables=tables,
    outputs="answers",
    looked="Below a picture, orange is what is unlike the good pictures, but for those that taught the model.",
)
