"""Work on the nodes of a Ray cluster. The one door to Ray.

What is done here knows nothing of images: pieces go out, each is worked on by whoever is free, and what comes of it
comes back. Ray Data does the distributing: a stage that prepares and one that finishes, each a pool of actors, with no
more pieces on their way than fit into memory. A piece whose worker or node dies is worked on again by another one, so a
piece must come to the same whoever does it, and as often as it is done.

On processors one actor does both stages, so that pixels never leave a process; where the second stage has an
accelerator, the first is done by processors beside it.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from itertools import chain, repeat
from typing import Any, NamedTuple

from threadpoolctl import threadpool_limits

from headstart.counted import counted
from headstart.errors import HeadstartError, OptionError
from headstart.files.cells import printable
from headstart.files.cores import LIMIT, n_cores

LOCAL, AUTO = "local", "auto"
ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5}")
MISSING = 'Ray is not installed: pip install "headstart[ray]"'
REACHED = 5.0  # s within which a cluster must take a connection: across the world it takes 0.3
ANSWERED = 120.0  # s within which a node must answer: a process is started there, which imports headstart (1 to 20 s)
# Processors of one worker at most: threads that decode share Python's lock, 50 us an image, where a picture of 500 px
# takes 2 ms of a processor and the network 3 ms.
MOST_CORES = 8
# Bytes of shared memory of a cluster of this machine's own: pieces on their way, 64 MiB at most each (`features.py`).
OBJECT_STORE = 2**30
SETTINGS_FRAME = b"\x04"  # the kind of the frame that begins what either side says (RFC 9113, sections 3.4 and 6.5)
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + SETTINGS_FRAME + b"\0" * 5
LONGEST = 24  # characters of a folder for sockets: their paths may have 107, Ray's own part has some 75
SETTINGS = {  # read by Ray's processes when they start
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported over the network
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what Ray Data itself asks for is warned of on stderr
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a worker without accelerator keeps the variables that it was given
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # what nodes say of lost workers would go to stdout, among results
}
LOGGERS = ("ray", "ray.data")
Make = Callable[[Any], Callable[[Any], Any]]
Node = dict[str, Any]  # as Ray describes it


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


class Pool(NamedTuple):
    """Workers of one kind: how many at most, processors and accelerators of each."""

    most: int
    cores: int
    accelerators: int = 0


def check_address(address: str) -> None:
    """Raises OptionError for what names no cluster, and where Ray is not installed. Ray is not imported."""
    if address.startswith("ray://"):
        raise OptionError(
            f"--ray {address} is a connection for interactive work, over which Ray Data does not run: give the command "
            "on a node of the cluster with --ray auto (`ray job submit -- headstart ...` does)"
        )
    if address not in (LOCAL, AUTO) and not ADDRESS.fullmatch(address):
        raise OptionError(
            f"--ray {address!r} names no cluster: local (this machine), auto (the cluster of this node), or its "
            "address, such as 10.0.0.5:6379"
        )
    if importlib.util.find_spec("ray") is None:
        raise OptionError(f"--ray {address}: {MISSING}")


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
    with _settings():
        import ray

        if ray.is_initialized():
            yield
            return
        folder = _sockets() if address == LOCAL else None
        try:
            with _stoppable() as stop:
                _connect(address, folder)
                stop()
                yield
        finally:
            ray.shutdown()
            if folder:
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _stoppable() -> Iterator[Callable[[], object]]:
    """Once the function that it gives was called, SIGTERM ends the block, and with it what was started for it, unless
    the program has a way of its own: Ray takes the signal for a crash and prints a stack."""
    before = signal.getsignal(signal.SIGTERM)

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    def handle(way: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, way)

    try:
        yield lambda: handle(end if before is signal.SIG_DFL else before)
    finally:
        handle(before)


@contextmanager
def _settings() -> Iterator[None]:
    """Ray's processes read the environment; it is as it was afterwards. Its loggers say what is wrong, and no more."""
    before = {name: os.environ.get(name) for name in SETTINGS}
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    os.environ.update(SETTINGS)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _sockets() -> str | None:
    """A folder for what a local cluster needs; None where paths there would be too long for sockets: then Ray's own."""
    place = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="hs-", dir=place) if len(place) + len("/hs-12345678") <= LONGEST else None


def _connect(address: str, folder: str | None) -> None:
    """Raises HeadstartError."""
    import ray

    own: dict[str, Any] = {"num_cpus": n_cores(), "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    own |= {} if folder is None else {"_temp_dir": folder}
    if address not in (LOCAL, AUTO):
        _check_reached(address)
    try:
        with warnings.catch_warnings(), _speechless():
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


@contextmanager
def _speechless() -> Iterator[None]:
    """Nothing is written to stderr by anybody in this process. Ray's own core says there that it found the level of its
    words in the environment, before it reads any other setting."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check_reached(address: str) -> None:
    """Raises HeadstartError where nobody takes a connection or speaks HTTP/2, as every cluster does; Ray itself would
    wait for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED) as connection:
            connection.sendall(GREETING)
            if not os.environ.get("RAY_USE_TLS") and connection.recv(9)[3:4] != SETTINGS_FRAME:
                raise OSError(errno.EPROTO, "something else than a cluster answers there")
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "no answer"
        raise HeadstartError(
            f"no cluster answers at --ray {address} ({reason}): see the address that `ray start --head` printed, or "
            "take --ray auto on one of its nodes"
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
    with _told("the cluster failed", "what is done is kept, and the same command goes on"), _quiet():
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


def pools(nodes: Sequence[Node], accelerated: bool, apart: bool) -> tuple[Pool | None, Pool]:
    """(who prepares, who finishes) on these nodes; the former None where nothing is prepared `apart`.

    Raises HeadstartError where the cluster has no processor, or no accelerator and one is needed.
    """
    counts = [(int(node["Resources"].get("CPU", 0)), int(node["Resources"].get("GPU", 0))) for node in nodes]
    counts = [(processors, accelerators) for processors, accelerators in counts if processors]
    if not counts:
        raise HeadstartError("the cluster has no node with a processor to spare: see `ray status`")
    if not accelerated:
        cores = min(MOST_CORES, *(processors for processors, _ in counts))
        return None, Pool(sum(processors // cores for processors, _ in counts), cores)
    total = sum(accelerators for _, accelerators in counts)
    if not total:
        raise HeadstartError(
            "this machine has an accelerator and the cluster has none, where pictures would be seen otherwise: give "
            "the command on a node of the cluster, or hide the accelerator with CUDA_VISIBLE_DEVICES="
        )
    if apart:
        return Pool(max(1, sum(processors for processors, _ in counts) - total), 1), Pool(total, 1, 1)
    cores = min(max(1, processors // accelerators) for processors, accelerators in counts if accelerators)
    return None, Pool(total, min(MOST_CORES, cores), 1)


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
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = printable(lines[-1] if isinstance(error, RayTaskError) else lines[0])[:200]
        raise HeadstartError(f"{what} ({reason}): {then}") from error


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
