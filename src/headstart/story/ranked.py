"""What a ranking found, as plain data: its rows, which of them is chosen, and why in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from headstart.counted import count, counted
from headstart.judge.intervals import Z
from headstart.judge.marks import Interval, ends

PRIVATE = ("backbone", "weights")  # of a row: they may name places of one machine


@dataclass(frozen=True)
class Ranked:
    """One network. `score`: of left-out answers for `images` of those that teach; `behind`: its score minus that of the
    best, paired, on the images that both saw; None for the best. `images_per_second`, `opening` (s): measured here;
    `seconds`: predicted of the whole job, opening, a pass over all images that teach, heads and their proof. `gmacs`:
    billion multiplications an image; `prior`: accuracy on ImageNet in percent; None where not known. `dropped`: behind
    beyond doubt before all images were seen. `diagnostics`: name -> number, {} where not asked for."""

    name: str
    backbone: str
    weights: str
    images: int
    score: Interval
    behind: Interval | None
    images_per_second: float
    opening: float
    seconds: float
    gmacs: float | None
    prior: float | None
    dropped: bool
    diagnostics: Mapping[str, float | None]

    @property
    def standard_error(self) -> float:
        """Of its difference to the best."""
        if self.behind is None:
            return 0.0
        _, low, high = ends(self.behind)
        return (high - low) / (2 * Z)

    @property
    def as_good(self) -> bool:
        """Whether it is within one standard error of the best."""
        return self.behind is None or (not self.dropped and ends(self.behind)[0] >= -self.standard_error)


@dataclass(frozen=True)
class Together:
    """The best two side by side, their features joined: by how much that beats the best alone, paired."""

    first: str
    second: str
    difference: Interval

    @property
    def wins(self) -> bool:
        """Whether by more than one standard error."""
        value, low, high = ends(self.difference)
        return value > (high - low) / (2 * Z)


@dataclass(frozen=True)
class Ranking:
    """rows: the cheapest first. hashes: content hashes of the images that chose, which judge nothing afterwards.
    n_images: those that teach. percent: whether the measure is told in percent."""

    measure: str
    percent: bool
    rows: tuple[Ranked, ...]
    n_images: int
    hashes: frozenset[str]
    notes: tuple[str, ...] = ()
    together: Together | None = None

    @property
    def chosen(self) -> Ranked:
        """The cheapest within one standard error of the best."""
        return choose(self.rows)

    @property
    def best(self) -> Ranked:
        return next(row for row in self.rows if row.behind is None)

    @property
    def why(self) -> str:
        """Which network was chosen, by what, in one line."""
        row, best = self.chosen, self.best
        looked = counted(len(self.hashes), "image")
        if len(self.rows) == 1:
            return f"network {row.name}: the only one that was ranked, on {looked}"
        said = f"network {row.name}, chosen among {count(len(self.rows))} on {looked} that teach: "
        if row is not best:
            return (
                f"{said}the cheapest within one standard error of the best ({best.name}; "
                f"{self.written(-ends(row.behind or best.score)[0])} behind, standard error "
                f"{self.written(row.standard_error)})"
            )
        near = "the others that are as good cost more" if sum(r.as_good for r in self.rows) > 1 else "none is as good"
        return f"{said}the best by left-out {self.measure.replace('_', ' ')}, and {near}"

    def written(self, value: float) -> str:
        """A difference as it is read."""
        return f"{100 * value:.1f} points" if self.percent else f"{value:.3g}"

    def to_json(self, private: bool = True) -> dict[str, Any]:
        """`private`: with the options that open each network here."""
        left_out = () if private else PRIVATE
        rows = [{k: v for k, v in asdict(row).items() if k not in left_out} for row in self.rows]
        for row, found in zip(rows, self.rows, strict=True):
            row |= {"standard_error": found.standard_error, "as_good_as_the_best": found.as_good}
        pair = self.together
        return {
            "chosen": self.chosen.name,
            "why": self.why,
            "measure": self.measure,
            "images_ranked_on": len(self.hashes),
            "images_that_teach": self.n_images,
            "networks": rows,
            "side_by_side": None if pair is None else asdict(pair) | {"wins": pair.wins},
            "notes": list(self.notes),
        }


def choose(rows: Sequence[Ranked]) -> Ranked:
    """Of rows in the order of their price the first that is within one standard error of the best."""
    return next(row for row in rows if row.as_good)
