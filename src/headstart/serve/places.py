"""Models whose answers lie in the picture: masks, boxes. Each image is answered by itself, one after the other."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.errors import ImageError
from headstart.serve.answering import Eye, Job
from headstart.serve.refusals import Refusal
from headstart.ship.placed import Placed, Said, record, said_of
from headstart.tasks.placed import Answer
from headstart.tasks.task import Record


@dataclass(frozen=True, eq=False)
class Places:
    """See `Answering`."""

    model: Placed
    eye: Eye

    @property
    def heat(self) -> None:
        return None

    @property
    def masks(self) -> bool:
        return self.model.task.mask is not None

    def takes(self, waiting: int) -> int:
        """One: a batch would keep its first picture waiting for its last, and its maps in memory."""
        return min(waiting, 1)

    def answers(self, jobs: Sequence[Job]) -> list[Record]:
        """Raises Refusal where a mask is larger than its job allows."""
        return [self._answer(job) for job in jobs]

    def _answer(self, job: Job) -> Record:
        said = self._said(job.content)
        found = record(self.model, job.name, said)
        if not job.mask:
            return found
        return found | {"mask": None if said.answer is None else self._mask(said.answer, job)}

    def _said(self, content: bytes) -> Said:
        try:
            blocks = self.eye.blocks(self.eye.pixels(content)[None])
            with self.eye.working:
                return said_of(self.model, 0, content, blocks)
        except ImageError as error:
            return Said(0, (0, 0), None, str(error))

    def _mask(self, answer: Answer, job: Job) -> str:
        """The file that `predict --masks` writes, in base64. Raises Refusal."""
        assert self.model.task.mask is not None
        with self.eye.working:
            found = self.model.task.mask(answer)
        if len(found) > job.mask:
            raise Refusal(
                413,
                f"{job.name[:100] or 'the image'}: its mask takes {len(found):,} bytes, and each of this request may "
                f"take {job.mask:,} (--max-mb, shared by its images): send fewer images at once, or smaller ones",
            )
        return b64encode(found).decode()

    def warm(self) -> None:
        """Answer a black picture, so that the first request does not wait for what is loaded when it is first asked."""
        self.model.head.outputs(self.eye.blocks(np.zeros((1, *self.model.frame, 3), np.uint8)))

    def described(self) -> dict[str, object]:
        colours = ["#" + bytes(one).hex() for one in self.model.task.colours(len(self.model.names))]
        return {"novelty": False, "heat": False, "masks": self.masks, "colours": colours}
