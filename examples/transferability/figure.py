"""The results of the study as `results.json`, `tables.md` and `figure.svg`, of whatever networks are done.

    python examples/transferability/figure.py FOLDER [-o OTHER]

A difference is paired: a network's accuracy less that of another one that was trained and tested on the same half. Its
standard error is over the halves (each is once the target), so the base network's own luck is part of it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ARMS = ("BnB", "AnB", "BnB+", "AnB+")
GROUPS = {"all": "all halves", "random": "random halves", "kind": "by kind"}
CONTRASTS = (*((arm, "base") for arm in ARMS), ("AnB", "BnB"), ("AnB+", "BnB+"))
COLOURS = {"BnB": "#1f4e9c", "BnB+": "#5b9bd5", "AnB": "#b3261e", "AnB+": "#e07b18"}
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 330, 340, 46, 34, 46  # of one panel, and its margins

Run = dict[str, Any]
Point = tuple[int, float, float | None]  # n, value, standard error


def mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and its standard error; no error of a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values))


def group_of(split: str) -> str:
    return "kind" if split == "kind" else "random"


def differences(runs: Iterable[Run]) -> list[dict[str, Any]]:
    """Mean and standard error of every paired difference of accuracy, over all halves and over each group of them."""
    known = {(run["split"], run["target"], run["arm"], run["n"]): run["accuracy"] for run in runs}
    halves = sorted({key[:2] for key in known})
    depths = sorted({key[3] for key in known})
    rows = []
    for arm, against in CONTRASTS:
        for n in depths:
            for group in GROUPS:
                pairs = {
                    "-".join(half): known[*half, arm, n] - known[*half, against, 0 if against == "base" else n]
                    for half in halves
                    if group in ("all", group_of(half[0]))
                    and {(*half, arm, n), (*half, against, 0 if against == "base" else n)} <= known.keys()
                }
                if pairs:
                    mean, error = mean_and_error(list(pairs.values()))
                    row = {"arm": arm, "against": against, "n": n, "halves": group}
                    rows.append({**row, "mean": mean, "standard_error": error, "pairs": pairs})
    return rows


def signed(row: dict[str, Any]) -> str:
    """Percentage points, such as "-3.1 ± 0.4"."""
    error = "" if row["standard_error"] is None else f" ± {100 * row['standard_error']:.1f}"
    return f"{100 * row['mean']:+.1f}{error}".replace("-", "−")


def tables(results: dict[str, Any]) -> str:
    """Accuracies of the base networks, and the differences, as Markdown."""
    bases = [run for run in results["networks"] if run["arm"] == "base"]
    lines = ["| half | classes | accuracy of base |", "|---|---|---|"]
    for run in bases:
        classes = len(results["classes"][run["split"]][run["target"]])
        lines.append(f"| {run['split']}-{run['target']} | {classes} | {100 * run['accuracy']:.1f} % |")
    for group, title in GROUPS.items():
        rows = [row for row in results["differences"] if row["halves"] == group]
        if not rows:
            continue
        depths = sorted({row["n"] for row in rows})
        most = max(len(row["pairs"]) for row in rows)
        lines += ["", f"Differences in percentage points, {title} ({most} pairs), mean ± standard error:", ""]
        lines += ["| | " + " | ".join(f"n = {n}" for n in depths) + " |", "|---" * (len(depths) + 1) + "|"]
        for arm, against in CONTRASTS:
            found = {row["n"]: signed(row) for row in rows if (row["arm"], row["against"]) == (arm, against)}
            lines.append(f"| {arm} less {against} | " + " | ".join(found.get(n, "") for n in depths) + " |")
    return "\n".join(lines) + "\n"


def dot(arm: str, x: float, y: float) -> str:
    """A circle for the own half's layers, a diamond for the other's; hollow where the copied layers learn too."""
    fill = ' fill="#fff"' if arm.endswith("+") else ""
    if arm.startswith("B"):
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4"{fill}/>'
    return f'<path class="diamond" d="M{x:.1f} {y - 4.6:.1f}l4.6 4.6l-4.6 4.6l-4.6 -4.6z"{fill}/>'


class Panel:
    """One chart: percent upwards against n."""

    def __init__(self, left: int, title: str, series: dict[str, list[Point]], zero: float | None) -> None:
        spans = [v + s * (e or 0) for points in series.values() for _, v, e in points for s in (-1, 1)]
        spans += [zero] if zero is not None else []
        step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1) if (max(spans) - min(spans)) / s <= 7)
        first, last = math.floor(min(spans) / step), math.ceil(max(spans) / step)
        self.ticks = [k * step for k in range(first, max(last, first + 1) + 1)]
        self.left, self.title, self.series, self.zero = left, title, series, zero
        self.depths = sorted({0, *(n for points in series.values() for n, _, _ in points)})

    def x(self, n: float) -> float:
        return self.left + LEFT + 14 + (WIDTH - LEFT - 34) * n / max(self.depths[-1], 1)

    def y(self, value: float) -> float:
        share = (self.ticks[-1] - value) / (self.ticks[-1] - self.ticks[0])
        return TOP + (HEIGHT - TOP - BOTTOM) * share

    def axes(self) -> list[str]:
        start, end = self.left + LEFT, self.left + WIDTH - 6
        parts = [f'<text x="{start}" y="18" class="title">{self.title}</text>']
        for tick in self.ticks:
            y = self.y(tick)
            parts.append(f'<path class="grid" d="M{start} {y:.1f}H{end}"/>')
            parts.append(f'<text x="{start - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * tick:.0f}</text>')
        for n in self.depths:
            parts.append(f'<text x="{self.x(n):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{n}</text>')
        middle = (start + end) / 2
        parts.append(f'<text x="{middle}" y="{HEIGHT - BOTTOM + 34}" text-anchor="middle">layers copied, n</text>')
        if self.zero is not None:
            below = HEIGHT + 10 + 16 * len(self.series)
            parts.append(f'<path class="base" d="M{start} {self.y(self.zero):.1f}H{end}M{start + 6} {below}h30"/>')
            parts.append(f'<text x="{start + 44}" y="{below + 4}">base</text>')
        return parts

    def draw(self) -> str:
        parts = self.axes()
        for place, (name, points) in enumerate(self.series.items()):
            arm, _, group = name.partition(", ")
            dash = ' stroke-dasharray="5 3"' if group == "by kind" else ""
            shift = 2.5 * (place - (len(self.series) - 1) / 2)
            spots = [(self.x(n) + shift, v, e or 0) for n, v, e in points]
            line = " ".join(f"{x:.1f},{self.y(v):.1f}" for x, v, _ in spots)
            parts.append(f'<g stroke="{COLOURS[arm]}" fill="{COLOURS[arm]}"><polyline points="{line}"{dash}/>')
            for x, v, e in spots:
                parts.append(f'<path d="M{x:.1f} {self.y(v - e):.1f}V{self.y(v + e):.1f}"/>')
                parts.append(dot(arm, x, self.y(v)))
            parts.append(f'<text x="{self.left + LEFT + 44}" y="{HEIGHT + 14 + 16 * place}">{name}</text>')
            key = f"M{self.left + LEFT + 6} {HEIGHT + 10 + 16 * place}h30"
            parts.append(f'<path d="{key}"{dash}/>{dot(arm, self.left + LEFT + 21, HEIGHT + 10 + 16 * place)}</g>')
        return "".join(parts)


def panels(results: dict[str, Any]) -> list[Panel]:
    """Accuracy, differences to base, and what depends on how the classes were cut."""

    def points(arm: str, group: str = "all", plus: float = 0.0) -> list[Point]:
        rows = [row for row in results["differences"] if (row["arm"], row["against"]) == (arm, "base")]
        return [(r["n"], plus + r["mean"], r["standard_error"]) for r in rows if r["halves"] == group]

    bases = [run["accuracy"] for run in results["networks"] if run["arm"] == "base"]
    base = sum(bases) / len(bases)
    both = {f"{arm}, {GROUPS[g]}": points(arm, g) for arm in ("AnB", "AnB+") for g in ("random", "kind")}
    return [
        Panel(0, "Accuracy, %", {arm: points(arm, plus=base) for arm in ARMS}, base),
        Panel(WIDTH, "Less the same half’s base, points", {arm: points(arm) for arm in ARMS}, 0.0),
        Panel(2 * WIDTH, "The same, by how the classes were cut", {k: v for k, v in both.items() if v}, 0.0),
    ]


def svg(results: dict[str, Any]) -> str:
    """The figure, complete in itself; bars are standard errors of paired differences, the broken line is base."""
    drawn = "".join(panel.draw() for panel in panels(results))
    high = HEIGHT + 20 + 16 * len(ARMS)
    style = (
        "text{font:12px sans-serif;fill:#222;stroke:none}.title{font-weight:bold}.grid{stroke:#ddd}"
        ".base{stroke:#444;stroke-dasharray:2 3}polyline{fill:none;stroke-width:1.8}circle,.diamond{stroke-width:1.6}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {3 * WIDTH} {high}" role="img" aria-label="Accuracy '
        f'against the number of copied layers."><style>{style}</style><rect width="100%" height="100%" fill="#fff"/>'
        f"{drawn}</svg>\n"
    )


def collect(folder: Path, out: Path) -> None:
    """Write results.json, tables.md and figure.svg into `out` from the networks that `folder` has so far."""
    settings = json.loads((folder / "settings.json").read_text())
    found = [json.loads(path.read_text()) for path in folder.glob("runs/*.json")]
    order = ("base", *ARMS)
    runs = sorted(found, key=lambda run: (run["split"], run["target"], run["n"], order.index(run["arm"])))
    minutes = sum(run.pop("seconds") for run in runs) / 60
    results = {**settings, "networks": runs, "differences": differences(runs)}
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (out / "tables.md").write_text("# The study in tables\n\n" + tables(results))
    (out / "figure.svg").write_text(svg(results))
    print(f"{len(runs)} networks, {minutes:.0f} minutes of training: {out}/results.json, tables.md, figure.svg")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Figure and tables of the study of transferability.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="what study.py wrote with -o")
    parser.add_argument("-o", "--output", type=Path, metavar="OTHER", help="where to write, unless there")
    given = parser.parse_args(arguments)
    collect(given.folder, given.output or given.folder)


if __name__ == "__main__":
    main()
