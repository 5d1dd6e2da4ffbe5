"""A saved model at work: bytes of an image in, what `predict` says of it out; and another one that takes its place."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
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
from headstart.trunk.asked import Asked
from headstart.trunk.engine import compile_trunk
from headstart.trunk.features import told

PARTS = ("test", "cross_validation", "validation")  # of metrics.json, by which a model is known
SHOWN = 1000  # px, the longer side of a picture with heat: the page shows it at 480 on a fine screen
NOTHING = np.array([np.nan], np.float32)  # novelty of an image that cannot be read
Identity = tuple[int, int] | None


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

    def submit(self, name: str, content: bytes, top: int) -> Future[Record]:
        """What `headstart predict --json` says of an image of this name, of a ranked list the `top` best."""
        return self._threads.submit(self._answer, name, content, top)

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
        heat = head.heat(told(self.model.backbone, self._asked.ask(pixels)))
        assert heat is not None
        return drawn(content, heat[0], preprocess, SHOWN)

    def _answer(self, name: str, content: bytes, top: int) -> Record:
        """In one thread from the bytes to the record."""
        model = self.model
        answers, novelty = np.full((1, len(model.names), *model.task.extra), np.nan, np.float32), NOTHING
        reason = ""
        try:
            with self._decoding:  # most threads wait for the network
                pixels = images.load(content, model.backbone.preprocess, self._limits).array
        except ImageError as error:
            reason = str(error)
        else:
            answers, novelty = answered(model, told(model.backbone, self._asked.ask(pixels)))
        named, why = np.array([name], dtype=object), np.array([reason], dtype=object)
        known = None if model.novelty is None else novelty
        return records(model, Predictions(named, answers, why, novelty=known), top)[0]

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


def load(folder: Path, name: str, limits: Limits) -> Served:
    """The model of a folder, at work. Raises BundleError, and what opening a network raises."""
    identity = swap.identity(folder)
    bundle = read_bundle(folder)
    version = hashlib.sha256(json.dumps(bundle.checksums, sort_keys=True).encode()).hexdigest()[:12]
    model = unpack(bundle)
    at_work = Asked(compile_trunk(model.backbone, model.precision))
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
