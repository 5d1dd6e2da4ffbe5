"""What is tracked, read back by TensorBoard's own reader, from MLflow's store, and from the wire.

These need the libraries of headstart[track], and `tensorboard` to read with.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.errors import OptionError, OutputError
from headstart.story import track
from headstart.story.track import Tracker, open_trackers

SETTINGS = {"backbone": "resnet18", "size": 224, "rate": 0.001, "flip": True, "weights": None}
LOSSES = (1.5, 0.75, float("nan"), 0.1)
KINDS = ("tensorboard", "mlflow")
Say = Callable[[str], None]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What MLflow reads, as it is on a machine of nobody; put back afterwards."""
    for name in (*track.MLFLOW, *track.PATIENCE, "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def mlflow() -> Any:
    """The library, with databases that do not wait for the disk: making one takes 1 s and not 7."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tracking = pytest.importorskip("mlflow.tracking", reason="needs headstart[track]")
        engine = pytest.importorskip("sqlalchemy.engine", reason="needs headstart[track]")
        pytest.importorskip("alembic", reason="needs headstart[track]")
    event = sys.modules["sqlalchemy"].event

    def hasten(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA journal_mode=MEMORY")

    event.listen(engine.Engine, "connect", hasten)
    yield tracking
    event.remove(engine.Engine, "connect", hasten)


@pytest.fixture(scope="module")
def store(mlflow: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder, with a space in its name, where MLflow has its tables already."""
    folder = tmp_path_factory.mktemp("a store")
    with open_trackers(f"mlflow:{folder}", print):
        pass
    return folder


def report(tracker: Tracker, file: Path) -> None:
    """A whole fit."""
    tracker.settings(SETTINGS)
    for number, loss in enumerate(LOSSES, 1):
        tracker.epoch(number, {"loss": loss, "learning_rate": loss / 10})
    file.write_text('{"accuracy": 0.9}')
    tracker.result({"accuracy": 0.9}, [file])


def read_events(folder: Path) -> Any:
    """The one run below the folder, by TensorBoard's reader."""
    name = "tensorboard.backend.event_processing.event_accumulator"
    reader = pytest.importorskip(name, reason="needs tensorboard")
    (run,) = folder.iterdir()
    return reader.EventAccumulator(str(run)).Reload()


def last_run(mlflow: Any, folder: Path) -> tuple[Any, Any]:
    """(client, newest run) of a store."""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("headstart")
    return client, client.search_runs([experiment.experiment_id], max_results=1)[0]


def test_tensorboard_reads_every_number_at_its_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="needs headstart[track]")
    with open_trackers(f"tensorboard:{tmp_path / 'runs'}", pytest.fail) as tracker:
        report(tracker, tmp_path / "metrics.json")
    found = read_events(tmp_path / "runs")
    assert found.Tags()["scalars"] == ["loss", "learning_rate", "result/accuracy"]
    loss = found.Scalars("loss")
    assert [s.step for s in loss] == [1, 2, 3, 4]
    np.testing.assert_array_equal([s.value for s in loss], np.float32(LOSSES))
    assert found.Scalars("learning_rate")[1].value == np.float32(0.075)
    assert [(s.step, s.value) for s in found.Scalars("result/accuracy")] == [(0, np.float32(0.9))]


def test_tensorboard_knows_the_settings_and_not_the_host(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="needs headstart[track]")
    with open_trackers(f"tensorboard:{tmp_path / 'runs'}", pytest.fail) as tracker:
        report(tracker, tmp_path / "metrics.json")
    content = read_events(tmp_path / "runs").PluginTagToContent("hparams")["_hparams_/session_start_info"]
    plugin = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2", reason="needs tensorboard")
    read = plugin.HParamsPluginData.FromString(content).session_start_info.hparams
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in read.items()}
    assert values == {"backbone": "resnet18", "size": 224.0, "rate": 0.001, "flip": True}
    (file,) = (tmp_path / "runs").rglob("*tfevents*")
    assert socket.gethostname() not in file.name
    assert socket.gethostname().encode() not in file.read_bytes()
    assert str(tmp_path).encode() not in file.read_bytes()


def test_each_fit_is_a_run_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboardX", reason="needs headstart[track]")
    monkeypatch.setattr(track, "_now", lambda: "noon")
    for loss in (1.0, 2.0, 3.0):
        with open_trackers(f"tensorboard:{tmp_path}", pytest.fail) as tracker:
            tracker.epoch(1, {"loss": loss})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noon", "noon-2", "noon-3"]


def test_an_epoch_is_on_disk_before_the_next(tmp_path: Path) -> None:
    """A board shows a fit that still runs, and what was sent before a kill stays."""
    pytest.importorskip("tensorboardX", reason="needs headstart[track]")
    with open_trackers(f"tensorboard:{tmp_path}", pytest.fail) as tracker:
        for number in (1, 2):
            tracker.epoch(number, {"loss": 1 / number})
            assert [s.step for s in read_events(tmp_path).Scalars("loss")] == list(range(1, number + 1))


