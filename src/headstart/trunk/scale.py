"""Work on the nodes of a Ray cluster. The one door to Ray.

What is done here knows nothing of images: pieces go out, each is worked on by whoever is free, and what comes of it
comes back. Ray Data does the distributing: a stage that prepares and one that finishes, each a pool of actors, with no
more pieces on their way than fit into memory. A piece whose worker or node dies is worked on again by another one, so a
piece must come to the same whoever does it, and as often as it is done.

On processors one actor does both stages, so that pixels never leave a process; where the second stage has an
accelerator, the first is done by processors beside it.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

from threadpoolctl import threadpool_limits

from headstart.counted import counted
from headstart.errors import HeadstartError
from headstart.files.cells import printable
from headstart.files.cores import LIMIT, n_cores
from headstart.trunk.board import END, FAILED, MADE, TOLD, Board, Member, Tell
from headstart.trunk.cluster import AUTO, LOCAL, Node, Pool, check_address, check_reached, pools
from headstart.trunk.surroundings import settings, sockets, speechless, stoppable

ANSWERED = 120.0  # s within which a node must answer: a process is started there, which imports headstart (1 to 20 s)
# Bytes of shared memory of a cluster of this machine's own: pieces on their way, 64 MiB at most each (`features.py`).
OBJECT_STORE = 2**30
BROKE, GOES_ON = "the cluster failed", "what is done is kept, and the same command goes on"
FAILURES = 3  # workers lost in one tuning before it is given up: as often as Ray starts a task again
ENDS = 60.0  # s for workers that failed to be started once more and end: it takes some 30 beside other work
LOOK = 0.1  # s between two looks at what is asked or said
Make = Callable[[Any], Callable[[Any], Any]]


@dataclass(frozen=True)
class Work:
    """What workers do with pieces. `given`: what each of them is handed once.

    `finish(given)` makes, in a worker, a function of one piece, or of what `prepare`'s made of it: other workers do
    that, where `finish` has an accelerator (`accelerated`). Both are found by their names where they work.
    """

    given: Any
    finish: Make
    prepare: Make | None = None
    accelerated: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Parcel:
    """Anything on its way between processes. Ray would make arrays of what is a tuple or a list."""

    content: Any


@contextmanager
def joined(address: str | None) -> Iterator[None]:
    """This process is connected to a cluster while the block lasts; nothing is done for None, or where it is connected
    already. "local": a cluster of this machine alone, which is gone afterwards with its files.

    Raises OptionError for what names no cluster, HeadstartError where it cannot be reached.
    """
    if address is None:
        yield
        return
    check_address(address)
    with settings():
        import ray

        if ray.is_initialized():
            yield
            return
        folder = sockets() if address == LOCAL else None
        try:
            with stoppable() as stop:
                _connect(address, folder)
                stop()
                yield
        finally:
            ray.shutdown()
            if folder:
                shutil.rmtree(folder, ignore_errors=True)


def _connect(address: str, folder: str | None) -> None:
    """Raises HeadstartError."""
    import ray

    own: dict[str, Any] = {"num_cpus": n_cores(), "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    own |= {} if folder is None else {"_temp_dir": folder}
    if address not in (LOCAL, AUTO):
        check_reached(address)
    try:
        with warnings.catch_warnings(), speechless():
            warnings.simplefilter("ignore")  # of what Ray will do otherwise in releases to come
            ray.init(
                address,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                configure_logging=True,
                **(own if address == LOCAL else {}),
            )
    except (RuntimeError, ValueError, OSError) as error:
        said = " ".join(str(error).split())[:160]
        if address == LOCAL:
            raise HeadstartError(f"Ray cannot start here ({said}): leave --ray out") from None
        raise HeadstartError(
            f"no cluster can be joined by --ray {address} ({said}): start one with `ray start --head`, give the "
            "command on one of its nodes, or take --ray local"
        ) from None


class Answer(NamedTuple):
    """What a node says: its address, and what came of a question there."""

    node: str
    said: Any


def ask_each_node(question: Callable[..., Any], *words: Any) -> list[Answer]:
    """`question(*words)` on every node but that of this process, which asks nobody else's.

    Raises HeadstartError where a node has another headstart, or none, or does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    others = [node for node in _nodes() if node["NodeID"] != here]
    ask = ray.remote(num_cpus=0, max_retries=0)(_answered)
    asked = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            question, words
        )
        for node in others
    ]
    found = []
    for node, answer in zip(others, asked, strict=True):
        name = str(node["NodeManagerAddress"])
        with _told(f"node {name} cannot be asked", "install the same headstart there, and see `ray status`"):
            version, said = ray.get(answer, timeout=ANSWERED)
        if version != release():
            raise HeadstartError(f"node {name} has {version}, and this machine {release()}: install the same on both")
        found.append(Answer(name, said))
    return found


def _answered(question: Callable[..., Any], words: tuple[Any, ...]) -> tuple[str, Any]:
    """On a node."""
    return release(), question(*words)


