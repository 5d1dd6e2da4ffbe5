"""The range of a set's pictures of more than 8 bits, found from the images that teach."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

from headstart.data import images
from headstart.data.deep import Ends, set_range
from headstart.data.preprocess import KINDS
from headstart.data.table import Table
from headstart.errors import ImageError

# Pictures that are looked at: the ends of a set are known to a percent of its pictures. Which ones is decided by their
# names, not by their order, so that the same set has the same range however it is listed.
SAMPLE = 256
READERS = 4  # threads


def ranges_of(table: Table, bands: tuple[int, ...] = ()) -> tuple[tuple[str, float, float], ...]:
    """(kind of samples, black, white) for `Preprocess.ranges`; () for a set without such pictures."""

    def read(row: int) -> tuple[str, Ends] | None:
        try:
            return images.deep_ends(table.read(row), bands)
        except ImageError:
            return None

    with ThreadPoolExecutor(READERS, thread_name_prefix="ranges") as pool:
        found = [ends for ends in pool.map(read, _sample(table)) if ends is not None]
    ranges = []
    for kind in KINDS:
        range_ = set_range([ends for known, ends in found if known == kind], kind)
        if range_ is not None:
            ranges.append((kind, *range_))
    return tuple(ranges)


def _sample(table: Table) -> list[int]:
    rows = [int(row) for row in table.teaching]
    if len(rows) > SAMPLE:
        rows.sort(key=lambda row: hashlib.blake2b(str(table.names[row]).encode("utf-8", "replace")).digest())
    return sorted(rows[:SAMPLE])
