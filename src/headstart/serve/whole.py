"""Models whose answers are of a picture as a whole: classes, labels, values, identities, oddities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.errors import ImageError
from headstart.heads.oddity import Oddity
from headstart.serve.answering import Eye, Job
from headstart.ship.heat import drawn
from headstart.ship.package import Loaded
from headstart.ship.predict import Predictions, records
from headstart.ship.stretches import answered
from headstart.tasks.task import Record

SHOWN = 1000  # px, the longer side of a picture with heat: the page shows it at 480 on a fine screen


@dataclass(frozen=True, eq=False)
class Whole:
    """See `Answering`."""

    model: Loaded
    eye: Eye

    @property
    def heat(self) -> Callable[[bytes], bytes] | None:
        head = self.model.head
        return self._drawn if isinstance(head, Oddity) and head.patches is not None else None

    @property
    def masks(self) -> bool:
        return False

    def _drawn(self, content: bytes) -> bytes:
        head = self.model.head
        assert isinstance(head, Oddity)
        heat = head.heat(self.eye.blocks(self.eye.pixels(content)[None]))
        assert heat is not None
        return drawn(content, heat[0], self.model.backbone.preprocess, SHOWN)

    def takes(self, waiting: int) -> int:
        return self.eye.asked.takes(waiting)

    def answers(self, jobs: Sequence[Job]) -> list[Record]:
        model, n = self.model, len(jobs)
        answers = np.full((n, len(model.names), *model.task.extra), np.nan, np.float32)
        novelty, reasons, pixels = np.full(n, np.nan, np.float32), np.full(n, "", dtype=object), {}
        for k, job in enumerate(jobs):
            try:
                pixels[k] = self.eye.pixels(job.content)
            except ImageError as error:
                reasons[k] = str(error)
        if pixels:
            rows = list(pixels)
            answers[rows], novelty[rows] = answered(model, self.eye.blocks(np.stack(list(pixels.values()))))
        names, known = np.array([job.name for job in jobs], dtype=object), None if model.novelty is None else novelty
        found = Predictions(names, answers, reasons, novelty=known)
        return [records(model, found.only(k), job.top)[0] for k, job in enumerate(jobs)]

    def described(self) -> dict[str, object]:
        return {
            "novelty": self.model.novelty is not None,
            "heat": self.heat is not None,
            "masks": self.masks,
            "colours": None,
        }
