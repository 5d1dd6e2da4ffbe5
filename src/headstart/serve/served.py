"""A saved model at work: bytes of an image in, what `predict` says of it out; and another one that takes its place."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from headstart.data.limits import Limits
from headstart.data.truth import PLACED
from headstart.errors import BundleError
from headstart.files import swap
from headstart.files.bundle import read_bundle
from headstart.files.cores import n_cores
from headstart.serve.answering import Answering, Eye, Job
from headstart.serve.places import Places
from headstart.serve.whole import Whole
from headstart.ship import placed
from headstart.ship.package import Loaded, unpack
from headstart.ship.placed import Placed
from headstart.tasks.task import Record
from headstart.trunk.asked import Asked, asked
from headstart.trunk.engine import compile_trunk

PARTS = ("test", "cross_validation", "validation")  # of metrics.json, by which a model is known
Identity = tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class Served:
    """One saved model, loaded. `identity`: of the folder that it was read from; `version`: of its content."""

    name: str
    folder: Path
    identity: Identity
    version: str
    model: Loaded | Placed
    loaded: float  # time.time()
    _says: Answering
    _asked: Asked
    _threads: ThreadPoolExecutor
    _waiting: deque[Job] = field(default_factory=deque)
    _taking: threading.Lock = field(default_factory=threading.Lock)

    def submit(self, name: str, content: bytes, top: int, mask: int = 0) -> Future[Record]:
        """What `headstart predict --json` says of an image of this name, of a ranked list the `top` best. `mask`: bytes
        that its mask may hold, 0 for none; of a model that has `masks`. The future raises Refusal for a larger one."""
        job = Job(name, content, top, mask, Future())
        self._waiting.append(job)
        taken: list[Job] = []  # by a turn: as many turns as jobs, and those that find nobody waiting do nothing
        self._threads.submit(self._turn, taken).add_done_callback(lambda turn: _hand_over(turn, taken))
        return job.answer

    def submit_heat(self, content: bytes) -> Future[bytes]:
        """A JPEG of an image with orange where it is odd, of a model that `draws`. The future raises ImageError."""
        assert self._says.heat is not None
        return self._threads.submit(self._says.heat, content)

    @property
    def draws(self) -> bool:
        """Whether the model knows where a picture is odd."""
        return self._says.heat is not None

    @property
    def masks(self) -> bool:
        """Whether its answers are masks."""
        return self._says.masks

    def _turn(self, taken: list[Job]) -> list[Record]:
        """In one thread from bytes to records, of those who have waited longest: one, or a batch of the network."""
        with self._taking:
            some = [self._waiting.popleft() for _ in range(self._says.takes(len(self._waiting)))]
        taken += [job for job in some if job.answer.set_running_or_notify_cancel()]
        return self._says.answers(taken)

    def close(self) -> None:
        """Nobody may be waiting for it."""
        self._threads.shutdown()
        self._asked.close()

    def described(self) -> dict[str, object]:
        """For GET /models."""
        model = self.model
        height, width = model.backbone.preprocess.size
        return {
            "name": self.name,
            "task": model.task.name,
            "classes": list(model.names),
            "network": model.backbone.name,
            "input": [height, width],
            "licence": model.backbone.licence,
            "score": headline(model),
            **self._says.described(),
            "version": self.version,
            "loaded": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.loaded)),
        }


def _hand_over(turn: Future[list[Record]], jobs: Sequence[Job]) -> None:
    """What a turn came to, to those who wait for it."""
    error = turn.exception()
    for k, job in enumerate(jobs):
        if error is None:
            job.answer.set_result(turn.result()[k])
        else:
            job.answer.set_exception(error)


def load(folder: Path, name: str, limits: Limits) -> Served:
    """The model of a folder, at work. Raises BundleError, and what opening a network raises."""
    identity = swap.identity(folder)
    bundle = read_bundle(folder)
    version = hashlib.sha256(json.dumps(bundle.checksums, sort_keys=True).encode()).hexdigest()[:12]
    model = placed.unpack(bundle) if bundle.manifest.get("task") in PLACED else unpack(bundle)
    at_work = asked(compile_trunk(model.backbone, model.precision))
    says = _saying(model, Eye(model.backbone, at_work, limits, threading.Semaphore(n_cores())))
    threads = ThreadPoolExecutor(at_work.threads, thread_name_prefix=f"answer {name}")
    return Served(name, folder, identity, version, model, time.time(), says, at_work, threads)


def _saying(model: Loaded | Placed, eye: Eye) -> Answering:
    if not isinstance(model, Placed):
        return Whole(model, eye)
    found = Places(model, eye)
    found.warm()
    return found


def headline(model: Loaded | Placed) -> dict[str, object] | None:
    """{"measure", "value", "low", "high", "n", "part"}: how good a model was found; None where nothing says."""
    try:
        metrics = {} if model.bundle is None else model.bundle.metrics
    except BundleError:
        return None
    for part in PARTS:
        score = metrics.get(part)
        if not isinstance(score, dict):
            continue
        for measure, value in score.items():
            if isinstance(value, dict) and {"value", "low", "high"} <= set(value) and value["value"] is not None:
                ends = {end: value[end] for end in ("value", "low", "high")}
                return {"measure": measure, **ends, "n": score.get("n"), "part": part}
    return None
