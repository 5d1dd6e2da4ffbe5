"""Which images teach, which judge, and what the headline is."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from headstart import recipe
from headstart.data.splits import hold_out
from headstart.errors import DataError

Ints = npt.NDArray[np.int64]
Source = Literal["cross-validation", "test split", "test folder", "validation folder"]


@dataclass(frozen=True)
class Plan:
    """Rows are those of the features.

    `train`: rows that the model learns from. `judge`: rows that it is judged on, once; None where cross-validation of
    the training rows is the headline. `validation`: the user's validation rows where a test set is there as well.
    `splits` (image,): what each row is used as.
    """

    source: Source
    train: Ints
    judge: Ints | None
    validation: Ints | None
    splits: npt.NDArray[np.object_]


def make_plan(
    splits: npt.NDArray[Any],
    strata: Ints,
    groups: Ints,
    keys: Sequence[str],
    seed: int,
    may_hold_out: bool = True,
    spent: Set[str] = frozenset(),
) -> Plan:
    """The user's own split where there is one; else cross-validation for few images, a held-out test set for many.

    splits (image,) in train, validation, test, none; strata (image,) or (image, stratum), groups (image,) numbers; keys
    (image,) content hashes; spent: keys of images that have chosen something already, so that they judge nothing.
    Raises DataError where nothing is left to learn from.
    """
    rows = np.arange(len(splits))
    given = {name: rows[splits == name] for name in ("validation", "test")}
    train = rows[(splits == "train") | (splits == "none")]
    if not len(train):
        raise DataError("no training image is left: the data need a train part, or no parts at all")
    test, validation = given["test"], given["validation"]
    used = np.array(splits, dtype=object)
    used[train] = "train"
    if len(test):
        return Plan("test folder", train, test, validation if len(validation) else None, used)
    if len(validation):
        return Plan("validation folder", train, validation, None, used)
    if len(train) < recipe.SMALL or not may_hold_out:
        return Plan("cross-validation", train, None, None, used)
    free = np.flatnonzero(~np.isin(groups, groups[[key in spent for key in keys]]))
    share = recipe.held_out_fraction(len(train))
    if len(free) < len(train):
        share = min(0.5, share * len(train) / len(free))
    held = np.zeros(len(train), dtype=bool)
    held[free] = hold_out(strata[free], groups[free], share, seed, [keys[int(row)] for row in free])
    used[held] = "test"
    return Plan("test split", rows[~held], rows[held], None, used)
