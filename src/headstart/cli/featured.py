"""`headstart fit FEATURES/`: a folder that `headstart features` has written, and new labels for it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from headstart.cli.console import tell
from headstart.errors import OptionError

if TYPE_CHECKING:
    from headstart.data.feature_set import FeatureSet
    from headstart.data.table import Table

OF_LISTS = ("label", "group", "time", "good", "classes")  # options that name columns or what stands in them


def labels_option(data: argparse._ArgumentGroup) -> None:
    """New labels for features that are there."""
    data.add_argument(
        "--labels",
        metavar="LIST",
        help="where DATA is a folder that headstart features has written: a list with a path and a label for each "
        "image, instead of the labels that they had",
    )


def feature_set(given: argparse.Namespace) -> FeatureSet | None:
    """The folder of features that `fit` is given; None where it is given pictures. Raises DataError, OptionError."""
    from headstart.data.feature_set import holds_features, read_set

    if not holds_features(given.data):
        if given.labels is not None:
            raise OptionError(
                f"--labels {given.labels} gives new labels to a folder that headstart features has written, and "
                f"{given.data} is none: leave it out, or name that folder"
            )
        return None
    for name, value in (("explain", given.explain), ("add-to", given.add_to)):
        if value:
            raise OptionError(f"--{name} asks for the pictures, and {given.data} holds features: leave it out")
    for name in OF_LISTS if given.labels is None else ():
        if getattr(given, name) is not None:
            raise OptionError(f"--{name} is of a list, and {given.data} holds features: add --labels LIST")
    return read_set(given.data)


def featured_table(given: argparse.Namespace, found: FeatureSet) -> Table:
    """Its images with their labels, or with those of `--labels`. Raises DataError, OptionError."""
    from headstart.data.table import read_table

    if given.labels is None:
        if given.task not in ("auto", found.task):
            raise OptionError(
                f"--task {given.task}: the labels in {given.data} are of the task {found.task}; add --labels LIST"
            )
        table = found.table(2, given.group_by)
    else:
        known = {name: getattr(given, name) for name in ("group_by", "task", *OF_LISTS)}
        table = found.named(read_table(given.labels, known=found.known, **known))
    tell(table.layout)
    return table