def test_mlflow_keeps_every_number_at_its_step(mlflow: Any, store: Path, tmp_path: Path) -> None:
    with open_trackers(f"mlflow:{store}", pytest.fail) as tracker:
        report(tracker, tmp_path / "metrics.json")
    client, run = last_run(mlflow, store)
    history = sorted(client.get_metric_history(run.info.run_id, "loss"), key=lambda metric: metric.step)
    assert [metric.step for metric in history] == [1, 2, 3, 4]
    np.testing.assert_array_equal([metric.value for metric in history], LOSSES)
    assert run.data.metrics["result/accuracy"] == 0.9
    assert run.data.params == {"backbone": "resnet18", "size": "224", "rate": "0.001", "flip": "True"}
    assert run.info.status == "FINISHED"
    (kept,) = (store / "artifacts").rglob("metrics.json")
    assert json.loads(kept.read_text()) == {"accuracy": 0.9}


def test_mlflow_adds_nothing_of_the_machine(mlflow: Any, store: Path) -> None:
    with open_trackers(f"mlflow:{store}", pytest.fail) as tracker:
        tracker.settings({"size": 224})
    _, run = last_run(mlflow, store)
    assert set(run.data.tags) == {"mlflow.runName"}
    assert run.info.user_id == "unknown"


def test_a_fit_that_fails_is_not_called_finished(mlflow: Any, store: Path) -> None:
    with pytest.raises(ZeroDivisionError), open_trackers(f"mlflow:{store}", pytest.fail):
        _ = 1 / 0
    assert last_run(mlflow, store)[1].info.status == "FAILED"


def test_both_at_once(mlflow: Any, store: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="needs headstart[track]")
    with open_trackers(f"tensorboard:{tmp_path}, mlflow:{store}", pytest.fail) as tracker:
        tracker.epoch(7, {"loss": 0.5})
    assert [(s.step, s.value) for s in read_events(tmp_path).Scalars("loss")] == [(7, 0.5)]
    assert last_run(mlflow, store)[1].data.metrics == {"loss": 0.5}


