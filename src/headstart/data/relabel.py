"""An edited list of labels that may be wrong, applied to a table: a new list of images, and no image is touched."""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from headstart.data.sources import FileSource
from headstart.data.table import Table
from headstart.errors import DataError, nearest
from headstart.files.cells import cell, quoted
from headstart.files.output import from_folder
from headstart.files.put import refusing
from headstart.files.reading import read_regular, why
from headstart.files.whole import write_whole

ACTIONS = ("keep", "relabel", "drop")
COLUMNS = ("path", "action", "label")
MOST_BYTES = 2**30


class Fix(NamedTuple):
    """A line of the list: `line` its number in the file; an action without text is "keep"."""

    line: int
    path: str
    action: str
    label: str


@dataclass(frozen=True)
class Relabelled:
    """Rows (label, split, group, file) that stay, and what was done to how many images."""

    rows: list[tuple[str, str, str, str]]
    done: Counter[str]  # of ACTIONS, of the images that the list names
    new_labels: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As --json says it."""
        counts = {
            what: self.done[action] for what, action in zip(("kept", "relabelled", "dropped"), ACTIONS, strict=True)
        }
        return {"images": len(self.rows), **counts, "new_labels": list(self.new_labels)}


def read_fixes(path: Path) -> list[Fix]:
    """The lines of a list with the columns path, action and label; others are ignored. Raises DataError."""
    try:
        text = read_regular(path, MOST_BYTES).decode("utf-8-sig")
    except (OSError, UnicodeError) as error:
        reason = why(error) if isinstance(error, OSError) else "it is not UTF-8: save it as CSV UTF-8"
        raise DataError(f"{path} cannot be read ({reason}): name suspected_labels.csv of a model, edited") from error
    first = text.partition("\n")[0]
    try:
        rows = list(_lines(text, max(",;\t", key=first.count)))
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file ({error})") from error
    header = [name.strip().lower() for name in rows[0][1]] if rows else []
    missing = next((name for name in COLUMNS if name not in header), None)
    if missing:
        raise DataError(f"{path} has no column {missing!r}: it needs {', '.join(COLUMNS)}, and may have others")
    places = [header.index(name) for name in COLUMNS]
    return [Fix(line, *((cells[k] if k < len(cells) else "").strip() for k in places)) for line, cells in rows[1:]]


def _lines(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    for cells in reader:
        if any(value.strip() for value in cells):
            yield reader.line_num, cells


def relabelled(table: Table, fixes: list[Fix], where: str, new_labels: bool = False) -> Relabelled:
    """The images of a table of classes with the list applied. `new_labels`: whether it may name classes that the table
    has not. Raises DataError for what it does not understand, with the line."""
    if table.task != "classify":
        raise DataError(f"relabel changes one class an image, and these data are of the task {table.task}")
    if not all(isinstance(source, FileSource) for source in table.sources):
        raise DataError(
            "relabel writes a list of image files, and these images lie elsewhere, or inside an archive or Parquet file"
        )
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(table.names):
        for known in {str(name), str(cell(str(name)))}:  # as a list of headstart's writes it
            rows_of[known].append(row)
    labels = [str(label) for label in table.labels]
    known = set(labels)
    spelt = {str(cell(label)): label for label in known}
    action_of: dict[int, str] = {}
    for fix in (fix._replace(label=spelt.get(fix.label, fix.label)) for fix in fixes):
        at = f"{where} line {fix.line}"
        action = _action(fix, at, known, new_labels)
        rows = rows_of.get(fix.path)
        if not rows:
            raise DataError(
                f"{at}: the data have no image {quoted(fix.path, 120)}: paths are written as fit lists them"
            )
        if rows[0] in action_of:
            raise DataError(f"{at}: {quoted(fix.path, 120)} stands in the list before: one line an image")
        for row in rows:
            action_of[row] = action
            labels[row] = fix.label if action == "relabel" else labels[row]
    kept = [row for row in range(len(table)) if action_of.get(row) != "drop"]
    listed = [
        (labels[row], str(table.splits[row]), str(table.groups[row]), str(source.path))
        for row in kept
        if isinstance(source := table.sources[row], FileSource)
    ]
    fresh = tuple(sorted({labels[row] for row in kept} - known))
    return Relabelled(listed, Counter(action_of.values()), fresh)


def _action(fix: Fix, at: str, known: set[str], new_labels: bool) -> str:
    """What a line asks for. Raises DataError for an action or a label that is not allowed."""
    action, names = fix.action.lower() or "keep", sorted(known - {""})
    if action not in ACTIONS:
        raise DataError(
            f"{at}: the action {quoted(fix.action)} is not known{nearest(action, ACTIONS)}: {', '.join(ACTIONS)}"
        )
    if action == "relabel" and not fix.label:
        raise DataError(f"{at}: relabel needs a label, one of {', '.join(names[:20])}")
    if action == "relabel" and fix.label not in known and not new_labels:
        raise DataError(
            f"{at}: the label {quoted(fix.label)} is none of these data{nearest(fix.label, names)}: they have "
            f"{', '.join(names[:20])}; --new-labels allows others"
        )
    return action


def write_manifest(found: Relabelled, path: Path) -> None:
    """As a CSV list that `fit` reads, whole or not at all; paths start at its folder. Raises OutputError."""
    folder = path.absolute().parent
    grouped = any(group for _, _, group, _ in found.rows)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("path", "label", "split", *(("group",) if grouped else ())))
    for label, split, group, file in found.rows:
        writer.writerow((from_folder(file, folder), label, split, *((group,) if grouped else ())))
    with refusing(f"{path} cannot be written"):
        write_whole(path, lambda place: place.write_bytes(text.getvalue().encode("utf-8")))
