"""Single pictures for an engine, from many threads: what a server needs, where `Engine.run` wants a stream of batches.

On a CPU each picture is a request of its own: a batch that is filled up costs as much as a full one (1 of 4: 3 times
the CPU). Elsewhere, on an accelerator, what waits is put together in batches of the engine's own size. Either way an
answer equals that of `Engine.run` to the bit.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

import numpy as np

from headstart.files.cores import n_cores
from headstart.trunk.engine import Bytes, Engine, OpenVinoEngine, Rows


class Asked(Protocol):
    """Takes pictures one by one. `threads`: that many callers keep it busy."""

    threads: int

    def ask(self, pixels: Bytes) -> Rows:
        """pixels (height, width, 3) -> rows (1, feature), waited for; from any thread."""
        ...

    def close(self) -> None:
        """Take no more. Nobody may be waiting."""
        ...


def asked(engine: Engine) -> Asked:
    """The engine for single pictures. It has answered before this returns."""
    single = engine.single() if isinstance(engine, OpenVinoEngine) else None
    return Together(engine) if single is None else Alone(single)


class Alone:
    """Each picture by itself. While some threads wait for the network as many others can decode."""

    def __init__(self, engine: OpenVinoEngine) -> None:
        self._engine, self._of_thread = engine, threading.local()
        self.threads = engine.at_once + n_cores() + 1

    def ask(self, pixels: Bytes) -> Rows:
        found: Callable[[Bytes], Rows] | None = getattr(self._of_thread, "ask", None)
        if found is None:
            found = self._of_thread.ask = self._engine.ready()
        return found(pixels[None])

    def close(self) -> None:
        """What a thread holds goes with the thread."""


Waiting = tuple[Bytes, "Future[Rows]"]


class Together:
    """What waits, in batches: a thread takes all there is, up to a batch, as soon as its one before is done. One thread
    for an accelerator, on a processor as many as the engine works on batches."""

    def __init__(self, engine: Engine) -> None:
        at_once = engine.at_once if isinstance(engine, OpenVinoEngine) else 1
        self._engine, self.threads = engine, (at_once + 1) * engine.batch + n_cores()
        self._waiting: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._workers = [threading.Thread(target=self._work, name="network", daemon=True) for _ in range(at_once)]
        for worker in self._workers:
            worker.start()

    def ask(self, pixels: Bytes) -> Rows:
        future: Future[Rows] = Future()
        self._waiting.put((pixels, future))
        return future.result()

    def _work(self) -> None:
        while some := self._taken():
            try:
                self._run(some)
            except (RuntimeError, MemoryError) as error:  # the driver's: those who wait learn of it
                for _, future in some:
                    if not future.done():
                        future.set_exception(error)

    def _taken(self) -> list[Waiting]:
        """The first that comes, and what waits beside it; nothing at the end."""
        some: list[Waiting] = []
        while len(some) < self._engine.batch:
            try:
                one = self._waiting.get(block=not some)
            except queue.Empty:
                break
            if one is None:
                self._waiting.put(None)  # the end, for the others too, and for this one after what it has
                break
            some.append(one)
        return some

    def _run(self, some: list[Waiting]) -> None:
        arrays = [pixels for pixels, _ in some]
        batch = np.stack(arrays + [arrays[0]] * (self._engine.batch - len(arrays)))

        def deliver(_: object, rows: Rows) -> None:
            for (_, future), row in zip(some, rows, strict=False):
                future.set_result(np.array(row[None], dtype=np.float32))

        self._engine.run([(None, batch)], deliver)

    def close(self) -> None:
        self._waiting.put(None)
        for worker in self._workers:
            worker.join()
