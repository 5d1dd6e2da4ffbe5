"""Workers of a cluster that train together: the step of all is the step of one process, whatever dies on the way."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clusters import WITH_RAY, two_nodes
from conftest import TINY, Run, smallest
from headstart import recipe
from headstart.data.targets import ClassNumbers, LabelSets, Targets
from headstart.errors import DataError
from headstart.files.cores import LIMIT
from headstart.finetune import together
from headstart.finetune.at_cut import Stored
from headstart.finetune.checkpoint import Checkpoint
from headstart.finetune.design import PLAIN, Epoch, no_bar
from headstart.finetune.job import silent
from headstart.finetune.loop import Loop
from headstart.finetune.objective import BINARY, CROSS_ENTROPY
from headstart.finetune.team import ALONE, Team
from headstart.finetune.together import Elsewhere
from headstart.finetune.training import Begun, Examples, Lesson, Outcome, learn, nobody
from headstart.finetune.tunable import Tail, tunable
from headstart.trunk.cut import find_cuts
from headstart.trunk.network import Backbone

pytestmark = WITH_RAY
N, BATCH = 51, 16  # three batches of 16, and one of 3
HELD = 9


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with two_nodes() as found:
        yield found


@pytest.fixture(scope="module")
def workers(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """Two of them, started once: that takes both processors 10 s. They leave nothing."""
    with Elsewhere(address, tmp_path_factory.mktemp("cache")) as found:
        yield found
    assert not list((found.cache / "tuning").glob(".workers-*"))


@pytest.fixture(scope="module")
def network() -> Backbone:
    return smallest()


def targets_of(kind: str) -> Targets:
    if kind != "tags":
        return ClassNumbers(np.arange(N + HELD) % 3, ("a", "b", "c"))
    rng = np.random.default_rng(5)
    present = rng.integers(0, 2, (N + HELD, 3)).astype(np.int8)
    present[rng.random(present.shape) < 0.4] = -1  # not known: processes have different numbers of truths
    return LabelSets(present, ("a", "b", "c"))


def lesson_of(network: Backbone, kind: str = "classes", **changed: Any) -> Lesson:
    """Pictures with a bright third of the rows, above the last stage's cut."""
    rng, cut = np.random.default_rng(0), tunable(network, "last").cut
    x = rng.normal(size=(N + HELD, 3, 32, 32)).astype(np.float32)
    for k in range(len(x)):
        x[k, :, 10 * (k % 3) : 10 * (k % 3) + 10] += 1.5
    with torch.inference_mode():
        made = find_cuts(network).between("input", cut)(torch.from_numpy(x)).numpy()
    keys = [f"{k:04d}" for k in range(len(x))]
    stored = Stored(made.shape[1:], made.reshape(len(x), -1))
    examples = Examples(stored, np.arange(len(x)), targets_of(kind), np.arange(len(x)), keys)
    how = replace(recipe.tuning(N, 3, BATCH), **changed)
    rows, stop = np.arange(N), np.arange(N, N + HELD)
    return Lesson(how, PLAIN, examples, rows, stop, BINARY if kind == "tags" else CROSS_ENTROPY)


def begun(network: Backbone) -> Begun:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Begun(Tail(network, tunable(network, "last"), 3), 1.0, None)


def alone(network: Backbone, lesson: Lesson) -> Outcome:
    first = begun(network)
    tail = first.module
    assert isinstance(tail, Tail)
    return learn(first, lesson, groups=tail.groups(lesson.training.stage_decay))


def spread(
    workers: Elsewhere, network: Backbone, lesson: Lesson, tell: Callable[[int, Epoch], None] = nobody
) -> Outcome:
    what = tunable(network, "last")
    return workers.learn(begun(network), lesson, no_bar, tell, backbone=network, what=what, device="cpu", say=silent)


