"""What a tuning did and how it compares, as a fit keeps it and metrics.json has it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from headstart.finetune.design import Epoch
from headstart.judge.marks import Interval

ACCURACY = "accuracy"  # the measure that metrics.json does not name: there was no other


@dataclass(frozen=True)
class DepthTried:
    """What a short training at one depth ("none": the start) is worth on its held-out images."""

    depth: str
    log_loss: float
    epochs: int


@dataclass(frozen=True)
class Compared:
    """Tuned and frozen on the same `n` held-out images: in `measure`, and in the loss of each image, tuned minus
    frozen. `percent`: whether the measure is told in percent."""

    n: int
    measure: str
    percent: bool
    tuned: Interval
    frozen: Interval
    difference: Interval
    loss_difference: Interval

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        del found["percent"]
        if self.measure == ACCURACY:
            del found["measure"]
        return found


@dataclass(frozen=True)
class TunedPart:
    """What learned above `cut`, how, and what became of it. `rates_tried`: (rate, smoothed loss) of a range test, None
    where there was none; `alpha`: the share of the tuned weights; `head`: which one was chosen; `workers`: how many
    processes of a cluster trained it, None where the one of the command did."""

    cut: str
    modules: int
    parameters: int
    arithmetic: str
    rate: float
    rates_tried: tuple[tuple[float, float], ...] | None
    epochs: tuple[Epoch, ...]
    alpha: float
    head: str
    workers: int | None = None

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        found["epochs"] = [asdict(epoch) for epoch in self.epochs]
        if self.workers is None:
            del found["workers"]
        if self.rates_tried is None:
            del found["rates_tried"]
        else:
            found["rates_tried"] = [list(one) for one in self.rates_tried]
        return found


@dataclass(frozen=True)
class TuningRecord:
    """`kept`: whether the tuned network was; else `why` not. `pilot`: the short trials of "auto", None where what
    learns was given; `depth`: the one that they chose. `part`: None where nothing was trained in full; `compared`: None
    where no image was held out. `more_epochs`: with the held-out images, at the end of what was kept."""

    kept: bool
    why: str | None = None
    pilot: tuple[DepthTried, ...] | None = None
    depth: str | None = None
    part: TunedPart | None = None
    compared: Compared | None = None
    more_epochs: int | None = None

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        """The loss curve; empty where nothing was trained in full."""
        return self.part.epochs if self.part else ()

    def to_json(self) -> dict[str, Any]:
        """As metrics.json has it: what does not apply is left out."""
        found: dict[str, Any] = {"epochs": []} if self.part is None else self.part.to_json()
        found |= {"kept": self.kept, "compared": self.compared.to_json() if self.compared else None}
        if self.pilot is not None:
            found["pilot"] = [asdict(tried) for tried in self.pilot]
        further = {"depth": self.depth, "more_epochs": self.more_epochs, "why": self.why}
        return found | {name: value for name, value in further.items() if value is not None}
