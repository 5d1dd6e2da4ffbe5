"""How every number of the report is written; the one place that rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MINUS = "\u2212"
DASH = "\u2013"
NOTHING = DASH  # stands where a number is not defined, such as the precision of a class never predicted


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval, fractions of 1; the ends are None where there is no interval."""

    value: float
    low: float | None = None
    high: float | None = None


def estimate(metric: Any) -> Estimate | None:
    """Read a metric of a score, `{"value", "low", "high"}` or a bare number; None where it is missing or not finite."""
    if isinstance(metric, Mapping):
        value, low, high = (_finite(metric.get(key)) for key in ("value", "low", "high"))
    else:
        value, low, high = _finite(metric), None, None
    if value is None:
        return None
    return Estimate(value, low, high) if low is not None and high is not None else Estimate(value)


def _finite(number: Any) -> float | None:
    if number is None or not math.isfinite(float(number)):
        return None
    return float(number)


def share(fraction: float) -> str:
    """0.9608 -> "96.1"; one decimal, more only where one would turn "nearly all" into 100.0 or hardly any into 0.0."""
    percent = 100 * fraction
    for decimals in (1, 2, 3):
        text = f"{percent:.{decimals}f}"
        if float(text) not in (0.0, 100.0):
            return text.replace("-", MINUS)
    return f"{abs(percent):.1f}"  # exactly so, to within the noise of floating point


def percent(fraction: float | None) -> str:
    """0.9608 -> "96.1 %"."""
    return NOTHING if fraction is None else f"{share(fraction)} %"


def interval(est: Estimate) -> str:
    """The ends as "91.7–98.2" (percent), or ""; "−0.5 to 3.1" where an end is negative."""
    if est.low is None or est.high is None:
        return ""
    return f"{share(est.low)}{' to ' if est.low < 0 else DASH}{share(est.high)}"


def full(est: Estimate | None, n: int | None = None) -> str:
    """ "96.1 % (95 % interval 91.7–98.2, n = 153)"."""
    if est is None:
        return NOTHING
    inside = [f"95 % interval {interval(est)}"] if interval(est) else []
    inside += [f"n = {count(n)}"] if n is not None else []
    return percent(est.value) + (f" ({', '.join(inside)})" if inside else "")


def points(fraction: float) -> str:
    """A difference of accuracies: 0.013 -> "+1.3 points"."""
    text = share(fraction)
    return f"{'+' if fraction > 0 else ''}{text} points"


def points_full(est: Estimate) -> str:
    """ "+1.3 points (95 % interval −0.5 to 3.1)"."""
    if est.low is None or est.high is None:
        return points(est.value)
    return f"{points(est.value)} (95 % interval {share(est.low)} to {share(est.high)})"


def count(number: float) -> str:
    """12345 -> "12,345"; one decimal where a count is a mean over repetitions."""
    if abs(number - round(number)) < 1e-9:
        return f"{round(number):,}"
    return f"{number:,.1f}"


def plural(number: float, noun: str, many: str = "") -> str:
    """(1, "image") -> "1 image"; (2, "class", "classes") -> "2 classes"."""
    return f"{count(number)} {noun if number == 1 else many or noun + 's'}"


def seconds(duration: float) -> str:
    """Seconds as "0.42 s", "12.3 s", "3 min 20 s", "2 h 05 min"."""
    if duration < 9.995:
        return f"{duration:.2f} s"
    if duration < 59.95:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def decimal(number: float | None) -> str:
    """A plain number with three decimals, such as a log-loss in nats."""
    return NOTHING if number is None else f"{number:.3f}".replace("-", MINUS)


def millions(number: int) -> str:
    """3413024 -> "3.4 million"."""
    return f"{number / 1e6:.1f} million" if number >= 1e5 else count(number)
