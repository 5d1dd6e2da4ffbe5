"""Records of a model's answers as CSV, JSON lines, JSON or Parquet, written as they come: all are never held at once.

What columns there are depends on the model alone, never on the images: `record_of_none`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from headstart.files.cells import write_csv
from headstart.files.far import Place
from headstart.files.json_lists import pieces
from headstart.files.output import PREDICTIONS, check_output
from headstart.files.put import put, refusing
from headstart.tasks.task import Record

if TYPE_CHECKING:
    import pyarrow as pa

RANKED = {"top": ("label", "probability"), "nearest": ("identity", "score")}  # lists of a record, the best first
LINE_ENDS = {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}  # some readers of JSON lines end a line there
AT_ONCE = 256  # records that become Arrow's columns together
# Of a row group before it is packed, some 6,000 images: with 8 MiB a file of 60,000 took 80 MB more than one of 6,000.
GROUP_BYTES = 2**20


def write_predictions(found: Iterable[Record], path: Place, top: int, like: Record, partial: Path | None = None) -> int:
    """CSV, JSON lines, JSON or Parquet, by the ending; whole or not at all. `like`: what is in every record; `partial`:
    as for `put`. Gives the bytes of the file.

    Raises OutputError.
    """
    check_output(path, PREDICTIONS)

    def write(place: Path) -> None:
        with place.open("wb") as file:
            _encode(found, file, path.suffix.lower(), top, like)

    with refusing(f"predictions cannot be written to {path}"):
        return put(path, write, partial)


def _encode(found: Iterable[Record], file: BinaryIO, ending: str, top: int, like: Record) -> None:
    if ending == ".jsonl":
        for record in found:
            line = json.dumps(record, ensure_ascii=False).translate(LINE_ENDS)
            file.write(f"{line}\n".encode("utf-8", "replace"))
    elif ending == ".json":
        for piece in pieces(found, ensure_ascii=False):
            file.write(piece.encode("utf-8", "replace"))
    elif ending == ".parquet":
        _parquet(found, file, like)
    else:
        columns = [*(name for name in _cells(like, top) if name != "error"), "error"]
        rows = (_cells(record, top) for record in found)
        write_csv(file, columns, ([row.get(name, "") for name in columns] for row in rows))


def _parquet(found: Iterable[Record], file: BinaryIO, like: Record) -> None:
    """Columns as the records have them: text, numbers, lists, and a struct where a record holds one by name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, _kind(name, value)) for name, value in like.items()])
    with pq.ParquetWriter(file, schema) as writer:
        for group in _groups(found, schema):
            writer.write_table(group)


def _groups(found: Iterable[Record], schema: pa.Schema) -> Iterator[pa.Table]:
    """Tables of some GROUP_BYTES each."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    every = iter(found)
    while some := list(islice(every, AT_ONCE)):
        waiting.append(pa.Table.from_pylist(some, schema=schema))
        if sum(table.nbytes for table in waiting) >= GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def _kind(name: str, value: object) -> pa.DataType:
    import pyarrow as pa

    if name in RANKED:
        text, number = RANKED[name]
        return pa.list_(pa.struct([(text, pa.string()), (number, pa.float64())]))
    if isinstance(value, dict):
        return pa.struct([(key, pa.float64()) for key in value])
    if isinstance(value, list):
        return pa.list_(pa.string())
    if name in ("abstain", "known"):
        return pa.bool_()
    return pa.string() if name in ("path", "label", "identity", "verdict", "error") else pa.float64()


def _cells(record: Record, top: int) -> dict[str, object]:
    """One row of CSV: a ranked list from its second place on as label_2, probability_2 ..., and from its first where
    the answer may be another; labels given as a|b; what is held by name as values_NAME."""
    cells: dict[str, object] = {}
    for what, value in record.items():
        if what in RANKED:
            text, number = RANKED[what]
            named = what if what == "nearest" else text
            for k in range(1 if what == "nearest" else 2, top + 1):
                choice = value[k - 1] if k <= len(value) else {text: "", number: None}
                cells |= {f"{named}_{k}": choice[text], f"{number}_{k}": _digits(choice[number])}
        elif isinstance(value, dict):
            cells |= {f"{what}_{name}": _digits(number) for name, number in value.items()}
        elif isinstance(value, list):
            cells[what] = "|".join(value)
        elif isinstance(value, bool):
            cells[what] = "true" if value else "false"
        else:
            cells[what] = _digits(value) if isinstance(value, float) else value
    return cells


def _digits(number: float | None) -> str:
    return "" if number is None else f"{number:.6f}"
