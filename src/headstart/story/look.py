"""What `inspect` finds beside copies: pictures that are not like the others, classes that their files give away, parts
that look different.

One more pass over the files, as small as pictures are looked at; the network does not see them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from headstart.data import images
from headstart.data.duplicates import DuplicateSet, find_conflicts, find_leaks
from headstart.data.facts import Facts, facts_of
from headstart.data.quality import SIDE, Looks, Odd, faults, looks_of
from headstart.errors import ImageError
from headstart.files.cores import n_cores
from headstart.heads.apart import Apart, apart
from headstart.heads.material import Ints
from headstart.judge import shortcut
from headstart.judge.shortcut import Told
from headstart.story.given_away import OF_CLASSES
from headstart.story.opening import QUIET, Watcher
from headstart.story.pipeline import Seen

T = TypeVar("T")
RUN = 64  # images a task of a thread


@dataclass(frozen=True, eq=False)
class Look:
    """`faults`: rows of `seen`; `files`: how well the facts of the files tell the class, `pictures`: those of the
    pictures; `shifts`: part -> how well it is told from the training images. None where too few are there to say."""

    seen: Seen
    leaks: list[DuplicateSet]
    conflicts: list[DuplicateSet]
    faults: list[Odd]
    files: Told | None
    pictures: Told | None
    shifts: dict[str, Apart]

    def found(self) -> dict[str, int]:
        """Reason -> how often it was found."""
        return {
            "leaks": len(self.leaks),
            "conflicts": len(self.conflicts),
            "unreadable": len(self.seen.features.set_aside),
            "shift": sum(one.clear for one in self.shifts.values()),
            "shortcut": int(self.files is not None and self.files.clear),
        }


def look_over(seen: Seen, seed: int, watch: Watcher = QUIET) -> Look:
    """Look at every picture that could be read, once more and small."""
    table, preprocess = seen.table, seen.backbone.preprocess

    def measured(row: int) -> tuple[int, Facts, Looks] | None:
        try:
            source = table.read(row)
            return row, facts_of(source), looks_of(images.small(source, SIDE, preprocess=preprocess))
        except ImageError:  # it was there a moment ago
            return None

    found = [one for one in _in_threads(measured, len(table), watch.bar("pictures", len(table))) if one is not None]
    rows = np.array([row for row, _, _ in found], dtype=np.int64)
    facts, looks = [one[1] for one in found], [one[2] for one in found]
    odd = [Odd(int(rows[o.row]), o.fault, o.measured) for o in faults(facts, looks)]
    files = pictures = None
    if table.task in OF_CLASSES and len(rows):
        chosen = shortcut.drawn(table.labels[rows], seen.groups[rows], seed)
        labels = table.labels[rows[chosen]]
        files = shortcut.told_by(_at(shortcut.of_files(facts, looks), chosen), labels, seed)
        pictures = shortcut.told_by(_at(shortcut.of_pictures(facts, looks), chosen), labels, seed)
    leaks, conflicts = find_leaks(seen.duplicates, table.splits), find_conflicts(seen.duplicates, table.labels)
    return Look(seen, leaks, conflicts, odd, files, pictures, shifts(seen, seed))


def _at(columns: dict[str, npt.NDArray[Any]], rows: Ints) -> dict[str, npt.NDArray[Any]]:
    return {name: column[rows] for name, column in columns.items()}


def _in_threads(of: Callable[[int], T], n: int, progress: Callable[[int], None] | None) -> Iterator[T]:
    """`of` each of n rows, in their order."""

    def run(rows: range) -> list[T]:
        return [of(row) for row in rows]

    runs: Iterable[range] = [range(start, min(n, start + RUN)) for start in range(0, n, RUN)]
    with ThreadPoolExecutor(n_cores(), thread_name_prefix="look") as pool:
        for found in pool.map(run, runs):
            if progress:
                progress(len(found))
            yield from found


def shifts(seen: Seen, seed: int) -> dict[str, Apart]:
    """Part that judges -> how well it is told from the training images; without those of which too few are there."""
    strata, splits = seen.targets.strata, seen.table.splits
    classes = strata if strata.ndim == 1 else np.zeros(len(strata), dtype=np.int64)
    train = np.flatnonzero(splits == "train")
    material, found = seen.material(seed), {}
    for part in ("validation", "test"):
        rows = np.flatnonzero(splits == part)
        one = apart(material.at, train, rows, classes, seen.groups, seed) if len(rows) and len(train) else None
        if one is not None:
            found[part] = one
    return found


def shift_lines(look: Look) -> list[str]:
    """What can be said of each part beside the training images."""
    lines = []
    for part, one in look.shifts.items():
        told = f"told apart with AUROC {one.auroc:.2f} [{one.low:.2f}, {one.high:.2f}], 0.5 by chance"
        how = "look different from" if one.clear else "look like"
        lines.append(f"the {part} images {how} the training images ({told})")
    return lines
