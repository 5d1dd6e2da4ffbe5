"""A forked child answers as its parent does: nothing in it waits for threads that stayed behind."""

from __future__ import annotations

import copy
import ctypes
import gc
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headstart
from conftest import picture
from headstart import HeadstartError, TransferClassifier
from headstart.files import forks
from headstart.files.forks import Lock
from headstart.trunk.engine import TorchEngine
from headstart.trunk.network import Backbone

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),  # of Python 3.12: that is the test
]
WAIT = 60  # s, against a hang; a child takes 0.5 s
SMALL: dict[str, Any] = {"backbone": "test_efficientnet", "weights": "none", "size": 64, "precision": "f32"}
Answer = np.ndarray[Any, np.dtype[Any]]


def start(work: Callable[[], bool]) -> int:
    """The number of a child that does this and ends: with 0 where it was true."""
    number = os.fork()
    if not number:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return number


def ended(number: int) -> int:
    """The exit code of a child; it is killed after WAIT."""
    patience = time.monotonic() + WAIT
    while True:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > patience:
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)
            pytest.fail("the child hangs")
        time.sleep(0.01)


@pytest.fixture(scope="module")
def X() -> Answer:
    rng = np.random.default_rng(5)
    return np.stack([picture(k % 3, rng) for k in range(12)])


@pytest.fixture(scope="module")
def fitted(X: Answer) -> TransferClassifier:
    """Fitted, so that every library has been at work."""
    return TransferClassifier(**SMALL).fit(X, np.arange(12) % 3)


@pytest.fixture(scope="module")
def expected(fitted: TransferClassifier, X: Answer) -> Answer:
    return fitted.predict_proba(X[:3])


def test_a_child_answers_with_the_parents_model_to_the_bit(
    fitted: TransferClassifier, X: Answer, expected: Answer
) -> None:
    for _ in range(2):
        assert ended(start(lambda: np.array_equal(fitted.predict_proba(X[:3]), expected))) == 0
    assert np.array_equal(fitted.predict_proba(X[:3]), expected)


def test_a_child_answers_with_a_model_of_its_own_and_ends_as_programs_do(X: Answer, model: Path) -> None:
    """What it inherited is freed, and the libraries' destructors run: neither may join threads that stayed behind."""
    if "onnxruntime" in sys.modules:  # of other tests: its own destructors do
        name = f"{__file__}::test_a_child_answers_with_a_model_of_its_own_and_ends_as_programs_do"
        assert subprocess.run([sys.executable, "-m", "pytest", "-q", name], check=False, timeout=120).returncode == 0
        return
    held = [TransferClassifier.load(model)]
    expected = held[0].predict_proba(X[:3])

    def work() -> bool:
        held.clear()
        gc.collect()
        right = np.array_equal(TransferClassifier.load(model).predict_proba(X[:3]), expected)
        ctypes.CDLL(None).exit(7 if right else 1)
        return right

    assert ended(start(work)) == 7


