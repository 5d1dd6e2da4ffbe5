"""A saved model whose answers lie in the picture, judged on images with their truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headstart.data.duplicates import tie_groups
from headstart.data.table import Table
from headstart.errors import DataError
from headstart.judge.marks import Score
from headstart.ship.placed import Placed, Said, predict
from headstart.story.opening import QUIET, Watcher
from headstart.tasks.placed import stacked
from headstart.trunk.engine import Engine


def evaluate(
    model: Placed, table: Table, watch: Watcher = QUIET, seed: int = 0, engine: Engine | None = None
) -> tuple[Score, tuple[str, ...], list[tuple[str, str]]]:
    """(score, how odd pictures were read, (name, reason) of those that cannot be). `engine`: the
    model's, if it is compiled already. Raises DataError where none can."""
    table = table.take(np.asarray(table.labels != "", dtype=bool))
    targets = model.task.targets(table, model.names)
    rows: list[int] = []
    each: list[Mapping[str, Any]] = []
    unread: list[tuple[str, str]] = []

    def done(said: Said) -> None:
        if said.answer is None:
            unread.append((str(table.names[said.row]), said.error))
            return
        rows.append(said.row)
        each.append(model.task.marks(targets, said.row, said.answer, model.rule))

    notes = predict(model, table, done, engine, watch.bar("network", len(table)))
    if not each:
        first = f"; the first, {unread[0][0]}: {unread[0][1]}" if unread else ""
        raise DataError(f"none of {len(table)} images can be read{first}")
    groups = tie_groups(len(rows), [], table.groups[rows])
    return model.task.score(stacked(each, model.task.fill), model.names, groups, seed), notes, unread
