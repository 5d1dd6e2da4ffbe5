"""Pictures as they come for an engine, from many threads: what a server needs, where `Engine.run` wants a stream of
batches.

On a CPU each caller runs the network itself (`Direct`). A picture that comes alone is a request of its own, since a
batch that is filled up costs as much as a full one (1 of 4: 3 times the CPU); where many wait they go in batches, which
cost a sixth less in bfloat16 (EfficientNet-Lite0, 320 px, AMX: 11.2 ms of CPU an image for 13.5). On an accelerator
what waits is put together in batches of the engine's own size (`Gathered`). Either way an answer equals that of
`Engine.run` to the bit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

import numpy as np

from headstart.files.cores import n_cores
from headstart.trunk.engine import Bytes, Engine, OpenVinoEngine, Rows

Waiting = tuple[Bytes, "Future[Rows]"]
Ask = Callable[[Bytes], Rows]
# Batches in the queue from which on one is taken whole. Simulated p99 at 70 and 80 % of the pace, in ms: with 1 120 and
# 149, with 2 115 and 162, with 3 106 and 173, without batches 106 and 181.
BATCHES_WAIT = 2


class Asked(Protocol):
    """What a server asks. `threads`: that many callers keep the engine busy."""

    threads: int

    def takes(self, waiting: int) -> int:
        """How many of so many pictures that wait a caller had best bring together."""

    def ask(self, pixels: Bytes) -> Rows:
        """pixels (image, height, width, 3), as many as `takes` says -> rows (image, feature); from any thread."""

    def close(self) -> None:
        """When nobody asks any more."""


def asked(engine: Engine) -> Asked:
    return Direct(engine) if isinstance(engine, OpenVinoEngine) else Gathered(engine)


class Direct:
    """OpenVINO: each caller has requests of its own, and waits for the network itself.

    A caller for each processor, which takes one picture from its bytes to its answer before the next: pictures that
    share the processors become ready late together. A batch makes its first picture wait for its last, so that it is
    for a queue of some length (BATCHES_WAIT). Simulated with the times above, two processors and arrivals at random at
    70 % of their pace: p99 115 ms, with stages that share the processors and batches as soon as one is full 185.
    """

    def __init__(self, engine: OpenVinoEngine) -> None:
        self.threads = n_cores()
        self._engine, self._single, self._own = engine, engine.single(), threading.local()

    def takes(self, waiting: int) -> int:
        """One, where the engine has a twin for that (`OpenVinoEngine.single`), or a whole batch of many; else all."""
        if self._single is not None and waiting < BATCHES_WAIT * self._engine.batch:
            return min(waiting, 1)
        return min(waiting, self._engine.batch)

    def ask(self, pixels: Bytes) -> Rows:
        """Raises RuntimeError where the driver fails."""
        if len(pixels) == 1 and self._single is not None:
            return self._asker(self._single)(pixels)
        return self._asker(self._engine)(filled(pixels, self._engine.batch))[: len(pixels)]

    def close(self) -> None:
        """Nothing runs but in its callers."""

    def _asker(self, engine: OpenVinoEngine) -> Ask:
        """This thread's own."""
        askers = self._own.__dict__
        name = f"of {engine.batch}"
        if name not in askers:
            askers[name] = engine.ready()
        found: Ask = askers[name]
        return found


class Gathered:
    """Any engine: one thread asks it, for all that wait."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.threads = engine.batch + n_cores()
        self._waiting: deque[Waiting] = deque()
        self._some, self._ended = threading.Condition(), False
        self._worker = threading.Thread(target=self._work, name="network", daemon=True)
        self._worker.start()

    def takes(self, waiting: int) -> int:
        """One: decoding is what callers share out."""
        return min(waiting, 1)

    def ask(self, pixels: Bytes) -> Rows:
        """Raises RuntimeError and MemoryError where the driver fails."""
        futures: list[Future[Rows]] = [Future() for _ in pixels]
        with self._some:
            self._waiting += zip(pixels, futures, strict=True)
            self._some.notify()
        return np.concatenate([future.result() for future in futures])

    def close(self) -> None:
        """Take no more, when those who wait have their answers."""
        with self._some:
            self._ended = True
            self._some.notify()
        self._worker.join()

    def _work(self) -> None:
        while some := self._taken():
            try:
                rows = self._rows(filled(np.stack([pixels for pixels, _ in some]), self._engine.batch))
            except (RuntimeError, MemoryError) as error:  # the driver's: those who wait learn of it
                for _, future in some:
                    future.set_exception(error)
            else:
                for (_, future), row in zip(some, rows, strict=False):
                    future.set_result(row[None])

    def _taken(self) -> list[Waiting]:
        """Those who are next; none at the end."""
        with self._some:
            while not self._waiting and not self._ended:
                self._some.wait()
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), self._engine.batch))]

    def _rows(self, pixels: Bytes) -> Rows:
        found: list[Rows] = []
        self._engine.run([(None, pixels)], lambda _, rows: found.append(np.array(rows, dtype=np.float32)))
        return found[0]


def filled(pixels: Bytes, batch: int) -> Bytes:
    """(batch, height, width, 3), filled up with the first."""
    return pixels if len(pixels) == batch else np.concatenate([pixels, *[pixels[:1]] * (batch - len(pixels))])
