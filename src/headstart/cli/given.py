"""What the arguments of a command name: its options, its data set, and what both are told about."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from headstart.cli.console import tell
from headstart.counted import counted
from headstart.data.truth import PLACED
from headstart.errors import DataError, LabelsError, OptionError

if TYPE_CHECKING:
    from headstart.data.table import Table
    from headstart.story.options import Options


TAKE_PLACED = ("fit", "inspect", "evaluate")  # of the commands that read a table


def options_of(given: argparse.Namespace, **as_if: Any) -> Options:
    """The options that a command has, checked; the defaults for those that it lacks, or what it does as if given."""
    from headstart.story.options import Options, auto_words, check

    found = Options(**{name: getattr(given, name) for name in vars(Options()) if hasattr(given, name)} | as_if)
    check(found, trained=getattr(given, "task", None) in PLACED)
    if auto_words(found.backbone) is not None and given.command not in ("fit", "demo"):
        raise OptionError(
            f"--backbone {found.backbone} is of fit: name a network, such as one that headstart rank finds"
        )
    return found


def table_of(given: argparse.Namespace, min_classes: int = 2, task: str | None = None) -> Table:
    """The table of a data set, which is announced before the libraries are loaded that take seconds. `task`: of a saved
    model."""
    from headstart.data.table import read_table

    asked = task or getattr(given, "task", "auto")
    if asked in PLACED and given.command not in TAKE_PLACED:
        raise OptionError(
            f"{given.command} does not take --task {asked}, whose answers lie in the picture: fit, inspect, evaluate "
            "and predict do"
        )
    known = {name: getattr(given, name, None) for name in ("group_by", "label", "group", "time", "good", "classes")}
    table = read_table(given.data, min_classes=min_classes, task=asked, **known)
    tell(table.layout)
    return table


def name_of(data: str) -> str:
    """What a data set is called: the last part of its path or address."""
    from headstart.files.far import Far, is_far

    return Far(data).name if is_far(data) else Path(data).resolve().name


def any_images(given: argparse.Namespace) -> Table:
    """A labelled set; or the images of a folder, a list or tar files without labels, or one image."""
    from headstart.data.manifests import LISTS
    from headstart.data.table import list_images
    from headstart.data.tars import is_tar
    from headstart.files.far import is_far

    data, place, far = given.data, Path(given.data), is_far(given.data)
    listed = place.suffix.lower() in (*LISTS, ".parquet") or is_tar(data)
    if not far and place.is_file() and not listed:
        return list_images([data])
    try:
        return table_of(given, min_classes=1)
    except LabelsError as error:
        tell(f"note: no labels are written: {error}")
    except DataError:
        if not far and not place.is_dir():
            raise
    return list_images([data])


def tell_notes(table: Table) -> None:
    """What was found otherwise than written, or passed over."""
    for note in table.notes:
        tell(f"note: {note}")


def some_were_read(found: Sequence[Mapping[str, Any]]) -> None:
    """Raises DataError where no image could be read."""
    if all(record["error"] for record in found):
        none_were_read(len(found), f"{found[0]['path']}: {found[0]['error']}")


def none_were_read(n: int, first: str) -> NoReturn:
    """Raises DataError. `first`: the name of the first image, and why it cannot be read."""
    raise DataError(f"none of {counted(n, 'image')} can be read; the first, {first}")
