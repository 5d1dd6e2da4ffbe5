"""How much the score differs between the user's groups, in words and as rows."""

from __future__ import annotations

from typing import Any

from headstart.counted import count, counted
from headstart.report import figures, measures
from headstart.report.content import Groups, OneGroup
from headstart.report.measures import Measure
from headstart.report.numbers import estimate

LEAST = 10  # images of a group that is compared with others (story.by_group)
CHANCE = 0.05  # p below which a spread is more than chance
MOST_ROWS = 50
HOW = {
    "left out in turn": "each group was judged by a model that the other groups taught",
    "by the fold that left it out": "each group was judged by models that had seen none of it",
    "of the judged images": "these are the judged images, parted by group",
}


def spread(found: Groups, what: Measure) -> list[str]:
    """ "accuracy from 71.0 to 96.2 % by group, worst: X 71.0 % ... (n = 40)", and what else is to be said of it."""
    compared = [one for one in found.each if one.n >= LEAST]
    if len(compared) < 2:
        few = f"none of the {counted(len(found.each), 'group')} judged has {LEAST} images"
        return [few if not compared else few.replace("none", "only one"), *_missed(found)]
    worst, best = compared[0], compared[-1]
    ends = sorted((_value(worst), _value(best)))
    low, high = (measures.value(what, end) for end in ends)
    span = f"from {low.removesuffix(' %') if what.kind == 'share' else low} to {high}"
    smaller = len(found.each) - len(compared)
    left = f"; {counted(smaller, 'group')} of fewer than {LEAST} images not compared" if smaller else ""
    said = [f"{what.name} {span} by group ({count(len(compared))} groups{left}), worst: {_told(worst, what)}"]
    if found.p is not None:
        more = "more than chance explains" if found.p < CHANCE else "no more than chance makes of groups so small"
        said.append(f"that spread is {more} (p = {found.p:.3f})")
    return [*said, *_missed(found)]


def _missed(found: Groups) -> list[str]:
    if not found.not_judged:
        return []
    some = ", ".join(found.not_judged[:3]) + (" ..." if len(found.not_judged) > 3 else "")
    return [f"not judged: {some}, without which a class has fewer than two images to learn from"]


def _value(one: OneGroup) -> float:
    found = estimate(one.value)
    return 0.0 if found is None else found.value


def _told(one: OneGroup, what: Measure) -> str:
    return f"{one.name}, {measures.full(what, estimate(one.value), one.n)}"


def section(found: Groups | None, what: Measure) -> dict[str, Any]:
    """What the page shows: sentences, and a row a group, worst first."""
    if found is None:
        return {"groups_said": [], "group_rows": [], "groups_in_all": 0}
    rows = []
    for one in found.each[:MOST_ROWS]:
        est = estimate(one.value)
        drawing = figures.bar(est, "model") if what.kind == "share" else ""
        rows.append((one.name, count(one.n), measures.full(what, est), drawing))
    said = [f"{text[:1].upper()}{text[1:]}." for text in (*spread(found, what), HOW[found.how])]
    return {"groups_said": said, "group_rows": rows, "groups_in_all": len(found.each)}
