"""A table in pieces, each as long as a shard of the store: what the workers of a cluster do with one, and what comes of
all.

A worker sees its piece as `extract` sees a whole table, by the same code, and adds what the store lacks to the store,
which lies in a folder that all nodes see. What comes back is as short as a hash a row. So a piece that is done again,
since its worker died, finds in the store what was written, and every later step reads the store as it always does.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headstart.data import images
from headstart.data.sources import FileSource, Source
from headstart.data.table import Table
from headstart.errors import HeadstartError, ImageError, OutputError
from headstart.files.reading import read_regular, why
from headstart.trunk import scale
from headstart.trunk.engine import Engine, compile_trunk, on_cpu
from headstart.trunk.features import (
    Change,
    Passed,
    Progress,
    Read,
    pass_through,
    read_all,
    read_and_pass,
    shard_rows,
    store_key,
)
from headstart.trunk.network import Backbone, Network
from headstart.trunk.shelf import Shelf
from headstart.trunk.store import SHARD_BYTES, Store

PROBES = 3  # pictures that each node must read as this machine does


class Piece(NamedTuple):
    """Some rows of a table, the first of which has the number `start`."""

    start: int
    sources: tuple[Source, ...]


class Prepared(NamedTuple):
    """A piece whose pictures are read: what was found of each, numbered from 0 on."""

    piece: Piece
    reads: list[Read]


class Report(NamedTuple):
    """What came of a piece, its rows numbered from 0 on, and the names of the shards in which its images are."""

    start: int
    passed: Passed
    shards: frozenset[str]


@dataclass(frozen=True)
class Sight:
    """How workers see pictures: the network, what its engine must be (a device as torch calls it, a precision), and
    the key and the folder of the store. `change`: of random views; `view`: what tells them from others in that key."""

    backbone: Backbone
    device: str
    precision: str
    key: Mapping[str, object]
    root: Path
    change: Change | None = None
    view: Mapping[str, object] = field(default_factory=dict)

    @staticmethod
    def of(backbone: Backbone, engine: Engine, root: Path) -> Sight:
        """As this machine's engine sees them."""
        device = engine.name.rpartition(" ")[2] if engine.name.startswith("torch") else "cpu"
        return Sight(backbone, device, engine.precision, store_key(backbone, engine), root)

    def store(self) -> Store:
        return Store(self.root, {**self.key, **self.view})

    @property
    def accelerated(self) -> bool:
        """Whether a worker needs an accelerator that Ray knows of."""
        return self.device == "cuda"

    def engine(self) -> Engine:
        """Compiled in this process, by what the shelf of the common cache keeps. Raises HeadstartError where it is
        another one."""
        here = here_of(self.backbone, self.root)
        engine = on_cpu(here, self.precision) if self.device == "cpu" else compile_trunk(here, self.precision)
        check_same(self.key, store_key(here, engine))
        return engine


def here_of(backbone: Backbone, root: Path) -> Backbone:
    """A network from another process, with the shelf of the common cache, where it has one."""
    network = backbone.network
    shelf = network.shelf and Shelf(root)
    return replace(backbone, network=Network(network.source, network.described, network.key, shelf))


def check_same(wanted: Mapping[str, object], here: Mapping[str, object]) -> None:
    """Raises HeadstartError where a node would see pictures otherwise than the machine of the command."""
    for name, value in wanted.items():
        if here[name] != value:
            raise HeadstartError(
                f"node {socket.gethostname()} of the cluster sees pictures otherwise ({name}: {here[name]} there, "
                f"{value} here): install the same releases on all nodes"
            )


def prepare(sight: Sight) -> Callable[[Piece], Prepared]:
    """Reads the pictures of a piece that the store lacks."""
    store = sight.store()

    def prepared(piece: Piece) -> Prepared:
        with closing(read_all(piece.sources, sight.backbone, store)) as reads:
            return Prepared(piece, list(reads))

    return prepared


def finish(sight: Sight) -> Callable[[Piece | Prepared], Report]:
    """Adds what the network says of a piece to the store; reads its pictures too, where nobody has."""
    store, engine, change = sight.store(), sight.engine(), sight.change

    def finished(given: Piece | Prepared) -> Report:
        if isinstance(given, Prepared):
            start, reads = given.piece.start, given.reads
            passed = pass_through(reads, len(reads), sight.backbone, engine, store, None, change)
        else:
            start = given.start
            passed = read_and_pass(given.sources, sight.backbone, engine, store, None, change)
        return Report(start, passed, store.shards_of(h for h in passed.hashes if h is not None))

    return finished