def test_four_children_answer_at_once_each_on_two_threads(
    fitted: TransferClassifier, X: Answer, expected: Answer
) -> None:
    def work() -> bool:
        found: list[bool] = []
        threads = [
            threading.Thread(target=lambda: found.append(np.array_equal(fitted.predict_proba(X[:3]), expected)))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found == [True, True]

    assert [ended(child) for child in [start(work) for _ in range(4)]] == [0, 0, 0, 0]


def test_a_child_answers_when_another_thread_predicted_at_the_fork(
    fitted: TransferClassifier, X: Answer, expected: Answer
) -> None:
    done, started, right = threading.Event(), threading.Event(), []

    def busy() -> None:
        while not done.is_set():
            right.append(np.array_equal(fitted.predict_proba(X[:3]), expected))
            started.set()

    with_it = threading.Thread(target=busy)
    with_it.start()
    started.wait(WAIT)
    codes = [ended(start(lambda: np.array_equal(fitted.predict_proba(X[:3]), expected))) for _ in range(3)]
    done.set()
    with_it.join()
    assert codes == [0, 0, 0]
    assert all(right)


def test_a_grandchild_answers(fitted: TransferClassifier, X: Answer, expected: Answer) -> None:
    def answers() -> bool:
        return np.array_equal(fitted.predict_proba(X[:3]), expected)

    assert ended(start(lambda: answers() and ended(start(answers)) == 0 and answers())) == 0


@pytest.mark.parametrize("head", ["auto", "gap, dense 8 relu"])
def test_a_child_learns(head: str, X: Answer) -> None:
    settings = SMALL | {"head": head, "epochs": None if head == "auto" else 2}
    y = np.arange(12) % 3
    expected = TransferClassifier(**settings).fit(X, y).predict_proba(X)

    def work() -> bool:
        return bool(np.abs(TransferClassifier(**settings).fit(X, y).predict_proba(X) - expected).max() < 1e-3)

    assert ended(start(work)) == 0


def test_torch_answers_in_a_child_nearly_to_the_bit(fitted: TransferClassifier, X: Answer) -> None:
    engine = TorchEngine(fitted._fit.model.backbone, "cpu", "f32", batch=4)
    pixels = np.zeros((4, 64, 64, 3), np.uint8) + np.arange(64, dtype=np.uint8)[:, None]

    def rows() -> Answer:
        found: list[Answer] = []
        engine.run([(None, pixels)], lambda tag, rows: found.append(rows))
        return found[0]

    expected = rows()
    assert ended(start(lambda: bool(np.abs(rows() - expected).max() <= 1e-5 * np.abs(expected).max()))) == 0
    engine._device = "cuda"  # as if it had been opened there

    def refused() -> bool:
        with pytest.raises(HeadstartError, match="--preload"):
            rows()
        return True

    assert ended(start(refused)) == 0


def test_a_lock_that_another_thread_holds_at_the_fork_is_free_in_the_child() -> None:
    lock, held, done = Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait(WAIT)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(WAIT)

    def work() -> bool:
        with lock, lock:
            return True

    code = ended(start(work))
    done.set()
    holder.join()
    assert code == 0


def test_every_lock_of_the_package_is_such_a_one() -> None:
    home = Path(headstart.__file__).parent
    text = {file.relative_to(home).as_posix(): file.read_text(encoding="utf-8") for file in home.rglob("*.py")}
    assert {name for name in text if re.search(r"threading\.R?Lock\(", text[name])} == {"files/forks.py"}


def test_two_threads_do_not_mix_what_a_network_in_torch_says(fitted: TransferClassifier) -> None:
    backbone: Backbone = fitted._fit.model.backbone
    engine = TorchEngine(backbone, "cpu", "f32", batch=1)
    pixels = [np.full((1, 64, 64, 3), value, np.uint8) for value in (10, 240)]

    def rows(which: int) -> Answer:
        found: list[Answer] = []
        engine.run([(k, pixels[which]) for k in range(15)], lambda tag, rows: found.append(rows.copy()))
        return np.concatenate(found)

    expected = [rows(0)[:1], rows(1)[:1]]
    found: dict[int, Answer] = {}
    threads = [threading.Thread(target=lambda k=k: found.update({k: rows(k)})) for k in (0, 1)]  # type: ignore[misc]
    with _no_torch_pool():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for k in (0, 1):
        assert np.abs(found[k] - expected[k]).max() <= 1e-5 * np.abs(expected[k]).max()


@contextmanager
def _no_torch_pool() -> Any:
    """One thread a forward pass: threads of the test take turns more often."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_process_that_only_unpickled_a_network_has_put_torch_to_work(
    fitted: TransferClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forks, "_AT_WORK", set())
    TorchEngine(pickle.loads(pickle.dumps(fitted))._fit.model.backbone, "cpu", "f32")
    assert "torch" in forks._AT_WORK


def test_copies_and_pickles_answer_to_the_bit_and_hold_no_engine_and_no_training_images(
    fitted: TransferClassifier, X: Answer, expected: Answer, tmp_path: Path
) -> None:
    content = pickle.dumps(fitted)
    assert X[5].tobytes() not in content
    unpickled, twin, shallow = pickle.loads(content), copy.deepcopy(fitted), copy.copy(fitted)
    assert unpickled._fit.engine is None
    for same in (unpickled, twin, shallow, pickle.loads(pickle.dumps(unpickled))):
        assert same.get_params() == fitted.get_params()
        assert np.array_equal(same.classes_, fitted.classes_)
    for same in (unpickled, twin, shallow):
        assert np.array_equal(same.predict_proba(X[:3]), expected)
    with pytest.raises(headstart.DataError, match="pickled"):
        unpickled.save(tmp_path / "model")
    twin.set_params(taps="last").classes_[0] = 5
    assert fitted.taps == "auto"
    assert list(fitted.classes_) == [0, 1, 2]
    assert twin._fit is shallow._fit is fitted._fit  # what `save` needs
