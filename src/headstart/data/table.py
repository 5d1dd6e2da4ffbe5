"""Images with their labels, splits and groups, unread: the table that every command starts from.

| what is given | how it is read |
|---|---|
| a folder of folders | one class per folder; images in folders inside a class folder belong to it |
| a folder with train, val and test inside (training_set, Testing, dev ...), or such folders in each class | splits |
| a folder with metadata.csv or .jsonl (file_name,label), or one in each of train, val and test | as Hugging Face does |
| a .csv, .tsv, .txt or .parquet file with a path and a label for each image | a list; paths relative to its folder |
| .tar files (WebDataset), one, NAME-{00..09}.tar or a folder of them | `tars.py` |
| an address, such as s3://bucket/folder or https://.../list.csv | `far_sets.py` |
| pictures with masks, for the task "segment" | `mask_sets.py` |
| pictures with boxes, for the task "detect" | `box_sets.py` |
| a .parquet file, or a folder of train-*, validation-*, test-* .parquet files | the images are inside (Hugging Face) |

Rows stand in the order of their names, compared bytewise, whatever the file system says. Class names are the folder
names to the letter, in Unicode's composed form (NFC). What was passed over, and why, is in `notes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.counted import counted
from headstart.data.beside import read_labelled_folder
from headstart.data.box_sets import read_boxes
from headstart.data.class_names import check_not_measured
from headstart.data.far_sets import is_file, read_far
from headstart.data.folder_names import key
from headstart.data.given import Labels, images_of, sorted_names
from headstart.data.given_truth import truth_given
from headstart.data.good import GOOD, with_good
from headstart.data.groups import by_folder, expression, grouped
from headstart.data.manifests import LISTS, read_csv, read_parquet
from headstart.data.mask_sets import read_masks
from headstart.data.parquet import parquet_files, read_parquet_folder
from headstart.data.sheet_truth import summary
from headstart.data.sources import Found, Row, Source
from headstart.data.tars import read_tars, tars_at
from headstart.data.teachable import check_teachable
from headstart.data.times import by_time
from headstart.data.to_label import found_in
from headstart.data.tree import shown
from headstart.data.truth import PLACED, Asked, tags_in
from headstart.errors import DataError, LabelsError, OptionError
from headstart.files.far import is_far, of_another_kind

REMEDIES = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), " (a spreadsheet: save it as CSV UTF-8)"),
    **dict.fromkeys((".zip", ".gz", ".7z", ".rar"), " (an archive: unpack it first)"),
}
NEEDED = {"classify": "classes are", "recognise": "identities are", "tag": "label is", "regress": "value is"}
NEEDED["anomaly"] = "good picture is"
NEEDED["segment"] = "mask is"
NEEDED["detect"] = "class of boxes is"
SPLITS = ("train", "validation", "test", "none")


@dataclass(frozen=True, eq=False)
class Table:
    """One row per image.

    names (image,): path or name as shown to the user; below the folder that was read, or as written in the manifest.
    labels (image,): class name, "" = none. splits (image,): one of SPLITS. groups (image,): the user's own, "" = none.
    All four are object arrays of str. notes: what was ignored and why. layout: one line, what it was read as.
    kind: what the labels' texts stand for, a key of `given.KINDS`; classes stand in the order of that.
    task: what the labels are, one of `truth.TASKS`, each in the form that `truth.py` gives. columns: the names of
    the columns from which values were read, or labels of 0 and 1; () where one column names classes or labels.
    """

    names: NDArray[np.object_]
    labels: NDArray[np.object_]
    splits: NDArray[np.object_]
    groups: NDArray[np.object_]
    sources: tuple[Source, ...]
    notes: tuple[str, ...]
    layout: str
    kind: str = "str"
    task: str = "classify"
    columns: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.sources)

    def read(self, row: int) -> bytes | NDArray[Any]:
        """The encoded bytes or the array of one image. Raises ImageError with a reason."""
        return self.sources[row].read()

    def take(self, rows: NDArray[Any] | Sequence[int]) -> Table:
        """The table of these row numbers, in this order; or of the rows where a boolean array (image,) is true."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == np.bool_ else index.astype(np.intp)
        return replace(
            self,
            names=self.names[index],
            labels=self.labels[index],
            splits=self.splits[index],
            groups=self.groups[index],
            sources=tuple(self.sources[i] for i in index),
        )

    @property
    def teaching(self) -> NDArray[np.intp]:
        """The rows that may teach: those in split train or none, else all."""
        training = np.isin(self.splits.astype(str), ("train", "none"))
        return np.flatnonzero(training if training.any() else np.ones(len(self), bool))

    @property
    def classes(self) -> tuple[str, ...]:
        """The sorted names of the labels to train on; of measured values the columns."""
        if self.task == "regress" or self.task in PLACED:
            return self.columns
        if self.task == "anomaly":  # every kind of oddity, since none of them teaches
            return (GOOD, *sorted_names(set(self.labels) - {"", GOOD}, self.kind))
        if self.task == "tag":
            return sorted_names(set().union(*(tags_in(text)[0] for text in self.labels[self.teaching])), self.kind)
        return sorted_names(set(self.labels[self.teaching]) - {""}, self.kind)


