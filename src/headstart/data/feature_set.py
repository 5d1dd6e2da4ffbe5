"""A folder of features, as `headstart features DATA -o FOLDER/` writes it: what it is of, without its features.

    FOLDER/part-000000.parquet ...   a row an image: texts, thumbnail, and one float16 list a block
    FOLDER/_headstart.json           written last: what the network, its options and the data were

Each file says in its metadata which network it is of, by the digest of all that a feature depends on, so that files of
two networks are never taken for one set. No picture is needed to read it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from headstart.counted import counted
from headstart.data.sources import Found, GoneSource, RefusedSource, Row, Source
from headstart.data.table import Table, taught_by
from headstart.data.tree import shown
from headstart.errors import DataError
from headstart.files.far import Far, Place, place_of
from headstart.files.parquet import UNSOUND, open_parquet, read_group
from headstart.files.reading import read_regular, why

PART, WHOLE = "part-{:06d}.parquet", "_headstart.json"
OURS = re.compile(r"part-[0-9]{6,}\.parquet|_headstart\.json")
ABOUT = b"headstart"  # the key of what a file says of itself
TEXTS = ("path", "label", "split", "content_hash", "group")
THUMBNAIL = "thumbnail"  # uint8, (16, 16, 3) laid out
SIDE = 16  # px of a thumbnail
TASKS = ("classify", "tag", "regress")  # whose heads read pooled features alone
AGAIN = "give `headstart features DATA -o {}/` again: what the cache still has is not computed anew"


@dataclass(frozen=True, eq=False)
class FeatureSet:
    """`paths` of the files, `ends` (file,) the number of images up to the end of each; `blocks`: name -> features.

    `seen_by`: all that a feature depends on beside the picture, as the store's key has it; `options`: those by which it
    was seen. `task`, `columns`, `notes`, `layout`: of the table, see `Table`. `short_side`: the median of the
    pictures' shorter sides, px. `unread`: the pictures that could not be read. `names`, `labels`, `splits`, `hashes`,
    `groups`: a text for each image.
    """

    folder: Path
    paths: tuple[Path, ...]
    ends: tuple[int, ...]
    blocks: Mapping[str, int]
    seen_by: Mapping[str, Any]
    options: Mapping[str, Any]
    task: str
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...]
    layout: str
    short_side: float
    unread: tuple[Row, ...]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    splits: tuple[str, ...]
    hashes: tuple[str, ...]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return self.ends[-1]

    @property
    def _sources(self) -> tuple[GoneSource, ...]:
        return tuple(GoneSource(one, row) for row, one in enumerate(self.hashes))

    @property
    def known(self) -> frozenset[str]:
        """The names of all pictures, those that could not be read among them."""
        return frozenset((*self.names, *(row.name for row in self.unread)))

    def table(self, min_classes: int, group_by: str | None) -> Table:
        """The images with the labels that they had when the features were made. Raises DataError, OptionError."""
        columns = zip(self.names, self._sources, self.labels, self.splits, self.groups, strict=True)
        rows = [Row(name, source, label, split, group) for name, source, label, split, group in columns]
        rows += self.unread
        of = self.layout.partition(": ")[2] or self.layout  # without the place where the pictures were
        found = Found(rows, list(self.notes), f"{shown(str(self.folder))}: features of {of}", self.task)
        return taught_by(found._replace(columns=self.columns), shown(str(self.folder)), min_classes, group_by)

    def named(self, table: Table) -> Table:
        """The rows of a table of labels whose pictures have features here, by their names; a note says how many have
        none. Raises DataError where no name is known."""
        places: dict[str, Source] = {row.name: row.source for row in self.unread}
        places |= zip(reversed(self.names), reversed(self._sources), strict=True)
        known = [places.get(str(name)) for name in table.names]
        rows = [row for row, source in enumerate(known) if source is not None]
        if not rows:
            raise DataError(
                f"none of the {len(table)} names in the labels is one of the {len(self)} in "
                f"{shown(str(self.folder))}: the first are {table.names[0]} and {self.names[0]}"
            )
        found = replace(table.take(rows), sources=tuple(source for source in known if source is not None))
        lacking = len(table) - len(rows)
        said = f"not used: {counted(lacking, 'image')} of the labels without features"
        return replace(found, notes=(*table.notes, *([said] if lacking else [])))


def network_of(seen_by: Mapping[str, object]) -> str:
    """The digest of all that a feature depends on beside its picture."""
    return hashlib.blake2b(json.dumps(seen_by, sort_keys=True).encode(), digest_size=16).hexdigest()


def holds_features(path: str | Place) -> bool:
    """Whether this is a folder that `headstart features` has begun to fill. Raises DataError for one elsewhere."""
    folder = place_of(path)
    if isinstance(folder, Far):
        with suppress(OSError):
            if folder.takes_files and (folder / WHOLE).open().size:  # one request; a folder may have a million names
                raise DataError(f"{folder} holds features, which are read from a disk: copy the folder here first")
        return False
    if (folder / WHOLE).is_file():
        return True
    with suppress(OSError, ValueError):
        first = next((one for one in sorted(folder.glob("part-*.parquet")) if OURS.fullmatch(one.name)), None)
        return first is not None and _said(first) is not None
    return False


def _said(path: Path) -> dict[str, Any] | None:
    """What a file says of itself; None where it says nothing."""
    with suppress(*UNSOUND, KeyError, TypeError), open_parquet(path) as parquet:
        said = json.loads(parquet.schema_arrow.metadata[ABOUT])
        return said if isinstance(said, dict) else None
    return None


def read_set(path: str | Path, progress: Callable[[int], None] = lambda n: None) -> FeatureSet:
    """A whole folder, with its texts. Raises DataError, in one line that says what to do about it."""
    folder = Path(path)
    where, again = shown(str(folder)), AGAIN.format(str(path).rstrip("/"))
    if not (folder / WHOLE).is_file():
        raise DataError(f"{where} holds features and no {WHOLE}, so that it is not whole: {again}")
    try:
        said = json.loads(read_regular(folder / WHOLE))
        seen_by, data = said["seen_by"], said["data"]
        paths = tuple(folder / PART.format(number) for number in range(int(said["files"])))
        blocks = {str(name): int(width) for name, width in said["blocks"].items()}
    except (OSError, ValueError) as error:
        raise DataError(f"{where}/{WHOLE} cannot be read ({why(error)}): {again}") from None
    except (KeyError, TypeError, AttributeError):
        raise DataError(
            f"{where} does not say which network its features are of, as newer folders do: {again}"
        ) from None
    network, columns, sizes = network_of(seen_by), [list[str]() for _ in TEXTS], []
    for file in paths:
        texts = _texts_of(file, where, network, blocks, again)
        for column, values in zip(columns, texts, strict=True):
            column += values
        sizes.append(len(texts[0]))
        progress(1)
    if sum(sizes) != said.get("images") or not sizes:
        raise DataError(f"{where} holds {sum(sizes)} images and says {said.get('images')}: {again}")
    names, labels, splits, hashes, groups = map(tuple, columns)
    try:
        return FeatureSet(
            folder,
            paths,
            tuple(accumulate(sizes)),
            blocks,
            dict(seen_by),
            dict(said["options"]),
            str(data["task"]),
            tuple(map(str, data["columns"])),
            tuple(map(str, data["notes"])),
            tuple(map(str, said["remarks"])),
            str(data["layout"]),
            float(data["short_side"]),
            tuple(
                Row(str(name), RefusedSource(str(reason)), *map(str, rest))
                for (name, reason), rest in zip(said["set_aside"], said["unread"], strict=True)
            ),
            names,
            labels,
            splits,
            hashes,
            groups,
        )
    except (KeyError, TypeError, ValueError):
        raise DataError(f"{where}/{WHOLE} does not say what newer folders do: {again}") from None


def _texts_of(file: Path, where: str, network: str, blocks: Mapping[str, int], again: str) -> list[list[str]]:
    """The texts of one file, a list a column. Raises DataError where it is damaged, or of something else."""
    said = _said(file)
    if said is None:
        what = "is missing" if not file.exists() else "cannot be read"
        raise DataError(f"{file.name} of {where} {what}: {again}")
    if said.get("network") != network:
        raise DataError(f"{file.name} of {where} is of another network than {WHOLE} says: {again}")
    try:
        table = read_rows(file, TEXTS)
        with open_parquet(file) as parquet:
            _check_blocks(parquet.schema_arrow, blocks)
        return [table[name].to_pylist() for name in TEXTS]
    except (*UNSOUND, KeyError) as error:
        raise DataError(f"{file.name} of {where} cannot be read ({why(error)}): {again}") from None


def _check_blocks(schema: pa.Schema, blocks: Mapping[str, int]) -> None:
    """Raises ValueError where a block has another width, KeyError where it is missing."""
    for name, width in {**blocks, THUMBNAIL: SIDE * SIDE * 3}.items():
        kind = schema.field(name).type
        if not pa.types.is_fixed_size_list(kind) or kind.list_size != width:
            raise ValueError(f"its column {name} is {kind}, and {width} values an image were written")


def read_rows(file: Path, names: Sequence[str]) -> pa.Table:
    """Some columns of all rows of a file. Raises one of UNSOUND, KeyError."""
    with open_parquet(file) as parquet:
        groups = parquet.num_row_groups
        empty = parquet.schema_arrow.empty_table().select(list(names))
    parts = [read_group(file, group, names) for group in range(groups)]
    return pa.concat_tables(parts).combine_chunks() if parts else empty
