"""Progress where no terminal shows bars: a line a minute, for logs of long runs."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY = 60.0  # s between two lines


class Paced:
    """Counts what is done of `total`; says how far that is, and how long the rest will take at the pace so far."""

    def __init__(
        self, stage: str, total: int, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stage, self._total, self._tell, self._clock = stage, total, tell, clock
        self._done, self._start = 0, clock()
        self._told = self._start

    def __call__(self, count: int) -> None:
        self._done += count
        now = self._clock()
        if now - self._told >= EVERY and 0 < self._done < self._total:
            self._told = now
            left = (now - self._start) / self._done * (self._total - self._done)
            self._tell(f"{self._stage}: {self._done:,} of {self._total:,}, about {lasting(left)} left")


def lasting(seconds: float) -> str:
    """A time in words: two units at most."""
    whole = max(1, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