def test_mlflow_telemetry_is_off(mlflow: Any, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow is silent under pytest by itself: as if it were not."""
    telemetry = pytest.importorskip("mlflow.telemetry.utils")
    monkeypatch.setattr(telemetry, "_IS_IN_CI_ENV_OR_TESTING", False)
    monkeypatch.delenv("DO_NOT_TRACK", raising=False)
    assert not telemetry.is_telemetry_disabled()
    with open_trackers(f"mlflow:{store}", pytest.fail):
        assert telemetry.is_telemetry_disabled()


class Server(HTTPServer):
    """As much of an MLflow server as a run needs; keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.seen: list[tuple[str, str]] = []
        self.thread = threading.Thread(target=lambda: self.serve_forever(0.01))
        self.thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


class Answer(BaseHTTPRequestHandler):
    """Yes to everything."""

    def do_GET(self) -> None:
        self._answer("")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

    def _answer(self, sent: str) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.seen.append((self.path, sent))
        run = {"info": {"run_id": "r1", "run_uuid": "r1", "experiment_id": "5", "status": "RUNNING"}, "data": {}}
        known = {"get-by-name": {"experiment": {"experiment_id": "5", "name": "headstart"}}, "create": {"run": run}}
        body = json.dumps(known.get(self.path.partition("?")[0].rpartition("/")[2], {})).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


def test_a_server_is_sent_what_was_given_and_no_more(
    mlflow: Any, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    with open_trackers(f"mlflow:http://127.0.0.1:{server.server_port}", pytest.fail) as tracker:
        tracker.settings({"size": 224})
        tracker.epoch(3, {"loss": 0.25})
        tracker.result({"accuracy": 0.9}, [])
    batches = [json.loads(sent) for path, sent in server.seen if path.endswith("log-batch")]
    assert batches[0]["params"] == [{"key": "size", "value": "224"}]
    metrics = [(m["key"], m["value"], m.get("step", 0)) for batch in batches for m in batch.get("metrics", [])]
    assert metrics == [("loss", 0.25, 3), ("result/accuracy", 0.9, 0)]
    assert json.loads(server.seen[-1][1])["status"] == "FINISHED"
    wire = " ".join(path + sent for path, sent in server.seen)
    for private in (socket.gethostname(), getpass.getuser(), str(Path.cwd()), Path(__file__).name):
        assert private not in wire
    assert capfd.readouterr() == ("", "")  # stdout is for the result alone


def test_a_server_that_goes_away_is_told_of_once(mlflow: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="needs headstart[track]")
    server, said = Server(), []
    try:
        address = f"http://me:secret@127.0.0.1:{server.server_port}"
        with open_trackers(f"mlflow:{address},tensorboard:{tmp_path}", said.append) as tracker:
            tracker.epoch(1, {"loss": 1.0})
            server.stop()
            for number in (2, 3):
                tracker.epoch(number, {"loss": 1 / number})
            tracker.result({"accuracy": 0.9}, [])
    finally:
        server.stop()
    assert len(said) == 1
    assert "MLflow" in said[0]
    assert "secret" not in said[0]
    assert [s.step for s in read_events(tmp_path).Scalars("loss")] == [1, 2, 3]  # the other one goes on


def test_a_server_that_is_not_there_stops_the_fit_before_it_begins(mlflow: Any) -> None:
    with (
        pytest.raises(OutputError, match="cannot be reached") as caught,
        open_trackers("mlflow:http://a:b@127.0.0.1:9", print),
    ):
        pytest.fail("opened")
    assert "a:b" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_that_cannot_be_written(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if kind == "mlflow":
        request.getfixturevalue("mlflow")
        (tmp_path / "place" / "mlflow.db").mkdir(parents=True)
    else:
        pytest.importorskip("tensorboardX", reason="needs headstart[track]")
        (tmp_path / "place").write_text("a file")
    with (
        pytest.raises(OutputError, match=f"--track {kind}:") as caught,
        open_trackers(f"{kind}:{tmp_path}/place", print),
    ):
        pytest.fail("opened")
    assert "\n" not in str(caught.value)


class Broken:
    """Fails at one call, or at each."""

    name = "Broken"
    failures = track.FAILURES

    def __init__(self, error: Exception, at: str) -> None:
        self.calls: list[str] = []
        self._error, self._at = error, at

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*_: Any) -> None:
            self.calls.append(name)
            if name == self._at:
                raise self._error

        return call


@pytest.mark.parametrize("at", ["settings", "log", "result", "close"])
@pytest.mark.parametrize("kind", track.FAILURES)
def test_a_failing_tracker_never_stops_the_fit(
    kind: type[Exception], at: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken, said = Broken(kind("gone\nfor good"), at), []
    monkeypatch.setitem(track.OPENERS, "broken", lambda place: broken)
    with open_trackers("broken:anywhere", said.append) as tracker:
        report(tracker, tmp_path / "metrics.json")
    assert broken.calls[-1] == at
    assert broken.calls.count(at) == 1
    assert len(said) == 1
    assert "Broken" in said[0]
    assert "\n" not in said[0]


def test_errors_of_the_fit_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    broken, said = Broken(OSError(), "nothing"), []
    monkeypatch.setitem(track.OPENERS, "broken", lambda place: broken)
    with pytest.raises(KeyboardInterrupt), open_trackers("broken:anywhere", said.append):
        raise KeyboardInterrupt
    assert broken.calls == ["close"]
    assert not said


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("wandb:runs", "tensorboard:FOLDER"),
        ("tensorbord:runs", "did you mean tensorboard"),
        ("tensorboard", "mlflow:FOLDER"),
        ("mlflow:", "mlflow:FOLDER"),
        ("tensorboard:runs,", "several with a comma"),
        ("mlfow:http://me:secret@host", "did you mean mlflow"),
    ],
)
def test_wrong_words(text: str, match: str) -> None:
    with pytest.raises(OptionError, match=match) as caught, open_trackers(text, print):
        pytest.fail("opened")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "  "])
def test_no_words_track_nothing(text: str, tmp_path: Path) -> None:
    with open_trackers(text, pytest.fail) as tracker:
        report(tracker, tmp_path / "metrics.json")


@pytest.mark.parametrize(
    ("kind", "library"), [("tensorboard", "tensorboardX"), ("mlflow", "mlflow"), ("mlflow", "sqlalchemy")]
)
def test_a_missing_library_names_the_way_to_it(
    kind: str, library: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if library == "sqlalchemy":
        request.getfixturevalue("mlflow")
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(OptionError) as caught, open_trackers(f"{kind}:{tmp_path}", print):
        pytest.fail("opened")
    assert f"--track {kind} needs the library {library}" in str(caught.value)
    assert 'pip install "headstart[track]"' in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_no_tracker_is_loaded_unasked() -> None:
    code = "import sys, headstart.story.track; print(*{n.partition('.')[0] for n in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "headstart" in loaded
    assert not {"mlflow", "tensorboardX", "tensorboard", "torch", "sqlalchemy"} & set(loaded)


def test_the_store_is_one_that_mlflow_shows(store: Path) -> None:
    """`mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow.db`: SQLite with MLflow's tables."""
    with sqlite3.connect(store / "mlflow.db") as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")}
    database.close()
    assert {"experiments", "runs", "metrics", "params"} <= tables
