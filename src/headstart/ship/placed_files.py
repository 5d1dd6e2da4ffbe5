"""What `predict` writes of answers that lie in the picture: tables of records, masks, pictures with them drawn."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.data import images
from headstart.data.overlay import as_jpeg
from headstart.data.table import Table
from headstart.errors import ImageError, OutputError
from headstart.files.cells import csv_bytes
from headstart.files.reading import why
from headstart.files.whole import write_whole
from headstart.ship.placed import Placed, Said

DRAWN = 1600  # px, the longer side of a drawn picture at most
COCO = ".coco.json"


class Drawer:
    """Writes files of each image's answer as it comes: `masks` and `drawn` are folders, None for neither.

    A file is named after the image, with the folders that it lies in below the common one, so that two of one name do
    not meet. Raises OutputError where one cannot be written.
    """

    def __init__(self, model: Placed, table: Table, masks: str | None, drawn: str | None) -> None:
        self.model, self.table = model, table
        self.masks, self.drawn = (None if folder is None else Path(folder) for folder in (masks, drawn))
        self.names = apart([str(name) for name in table.names])

    def draw(self, said: Said) -> dict[str, Any]:
        """What the record of this image says of files: {"mask": its path} where masks are asked for."""
        name, task = self.names[said.row], self.model.task
        found: dict[str, Any] = {} if self.masks is None else {"mask": None}
        if said.answer is None:
            return found
        if self.masks is not None and task.mask is not None:
            place = self.masks / f"{name}.png"
            _write(place, task.mask(said.answer))
            found["mask"] = place.as_posix()
        if self.drawn is not None:
            try:
                plain = images.small(self.table.read(said.row), DRAWN, preprocess=self.model.backbone.preprocess)
            except ImageError:  # it could be read a moment ago
                return found
            picture = task.drawn(plain, said.size, self.model.names, said.answer, None, self.model.rule)
            _write(self.drawn / f"{name}.jpg", as_jpeg(picture))
        return found


def apart(names: Sequence[str]) -> list[str]:
    """Names of files without ending for these images, each another: as much of the path as tells them apart, with "_"
    for what stands between folders, and a number where that is not enough."""
    stems = [[part for part in Path(name).with_suffix("").parts if part not in ("/", "..", ".")] for name in names]
    found, taken = [], dict[str, int]()
    last = [parts[-1] if parts else "image" for parts in stems]
    many = _more_than_once(last)
    for parts, name in zip(stems, last, strict=True):
        wanted = "_".join(parts[-4:]) if name in many else name
        taken[wanted] = taken.get(wanted, 0) + 1
        found.append(wanted if taken[wanted] == 1 else f"{wanted}_{taken[wanted]}")
    return found


def _more_than_once(names: Sequence[str]) -> set[str]:
    seen, twice = set[str](), set[str]()
    for name in names:
        (twice if name in seen else seen).add(name)
    return twice


def write_records(model: Placed, records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """As CSV, JSON lines, JSON, or COCO's results where the name ends in .coco.json; whole or not at all. Raises
    OutputError."""
    if path.name.endswith(COCO):
        content = json.dumps(model.task.coco(records, model.names), ensure_ascii=False).encode("utf-8", "replace")
    elif path.suffix.lower() == ".jsonl":
        lines = (json.dumps(record, ensure_ascii=False) for record in records)
        content = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
    elif path.suffix.lower() == ".json":
        content = json.dumps(list(records), ensure_ascii=False, indent=1).encode("utf-8", "replace")
    else:
        content = csv_bytes(*model.task.rows(records, model.names))
    _write(path, content)


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda place: place.write_bytes(content))
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({why(error)}): choose another folder") from None