def read_table(  # noqa: PLR0913 - the data are one, the rest is what the user says of them
    path: str | Path,
    min_classes: int = 2,
    group_by: str | None = None,
    task: str = "auto",
    label: str | None = None,
    group: str | None = None,
    time: str | None = None,
    good: str | None = None,
    classes: str | Sequence[str] | None = None,
    known: frozenset[str] | None = None,
) -> Table:
    """A labelled folder, manifest or Parquet set, as in the table above.

    min_classes: fewer than this many training classes are refused; 1 is enough to evaluate. group_by: images that stay
    together, by a regular expression for their names below `path`, or "folder": that in which they lie inside their
    class; "none": the topmost folders are the classes, and folders in them mean nothing. task: what the truth is read
    as, one of `truth.TASKS`; "auto": what it clearly is (`sheet_truth.py`). label: the column of the truth, or several
    with commas between. group: the column of a list whose values are groups, for images that stay together. time: that
    of dates or numbers by which the past teaches and the latest images judge. good: for the task "anomaly", the labels
    of good pictures with commas between; None: those whose names say so. classes: for the task "segment", what the
    values in masks are called: a file, names with commas between, or a list of them. known: names of pictures that a
    list may name though they are not here. Raises DataError, OptionError.
    """
    asked = Asked(task, label, min_classes > 1, group, time, classes, known)
    expression(group_by)
    if group is not None and group_by is not None:
        raise OptionError("--group names a column and --group-by reads names of files: leave one of them out")
    where = shown(str(path))
    found = _found(path, min_classes, group_by, asked)
    if found.task == "anomaly":
        found = with_good(found, good, where)
    elif good is not None:
        raise OptionError(f"--good {good} is of --task anomaly, and the task here is {found.task}: leave it out")
    folder = not is_file(str(path)) if is_far(path) else Path(path).is_dir()
    if group_by == "folder" and (found.task == "detect" or not folder):
        found = found._replace(rows=by_folder(found.rows))
    return taught_by(found, where, min_classes, group_by, time)


def taught_by(
    found: Found, where: str, min_classes: int, group_by: str | None = None, time: str | None = None
) -> Table:
    """The table of what was found in `where`: with its groups, its parts by time, and checked as `read_table` says."""
    rows, notes = grouped(found.rows, group_by, where, found.task == "classify")
    if time is not None:
        rows, more = by_time(rows, time, where, found.task in ("classify", "recognise"))
        notes = [*notes, *more]
    table = _table(found._replace(rows=rows, notes=[*found.notes, *notes]))
    _check_enough(table, where, min_classes)
    _check_trained(table, where)
    if min_classes == 1:
        return table
    scarce = check_teachable(where, table.task, table.labels[table.teaching].tolist(), table.columns)
    return replace(table, notes=(*table.notes, *scarce))


