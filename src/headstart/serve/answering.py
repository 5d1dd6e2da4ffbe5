"""What a saved model at work is asked and what it answers with: the form that all kinds of models fill in."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from headstart.data import images
from headstart.data.limits import Limits
from headstart.tasks.task import Record
from headstart.trunk.asked import Asked
from headstart.trunk.engine import Bytes
from headstart.trunk.features import Halves, told
from headstart.trunk.network import Backbone


@dataclass(frozen=True)
class Job:
    """An image that waits for its answer. `top`: how long its ranked list is; `mask`: bytes that its mask may hold, 0
    where none is asked for."""

    name: str
    content: bytes
    top: int
    mask: int
    answer: Future[Record]


@dataclass(frozen=True, eq=False)
class Eye:
    """From the bytes of images to what a network says of them; from any thread. `working`: as many threads as there are
    processors: the others wait for an accelerator, and hold no pictures while they do."""

    backbone: Backbone
    asked: Asked
    limits: Limits
    working: threading.Semaphore

    def pixels(self, content: bytes) -> Bytes:
        """uint8 (height, width, 3), as the network takes them. Raises ImageError."""
        with self.working:
            return images.load(content, self.backbone.preprocess, self.limits).array

    def blocks(self, pixels: Bytes) -> dict[str, Halves]:
        """Block -> (image, feature) of pixels (image, height, width, 3)."""
        return told(self.backbone, self.asked.ask(pixels))


class Answering(Protocol):
    """One model: what differs between those that answer a picture as a whole and those that answer at its places."""

    @property
    def heat(self) -> Callable[[bytes], bytes] | None:
        """From an image to a JPEG of it with orange where it is odd, or ImageError; None: it does not know where."""
        ...

    @property
    def masks(self) -> bool:
        """Whether answers are masks."""
        ...

    def takes(self, waiting: int) -> int:
        """How many of so many jobs that wait are best answered together."""
        ...

    def answers(self, jobs: Sequence[Job]) -> list[Record]:
        """What `headstart predict --json` says of each, in their order."""
        ...

    def described(self) -> dict[str, object]:
        """For GET /models: what it can do beyond its records."""
        ...