def through_a_cluster(  # noqa: PLR0913 - a `Through`, of whom, and what else
    table: Table,
    backbone: Backbone,
    engine: Engine,
    store: Store,
    progress: Progress | None,
    address: str,
    change: Change | None = None,
    view: Mapping[str, object] | None = None,
    ready: Callable[[], object] = lambda: None,
) -> Passed:
    """As `features.pass_through`, by the workers of a cluster (`scale.joined`); `change` and `view` as of a `Sight`.
    `ready` is called before they are asked. Raises HeadstartError.

    One piece is done here: to start a worker takes longer (10 s of a processor).
    """
    size = piece_rows(backbone)
    if len(table) <= size:
        return read_and_pass(table.sources, backbone, engine, store, progress, change)
    sight = replace(Sight.of(backbone, engine, store.root.absolute()), change=change, view=view or {})
    ready()
    whole = Passed([None] * len(table))
    with scale.joined(address):
        check_nodes(table, {"--cache": store.folder})
        pieces = pieces_of(table, size)
        work = scale.Work(sight, finish, prepare if sight.accelerated else None, sight.accelerated)
        for report in scale.spread(pieces, work):
            _add(whole, report)
            store.take_in(report.shards)
            if progress:
                progress(len(report.passed.hashes))
    whole.refused, whole.remarks = dict(sorted(whole.refused.items())), dict(sorted(whole.remarks.items()))
    return whole


def _add(whole: Passed, report: Report) -> None:
    start, passed = report.start, report.passed
    whole.hashes[start : start + len(passed.hashes)] = passed.hashes
    whole.refused |= {start + row: reason for row, reason in passed.refused.items()}
    whole.remarks |= {start + row: remark for row, remark in passed.remarks.items()}
    whole.n_new += passed.n_new


def piece_rows(backbone: Backbone) -> int:
    """Images of a piece: a shard of the store, or as many as there is room for their pixels."""
    height, width = backbone.preprocess.size
    return min(shard_rows(backbone), max(1, SHARD_BYTES // (3 * height * width)))


def pieces_of(table: Table, size: int) -> list[Piece]:
    """All rows in order, `size` at a time."""
    sources = [everywhere(source) for source in table.sources]
    return [Piece(start, tuple(sources[start : start + size])) for start in range(0, len(sources), size)]


def everywhere(source: Source) -> Source:
    """The same for a process that works in another folder."""
    if isinstance(source, FileSource) and not os.path.isabs(source.path):  # noqa: PTH117 (a million of them)
        return FileSource(os.path.abspath(source.path))  # noqa: PTH100
    return source


def check_nodes(table: Table | None, shared: Mapping[str, Path]) -> None:
    """Raises HeadstartError where a node does not see the pictures that this machine sees (None: they need not), or a
    folder that must be one for all; `shared`: these, by the options that name them."""
    marks = {name: folder.absolute() / f".{uuid.uuid4().hex}.mark" for name, folder in shared.items()}
    try:
        for mark in marks.values():
            mark.write_text(mark.name)
        for node, lacks in scale.ask_each_node(lacking, marks, [] if table is None else probes(table)):
            if lacks:
                raise HeadstartError(f"node {node} of the cluster does not see {lacks}")
    except OSError as error:
        names = " or ".join(marks)
        raise OutputError(f"{error.filename} cannot be written ({why(error)}): choose another {names}") from None
    finally:
        for mark in marks.values():
            with suppress(OSError):
                mark.unlink()


def lacking(marks: Mapping[str, Path], wanted: Sequence[tuple[str, Source, str]]) -> str:
    """On a node: what is not there of what the machine of the command sees, and what to do about it; "" for nothing."""
    for name, mark in marks.items():
        if not _there(mark):
            return f"the folder {mark.parent} as this machine does: name one that all nodes share with {name}"
    for name, source, content_hash in wanted:
        try:
            same = images.content_hash(source.read()) == content_hash
        except ImageError:
            same = False
        if not same:
            return f"{name} as this machine does: put the images where all nodes find them under the same path"
    return ""


def _there(mark: Path) -> bool:
    with suppress(OSError):
        return read_regular(mark).decode() == mark.name
    return False


def probes(table: Table) -> list[tuple[str, Source, str]]:
    """(name, source, content hash) of some pictures that can be read here, from all over the table."""
    found = []
    for row in np.unique(np.linspace(0, len(table) - 1, PROBES).astype(int)):
        with suppress(ImageError):
            source = everywhere(table.sources[row])
            found.append((str(table.names[row]), source, images.content_hash(source.read())))
    return found
