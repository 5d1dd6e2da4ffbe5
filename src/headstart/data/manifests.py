"""Lists of images as tables: a CSV, text or Parquet file with a path, and mostly a label, for each image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headstart.counted import counted
from headstart.data import columns
from headstart.data.lines import read_sheet
from headstart.data.parquet import image_column, read_images, sheet_of
from headstart.data.places import Placed, lies, none_exists, place, say_missing, say_moved
from headstart.data.sheet_truth import Truth, said_of, truth_of
from headstart.data.sheets import Sheet
from headstart.data.sources import Found, Row, source_of
from headstart.data.tree import shown
from headstart.data.truth import Asked, check_tag, tag_text, tags_in
from headstart.errors import DataError
from headstart.files.cells import quoted
from headstart.files.far import Place, place_of

LISTS = (".csv", ".tsv", ".txt", ".lst")
CONFLICTS = 0.2  # of the images have more than one label: then that is meant, and not a mistake


def read_csv(path: Place, asked: Asked | None) -> Found:
    """A list in CSV, or as lines: one row an image. asked: of its truth, None: it may have none. Raises DataError."""
    return _manifest(path, read_sheet(path, _lies(path.parent, asked), asked), asked)


def read_parquet(path: Place, asked: Asked | None) -> Found:
    """A Parquet file: with the images inside, or a list of paths. Raises DataError."""
    if image_column(path):
        return read_images([(path, "none")], shown(str(path)), [], asked)
    sheet = sheet_of(path, asked)
    if not columns.places(sheet, "path", "path?"):
        raise DataError(
            f"{sheet.where} has no column 'path' and no images inside: its columns are {sheet.seen()}; name the one "
            "that holds the file names path"
        )
    return _manifest(path, sheet, asked)


def _manifest(path: Place, sheet: Sheet, asked: Asked | None) -> Found:
    """The rows of a list; relative paths start at its folder."""
    if not len(sheet):
        raise DataError(f"{sheet.where} lists no images: each line is path,label")
    told = columns.described(sheet, asked)
    truth = truth_of(sheet, asked, told.splits) if asked else Truth([""] * len(sheet), "classify")
    names, placed = _paths(sheet, path.parent, truth.texts, asked)
    kept: Sequence[int] = range(len(sheet))
    if asked:
        if asked.task != "tag":
            _check_no_boxes(sheet, placed)
        truth, kept = _one_row_an_image(sheet, placed, truth, told.splits, asked)
    labels = truth.texts
    rows = [
        Row(shown(names[k]), source_of(placed.files[k]), labels[k], told.splits[k], told.groups[k], told.times[k])
        for k in kept
    ]
    notes = [*sheet.notes, *say_moved(placed), *say_missing(placed)]
    what = said_of(rows, truth) if asked else counted(len(rows), "image")
    return Found(rows, notes, f"{sheet.where}: {sheet.kind}, {what}{told.grouped}", truth.task, truth.columns)


def _lies(folder: Place, asked: Asked | None) -> Callable[[str], bool]:
    """Whether a path of a list names a picture, as it is written."""
    known = None if asked is None else asked.known
    return (lambda name: lies(folder, name)) if known is None else (lambda name: shown(name) in known)


def _paths(sheet: Sheet, folder: Place, labels: Sequence[str], asked: Asked | None) -> tuple[list[str], Placed]:
    """The paths as they are written, and their files: of the column whose values are files, or pictures that are known.
    Raises DataError."""
    known = None if asked is None else asked.known
    tried: dict[int, Placed] = {}
    for role in ("path", "path?"):
        for column in columns.places(sheet, role):
            names = sheet.values[column]
            tried[column] = (
                place(folder, names, labels)
                if known is None
                else Placed(list(names), sum(shown(name) in known for name in names))
            )
        found = [column for column in tried if tried[column].n_found]
        if found:
            break
    else:
        column = next(iter(tried))
        _check_paths(sheet, column)
        if known is not None:
            raise DataError(
                f"{sheet.where} names no picture whose features are here: its first is "
                f"{quoted(sheet.values[column][0], 60)}, theirs {quoted(min(known, default=''), 60)}"
            )
        raise DataError(none_exists(sheet.where, folder, tried[column]))
    best = max(found, key=lambda column: tried[column].n_found)
    equal = [column for column in found if tried[column].files != tried[best].files]
    if any(2 * tried[column].n_found > tried[best].n_found for column in equal):
        raise DataError(
            f"{sheet.where}: which column holds the paths of the images, {columns.named(sheet, [best, *equal])}? Both "
            "name files that exist: name the right one path, and rename the other, for instance to note1"
        )
    others = [column for column in columns.places(sheet, "path", "path?") if column != best]
    others = [column for column in others if columns.squeezed(sheet.names[column]) not in columns.OFTEN_ELSE]
    if others:
        sheet.notes.append(
            f"paths are those of column {columns.named(sheet, [best])}, which names files that exist, and not of "
            f"{columns.named(sheet, others)}"
        )
    _check_paths(sheet, best)
    return sheet.values[best], tried[best]


def _check_paths(sheet: Sheet, column: int) -> None:
    empty = next((row for row, name in enumerate(sheet.values[column]) if not name.strip()), None)
    if empty is not None:
        raise DataError(f"{sheet.row(empty)} has no path")


def _check_no_boxes(sheet: Sheet, placed: Placed) -> None:
    boxes = [name.strip() for name in sheet.names if columns.role_of(name) == "box"]
    if boxes and len(set(placed.files)) < len(placed.files):
        raise DataError(
            f"{sheet.where} has several lines for one image and columns for boxes ({', '.join(map(quoted, boxes))}): "
            "--task detect learns where these things are, and --task tag which classes an image holds; for one class "
            "write one line an image"
        )


@dataclass
class _Seen:
    """The first row of an image, and the labels of all its rows."""

    row: int
    labels: set[str]


def _one_row_an_image(
    sheet: Sheet, placed: Placed, truth: Truth, splits: Sequence[str], asked: Asked
) -> tuple[Truth, list[int]]:
    """(truth, rows that stay): an image counts once in a split, and one with two truths has none. Raises DataError.

    Lines of labels add up where each holds some labels of its image.
    """
    labels = list(truth.texts)
    seen: dict[str, _Seen] = {}
    kept, again = [], Counter[str]()
    for row, file in enumerate(placed.files):
        first = seen.setdefault(file, _Seen(row, set()))
        first.labels |= {labels[row]} - {""}
        if f"{splits[row]} {file}" in again:
            if labels[row]:  # a line with a label says more than one without
                labels[first.row] = labels[first.row] or labels[row]
        else:
            kept.append(row)
        again[f"{splits[row]} {file}"] += 1
    torn = {file: found for file, found in seen.items() if len(found.labels) > 1}
    often = len(torn) > 1 and len(torn) > CONFLICTS * len(seen)
    if torn and not truth.columns and (truth.task == "tag" or (often and asked.task == "auto")):
        truth = truth._replace(task="tag", texts=_added_up(sheet, placed, truth))
        labels, torn = list(truth.texts), {}
    if torn:
        _say_torn(sheet, torn, len(seen), often)
        labels = ["" if placed.files[row] in torn else label for row, label in enumerate(labels)]
    repeats = len(placed.files) - len(kept)
    if repeats:
        sheet.notes.append(
            f"{repeats} {sheet.unit}{'s repeat' if repeats > 1 else ' repeats'} an image that is listed before: "
            "each image counts once"
        )
    return truth._replace(texts=labels), kept


def _added_up(sheet: Sheet, placed: Placed, truth: Truth) -> list[str]:
    """The labels of all lines of an image, for each of them. Raises DataError."""
    held: dict[str, set[str]] = {}
    for row, (file, text) in enumerate(zip(placed.files, truth.texts, strict=True)):
        if text and truth.task != "tag":
            check_tag(text, sheet.row(row))
        if text:
            held.setdefault(file, set()).update(tags_in(text)[0])
    return [tag_text(held[file]) if file in held else "" for file in placed.files]


def _say_torn(sheet: Sheet, torn: dict[str, _Seen], n_images: int, often: bool) -> None:
    """Raises DataError where images with several labels are no exception."""
    file, found = next(iter(torn.items()))
    example = f"{shown(place_of(file).name)} ({', '.join(map(quoted, sorted(found.labels)[:3]))})"
    n = len(torn)
    if often:
        raise DataError(
            f"{sheet.where}: {n} of {n_images} images have several labels, such as {example}: keep one line an image, "
            "or learn several labels an image with --task tag"
        )
    what = "1 image is" if n == 1 else f"{n} images are"
    sheet.notes.append(f"{what} listed with different labels, such as {example}, and used with none of them")
