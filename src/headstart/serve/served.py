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

import numpy as np

from headstart.data import images
from headstart.data.limits import Limits
from headstart.errors import BundleError, ImageError
from headstart.files import swap
from headstart.files.bundle import read_bundle
from headstart.files.cores import n_cores
from headstart.heads.oddity import Oddity
from headstart.ship.heat import drawn
from headstart.ship.package import Loaded, unpack
from headstart.ship.predict import Predictions, records
from headstart.ship.stretches import answered
from headstart.tasks.task import Record
from headstart.trunk.asked import Asked, asked
from headstart.trunk.engine import compile_trunk
from headstart.trunk.features import told

PARTS = ("test", "cross_validation", "validation")  # of metrics.json, by which a model is known
SHOWN = 1000  # px, the longer side of a picture with heat: the page shows it at 480 on a fine screen
Identity = tuple[int, int] | None


@dataclass(frozen=True)
class Job:
    """An image that waits for its answer."""

    name: str
    content: bytes
    top: int
    answer: Future[Record]


@dataclass(frozen=True, eq=False)
class Served:
    """One saved model, loaded. `identity`: of the folder that it was read from; `version`: of its content."""

    name: str
    folder: Path
    identity: Identity
    version: str
    model: Loaded
    loaded: float  # time.time()
    _asked: Asked
    _threads: ThreadPoolExecutor
    _limits: Limits
    _decoding: threading.Semaphore
    _waiting: deque[Job] = field(default_factory=deque)
    _taking: threading.Lock = field(default_factory=threading.Lock)

    def submit(self, name: str, content: bytes, top: int) -> Future[Record]:
        """What `headstart predict --json` says of an image of this name, of a ranked list the `top` best."""
        job = Job(name, content, top, Future())
        self._waiting.append(job)
        taken: list[Job] = []  # by a turn: as many turns as jobs, and those that find nobody waiting do nothing
        self._threads.submit(self._turn, taken).add_done_callback(lambda turn: _hand_over(turn, taken))
        return job.answer

    def submit_heat(self, content: bytes) -> Future[bytes]:
        """A JPEG of an image with orange where it is odd, of a model that `draws`. The future raises ImageError."""
        return self._threads.submit(self._drawn, content)

    @property
    def draws(self) -> bool:
        """Whether the model knows where a picture is odd."""
        return isinstance(self.model.head, Oddity) and self.model.head.patches is not None

    def _drawn(self, content: bytes) -> bytes:
        head, preprocess = self.model.head, self.model.backbone.preprocess
        assert isinstance(head, Oddity)
        with self._decoding:
            pixels = images.load(content, preprocess, self._limits).array
        heat = head.heat(told(self.model.backbone, self._asked.ask(pixels[None])))
        assert heat is not None
        return drawn(content, heat[0], preprocess, SHOWN)

    def _turn(self, taken: list[Job]) -> list[Record]:
        """In one thread from bytes to records, of those who have waited longest: one, or a batch of the network."""
        with self._taking:
            some = [self._waiting.popleft() for _ in range(self._asked.takes(len(self._waiting)))]
        taken += [job for job in some if job.answer.set_running_or_notify_cancel()]
        return self._answers(taken)

    def _answers(self, jobs: Sequence[Job]) -> list[Record]:
        model, n = self.model, len(jobs)
        answers = np.full((n, len(model.names), *model.task.extra), np.nan, np.float32)
        novelty, reasons, pixels = np.full(n, np.nan, np.float32), np.full(n, "", dtype=object), {}
        for k, job in enumerate(jobs):
            try:
                with self._decoding:  # most threads wait for an accelerator
                    pixels[k] = images.load(job.content, model.backbone.preprocess, self._limits).array
            except ImageError as error:
                reasons[k] = str(error)
        if pixels:
            rows = list(pixels)
            blocks = told(model.backbone, self._asked.ask(np.stack(list(pixels.values()))))
            answers[rows], novelty[rows] = answered(model, blocks)
        names, known = np.array([job.name for job in jobs], dtype=object), None if model.novelty is None else novelty
        found = Predictions(names, answers, reasons, novelty=known)
        return [records(model, found.only(k), job.top)[0] for k, job in enumerate(jobs)]

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
            "novelty": model.novelty is not None,
            "heat": self.draws,
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
    model = unpack(bundle)
    at_work = asked(compile_trunk(model.backbone, model.precision))
    threads = ThreadPoolExecutor(at_work.threads, thread_name_prefix=f"answer {name}")
    decoding = threading.Semaphore(n_cores())
    return Served(name, folder, identity, version, model, time.time(), at_work, threads, limits, decoding)


def headline(model: Loaded) -> dict[str, object] | None:
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
