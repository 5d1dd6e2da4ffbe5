"""Single pictures for an engine, from many threads: what a server needs, where `Engine.run` wants a stream of batches.

On a CPU a picture that comes alone is a request of its own, since a batch that is filled up costs as much as a full one
(1 of 4: 3 times the CPU); where as many wait as make a batch they go together, which costs a sixth less in bfloat16
(EfficientNet-Lite0, 320 px: 11.2 ms of CPU an image for 13.5). On an accelerator what waits is put together in batches
of the engine's own size. Either way an answer equals that of `Engine.run` to the bit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from headstart.files.cores import n_cores
from headstart.trunk.engine import Bytes, Engine, OpenVinoEngine, Rows

Waiting = tuple[Bytes, "Future[Rows]"]
Ask = Callable[[Bytes], Rows]


class Asked:
    """An engine that takes pictures one by one. `threads`: that many callers keep it busy.

    Each of its workers takes what has waited longest as soon as it is free: a whole batch, or one alone where the
    engine has a twin for that (`OpenVinoEngine.single`), else all there is.
    """

    def __init__(self, engine: Engine) -> None:
        on_cpu = isinstance(engine, OpenVinoEngine)
        self._engine, self._single = engine, engine.single() if on_cpu else None
        workers = engine.at_once + 1 if on_cpu else 1  # one more, so that none waits for what Python does between two
        self.threads = workers * engine.batch + n_cores()
        self._waiting: deque[Waiting] = deque()
        self._some, self._ended = threading.Condition(), False
        self._workers = [threading.Thread(target=self._work, name="network", daemon=True) for _ in range(workers)]
        for worker in self._workers:
            worker.start()

    def ask(self, pixels: Bytes) -> Rows:
        """pixels (height, width, 3) -> rows (1, feature), waited for; from any thread."""
        future: Future[Rows] = Future()
        with self._some:
            self._waiting.append((pixels, future))
            self._some.notify()
        return future.result()

    def close(self) -> None:
        """Take no more, when those who wait have their answers."""
        with self._some:
            self._ended = True
            self._some.notify_all()
        for worker in self._workers:
            worker.join()

    def _work(self) -> None:
        together, alone = _asker(self._engine), None if self._single is None else _asker(self._single)
        while some := self._taken():
            try:
                rows = alone(some[0][0][None]) if alone and len(some) == 1 else together(self._batch(some))
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
            n = min(len(self._waiting), self._engine.batch)
            if self._single is not None and n < self._engine.batch:
                n = min(n, 1)
            return [self._waiting.popleft() for _ in range(n)]

    def _batch(self, some: list[Waiting]) -> Bytes:
        """(batch, height, width, 3), filled up with the first."""
        arrays = [pixels for pixels, _ in some]
        return np.stack(arrays + [arrays[0]] * (self._engine.batch - len(arrays)))


def _asker(engine: Engine) -> Ask:
    """pixels (batch, height, width, 3) -> rows (batch, feature), for one thread."""
    if isinstance(engine, OpenVinoEngine):
        return engine.ready()

    def ask(pixels: Bytes) -> Rows:
        found: list[Rows] = []
        engine.run([(None, pixels)], lambda _, rows: found.append(np.array(rows, dtype=np.float32)))
        return found[0]

    return ask
