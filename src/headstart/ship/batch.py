"""Many images asked of a saved model, in memory that does not grow with them; what is done is not done again.

What the model says of each stretch of images is kept beside the output until the output is written (`unfinished.py`; of
an output elsewhere below the cache), and handed on from there as often as it is asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from safetensors import numpy as safetensors

from headstart.counted import counted
from headstart.data import images
from headstart.data.identity import identity
from headstart.data.table import Table
from headstart.files.far import Place
from headstart.files.put import work_beside
from headstart.files.unfinished import Unfinished, unfinished
from headstart.heads.reference import Sample
from headstart.ship.answer_file import write_predictions
from headstart.ship.package import Loaded, versions
from headstart.ship.predict import record_of_none, records_of
from headstart.ship.spread import answering
from headstart.ship.stretches import Progress, Stretch, Tally, rows_at_once
from headstart.tasks.task import Record
from headstart.trunk.backbone import made_by
from headstart.trunk.engine import Engine, compile_trunk, this_machine
from headstart.trunk.store import cache_root

Say = Callable[[str], None]
Bar = Callable[[str, int], Progress]


@dataclass(frozen=True)
class Answered:
    """All images of a table, answered. `stretches()`: what is said of them, in order, again at each call; `tally`: of
    all together."""

    model: Loaded
    table: Table
    stretches: Callable[[], Iterator[Stretch]]
    tally: Tally
    work: Unfinished | None = None

    def records(self, top: int) -> Iterator[Record]:
        return records_of(self.model, self.table, self.stretches(), top)

    def write(self, output: Place, top: int) -> None:
        """Into a file, by its ending; what was kept beside it is then needed no longer. Raises OutputError."""
        top = min(top, len(self.model.names))
        partial = None if self.work is None else self.work.new
        write_predictions(self.records(top), output, top, record_of_none(self.model, top), partial)
        if self.work is not None:
            self.work.needed = False


@contextmanager
def answered(
    model: Loaded,
    table: Table,
    output: Place | None,
    bar: Bar,
    say: Say,
    engine: Engine | None = None,
    ray: str | None = None,
) -> Iterator[Answered]:
    """The answers for every image of the table. `output`: the file that they will be written to, beside which they are
    kept until the block ends well; None: in memory. `ray`: the cluster that answers, None: this process. Raises
    OutputError, and BundleError for a damaged model.
    """
    engine = engine or compile_trunk(model.backbone, model.precision)
    answer = answering(ray)
    tally, pictures = Tally(model, table), None if output is None else identity(table)
    if output is None or pictures is None:
        kept: list[Stretch] = []

        def keep(some: Stretch) -> None:
            kept.append(some)
            tally.add(some)

        answer(model, table, engine, keep, bar("predict", len(table)), start=0)
        yield Answered(model, table, lambda: iter(kept), tally)
        return
    with unfinished(work_beside(output, cache_root()), about(model, engine, pictures)) as work:
        start = _gone_on(work, table, tally, rows_at_once(engine), say)

        def write(some: Stretch) -> None:
            work.append(packed(some))
            tally.add(some)

        if start < len(table):
            answer(model, table, engine, write, bar("predict", len(table) - start), start=start)
        yield Answered(model, table, lambda: map(unpacked, work), tally, work)


def _gone_on(work: Unfinished, table: Table, tally: Tally, size: int, say: Say) -> int:
    """The first row that is not answered."""
    if work.differs:
        say(f"note: {work.path.name} is of another {work.differs}: all images are answered anew")
    for frame in work:
        tally.add(unpacked(frame))
    start = min(len(work) * size, len(table))
    if start:
        say(f"{work.path.name} has {start:,} of {counted(len(table), 'answer')}: it goes on from there")
    return start


def about(model: Loaded, engine: Engine, pictures: str) -> dict[str, str]:
    """What answers depend on; `pictures`: the identity of the table."""
    assert model.bundle is not None, "a model that was saved"
    made = {**versions(), **made_by(), **images.versions(), "decoder": images.DECODER_VERSION}
    how = [engine.name, engine.precision, rows_at_once(engine), engine.batch, this_machine().processor]
    return {
        "model": _digest(model.bundle.checksums),
        "list of images": pictures,
        "release or processor": _digest([made, how]),
    }


def _digest(value: object) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def packed(some: Stretch) -> bytes:
    """As safetensors; texts as JSON among them."""
    texts = {"errors": list(some.errors), "remarks": list(some.remarks.items())}
    tensors = {
        "start": np.array([some.start], np.int64),
        "answers": some.answers,
        "novelty": some.novelty,
        "texts": np.frombuffer(json.dumps(texts).encode(), np.uint8),
    }
    if some.sample is not None:
        tensors |= {"rows": some.sample.rows, "values": some.sample.values, "placed": some.sample.placed}
    return bytes(safetensors.save(tensors))


def unpacked(frame: bytes) -> Stretch:
    """What `packed` made this of."""
    tensors = safetensors.load(frame)
    texts = json.loads(tensors["texts"].tobytes())
    sample = Sample(*(tensors[name] for name in ("rows", "values", "placed"))) if "rows" in tensors else None
    errors, remarks = np.array(texts["errors"], dtype=object), dict(texts["remarks"])
    return Stretch(int(tensors["start"][0]), tensors["answers"], errors, tensors["novelty"], remarks, sample)