def release() -> str:
    """What is installed here, and what its code comes to where it was changed since."""
    from headstart.trunk.backbone import made_by

    made = made_by()
    own = f"headstart {metadata.version('headstart')} (code {made['code'][:8]})"
    return f"{own} with torch {made['torch']} and timm {made['timm']}"


def spread(pieces: Sequence[Any], work: Work, in_order: bool = False) -> Iterator[Any]:
    """What comes of each piece, `finish(prepare(piece))`; in the order of the pieces, or else as they come.

    Raises what a worker raises of headstart's own errors, and HeadstartError where the cluster fails.
    """
    if not len(pieces):
        return
    with _told(BROKE, GOES_ON), _quiet():
        import ray.data

        first, second = pools(_nodes(), work.accelerated, work.prepare is not None)
        handed = [ray.put(work)]  # in a list: else it would be unpacked for each call
        items = [{"parcel": Parcel(piece)} for piece in pieces]
        data = ray.data.from_items(items, override_num_blocks=len(items))
        data.context.execution_options.preserve_order = in_order
        if first is not None:
            data = _through(data, handed, "prepare", first)
        data = _through(data, handed, "finish", second)
        for batch in data.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            for parcel in batch["parcel"]:
                if isinstance(parcel.content, HeadstartError):
                    raise parcel.content
                yield parcel.content


def each(work: Callable[[Any], Any], pieces: Iterable[Any]) -> Iterator[Any]:
    """As `map`, in order, each piece by whoever has a processor free; workers stay for the next call. No more pieces
    are on their way than there are processors, and two. Raises HeadstartError."""
    import ray

    most = 2 + int(ray.cluster_resources().get("CPU", 1))
    do, handed, waiting = ray.remote(num_cpus=1)(_worked), ray.put(Parcel(work)), deque[Any]()
    with _told("the work of the cluster failed", "see `ray status`, and give the same command again"):
        for piece in chain(pieces, repeat(None, most)):
            if piece is not None:
                waiting.append(do.remote(handed, Parcel(piece)))
            if waiting and (piece is None or len(waiting) > most):
                found = ray.get(waiting.popleft()).content
                if isinstance(found, HeadstartError):
                    raise found
                yield found


def _worked(work: Parcel, piece: Parcel) -> Parcel:
    try:
        with threadpool_limits(1, "blas"):
            return Parcel(work.content(piece.content))
    except HeadstartError as error:
        return Parcel(error)


def _through(data: Any, handed: list[Any], stage: str, pool: Pool) -> Any:
    """The data set with this stage of the work done by a pool of actors."""
    import ray.data

    return data.map_batches(
        _Worker,
        fn_constructor_args=(handed, stage, pool.cores),
        batch_size=1,
        batch_format="numpy",
        num_cpus=pool.cores,
        num_gpus=pool.accelerators or None,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=pool.most, initial_size=pool.most),
    )


class _Worker:
    """An actor of Ray Data, which gets batches of one piece each. An error that headstart can explain is handed on in
    place of the piece, and said by the process that the user sees."""

    def __init__(self, handed: list[Any], stage: str, cores: int) -> None:
        import ray

        os.environ[LIMIT] = str(cores)  # of this process, which does nothing else
        work: Work = ray.get(handed[0])
        self._failed: HeadstartError | None = None
        try:
            self._step: Callable[[Any], Any] = getattr(work, stage)(work.given)
        except HeadstartError as error:
            self._failed = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Parcel]]:
        return {"parcel": [Parcel(self._one(parcel.content)) for parcel in batch["parcel"]]}

    def _one(self, piece: Any) -> Any:
        if self._failed is not None or isinstance(piece, HeadstartError):
            return self._failed or piece
        try:
            return self._step(piece)
        except HeadstartError as error:
            return error


