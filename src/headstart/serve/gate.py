"""How many images and bytes of all requests are inside. What does not fit is told when to come again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

from headstart.counted import counted
from headstart.serve.bounds import Bounds
from headstart.serve.refusals import Refusal

REMEMBERED = 64  # answers by which the pace is known
LONGEST_WAIT = 60  # s, of Retry-After


class Gate:
    """Of one event loop: nothing here waits, so that nothing here needs a lock."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self.images = self.bytes = 0
        self._done: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def full(self) -> bool:
        return self.images >= self._bounds.queue or self.bytes >= self._bounds.held

    @contextmanager
    def inside(self, n: int) -> Iterator[None]:
        """Room for n images; raises Refusal where there is none."""
        if self.images + n > self._bounds.queue:
            raise self.busy()
        self.images += n
        try:
            yield
        finally:
            self.images -= n

    def hold(self, n: int) -> None:
        """n bytes more of a body, to be given back with `drop`; raises Refusal where there is no room."""
        if self.bytes + n > self._bounds.held:
            raise self.busy()
        self.bytes += n

    def drop(self, n: int) -> None:
        self.bytes -= n

    def done(self) -> None:
        """An image was answered."""
        self._done.append(time.monotonic())

    def busy(self) -> Refusal:
        waits = self.seconds()
        waiting = counted(self.images, "image")
        return Refusal(
            429,
            f"{waiting} wait here already, and {self._bounds.queue} may: come again in {waits} s",
            {"retry-after": str(waits)},
        )

    def seconds(self) -> int:
        """Until those who wait now are answered, at the pace of the last answers; 1 where that is not known."""
        if len(self._done) < 2:
            return 1
        each = (self._done[-1] - self._done[0]) / (len(self._done) - 1)
        return min(max(ceil(self.images * each), 1), LONGEST_WAIT)
