"""Drawings of values, of labels that come together and of identities, in the style of `figures`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from headstart.counted import count
from headstart.report import numbers
from headstart.report.content import Column
from headstart.report.figures import (
    BOTTOM,
    HEAT_CELLS,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    axes,
    level,
    short,
    ticks_of,
)

MOST_DOTS = 2000  # drawn of a scatter: more lie on each other, and take 100 KB
SQUARE = 320  # height of a chart whose two axes are alike
BARS = 21  # of a histogram; an odd number has a bar around zero
RATES = (1e-4, 1e-3, 1e-2, 0.1, 1.0)  # false-accept rates named on the axis

Array = NDArray[np.float64]


def _fine(low: float, high: float) -> float:
    """The least step worth trying for ticks of this range: a hundredth of it, as a power of ten."""
    return 10.0 ** (math.floor(math.log10(high - low)) - 2) if high > low else 10.0**-6


def _ticks(low: float, high: float) -> list[float]:
    """Round values around a range of any scale; around a single value where there is no range."""
    if high <= low:
        wide = abs(low) / 10 or 1.0
        low, high = low - wide, high + wide
    return ticks_of(low, high, _fine(low, high))


def _titles(x_title: str, y_title: str, height: int) -> str:
    middle = (LEFT + WIDTH - RIGHT) / 2
    return (
        f'<text x="4" y="11">{escape(y_title)}</text>'
        f'<text x="{middle}" y="{height - 4}" text-anchor="middle">{escape(x_title)}</text>'
    )


def spread_evenly(n: int, most: int = MOST_DOTS) -> NDArray[np.int64]:
    """At most so many of n rows, evenly over their order."""
    return np.arange(n) if n <= most else np.unique(np.linspace(0, n - 1, most).astype(np.int64))


def scatter(column: Column) -> Markup:
    """Truth (to the right) against answer (upwards) on one scale: the line on which they agree, and the band in which
    the truth lies within the interval; "" without images."""
    truth, answer = np.asarray(column.truth, dtype=float), np.asarray(column.answer, dtype=float)
    if not len(truth):
        return Markup("")
    scale = _ticks(float(min(truth.min(), answer.min())), float(max(truth.max(), answer.max())))
    low, high = scale[0], scale[-1]
    wide, tall = WIDTH - LEFT - RIGHT - 8, SQUARE - TOP - BOTTOM

    def x(value: float) -> float:
        return LEFT + 8 + wide * (value - low) / (high - low)

    def y(value: float) -> float:
        return TOP + tall * (high - value) / (high - low)

    band = ""
    if column.half_width is not None:
        inside = _band(low, high, column.half_width)
        points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in inside)
        band = f'<polygon class="band" points="{points}"/>'
    grid = "".join(
        f'<path class="grid" d="M{LEFT} {y(t):.1f}H{WIDTH - RIGHT}"/><text x="{LEFT - 5}" y="{y(t) + 4:.1f}" '
        f'text-anchor="end">{short(t)}</text><text x="{x(t):.1f}" y="{SQUARE - BOTTOM + 15}" '
        f'text-anchor="middle">{short(t)}</text>'
        for t in scale
    )
    order = np.argsort(truth, kind="stable")[spread_evenly(len(truth))]
    dots = "".join(f"M{x(a):.1f} {y(b):.1f}h0" for a, b in zip(truth[order], answer[order], strict=True))
    said = f"Answer against truth of {count(len(truth))} images"
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {SQUARE}" role="img" aria-label="{said}">{grid}'
        f"{_titles('truth', 'answer', SQUARE)}{band}"
        f'<path class="diagonal" d="M{x(low):.1f} {y(low):.1f}L{x(high):.1f} {y(high):.1f}"/>'
        f'<path class="dots" d="{dots}"/></svg>'
    )


def _band(low: float, high: float, half: float) -> list[tuple[float, float]]:
    """The corners of |answer - truth| <= half within the square from low to high."""
    half = min(half, high - low)
    return [(low, low), (low, low + half), (high - half, high), (high, high), (high, high - half), (low + half, low)]


def residuals(column: Column) -> Markup:
    """How often answers are off by how much (answer less truth), a histogram around zero; "" without images."""
    off = np.asarray(column.answer, dtype=float) - np.asarray(column.truth, dtype=float)
    if not len(off):
        return Markup("")
    widest = float(np.abs(off).max()) or 1.0
    found, edges = np.histogram(off, bins=BARS, range=(-widest, widest))
    most = int(found.max())
    wide, tall = WIDTH - LEFT - RIGHT - 8, HEIGHT - TOP - BOTTOM
    each = wide / BARS
    bars = "".join(
        f'<rect class="fill" x="{LEFT + 8 + k * each + 0.5:.1f}" y="{TOP + tall * (1 - n / most):.1f}" '
        f'width="{each - 1:.1f}" height="{tall * n / most:.1f}"/>'
        for k, n in enumerate(found)
        if n
    )
    x_labels = [(LEFT + 8 + wide * (1 + t) / 2, short(t * widest).replace("-", numbers.MINUS)) for t in (-1, 0, 1)]
    base = f'<path class="grid" d="M{LEFT} {TOP + tall}H{WIDTH - RIGHT}"/>'
    zero = f'<path class="diagonal" d="M{LEFT + 8 + wide / 2:.1f} {TOP}V{TOP + tall}"/>'
    top = f'<text x="{LEFT - 5}" y="{TOP + 4}" text-anchor="end">{count(most)}</text>'
    said = f"Answer less truth of {count(len(off))} images, from {short(float(edges[0]))} to {short(float(edges[-1]))}"
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">{base}{top}'
        f"{axes((), [], x_labels, 'answer less truth', 'images')}{bars}{zero}</svg>"
    )


def together(matrix: NDArray[np.int64], label: str) -> Markup:
    """Images with both labels (row, column) in at most HEAT_CELLS squared cells, shaded by the share of the row's own
    images; with more labels neighbours share a cell, shaded by the mean."""
    cells = min(len(matrix), HEAT_CELLS)
    edges = np.linspace(0, len(matrix), cells + 1).astype(int)
    own = np.maximum(np.diag(matrix), 1)[:, None]
    shares = np.where(np.eye(len(matrix), dtype=bool), 0.0, matrix / own)
    small = np.add.reduceat(np.add.reduceat(shares, edges[:-1], axis=0), edges[:-1], axis=1)
    small /= np.outer(np.diff(edges), np.diff(edges))
    paths: dict[int, list[str]] = {}
    for row, column in zip(*np.nonzero(small), strict=True):
        paths.setdefault(level(float(small[row, column])), []).append(f"M{column} {row}h1v1h-1z")
    drawn = "".join(f'<path class="right q{shade}" d="{"".join(parts)}"/>' for shade, parts in sorted(paths.items()))
    return Markup(
        f'<svg class="heat" viewBox="0 0 {cells} {cells}" role="img" aria-label="{escape(label)}" '
        f'shape-rendering="crispEdges"><rect class="track" width="{cells}" height="{cells}"/>{drawn}</svg>'
    )


def roc(points: Sequence[tuple[float, float]]) -> Markup:
    """True accepts (percent, upwards) against false accepts (percent, log scale) of pairs; "" below two points."""
    if len(points) < 2:
        return Markup("")
    ticks = ticks_of(min(y for _, y in points), 1.0)
    least = min(x for x, _ in points)
    shown, start = [r for r in RATES if r >= least], math.log10(least)
    wide, tall = WIDTH - LEFT - RIGHT - 24, HEIGHT - TOP - BOTTOM

    def x(rate: float) -> float:
        return LEFT + 8 + wide * (math.log10(rate) - start) / -start

    def y(share: float) -> float:
        return TOP + tall * (ticks[-1] - share) / (ticks[-1] - ticks[0])

    line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in points)
    dots = "".join(f'<circle class="dot" cx="{x(a):.1f}" cy="{y(b):.1f}" r="3"/>' for a, b in points)
    labels = [(x(r), f"{100 * r:g}") for r in shown]
    said = "; ".join(f"{numbers.percent(a)} false accepts: {numbers.percent(b)}" for a, b in points)
    drawn = axes(ticks, [y(t) for t in ticks], labels, "pairs of strangers accepted, % (log scale)", "true accepts, %")
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="ROC of pairs. {said}">{drawn}'
        f'<polyline class="line" points="{line}"/>{dots}</svg>'
    )
