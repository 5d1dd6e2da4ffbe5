"""Bundle x images -> predictions. The one inference path: `evaluate` and the Python API go through it too."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.data.table import Table
from headstart.errors import BundleError, ImageError, OutputError
from headstart.files.cells import csv_bytes
from headstart.files.output import PREDICTIONS, check_output
from headstart.files.reading import why
from headstart.files.whole import write_whole
from headstart.heads.apart import Apart
from headstart.heads.novelty import part_of
from headstart.heads.reference import Sampled, placed_by
from headstart.judge.class_marks import probabilities_of
from headstart.ship.package import Loaded
from headstart.tasks.task import Record
from headstart.trunk.engine import Engine, compile_trunk
from headstart.trunk.features import gathered, stream
from headstart.trunk.store import Halves

BUFFER = 256  # images whose features are gathered before the head reads them
Progress = Callable[[int], None]
Blocks = dict[str, Halves]
RANKED = {"top": ("label", "probability"), "nearest": ("identity", "score")}  # lists of a record, the best first


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
    apart: Apart | None = None  # how well they are told from the images that taught, where enough are known of both
    novelty: npt.NDArray[np.float32] | None = None  # (image,): above 1 unlike all that taught; None: not known

    @property
    def readable(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.errors == "", dtype=bool)


def predict(
    model: Loaded,
    table: Table,
    engine: Engine | None = None,
    progress: Progress | None = None,
    taken: Callable[[list[int], Blocks], None] | None = None,
) -> Predictions:
    """The answer for every image of the table, in its order. `taken(rows, features)`: is given what the head reads."""
    engine = engine or compile_trunk(model.backbone, model.precision)
    answers = np.full((len(table), len(model.names), *model.task.extra), np.nan, np.float32)
    errors = np.full(len(table), "", dtype=object)
    novelty = np.full(len(table), np.nan, np.float32)
    rows: list[int] = []
    blocks: list[dict[str, Halves]] = []
    sampled = None if model.reference is None else Sampled(model.reference, len(table))

    def flush() -> None:
        if rows:
            joined = {name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]}
            answers[rows] = _through(model, joined)
            if sampled is not None:
                sampled.add(rows, joined)
            novelty[rows] = _novelty(model, joined, answers[rows])
            if taken is not None:
                taken(list(rows), joined)
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
    found = None if sampled is None else sampled.shift(placed_by(answers, model.task.name))
    return Predictions(table.names, answers, errors, notes, found, None if model.novelty is None else novelty)


def predict_with_features(
    model: Loaded, table: Table, engine: Engine | None = None, progress: Progress | None = None
) -> tuple[Predictions, dict[str, Halves]]:
    """The answers, and what the head read of the images that can be read: block -> (readable image, feature)."""
    rows: list[int] = []
    parts: list[Blocks] = []

    def taken(some: list[int], blocks: Blocks) -> None:
        rows.extend(some)
        parts.append(blocks)

    found = predict(model, table, engine, progress, taken)
    order = np.argsort(np.array(rows, dtype=np.int64), kind="stable")
    names = parts[0] if parts else ()
    return found, {name: np.concatenate([part[name] for part in parts])[order] for name in names}


def _novelty(model: Loaded, blocks: Blocks, answers: npt.NDArray[np.float32]) -> npt.NDArray[np.floating] | float:
    """(image,); not a number where the model knows none."""
    if model.novelty is None:
        return np.nan
    part = part_of(model.head.parts)
    return model.novelty.scores(part.of(blocks[part.block]), probabilities_of(answers))


def _through(model: Loaded, blocks: Blocks) -> npt.NDArray[np.float32]:
    found = model.task.answers(model.head.outputs(blocks), model.rule).astype(np.float32)
    first = found.reshape(*found.shape[:2], -1)[
        :, :, 0
    ]  # what follows it, as the width of an interval, may be infinite
    if not np.isfinite(first).all() or np.isnan(found).any():
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
    novelty = [None] * len(predictions.names) if predictions.novelty is None else predictions.novelty.tolist()
    every = zip(predictions.names, predictions.answers, predictions.errors, novelty, strict=True)
    for name, answer, error, new in every:
        said: Record = task.record(model.names, answer, model.rule, top)
        if "top" in said:  # one class an image; the ranked list stays the last
            said |= {"known": None if new is None else new <= 1, "novelty": new, "top": said.pop("top")}
        if error:
            said = {what: _nothing(value) for what, value in said.items()}
        found.append({"path": str(name), **said, "error": error or None})
    return found


LINE_ENDS = {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}  # some readers of JSON lines end a line there


def write_predictions(found: list[Record], path: Path, top: int) -> None:
    """CSV, JSON lines, JSON or Parquet, by the ending; whole or not at all. Raises OutputError."""
    check_output(path, PREDICTIONS)
    try:
        content = _encoded(found, path.suffix.lower(), top)
        write_whole(path, lambda place: place.write_bytes(content))
    except OSError as error:
        raise OutputError(f"predictions cannot be written to {path} ({why(error)}): choose another -o") from None


def _nothing(value: object) -> object:
    """What stands for a value in the record of an image that could not be read: same kind, nothing in it."""
    if isinstance(value, dict):
        return dict.fromkeys(value)
    return [] if isinstance(value, list) else None


def _encoded(found: list[Record], ending: str, top: int) -> bytes:
    if ending == ".jsonl":
        lines = (json.dumps(record, ensure_ascii=False).translate(LINE_ENDS) for record in found)
        return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
    if ending == ".json":
        return json.dumps(found, ensure_ascii=False, indent=1).encode("utf-8", "replace")
    if ending == ".parquet":
        return _parquet(found)
    rows = [_cells(record, top) for record in found]
    columns = [*dict.fromkeys(name for row in rows for name in row if name != "error"), "error"]
    return csv_bytes(columns, [[row.get(name, "") for name in columns] for row in rows])


def _parquet(found: list[Record]) -> bytes:
    """Columns as the records have them: text, numbers, lists, and a struct where a record holds one by name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def kind(name: str, value: object) -> pa.DataType:
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

    schema = pa.schema([(name, kind(name, value)) for name, value in found[0].items()]) if found else pa.schema([])
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(found, schema=schema), sink)
    return sink.getvalue()


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
