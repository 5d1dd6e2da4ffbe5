"""What the parts of one server share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headstart.serve.bounds import Bounds
from headstart.serve.counts import Counts
from headstart.serve.gate import Gate
from headstart.serve.models import Models
from headstart.serve.page import Page


@dataclass(eq=False)
class State:
    """Of one server, in its event loop."""

    models: Models
    bounds: Bounds
    gate: Gate
    counts: Counts
    pages: Mapping[str, Page]
    token: bytes | None = None
    stopping: bool = False