class Together:
    """A group of workers with a process group of torch, which do `work(given, member)` all at once, as often as they
    are asked; what the first of them makes is what comes of it.

    Ray Train starts them at the first need, and all of them again where one is lost: so the work must find by itself
    what it had done.
    """

    def __init__(self, work: Callable[[Any, Member], Any], folder: Path, accelerated: bool, most: int) -> None:
        """At `most` so many workers; `folder`: one that all nodes see, for what Ray Train writes."""
        _, self.pool = pools(_nodes(), accelerated, False)
        self.size = max(1, min(self.pool.most, most))
        self._work, self._folder, self._number, self._failed = work, folder, 0, False
        self._board: Any = None
        self._ended: futures.Future[Any] = futures.Future()

    def do(self, given: Any, heard: Tell) -> Any:
        """What comes of it; `heard` is told what the workers tell meanwhile.

        Raises what a worker raises of headstart's own errors, and HeadstartError where the cluster fails.
        """
        import ray

        with _told(BROKE, GOES_ON):
            board = self._started()
            self._number += 1
            ray.get(board.ask.remote((self._number, [ray.put(given)])))
            while True:
                over = self._ended.done()
                for number, kind, what in ray.get(board.heard.remote()):
                    if number != self._number:
                        continue
                    if kind == MADE:
                        ray.get(board.ask.remote(None))
                        return what
                    if kind == FAILED:
                        self._failed = True
                        raise what
                    heard(what)
                if over:
                    self._ended.result()
                time.sleep(LOOK)

    def _started(self) -> Any:
        """The board that the workers look at, who are started at the first call."""
        if self._board is None:
            import ray
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            self._board = ray.remote(num_cpus=0)(Board).options(scheduling_strategy=here).remote()
            # a thread of its own: Ray Train takes over the signals of the main one
            threading.Thread(target=self._fit, daemon=True, name="cluster").start()
        return self._board

    def _fit(self) -> None:
        import ray.train
        from ray.exceptions import RayError
        from ray.train.torch import TorchConfig, TorchTrainer

        train: Any = ray.train  # typed as what it was before
        pool, gpus = self.pool, self.pool.accelerators
        trainer = TorchTrainer(
            _take_part,
            train_loop_config={"board": self._board, "work": self._work, "cores": pool.cores},
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if gpus else "gloo"),
            scaling_config=train.ScalingConfig(
                num_workers=self.size,
                use_gpu=bool(gpus),
                resources_per_worker={"CPU": pool.cores} | ({"GPU": gpus} if gpus else {}),
            ),
            run_config=train.RunConfig(
                name="workers",
                storage_path=str(self._folder),
                failure_config=train.FailureConfig(
                    max_failures=FAILURES, controller_failure_limit=FAILURES, max_preemption_failures=FAILURES
                ),
            ),
        )
        try:
            self._ended.set_result(trainer.fit())
        except (RayError, train.TrainingFailedError) as error:
            self._ended.set_exception(_in_a_line(BROKE, error, GOES_ON, at_the_end=True))
        except SystemExit:  # what Ray raises in this thread when the process leaves the cluster meanwhile
            return
        finally:
            if not self._ended.done():  # an error that is none of Ray's: its stack is printed, as of any thread
                self._ended.set_exception(HeadstartError("the cluster failed: leave --ray out, or see `ray status`"))

    def end(self, wait: bool = True) -> None:
        """Have the workers end, and `wait` for it: their part of the cluster is free then."""
        import ray

        if self._board is None:
            return
        with _told(BROKE, GOES_ON):
            asked = self._board.ask.remote((END, []))
            if wait:
                ray.get(asked)
                self._ended.result()
            elif self._failed:  # a thread of Ray Train starts them anew: to leave the cluster would end this process
                futures.wait([self._ended], ENDS)


def _take_part(config: dict[str, Any]) -> None:
    """In a worker: what is asked, one after the other."""
    import ray
    import ray.train

    os.environ[LIMIT] = str(config["cores"])  # of this process, which does nothing else
    board, context, last = config["board"], ray.train.get_context(), 0
    rank, size = context.get_world_rank(), context.get_world_size()

    def say(number: int, kind: str, what: Any) -> None:
        ray.get(board.say.remote(number, kind, what))

    while True:
        asked = ray.get(board.asked.remote())
        if asked is None or asked[0] == last:
            time.sleep(LOOK)
            continue
        last, given = asked
        if last == END:
            return
        try:
            made = config["work"](ray.get(given[0]), Member(rank, size, partial(say, last, TOLD)))
        except HeadstartError as error:  # the others wait for this process: all are started anew, and asked no more
            say(last, FAILED, error)
            raise
        if rank == 0:
            say(last, MADE, made)


def described() -> str:
    """The cluster, in words."""
    nodes = _nodes()
    processors, accelerators = (sum(int(node["Resources"].get(kind, 0)) for node in nodes) for kind in ("CPU", "GPU"))
    also = f", {counted(accelerators, 'accelerator')}" if accelerators else ""
    return f"Ray: {counted(len(nodes), 'node')}, {counted(processors, 'processor')}{also}"


def _nodes() -> list[Node]:
    """The nodes of the cluster that are alive, as Ray describes them."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


@contextmanager
def _told(what: str, then: str) -> Iterator[None]:
    """What Ray raises, in one line that ends with what to do `then`."""
    from ray.exceptions import RayError, RayTaskError

    try:
        yield
    except RayError as error:
        raise _in_a_line(what, error, then, at_the_end=isinstance(error, RayTaskError)) from error


def _in_a_line(what: str, error: Exception, then: str, at_the_end: bool) -> HeadstartError:
    """`at_the_end`: whether the last line of the error says what it is, and not the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return HeadstartError(f"{what} ({printable(lines[-1] if at_the_end else lines[0])[:200]}): {then}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data without bars, measures and words of its own, and without a word of warning of its own settings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.data import DataContext

        context = DataContext.get_current().copy()
        context.enable_progress_bars = context.print_on_execution_start = context.log_internal_stack_trace = False
        context.memory_usage_poll_interval_s = None  # each second a worker would walk all its pages for it
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    with DataContext.current(context):
        yield
