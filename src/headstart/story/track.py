"""What a fit finds, sent to TensorBoard or MLflow while it learns.

The libraries come with `pip install "headstart[track]"`: tensorboardX writes event files without TensorFlow, and
mlflow-skinny is MLflow's client alone. Neither is loaded before `--track` asks for it. What is sent is what the caller
hands over, and nothing else: no user, no host, no path and no source file, which both would add by themselves.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from headstart.errors import OptionError, OutputError, nearest

FAILURES: tuple[type[Exception], ...] = (
    AssertionError,
    AttributeError,
    ImportError,  # a store that needs one more library says so at its first use
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it reports to its makers otherwise
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is for the result
}
PATIENCE = {  # where the user has set none: a server that is gone would hold up the fit for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # 7 by default
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds; 120 by default
}
SERVERS = ("http://", "https://", "databricks://")  # the others are databases
Setting = str | int | float | bool | None


class Tracker(Protocol):
    """Takes in a run: its options first, then each epoch, then the outcome."""

    def settings(self, values: Mapping[str, Setting]) -> None:
        """Options of the run; None is left out."""

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """What one epoch came to: losses, accuracy, learning rate, images a second."""

    def result(self, values: Mapping[str, float], files: Sequence[Path]) -> None:
        """The final scores, each sent as `result/NAME`, and files worth keeping."""


@contextmanager
def open_trackers(text: str, say: Callable[[str], None]) -> Iterator[Tracker]:
    """One tracker for all that the text names: `tensorboard:FOLDER`, `mlflow:FOLDER`, `mlflow:URI`, or several.

    A comma stands between two; an empty text tracks nothing. A tracker that fails later is told of once, by `say`, and
    left alone from then on: the fit goes on. Raises OptionError for a wrong word or a library that is missing,
    OutputError for a place that cannot be reached or written.
    """
    wanted = read_words(text)
    every = _Trackers(say)
    try:
        for kind, place in wanted:
            every.working.append(OPENERS[kind](place))
        yield every
        every.completed = True
    finally:
        every.close()


def read_words(text: str) -> list[tuple[str, str]]:
    """(kind, place) of each tracker that the text names; opens nothing. Raises OptionError."""
    found = []
    for word in text.split(",") if text.strip() else []:
        kind, _, place = word.strip().partition(":")
        if kind not in OPENERS or not place:
            close = "" if kind in OPENERS else nearest(kind, OPENERS)
            raise OptionError(
                f"--track {_public(word.strip())!r} is not allowed{close}: "
                "tensorboard:FOLDER, mlflow:FOLDER or mlflow:http://SERVER, several with a comma between"
            )
        found.append((kind, place))
    return found


class _Trackers:
    """Several trackers as one; one that fails is told of and left alone."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.working: list[_TensorBoard | _Mlflow] = []
        self.completed = False
        self._say = say

    def settings(self, values: Mapping[str, Setting]) -> None:
        given = {name: value for name, value in values.items() if value is not None}
        self._each(lambda tracker: tracker.settings(given))

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        self._each(lambda tracker: tracker.log(values, number))

    def result(self, values: Mapping[str, float], files: Sequence[Path]) -> None:
        self._each(lambda tracker: tracker.result({f"result/{name}": value for name, value in values.items()}, files))

    def close(self) -> None:
        self._each(lambda tracker: tracker.close(self.completed))

    def _each(self, do: Callable[[_TensorBoard | _Mlflow], None]) -> None:
        for tracker in list(self.working):
            try:
                do(tracker)
            except tracker.failures as error:
                self.working.remove(tracker)
                self._say(f"note: no more is sent to {tracker.name}, the fit goes on: {_line(error)}")


@dataclass(frozen=True)
class _TensorBoard:
    """One event file, written at once: the library's own writer has a thread whose failure would hang the fit."""

    writer: Any
    library: Any
    name: str = "TensorBoard"
    failures: tuple[type[Exception], ...] = FAILURES

    def settings(self, values: Mapping[str, Setting]) -> None:
        _, start, _ = self.library.summary.hparams(dict(values), {})  # its board finds the scores by itself
        self._write(0, start)

    def log(self, values: Mapping[str, float], step: int) -> None:
        kind = self.library.proto.summary_pb2.Summary
        scalars = [kind.Value(tag=name, simple_value=float(value)) for name, value in values.items()]
        self._write(step, kind(value=scalars))

    def result(self, values: Mapping[str, float], files: Sequence[Path]) -> None:
        """The scores; an event file holds no other files."""
        self.log(values, 0)

    def close(self, completed: bool) -> None:
        self.writer.close()

    def _write(self, step: int, summary: Any) -> None:
        event = self.library.proto.event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
        self.writer.write(event.SerializeToString())
        self.writer.flush()


