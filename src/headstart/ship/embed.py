"""Images as a model that recognises compares them; whether two of them are of the same identity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.table import Table
from headstart.errors import BundleError, DataError, OptionError
from headstart.heads.gallery import similarity
from headstart.heads.recognition import Recogniser
from headstart.ship.package import Loaded
from headstart.ship.predict import predict_with_features
from headstart.tasks.identifier import Identifier
from headstart.trunk.engine import Engine

Bar = Callable[[str, int], Callable[[int], None]]


@dataclass(frozen=True, eq=False)
class Embedded:
    """`values` (readable image, k) at unit length, of the images `rows` (readable image,) of a table; `unread`: row and
    reason of each other one."""

    rows: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    unread: tuple[tuple[int, str], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Verified:
    """Whether two images are `same`: their `similarity` is `threshold` or more, which the share `false_accept_rate` of
    pairs of strangers is; `supported`: whether the fit had pairs enough to tell so small a share."""

    same: bool
    similarity: float
    threshold: float
    false_accept_rate: float
    supported: bool

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def recogniser_of(model: Loaded, name: str) -> Recogniser:
    """What compares. Raises OptionError for a model of another task, whose `name` is said."""
    if not isinstance(model.head, Identifier):
        raise OptionError(
            f"{name} is a model of the task {model.task.name}, which compares no images: name one that `headstart fit "
            "DATA --task recognise` has written"
        )
    return model.head.recogniser


def embedded(model: Loaded, table: Table, name: str, bar: Bar, engine: Engine | None = None) -> Embedded:
    """The images of the table. Raises OptionError for a model of another task, BundleError for a damaged one."""
    found, blocks = predict_with_features(model, table, engine, bar("network", len(table)))
    rows = np.flatnonzero(found.readable)
    own = recogniser_of(model, name).embedding
    values = own.embed(blocks) if len(rows) else np.empty((0, 0), np.float32)
    if not np.isfinite(values).all():
        raise BundleError(f"the metric of {name} gives what is no number: copy the model again, or fit again")
    unread = tuple((int(row), str(found.errors[row])) for row in np.flatnonzero(~found.readable))
    return Embedded(rows, values, unread, found.notes)


def verify(model: Loaded, pair: Table, name: str, bar: Bar, engine: Engine | None = None) -> Verified:
    """Whether the two images of `pair` are of the same identity, enrolled or not.

    Raises DataError where one cannot be read, or where the model was fitted with too few identities to tell.
    """
    if len(pair) != 2:
        raise DataError(f"{len(pair)} images were given to be compared: name two")
    threshold = recogniser_of(model, name).verify
    if not threshold.n:
        raise DataError(
            f"{name} was fitted with too few identities to tell when two images are the same: fit with at least 4 that "
            "have several images"
        )
    found = embedded(model, pair, name, bar, engine)
    if found.unread:
        row, reason = found.unread[0]
        raise DataError(f"{pair.names[row]} cannot be read, so nothing can be said: {reason}")
    alike = float(similarity(found.values[:1], found.values[1:])[0])
    return Verified(alike >= threshold.value, alike, threshold.value, threshold.rate, threshold.supported)
