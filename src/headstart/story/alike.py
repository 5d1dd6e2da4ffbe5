"""Which training images an image looks like to a saved model, one image at a time, for somebody who looks at it now."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import NamedTuple

from headstart.data.table import Table
from headstart.errors import HeadstartError
from headstart.ship.predict import predict_with_features
from headstart.ship.reasons import Reasons, reasons_of
from headstart.story import pipeline
from headstart.trunk.engine import Engine, compile_trunk


class Alike(NamedTuple):
    """A training image by its row in the table; `label`: that which it had when it taught."""

    row: int
    label: str
    similarity: float


class LookAlikes:
    """Opens the model when it is first asked. Threads may share it."""

    def __init__(self, model: Path, table: Table) -> None:
        self._folder, self._table, self._lock = model, table, Lock()
        self._rows = {str(name): row for row, name in reversed(list(enumerate(table.names)))}
        self._opened: tuple[pipeline.Loaded, Engine, Reasons] | None = None
        self._silent = False

    def of(self, row: int, copies: tuple[int, ...] = ()) -> tuple[Alike, ...]:
        """The nearest first, without itself and its copies; () where the model names none, or it cannot be read."""
        with self._lock:
            try:
                return self._near(row, copies)
            except HeadstartError:
                self._silent = True  # the model cannot be used, which `predict` says; here it is an aside
                return ()

    def _near(self, row: int, copies: tuple[int, ...]) -> tuple[Alike, ...]:
        if self._silent:
            return ()
        if self._opened is None:
            model = pipeline.load(self._folder)
            reasons = reasons_of(model)
            if reasons is None:
                self._silent = True
                return ()
            self._opened = model, compile_trunk(model.backbone, model.precision), reasons
        model, engine, reasons = self._opened
        _, features = predict_with_features(model, self._table.take([row]), engine)
        if not features or not len(features[reasons.part.block]):
            return ()
        found = ((self._rows.get(s.name), s) for s in reasons.of(features[reasons.part.block][0]))
        return tuple(
            Alike(at, s.label, s.cosine) for at, s in found if at is not None and at != row and at not in copies
        )
