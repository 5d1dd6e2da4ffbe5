"""Which training images an image looks like to a saved model, one image at a time, for somebody who looks at it now.

The model is opened when it is first asked for, and what that needs is imported then: who waits for a page does not wait
for a network.
"""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from headstart.data.table import Table
from headstart.errors import HeadstartError

if TYPE_CHECKING:
    from headstart.ship.package import Loaded
    from headstart.ship.reasons import Reasons
    from headstart.trunk.engine import Engine


class Alike(NamedTuple):
    """A training image by its row in the table; `label`: that which it had when it taught."""

    row: int
    label: str
    similarity: float


class LookAlikes:
    """Of one model and the images that it was fitted to. Threads may share it."""

    def __init__(self, model: Path, table: Table) -> None:
        self._folder, self._table, self._lock = model, table, Lock()
        self._rows = {str(name): row for row, name in reversed(list(enumerate(table.names)))}
        self._opened: tuple[Loaded, Engine, Reasons] | None = None
        self._silent = False

    def of(self, row: int, copies: tuple[int, ...] = ()) -> tuple[Alike, ...]:
        """The nearest first, without itself and its copies; () where the model names none, or it cannot be read."""
        with self._lock:
            if self._silent:
                return ()
            try:
                self._opened = self._opened or self._open()
            except HeadstartError:  # `predict` says why; here it is an aside
                self._opened = None
            self._silent = self._opened is None
            return () if self._opened is None else self._near(*self._opened, row, copies)

    def _open(self) -> tuple[Loaded, Engine, Reasons] | None:
        from headstart.ship.reasons import reasons_of
        from headstart.story.pipeline import load
        from headstart.trunk.engine import compile_trunk

        model = load(self._folder)
        reasons = reasons_of(model)
        return None if reasons is None else (model, compile_trunk(model.backbone, model.precision), reasons)

    def _near(
        self, model: Loaded, engine: Engine, reasons: Reasons, row: int, copies: tuple[int, ...]
    ) -> tuple[Alike, ...]:
        from headstart.ship.predict import predict_with_features

        _, features = predict_with_features(model, self._table.take([row]), engine)
        found = features.get(reasons.part.block)
        if found is None or not len(found):
            return ()
        others = ((self._rows.get(s.name), s) for s in reasons.of(found[0]))
        return tuple(
            Alike(at, s.label, s.cosine) for at, s in others if at is not None and at != row and at not in copies
        )
