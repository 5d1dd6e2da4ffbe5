"""How every number of the report is written; the one place that rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from headstart.counted import count

MINUS = "\u2212"
DASH = "\u2013"
MOST_PLACES = 6  # of a number that is written out, and
MOST_PLAIN = 1e9  # how large it is at most; others are written with an exponent
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


def ends(low: float, high: float, difference: bool = False) -> tuple[str, str]:
    """Both ends of an interval in percent with the same number of decimals: one, and more only where the lower end
    would read 100.0, the upper one 0.0, or an end of a difference 0.0 that is not."""
    for decimals in (1, 2, 3):
        texts = [f"{100 * end:.{decimals}f}" for end in (low, high)]
        first, last = map(float, texts)
        hidden = difference and ((first == 0 and low != 0) or (last == 0 and high != 0))
        if not (first == 100 and low < 1) and not (last == 0 and high > 0) and not hidden:
            break
    shown = [text.replace("-", MINUS) if float(text) else text.removeprefix("-") for text in texts]
    return shown[0], shown[1]


def percent(fraction: float | None) -> str:
    """0.9608 -> "96.1 %"."""
    return NOTHING if fraction is None else f"{share(fraction)} %"


def interval(est: Estimate) -> str:
    """The ends as "91.7–98.2" (percent), or ""; "−0.5 to 3.1" where an end is negative."""
    if est.low is None or est.high is None:
        return ""
    return (" to " if est.low < 0 else DASH).join(ends(est.low, est.high, est.low < 0))


def full(est: Estimate | None, n: int | None = None) -> str:
    """ "96.1 % (95 % interval 91.7–98.2, n = 153)"."""
    if est is None:
        return NOTHING
    inside = [f"95 % interval {interval(est)}"] if interval(est) else []
    inside += [f"n = {count(n)}"] if n is not None else []
    return percent(est.value) + (f" ({', '.join(inside)})" if inside else "")


def points(fraction: float) -> str:
    """A difference of accuracies: 0.013 -> "+1.3 points"."""
    return _points(share(fraction), fraction)


def points_between(one: float, other: float, gain: Estimate | None = None) -> str:
    """ "+1.3 points (95 % interval −0.5 to 3.1)": what a reader gets who subtracts the other accuracy from the one as
    they are written, with the interval of `gain`."""
    apart = Decimal(_plain(share(one))) - Decimal(_plain(share(other)))
    return _points(f"{apart}".replace("-", MINUS), float(apart)) + _of_difference(gain)


def _points(text: str, value: float) -> str:
    text = text if value else text.removeprefix(MINUS)
    return f"{'+' if value > 0 else ''}{text} points"


def _plain(text: str) -> str:
    return text.replace(MINUS, "-")


def _of_difference(gain: Estimate | None) -> str:
    if gain is None or gain.low is None or gain.high is None:
        return ""
    return f" (95 % interval {' to '.join(ends(gain.low, gain.high, True))})"


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


def decimals(*values: float) -> int:
    """Places after the point with which the largest of some measured values has three digits."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    return max(0, 2 - math.floor(math.log10(largest))) if largest > 0 else 0


def plain(number: float | None, places: int | None = None) -> str:
    """A measured value: with three digits, or so many places after the point; very small ones as 1.2e-07."""
    if number is None or not math.isfinite(number):
        return NOTHING
    places = decimals(number) if places is None else places
    text = f"{number:,.{places}f}" if places <= MOST_PLACES and abs(number) < MOST_PLAIN else f"{number:.2e}"
    return (text if float(text.replace(",", "")) else text.removeprefix("-")).replace("-", MINUS)


def millions(number: int) -> str:
    """3413024 -> "3.4 million"."""
    return f"{number / 1e6:.1f} million" if number >= 1e5 else count(number)