def apart(one: Outcome, other: Outcome) -> float:
    """The largest difference of a weight."""
    assert one.kept.keys() == other.kept.keys()
    return max(float((one.kept[name].double() - other.kept[name].double()).abs().max()) for name in one.kept)


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("classes", {"mixup": 0.0, "smoothing": 0.0}),
        ("classes", {}),  # mixup, smoothing, a moving average
        ("tags", {}),
        ("tags", {"batch_size": 50}),  # a last batch of one joins the one before
    ],
)
def test_two_workers_learn_what_one_process_learns(
    workers: Elsewhere, network: Backbone, kind: str, changed: dict[str, Any]
) -> None:
    lesson = lesson_of(network, kind, **changed)
    here, told = alone(network, lesson), list[int]()
    there = spread(workers, network, lesson, lambda number, epoch: told.append(number))
    first = begun(network).module.state_dict()
    moved = max(float((here.kept[name] - first[name]).abs().max()) for name in first)
    assert moved > 1e-3
    assert apart(here, there) < min(1e-4, moved / 50)
    assert [epoch.loss for epoch in here.epochs] == pytest.approx([epoch.loss for epoch in there.epochs], abs=1e-5)
    assert [e.held_out_loss for e in here.epochs] == pytest.approx([e.held_out_loss for e in there.epochs], abs=1e-4)
    assert told == [0, 1, 2]
    assert (here.workers, there.workers) == (None, 2)


def deadly(log: Path, scores: torch.Tensor, encoded: torch.Tensor, smoothing: float) -> torch.Tensor:
    """The usual loss; it ends the worker that first comes to the twentieth."""
    if LIMIT in os.environ:
        with log.open("ab", buffering=0) as file:
            file.write(b"x")
        if log.stat().st_size == 20:
            os.kill(os.getpid(), signal.SIGKILL)
    return CROSS_ENTROPY.loss(scores, encoded, smoothing)


def test_a_killed_worker_ends_in_the_same_and_what_was_kept_is_not_learned_again(
    workers: Elsewhere, network: Backbone, tmp_path: Path
) -> None:
    log, told = tmp_path / "log", list[int]()
    lesson = replace(lesson_of(network), checkpoint=Checkpoint(workers.cache, {"of": "a killed one"}, every=0.0))
    killed = replace(lesson, objective=replace(CROSS_ENTROPY, loss=partial(deadly, log)))
    found = spread(workers, network, killed, lambda number, epoch: told.append(number))
    assert 20 < log.stat().st_size <= 2 * 3 * 4 + 2  # two workers, three epochs, four batches; and that which was lost
    assert apart(alone(network, replace(lesson, checkpoint=None)), found) < 1e-4
    assert told == [0, 1, 2]
    size, again = log.stat().st_size, spread(workers, network, killed)  # what has ended is read here
    assert log.stat().st_size == size
    assert apart(found, again) == 0
    assert again.workers == 2


@dataclass(frozen=True)
class Borrowed:
    """The workers that are there already, in place of those that a command starts and ends."""

    workers: Elsewhere

    def __enter__(self) -> Elsewhere:
        return self.workers

    def __exit__(self, *error: object) -> None:
        """They go on."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.workers, name)


def test_the_command_tunes_on_a_cluster(
    workers: Elsewhere, parted: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same as without one, and its record says by how many workers."""
    monkeypatch.setattr(recipe, "SHORT", 0.0)
    monkeypatch.setattr(together, "Elsewhere", lambda address, cache: Borrowed(workers))
    words = ["fit", parted, *TINY, "--tune", "last", "--epochs", "2", "--cache", workers.cache]
    scores = []
    for name, more in (("here", ()), ("there", ("--ray", workers.address))):
        found = run(*words, "-o", tmp_path / name, *more)
        assert found.code == 0, found.err
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        assert metrics["tuning"].get("workers") == (2 if more else None)
        scores.append([epoch["held_out_loss"] for epoch in metrics["tuning"]["epochs"]])
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert "2/2" in found.err


