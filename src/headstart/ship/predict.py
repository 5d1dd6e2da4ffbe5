"""Bundle x images -> predictions. The one inference path: `evaluate` and the Python API go through it too."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.table import Table
from headstart.errors import BundleError, ImageError, OutputError
from headstart.files.cells import csv_bytes
from headstart.files.output import PREDICTIONS, check_output
from headstart.files.reading import why
from headstart.files.whole import write_whole
from headstart.ship.package import Loaded
from headstart.tasks.task import Record
from headstart.trunk.engine import Engine, compile_trunk
from headstart.trunk.features import gathered, stream
from headstart.trunk.store import Halves

BUFFER = 256  # images whose features are gathered before the head reads them
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Predictions:
    """What a model says of some images.

    names (image,); answers float32 (image, output) in the form of the model's task, NaN where the image could not be
    read; errors (image,), "" if none.
    """

    names: npt.NDArray[np.object_]
    answers: npt.NDArray[np.float32]
    errors: npt.NDArray[np.object_]
    notes: tuple[str, ...] = ()  # how odd pictures were read

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.errors == "", dtype=bool)


def predict(model: Loaded, table: Table, engine: Engine | None = None, progress: Progress | None = None) -> Predictions:
    """The answer for every image of the table, in its order."""
    engine = engine or compile_trunk(model.backbone, model.precision)
    answers = np.full((len(table), len(model.names), *model.task.extra), np.nan, np.float32)
    errors = np.full(len(table), "", dtype=object)
    rows: list[int] = []
    blocks: list[dict[str, Halves]] = []

    def flush() -> None:
        if rows:
            answers[rows] = _through(model, blocks)
            rows.clear()
            blocks.clear()

    def deliver(some: list[int], values: dict[str, Halves]) -> None:
        rows.extend(some)
        blocks.append(values)
        if len(rows) >= BUFFER:
            flush()
        if progress:
            progress(len(some))

    def failed(row: int, error: ImageError) -> None:
        errors[row] = str(error)
        if progress:
            progress(1)

    remarks: dict[int, str] = {}
    stream(table, model.backbone, engine, deliver, failed, remarked=remarks.__setitem__)
    flush()
    notes = gathered((str(table.names[row]), remark) for row, remark in sorted(remarks.items()))
    return Predictions(table.names, answers, errors, notes)


def _through(model: Loaded, blocks: list[dict[str, Halves]]) -> npt.NDArray[np.float32]:
    joined = {name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]}
    found = model.task.answers(model.head.outputs(joined), model.rule).astype(np.float32)
    if not np.isfinite(found).all():
        raise BundleError(
            "the model answers with what is no number, since its weights are too large or damaged: copy it again from "
            "where it was made, or run `headstart fit` again"
        )
    return found


def records(model: Loaded, predictions: Predictions, top: int) -> list[Record]:
    """One an image: "path", what the model's task says of it (`Task.record`; of a ranked list the `top` best), "error".

    On an error all that the task says is null or empty.
    """
    task, found = model.task, []
    for name, answer, error in zip(predictions.names, predictions.answers, predictions.errors, strict=True):
        said = task.record(model.names, answer, model.rule)
        if error:
            said = {what: [] if isinstance(value, list) else None for what, value in said.items()}
        cut = {what: value[:top] if isinstance(value, list) else value for what, value in said.items()}
        found.append({"path": str(name), **cut, "error": error or None})
    return found


LINE_ENDS = {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}  # some readers of JSON lines end a line there


def write_predictions(found: list[dict[str, Any]], path: Path, top: int) -> None:
    """CSV, JSON lines, JSON or Parquet, by the ending; whole or not at all. Raises OutputError."""
    check_output(path, PREDICTIONS)
    try:
        content = _encoded(found, path.suffix.lower(), top)
        write_whole(path, lambda place: place.write_bytes(content))
    except OSError as error:
        raise OutputError(f"predictions cannot be written to {path} ({why(error)}): choose another -o") from None


def _encoded(found: list[dict[str, Any]], ending: str, top: int) -> bytes:
    if ending == ".jsonl":
        lines = (json.dumps(record, ensure_ascii=False).translate(LINE_ENDS) for record in found)
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
    if ending == ".json":
        return json.dumps(found, ensure_ascii=False, indent=1).encode("utf-8", "replace")
    if ending == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        choice = pa.struct([("label", pa.string()), ("probability", pa.float64())])
        schema = pa.schema(
            [
                ("path", pa.string()),
                ("label", pa.string()),
                ("probability", pa.float64()),
                ("top", pa.list_(choice)),
                ("error", pa.string()),
            ]
        )
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(found, schema=schema), sink)
        return sink.getvalue()
    ranks = range(2, top + 1)
    others = [f"{what}_{k}" for k in ranks for what in ("label", "probability")]
    rows = []
    for record in found:
        second = [v for choice in record["top"][1:] for v in (choice["label"], _digits(choice["probability"]))]
        second += [""] * (len(others) - len(second))
        rows.append([record["path"], record["label"], _digits(record["probability"]), *second, record["error"]])
    return csv_bytes(["path", "label", "probability", *others, "error"], rows)


def _digits(probability: float | None) -> str:
    return "" if probability is None else f"{probability:.6f}"
