"""Features as a folder of Parquet files, one for some hundred images, each written as soon as it is known.

    FOLDER/part-000000.parquet ...   the columns of a feature file, the group and a thumbnail of each image; in their
                                     metadata what they are of
    FOLDER/_headstart.json           written last: the folder is whole; with what `headstart fit FOLDER/` asks for
                                     (`data/feature_set.py`)

Nothing of them passes through the process of the command, which learns how many images there are and what was set
aside; the files are written by whoever asked the network, this process or the workers of a cluster. A file that is
there already, of the same images as the same network sees them, is left as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from headstart.data.feature_set import ABOUT, OURS, PART, SIDE, THUMBNAIL, WHOLE, network_of
from headstart.data.identity import identity
from headstart.data.table import Table
from headstart.errors import DataError, OutputError
from headstart.files import far
from headstart.files.arrow import numbers, texts
from headstart.files.parquet import UNSOUND, open_parquet
from headstart.files.put import names_in, put, refusing
from headstart.files.whole import sweep
from headstart.story.opening import short_side
from headstart.trunk import scale
from headstart.trunk.features import gathered
from headstart.trunk.network import block_names, block_widths
from headstart.trunk.pieces import Piece, Sight, check_nodes, everywhere, finish, piece_rows
from headstart.trunk.store import AS_IT_IS, Halves, Store, lists

FORMAT = 2  # of the files: those of 1 had neither groups nor thumbnails, and did not name their network
TRIES = 3  # while another process deletes shards that were just written


class Rows(NamedTuple):
    """Some rows of a table, and the number of their file."""

    number: int
    table: Table


class Written(NamedTuple):
    """What a file holds: images, their features by block, and (name, why) of those that cannot be read; (name, how) of
    odd pictures; how many images went through the network for it; (label, split, group) of those that cannot be read.
    """

    images: int
    blocks: dict[str, int]
    set_aside: list[tuple[str, str]]
    remarks: list[tuple[str, str]]
    n_new: int
    unread: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Place:
    """Where the files go, and what is in them: all blocks, or one. `options`: by which the pictures are seen."""

    sight: Sight
    folder: far.Place
    block: str | None
    field: dict[str, str]  # what the column of the one layer says of itself
    options: Mapping[str, object] = field(default_factory=dict)


def write_folder(
    table: Table, place: Place, ray: str | None, done: Callable[[int], None], say: Callable[[str], None]
) -> Written:
    """All files, by this process or by a cluster. Raises OutputError, HeadstartError, and DataError where no image can
    be read."""
    whole = Written(0, {}, [], [], 0)
    every = list(rows_of(table, piece_rows(place.sight.backbone)))
    with refusing(f"features cannot be written to {place.folder}"):
        _make_ready(place.folder)
    with scale.joined(ray):
        for found in _each(every, place, table, ray):
            whole = Written(
                whole.images + found.images,
                found.blocks,
                whole.set_aside + found.set_aside,
                whole.remarks + found.remarks,
                whole.n_new + found.n_new,
                whole.unread + found.unread,
            )
            done(found.images + len(found.set_aside))
    for line in gathered(whole.remarks):
        say(f"note: {line}")
    if not whole.images:
        name, reason = whole.set_aside[0]
        raise DataError(f"none of {len(table)} images can be read; the first, {name}: {reason}")
    with refusing(f"features cannot be written to {place.folder}"):
        _close(place, table, len(every), whole)
    return whole


def rows_of(table: Table, size: int) -> Iterator[Rows]:
    """All of a table, so many rows a file."""
    bare = replace(table, notes=(), sources=tuple(map(everywhere, table.sources)))
    for number, start in enumerate(range(0, len(table), size)):
        yield Rows(number, bare.take(np.arange(start, min(start + size, len(table)))))


def _each(every: Sequence[Rows], place: Place, table: Table, ray: str | None) -> Iterator[Written]:
    if ray is None:
        yield from map(writing(place), every)
        return
    store = Store(place.sight.root, place.sight.key)
    check_nodes(table, {"--cache": store.folder} | ({"-o": place.folder} if isinstance(place.folder, Path) else {}))
    yield from scale.spread(every, scale.Work(place, writing, accelerated=place.sight.accelerated), in_order=True)


def writing(place: Place) -> Callable[[Rows], Written]:
    """Writes the file of some rows, in a worker or here."""
    seen_by, store = finish(place.sight), Store(place.sight.root, place.sight.key)

    def written(rows: Rows) -> Written:
        path, about = place.folder / PART.format(rows.number), _about(rows, place)
        known = _known(path, about)
        if known is not None:
            return known
        for _ in range(TRIES):
            report = seen_by(Piece(0, rows.table.sources))
            store.take_in(report.shards)
            hashes = [found for found in report.passed.hashes if found is not None]
            seen = store.read(hashes)
            if seen is not None:
                break
        else:
            raise OutputError(f"the cache {store.folder} loses what was just written: choose another with --cache")
        all_of, names, passed = rows.table, rows.table.names, report.passed
        widths = zip(block_names(place.sight.backbone), block_widths(place.sight.backbone), strict=True)
        wanted = {name: np.empty((0, width), np.float16) for name, width in widths if place.block in (None, name)}
        blocks = {name: seen.blocks.get(name, none) for name, none in wanted.items()}
        found = Written(
            len(hashes),
            {name: block.shape[1] for name, block in blocks.items()},
            [(str(names[row]), reason) for row, reason in passed.refused.items()],
            [(str(names[row]), remark) for row, remark in passed.remarks.items()],
            passed.n_new,
            tuple((str(all_of.labels[k]), str(all_of.splits[k]), str(all_of.groups[k])) for k in passed.refused),
        )
        kept = rows.table.take([row for row, one in enumerate(passed.hashes) if one is not None])
        with refusing(f"features cannot be written to {place.folder}"):
            network = network_of(place.sight.key)
            of_itself = json.dumps({"of": about, "network": network, **found._replace(n_new=0)._asdict()})
            _write(path, kept, hashes, seen.thumbnails, blocks, place.field, of_itself)
        return found

    return written


def _write(
    path: far.Place,
    kept: Table,
    hashes: list[str],
    thumbnails: npt.NDArray[np.uint8],
    blocks: dict[str, Halves],
    field: dict[str, str],
    of_itself: str,
) -> None:
    """One file. Raises OSError."""
    said = {"path": kept.names, "label": kept.labels, "split": kept.splits}
    columns = {name: column.tolist() for name, column in said.items()}
    columns |= {"content_hash": hashes, "group": kept.groups.tolist()}
    table = feature_table(columns, blocks, field)
    table = table.add_column(len(columns), THUMBNAIL, lists(thumbnails.reshape(len(thumbnails), SIDE * SIDE * 3)))
    table = table.replace_schema_metadata({ABOUT: of_itself})
    put(path, lambda beside: pq.write_table(table, beside, **AS_IT_IS))


def feature_table(about: Mapping[str, Sequence[str]], blocks: Mapping[str, Halves], field: dict[str, str]) -> pa.Table:
    """Texts by column, and one float16 list a block; `field`: what the columns of blocks say of themselves."""
    lists = {n: pa.FixedSizeListArray.from_arrays(numbers(b.ravel()), b.shape[1]) for n, b in blocks.items()}
    table = pa.table({name: texts(column) for name, column in about.items()} | lists)
    fields = [column.with_metadata(field) if field and column.name in blocks else column for column in table.schema]
    return table.cast(pa.schema(fields))


def _about(rows: Rows, place: Place) -> str | None:
    """A digest of all that a file depends on; None where that cannot be said without reading the images."""
    pictures = identity(rows.table)
    if pictures is None:
        return None
    said = [pictures, FORMAT]
    said += [[column.tolist() for column in (rows.table.labels, rows.table.splits, rows.table.groups)]]
    said += [place.sight.key, place.block, place.field]
    return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()


def _known(path: far.Place, about: str | None) -> Written | None:
    """What a file that is there already holds; None where it is of something else."""
    with suppress(*UNSOUND, KeyError, TypeError):
        with open_parquet(path) as parquet:
            said = json.loads(parquet.schema_arrow.metadata[ABOUT])
        if about is not None and said.pop("of") == about and said.pop("network"):
            pairs = {name: [(str(a), str(b)) for a, b in said[name]] for name in ("set_aside", "remarks")}
            said["unread"] = tuple((str(a), str(b), str(c)) for a, b, c in said["unread"])
            return Written(**said | pairs)
    return None


def _make_ready(folder: far.Place) -> None:
    """Raises OutputError where something else lies there, OSError."""
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
    there = names_in(folder)
    foreign = [name for name in there if not (OURS.fullmatch(name) or name.startswith("."))]
    if foreign:
        raise OutputError(f"{folder} holds other files ({foreign[0]}): choose another -o, or empty it")
    if WHOLE in there:
        (folder / WHOLE).unlink()


def _close(place: Place, table: Table, n: int, whole: Written) -> None:
    """Files of an earlier, longer list go, and what the folder is is said. Raises OSError."""
    for name in names_in(place.folder):
        if name != WHOLE and OURS.fullmatch(name) and int(Path(name).stem.removeprefix("part-")) >= n:
            (place.folder / name).unlink()
    said = {
        "files": n,
        "images": whole.images,
        "blocks": whole.blocks,
        "set_aside": whole.set_aside,
        "unread": whole.unread,
        "remarks": gathered(whole.remarks),
        "seen_by": place.sight.key,
        "options": dict(place.options),
        "data": {
            "task": table.task,
            "columns": table.columns,
            "notes": table.notes,
            "layout": table.layout,
            "short_side": short_side(table),
        },
    }
    put(place.folder / WHOLE, lambda beside: beside.write_text(json.dumps(said, indent=1) + "\n"))
