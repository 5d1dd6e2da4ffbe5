"""Bundle x images -> predictions. The one inference path: `evaluate` and the Python API go through it too."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.table import Table
from headstart.errors import ImageError, OptionError, OutputError
from headstart.ship.package import Head, Loaded
from headstart.trunk.engine import Engine, compile_trunk
from headstart.trunk.features import gathered, stream
from headstart.trunk.store import Halves

BUFFER = 256  # images whose features are gathered before the head reads them
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Predictions:
    """What a model says of some images.

    names (image,); probabilities float32 (image, class), NaN where the image could not be read; errors (image,), "" if
    none.
    """

    names: npt.NDArray[np.object_]
    probabilities: npt.NDArray[np.float32]
    errors: npt.NDArray[np.object_]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()  # how odd pictures were read

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.errors == "", dtype=bool)


def predict(model: Loaded, table: Table, engine: Engine | None = None, progress: Progress | None = None) -> Predictions:
    """Probabilities of every image of the table, in its order."""
    engine = engine or compile_trunk(model.backbone, model.precision)
    probabilities = np.full((len(table), len(model.classes)), np.nan, np.float32)
    errors = np.full(len(table), "", dtype=object)
    rows: list[int] = []
    blocks: list[dict[str, Halves]] = []

    def flush() -> None:
        if rows:
            probabilities[rows] = _through(model.head, blocks)
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
    return Predictions(table.names, probabilities, errors, model.classes, notes)


def _through(head: Head, blocks: list[dict[str, Halves]]) -> npt.NDArray[np.float32]:
    joined = {name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]}
    return np.exp(head.log_probabilities(joined)).astype(np.float32)


def records(predictions: Predictions, top: int) -> list[dict[str, Any]]:
    """[{"path", "label", "probability", "top": [{"label", "probability"}], "error"}], the `top` best first.

    On an error label and probability are null and top is empty.
    """
    found = []
    order = np.argsort(-predictions.probabilities, axis=1, kind="stable")[:, :top]
    for name, best, p, error in zip(
        predictions.names, order, predictions.probabilities, predictions.errors, strict=True
    ):
        ranked = [] if error else [{"label": predictions.classes[k], "probability": float(p[k])} for k in best]
        first = ranked[0] if ranked else {"label": None, "probability": None}
        found.append({"path": str(name), **first, "top": ranked, "error": error or None})
    return found


FORMATS = (".csv", ".jsonl", ".json", ".parquet")


def check_output(path: Path, formats: tuple[str, ...]) -> None:
    """Raise now what would stop a write after long work; leaves nothing behind.

    OptionError for a name without one of these endings, OutputError for a place that cannot be written.
    """
    if path.suffix.lower() not in formats:
        raise OptionError(f"the output {path} cannot be written: its name must end in {' or '.join(formats)}")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist: make it first, or choose another -o")
    if path.is_dir():
        raise OutputError(f"{path} is a folder: choose another -o")
    trial = _partial(path)
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): choose another -o") from None


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.partial")


def write_predictions(found: list[dict[str, Any]], path: Path, top: int) -> None:
    """CSV, JSON lines, JSON or Parquet, by the ending; whole or not at all. Raises OutputError."""
    check_output(path, FORMATS)
    partial = _partial(path)
    try:
        partial.write_bytes(_encoded(found, path.suffix.lower(), top))
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"predictions cannot be written to {path} ({error.strerror}): choose another -o") from None
    finally:
        partial.unlink(missing_ok=True)


def _encoded(found: list[dict[str, Any]], ending: str, top: int) -> bytes:
    if ending == ".jsonl":
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in found).encode("utf-8", "replace")
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
    text = io.StringIO()
    writer = csv.writer(text)
    ranks = range(2, top + 1)
    writer.writerow(
        ["path", "label", "probability", *(f"{what}_{k}" for k in ranks for what in ("label", "probability")), "error"]
    )
    for record in found:
        others = [v for choice in record["top"][1:] for v in (choice["label"], f"{choice['probability']:.6f}")]
        others += [""] * (2 * len(ranks) - len(others))
        p = record["probability"]
        writer.writerow(
            [record["path"], record["label"] or "", "" if p is None else f"{p:.6f}", *others, record["error"] or ""]
        )
    return text.getvalue().encode("utf-8", "replace")