def broken(scores: torch.Tensor, encoded: torch.Tensor, smoothing: float) -> torch.Tensor:
    if LIMIT in os.environ and torch.distributed.get_rank() == 1:
        raise DataError("the picture is gone")
    return CROSS_ENTROPY.loss(scores, encoded, smoothing)


def test_what_one_worker_cannot_do_is_said_as_it_was_raised(workers: Elsewhere, network: Backbone) -> None:
    """And without delay, though others wait for it: here as at the end of a command."""
    with pytest.raises(DataError, match="the picture is gone"):
        spread(workers, network, replace(lesson_of(network), objective=replace(CROSS_ENTROPY, loss=broken)))
    workers.rest(wait=False)


class Pretended(Team):
    """One of several, without the others; `known` truths in a whole batch; its pictures and its truths."""

    known = 0.0
    batch: tuple[torch.Tensor, torch.Tensor]

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        return module

    def total(self, value: float) -> float:
        return self.known

    def whole(self, share: torch.Tensor, n: int) -> torch.Tensor:
        (found,) = (some for some in self.batch if some.shape[1:] == share.shape[1:])
        return found[:n]


@pytest.mark.parametrize(("n", "size"), [(16, 2), (7, 3), (2, 3)])
def test_the_mean_of_all_gradients_is_that_of_the_batch(n: int, size: int) -> None:
    """Whatever is known to whom, and where nothing of the batch is left for one of them."""
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.normal(size=(n, 4)).astype(np.float32))
    y = torch.from_numpy(rng.integers(0, 2, (n, 3)).astype(np.float32))
    y[:, 0] = torch.nan
    y[0, 1] = torch.nan
    how = replace(recipe.tuning(N, 1, n), clip=0.0)
    found = []
    for team in (ALONE, *(Pretended(rank, size) for rank in range(size))):
        torch.manual_seed(0)
        module = torch.nn.Linear(4, 3)
        Pretended.known = float((~y.isnan() & ~y[Loop(module, how, 9, BINARY)._partners(n, 0)[1]].isnan()).sum())
        Pretended.batch = (x, y)
        loop = Loop(module, how, 9, BINARY, team=team)
        list(loop.batches(np.arange(n), lambda some: (x[some], y[some])))
        found.append(module.weight.grad)
    assert torch.allclose(found[0], torch.stack(found[1:]).mean(dim=0), atol=1e-6)


class Small(torch.nn.Linear):
    """With memory for three images at a time."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 3:
            raise torch.OutOfMemoryError("simulated")
        return super().forward(x)


def test_memory_is_found_out_before_the_others_wait_and_nothing_is_learned_from_that() -> None:
    x, y, how = torch.randn(16, 4), torch.eye(3)[torch.arange(16) % 3], replace(recipe.tuning(N, 1, 16), mixup=0.0)
    Pretended.known, found = y.numel(), []
    for kind, device in ((torch.nn.Linear, "cpu"), (Small, "cpu:0")):  # not "cpu": as if it were an accelerator
        torch.manual_seed(0)
        loop = Loop(kind(4, 3), how, 9, CROSS_ENTROPY, team=Pretended(0, 2), device=device)
        list(loop.batches(np.arange(16), lambda some: (x[some], y[some])))
        found.append((loop.module.weight, loop.part))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6)
    assert (found[0][1], found[1][1]) == (16, 2)
    loop = Loop(Small(4, 3), how, 9, CROSS_ENTROPY, team=Pretended(0, 2))
    with pytest.raises(DataError, match="on a worker of the cluster: take a smaller --batch-size"):
        list(loop.batches(np.arange(16), lambda some: (x[some], y[some])))


def test_shares_are_all_of_a_batch_once() -> None:
    for n in range(1, 20):
        for size in range(1, 9):
            teams = [Team(rank, size) for rank in range(size)]
            shares = [team.share(n) for team in teams if not team.idle(n)]
            assert np.concatenate(shares).tolist() == list(range(n))
            assert all(len(team.share(n)) for team in teams)