def _found(path: str | Path, min_classes: int, group_by: str | None, asked: Asked) -> Found:
    """What lies there, by the reader for it. Raises DataError."""
    inner = group_by if group_by in ("folder", "none") else ""
    if is_far(path):
        return read_far(str(path), asked, lambda folder: read_labelled_folder(folder, min_classes, inner, asked))
    if tars := tars_at(str(path)):
        return read_tars(tars, shown(str(path)), asked)
    place = Path(path)
    if asked.task == "segment":
        return read_masks(place, asked, group_by or "")
    if asked.task == "detect":
        return read_boxes(place, asked)
    if place.is_dir():
        if inside := parquet_files(place):
            return read_parquet_folder(place, inside, asked)
        return read_labelled_folder(place, min_classes, inner, asked)
    where = shown(str(path))
    if not place.exists():
        hint = of_another_kind(str(path)) or "name a folder with one folder of images per class"
        raise DataError(f"{where} does not exist: {hint}")
    if place.suffix.lower() in LISTS:
        return read_csv(place, asked)
    if place.suffix.lower() == ".parquet":
        return read_parquet(place, asked)
    raise DataError(
        f"{where} is neither a folder nor a manifest{REMEDIES.get(place.suffix.lower(), '')}: name a folder with one "
        "folder of images per class, or a .csv or .parquet file with the columns path,label"
    )


def _check_enough(table: Table, where: str, min_classes: int) -> None:
    """Raises LabelsError for no truth, DataError for fewer classes than asked for, or classes that are measured."""
    least = min_classes if table.task in ("classify", "recognise") else 1
    bare = not (table.labels != "").any()
    if bare or len(table.classes) < least:
        what = "no labels" if bare or not table.classes else f"1 labelled class, {table.classes[0]!r}"
        said = f" ({'; '.join(table.notes[:2])})" if table.notes else ""
        kind = LabelsError if bare else DataError
        raise kind(f"{where} has {what}: at least {least} {NEEDED[table.task]} needed{said}")
    if min_classes > 1 and table.task == "classify":
        check_not_measured(where, table.labels[table.teaching])


def _check_trained(table: Table, where: str) -> None:
    """Raises DataError on a class that is to be judged and was never to be trained on. Identities may be new."""
    if table.task in ("regress", "recognise", "anomaly", *PLACED):
        return
    known = {*table.classes, ""}
    spelt = {key(name): name for name in table.classes}
    what = "label" if table.task == "tag" else "class"
    for text, split in zip(table.labels, table.splits, strict=True):
        for label in sorted((tags_in(text)[0] if table.task == "tag" else {text}) - known):
            alike = f", which has {spelt[key(label)]!r}" if key(label) in spelt else ""
            raise DataError(
                f"{what} {label!r} is in the {split} split of {where} but not in its train split{alike}: add training "
                f"images of it, or {'rename' if alike else 'remove'} it {'in' if alike else 'from'} {split}"
            )


def table_of(images: object, labels: object = None, task: str = "auto") -> Table:
    """Images that a program holds, with the truth of each or without; `given.py` says in which forms. Raises DataError.

    labels: as the program has them, or as `labels_of` or `truth_given` has read them. task: as for `read_table`.
    """
    named = images_of(images)
    read = (
        labels if isinstance(labels, Labels) else truth_given([None] * len(named) if labels is None else labels, task)
    )
    if len(read.texts) != len(named):
        raise DataError(f"{len(named)} images but {len(read.texts)} labels: give one label for each image")
    if not named:
        raise DataError("no images were given: an empty list")
    rows = [Row(name, source, text, "none") for (name, source), text in zip(named, read.texts, strict=True)]
    said = f"{counted(len(rows), 'image')} handed over by the program"
    if read.task in ("tag", "regress"):
        said += f", {summary(rows, read.task, read.columns)}"
    return replace(_table(Found(rows, [], said, read.task, read.columns)), kind=read.kind)


def list_images(paths: Sequence[str | Path], masks: bool = True) -> Table:
    """Images without labels: files, folders searched at any depth, and all that `read_table` takes, or zip files.
    masks: whether masks in a folder are images too; not for a model that segments.

    A file named here is always kept; what is missing beside others is a row that cannot be read. Raises DataError.
    """
    return _table(found_in(paths, masks))


def _table(found: Found) -> Table:
    def column(values: list[str]) -> NDArray[np.object_]:
        array = np.empty(len(values), object)
        array[:] = values
        return array

    return Table(
        column([row.name for row in found.rows]),
        column([row.label for row in found.rows]),
        column([row.split for row in found.rows]),
        column([row.group for row in found.rows]),
        tuple(row.source for row in found.rows),
        tuple(found.notes),
        found.layout,
        task=found.task,
        columns=found.columns,
    )
