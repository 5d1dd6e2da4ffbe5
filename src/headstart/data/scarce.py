"""Classes with too few training images: all are named at once, or left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from headstart.data.table import Table
from headstart.data.tree import images, some
from headstart.data.truth import tag_text, tags_in
from headstart.errors import DataError

LEAST = 2  # images that teach a class: one is left out while the other is learned from
NAMED = 40  # classes that a message lists, some 1,000 letters


def training_images(table: Table) -> dict[str, int]:
    """Class or label -> how many images it has to learn from; {} for measured values."""
    if table.task == "regress":
        return {}
    texts = table.labels[table.teaching]
    counted = Counter(name for text in texts for name in (tags_in(text)[0] if table.task == "tag" else (text,)))
    return {name: counted[name] for name in table.classes}


def scarce(table: Table, least: int | None) -> dict[str, int]:
    """The classes with fewer training images than `least`, and how many they have; {} where it is None."""
    return {name: count for name, count in training_images(table).items() if least is not None and count < least}


def without(table: Table, classes: Mapping[str, int], least: int | None) -> Table:
    """The table without the images of some classes, or without some labels; a note names them.

    Raises DataError where none is left."""
    if not classes:
        return table
    kept = (
        _without_labels(table, set(classes))
        if table.task == "tag"
        else table.take(~np.isin(table.labels.astype(str), list(classes)))
    )
    if not kept.classes:
        raise DataError(f"--min-images {least} leaves no class: the largest has {images(max(classes.values()))}")
    note = f"left out by --min-images {least}: {_listed(classes)}, {images(len(table) - len(kept))} in all"
    note = note if table.task != "tag" else f"labels left out by --min-images {least}: {_listed(classes)}"
    return replace(kept, notes=(*table.notes, note))


def _without_labels(table: Table, names: set[str]) -> Table:
    """The images stay: what else they hold is still to be learned."""
    labels = table.labels.copy()
    for row, text in enumerate(labels):
        if text:
            present, unknown = tags_in(text)
            labels[row] = tag_text(present - names, unknown - names)
    return replace(table, labels=labels, columns=tuple(name for name in table.columns if name not in names))


def refuse_scarce(counts: Mapping[str, int], readable: bool = False) -> None:
    """Raises DataError that names every class with fewer than LEAST training images. readable: they have been read."""
    few = {name: count for name, count in counts.items() if count < LEAST}
    if not few:
        return
    if len(few) == 1:
        name, count = next(iter(few.items()))
        have = f"class {name!r} has " + ("a single training image" if count else "no readable training image")
    else:
        word = "readable training images" if readable else "training images"
        have = f"{len(few)} classes have fewer than {LEAST} {word}: {_listed(few)}"
    raise DataError(
        f"{have}; at least {LEAST} are needed: add images, or leave such classes out with --min-images {LEAST}"
    )


def _listed(classes: Mapping[str, int]) -> str:
    return some([f"{name!r} ({count})" for name, count in sorted(classes.items())], NAMED)