def _open_tensorboard(place: str) -> _TensorBoard:
    """A run of its own below the folder, so that several fits are shown side by side."""
    library = _library("tensorboard", "tensorboardX")
    first = library.proto.event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2")
    try:
        run = _new_folder(Path(place).expanduser().absolute(), _now())
        # The usual name ends with the host's; TensorBoard reads any with "tfevents" in it.
        writer = library.RecordWriter(str(run / f"events.out.tfevents.{int(time.time())}.headstart"))
        writer.write(first.SerializeToString())
    except OSError as error:
        raise OutputError(
            f"--track tensorboard:{place} cannot be written: {_line(error)}; name another folder"
        ) from error
    return _TensorBoard(writer, library)


@dataclass(frozen=True)
class _Mlflow:
    """One run, by the client and not by `mlflow.start_run`, which would add the user, the source and its commit."""

    client: Any
    run: str
    entities: Any
    failures: tuple[type[Exception], ...]
    name: str = "MLflow"

    def settings(self, values: Mapping[str, Setting]) -> None:
        given = [self.entities.Param(name, str(value)) for name, value in values.items()]
        self.client.log_batch(self.run, params=given)

    def log(self, values: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        given = [self.entities.Metric(name, float(value), now, step) for name, value in values.items()]
        self.client.log_batch(self.run, metrics=given)

    def result(self, values: Mapping[str, float], files: Sequence[Path]) -> None:
        self.log(values, 0)
        for file in files:
            self.client.log_artifact(self.run, str(file))

    def close(self, completed: bool) -> None:
        self.client.set_terminated(self.run, "FINISHED" if completed else "FAILED")


def _open_mlflow(place: str) -> _Mlflow:
    """A run in the experiment that MLFLOW_EXPERIMENT_NAME names, else in `headstart`.

    A folder gets `mlflow.db` (SQLite) and `artifacts`: MLflow 3.13 and later refuse folders of plain files.
    """
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    os.environ.update(MLFLOW)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own, about its dependencies
        tracking, entities = _library("mlflow", "mlflow.tracking"), _library("mlflow", "mlflow.entities")
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        known: list[type[Exception]] = [*FAILURES, _library("mlflow", "mlflow.exceptions").MlflowException]
        if not place.startswith(SERVERS):
            known.append(_library("mlflow", "sqlalchemy.exc").SQLAlchemyError)
            _library("mlflow", "alembic")
        failures = tuple(known)
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "headstart"
        try:
            uri, artifacts = (place, None) if "://" in place else _store(Path(place).expanduser().absolute())
            client = tracking.MlflowClient(tracking_uri=uri)
            found = client.get_experiment_by_name(experiment)
            number = found.experiment_id if found else client.create_experiment(experiment, artifact_location=artifacts)
            run = client.create_run(number, run_name=_now()).info.run_id
        except failures as error:
            what = f"--track mlflow:{_public(place)} cannot be reached"
            raise OutputError(f"{what}: {_line(error)}; start its server, or name another folder") from error
    return _Mlflow(client, run, entities, failures)


def _store(folder: Path) -> tuple[str, str]:
    """(URI of the database, URI of the files) of a folder, which is made where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "mlflow.db"
    database.open("ab").close()  # MLflow would try for 100 s before it says that it cannot
    return f"sqlite:///{database.as_posix()}", (folder / "artifacts").as_uri()


def _new_folder(parent: Path, name: str) -> Path:
    """A folder of this name that nobody else has; a number is added where it is taken."""
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.is_dir():
                raise
            number += 1
        else:
            return folder


def _library(kind: str, module: str) -> Any:
    """The module. Raises OptionError where its library is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = module.partition(".")[0]
        raise OptionError(
            f'--track {kind} needs the library {missing}, which cannot be loaded: pip install "headstart[track]"'
        ) from error


def _now() -> str:
    return time.strftime("%Y-%m-%d_%H-%M-%S")


def _line(error: Exception) -> str:
    """The error in one line of at most 300 characters."""
    return _public(" ".join(str(error).split()) or type(error).__name__)[:300]


def _public(text: str) -> str:
    """The text without names and passwords in addresses."""
    return re.sub(r"//[^/\s@]+@", "//", text)


OPENERS: dict[str, Callable[[str], _TensorBoard | _Mlflow]] = {"tensorboard": _open_tensorboard, "mlflow": _open_mlflow}
