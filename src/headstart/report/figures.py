"""Small inline SVG drawings: no library, no script, no fixed colour (the page's CSS gives light, dark and print).

Bars stretch with their table cell and carry no text, so they stay readable at any width; the numbers stand beside them.
Charts with text are drawn 360 units wide, the width of a small phone, so that their text never shrinks below 11 px.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from headstart.counted import count
from headstart.report import measures
from headstart.report.content import CurvePoint, ReliabilityBin, RiskPoint
from headstart.report.measures import MEASURES, Measure
from headstart.report.numbers import Estimate, estimate, share

WIDTH, HEIGHT = 360, 220  # of a chart with text, user units
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 28, 34  # its margins: room for labels of the axes, and for their names
HEAT_CELLS = 100  # a heat map has at most 100 x 100 cells: finer ones cannot be told apart on a phone
HEAT_LEVELS = 5  # shades; more cannot be told apart


def bar(est: Estimate | None, mark: str = "", top: float = 1.0) -> Markup:
    """A horizontal bar from 0 to `top` with its interval as a whisker; `mark` is a CSS class of the fill."""
    if est is None or top <= 0:
        return Markup("")
    scaled = [
        None if x is None else round(100 * min(max(x / top, 0.0), 1.0), 2) for x in (est.value, est.low, est.high)
    ]
    value, low, high = scaled
    whisker = ""
    if low is not None and high is not None:
        whisker = f'<path class="whisker" d="M{low} 5H{high}M{low} 2.5V7.5M{high} 2.5V7.5"/>'
    return Markup(  # numbers and CSS classes of our own only
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f'<rect class="track" width="100" height="10"/><rect class="fill {escape(mark)}" width="{value}" height="10"/>'
        f"{whisker}</svg>"
    )


def stacked(parts: Sequence[tuple[str, int]], top: int) -> Markup:
    """A horizontal bar of (CSS class, count) parts from 0 to `top`."""
    x, pieces = 0.0, []
    for mark, number in parts:
        width = 100 * number / max(top, 1)
        pieces.append(f'<rect class="fill {escape(mark)}" x="{x:.2f}" width="{width:.2f}" height="10"/>')
        x += width
    return Markup(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f'<rect class="track" width="100" height="10"/>{"".join(pieces)}</svg>'
    )


def skyline(counts: Sequence[int], label: str) -> Markup:
    """Images per class, largest first, one column a class: the shape of a data set of many classes."""
    heights = sorted(counts, reverse=True)
    top = max(heights, default=0) or 1
    steps = "".join(f"V{60 - 60 * h / top:.1f}h1" for h in heights)
    return Markup(
        f'<svg class="skyline" viewBox="0 0 {len(heights)} 60" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}"><path class="fill" d="M0 60{steps}V60z"/></svg>'
    )


def _steps(least: float = 0.01) -> Iterator[float]:
    """Round steps: 1, 2 and 5 times the powers of ten."""
    power = math.floor(math.log10(least) + 1e-9)
    for exponent in itertools.count(power):
        yield from (float(f"{digit}e{exponent}") for digit in (1, 2, 5))


def ticks_of(low: float, high: float, least: float = 0.01) -> list[float]:
    """Two to six round values from at most `low` to at least `high`, with steps of `least` (a power of ten) or more."""
    for step in _steps(least):
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= 5:
            break
    first = min(first, last - 1)
    return [k * step for k in range(first, last + 1)]


def axes(
    ticks: Sequence[float],
    y: list[float],
    x: Sequence[tuple[float, str]],
    x_title: str,
    y_title: str,
    percent: bool = True,
) -> str:
    lines = [f'<text x="4" y="11">{escape(y_title)}</text>']
    lines += [
        f'<path class="grid" d="M{LEFT} {v:.1f}H{WIDTH - RIGHT}"/><text x="{LEFT - 5}" y="{v + 4:.1f}" '
        f'text-anchor="end">{f"{100 * t:.0f}" if percent else short(t)}</text>'
        for t, v in zip(ticks, y, strict=True)
    ]
    lines += [
        f'<text x="{v:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{escape(text)}</text>' for v, text in x
    ]
    lines.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_title)}</text>'
    )
    return "".join(lines)


def learning_curve(curve: Sequence[CurvePoint], what: Measure = MEASURES["accuracy"]) -> Markup:
    """The measure (a share in percent), upwards, against training images (log scale) with its 95 % band; "" below two
    points."""
    found = [(p.n, estimate(p.value)) for p in curve if p.n > 0]
    points = [(n, est) for n, est in found if est is not None]
    if len({n for n, _ in points}) < 2:
        return Markup("")
    lows = [est.value if est.low is None else est.low for _, est in points]
    highs = [est.value if est.high is None else est.high for _, est in points]
    ticks = ticks_of(min(lows), max(highs))
    start, end = math.log(min(n for n, _ in points)), math.log(max(n for n, _ in points))
    xs = [LEFT + 12 + (WIDTH - RIGHT - LEFT - 28) * (math.log(n) - start) / (end - start) for n, _ in points]

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (ticks[-1] - value) / (ticks[-1] - ticks[0])

    band = " ".join(
        f"{x:.1f},{y(v):.1f}" for x, v in [*zip(xs, highs, strict=True), *reversed([*zip(xs, lows, strict=True)])]
    )
    line = " ".join(f"{x:.1f},{y(est.value):.1f}" for x, (_, est) in zip(xs, points, strict=True))
    dots = "".join(
        f'<circle class="dot" cx="{x:.1f}" cy="{y(est.value):.1f}" r="3.5"/>'
        for x, (_, est) in zip(xs, points, strict=True)
    )
    labels, free = [], -99.0
    for x, (n, _) in zip(xs, points, strict=True):
        if x - free > 38:  # a label of six characters
            labels.append((x, count(n)))
            free = x
    named = f"{what.name}, %" if what.kind == "share" else what.name
    said = "; ".join(f"{count(n)} images: {measures.value(what, est.value)}" for n, est in points)
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Learning curve. {escape(said)}">'
        f"{axes(ticks, [y(t) for t in ticks], labels, 'training images (log scale)', named, what.kind == 'share')}"
        f'<polygon class="band" points="{band}"/><polyline class="line" points="{line}"/>{dots}</svg>'
    )


def short(value: float) -> str:
    """In six characters at most: 0.25, 0.0008, 1.5e-4."""
    text = f"{value:.3g}"
    return text if len(text) <= 6 else f"{value:.1e}".replace("e-0", "e-")


def by_epoch(losses: Sequence[tuple[float, float | None]], what: str = "log-loss, nats") -> Markup:
    """One or two values (upwards, from 0) against epochs, such as training and held-out log-loss; "" below two
    epochs."""
    if len(losses) < 2:
        return Markup("")
    top = max(loss for pair in losses for loss in pair if loss is not None and math.isfinite(loss)) or 1.0
    step = 10 ** math.floor(math.log10(top))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if top / s <= 6)
    ticks = [k * step for k in range(math.ceil(top / step - 1e-9) + 1)]
    wide = WIDTH - RIGHT - LEFT - 20

    def at(epoch: int, loss: float) -> tuple[float, float]:
        return LEFT + 8 + wide * epoch / (len(losses) - 1), TOP + (HEIGHT - TOP - BOTTOM) * (1 - loss / ticks[-1])

    drawn = []
    for series, mark in ((0, "line s0"), (1, "line s1")):
        known = [(k, pair[series]) for k, pair in enumerate(losses)]
        places = [at(k, loss) for k, loss in known if loss is not None and math.isfinite(loss)]
        if places:
            drawn.append(f'<polyline class="{mark}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
    every = math.ceil(len(losses) / 8)
    labels = [(at(k, 0)[0], str(k + 1)) for k in range(0, len(losses), every)]
    grid = "".join(
        f'<path class="grid" d="M{LEFT} {at(0, t)[1]:.1f}H{WIDTH - RIGHT}"/><text x="{LEFT - 5}" '
        f'y="{at(0, t)[1] + 4:.1f}" text-anchor="end">{short(t)}</text>'
        for t in ticks
    )
    axis = axes((), [], labels, "epoch", what)
    name = escape(f"{what[:1].upper()}{what[1:]} by epoch.")
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">'
        f"{grid}{axis}{''.join(drawn)}</svg>"
    )


def reliability(bins: Sequence[ReliabilityBin]) -> Markup:
    """Share of right answers against stated probability, both in percent; the area of a dot is its number of images."""
    used = [b for b in bins if b.n > 0]
    if not used:
        return Markup("")
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    wide, high = WIDTH - LEFT - RIGHT - 16, HEIGHT - TOP - BOTTOM

    def at(confidence: float, accuracy: float) -> tuple[float, float]:
        return LEFT + 8 + wide * confidence, TOP + high * (1 - accuracy)

    largest = max(b.n for b in used)
    dots = []
    for b in used:
        x, y = at(b.confidence, b.accuracy)
        dots.append(
            f'<circle class="dot see-through" cx="{x:.1f}" cy="{y:.1f}" r="{2.5 + 9 * math.sqrt(b.n / largest):.1f}"/>'
        )
    (x0, y0), (x1, y1) = at(0, 0), at(1, 1)
    said = "; ".join(f"stated {share(b.confidence)} %, right {share(b.accuracy)} %, {count(b.n)} images" for b in used)
    labels = [(at(t, 0)[0], f"{100 * t:.0f}") for t in ticks]
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Reliability. {escape(said)}">'
        f"{axes(ticks, [at(0, t)[1] for t in ticks], labels, 'stated probability, %', 'right answers, %')}"
        f'<path class="diagonal" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>{"".join(dots)}</svg>'
    )


def risk(points: Sequence[RiskPoint]) -> Markup:
    """Wrong answers against the share of images that is answered, the surest first, both in percent; "" below two
    points."""
    if len(points) < 2:
        return Markup("")
    top = ticks_of(0.0, max(0.01, *(p.error for p in points)))
    wide, high = WIDTH - LEFT - RIGHT - 16, HEIGHT - TOP - BOTTOM

    def at(answered: float, error: float) -> tuple[float, float]:
        return LEFT + 8 + wide * answered, TOP + high * (1 - error / top[-1])

    line = " ".join("{:.1f},{:.1f}".format(*at(p.answered, p.error)) for p in points)
    labels = [(at(t, 0)[0], f"{100 * t:.0f}") for t in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    drawn = axes(top, [at(0, t)[1] for t in top], labels, "images answered, the surest first, %", "wrong of them, %")
    said = "; ".join(f"answered {share(p.answered)} %, wrong {share(p.error)} %" for p in points)
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Risk and coverage. {escape(said)}">'
        f'{drawn}<polyline class="line" points="{line}"/></svg>'
    )


def level(fraction: float) -> int:
    """The shade of a share of a row: 0 for none, then 1..HEAT_LEVELS, finer at the low end where mistakes live."""
    return 0 if fraction <= 0 else min(HEAT_LEVELS, 1 + int(HEAT_LEVELS * math.sqrt(min(fraction, 1.0))))


def heat_map(confusion: NDArray[np.float64], label: str) -> Markup:
    """A confusion matrix (truth downwards, predicted to the right) in at most HEAT_CELLS squared shaded cells.

    With more classes neighbours in class order share a cell. A cell's shade is its share of its row; cells on the
    diagonal have their own colour.
    """
    k = len(confusion)
    cells = min(k, HEAT_CELLS)
    edges = np.linspace(0, k, cells + 1).astype(int)[:-1]
    small = np.add.reduceat(np.add.reduceat(confusion, edges, axis=0), edges, axis=1)
    shares = small / np.maximum(small.sum(axis=1, keepdims=True), 1e-12)
    paths: dict[str, list[str]] = {}
    for row, column in zip(*np.nonzero(shares), strict=True):
        kind = "right" if row == column else "wrong"
        paths.setdefault(f"{kind} q{level(float(shares[row, column]))}", []).append(f"M{column} {row}h1v1h-1z")
    drawn = "".join(f'<path class="{mark}" d="{"".join(parts)}"/>' for mark, parts in sorted(paths.items()))
    return Markup(
        f'<svg class="heat" viewBox="0 0 {cells} {cells}" role="img" aria-label="{escape(label)}" '
        f'shape-rendering="crispEdges"><rect class="track" width="{cells}" height="{cells}"/>{drawn}</svg>'
    )
