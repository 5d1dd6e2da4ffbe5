"""A folder with what lies in it, and how it is told of in a message."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

from headstart.data.folder_names import are_sites, is_container, key
from headstart.files import far

EXAMPLES = 3  # names given in a note


@dataclass(eq=False)
class Folder:
    """A folder below the root, with what lies directly in it. `total`: files that may be pictures, at any depth."""

    name: str
    path: str
    above: Folder | None
    depth: int
    files: list[os.DirEntry[str]] = field(default_factory=list)
    folders: list[Folder] = field(default_factory=list)
    strays: Counter[str] = field(default_factory=Counter)  # ".txt" -> how many were passed over
    lists: list[str] = field(default_factory=list)  # names of files in which labels may stand
    total: int = 0

    @property
    def where(self) -> str:
        """Its path, as it is shown."""
        return shown(self.path)

    @property
    def filled(self) -> list[Folder]:
        """The folders in it that hold files that may be pictures, at any depth."""
        return [folder for folder in self.folders if folder.total]

    @property
    def inner_names(self) -> set[str]:
        """What the folders in it are called, without regard to letter case; of those in a wrapper, where it is one."""
        return {key(folder.name) for folder in self.opened().filled}

    def below(self) -> Iterator[Folder]:
        """It and all folders in it, in order."""
        pending = [self]
        while pending:
            folder = pending.pop()
            yield folder
            pending += folder.folders[::-1]

    def chain(self) -> Iterator[Folder]:
        """It, and the folders below it as long as there is but one and nothing beside it."""
        folder = self
        yield folder
        while not folder.files and len(folder.filled) == 1:
            folder = folder.filled[0]
            yield folder

    def opened(self, known: AbstractSet[str] = frozenset()) -> Folder:
        """It, or that in which its folders are, where it only wraps another: seg_train/seg_train/CLASS.

        known: what no wrapper is called, since classes are.
        """
        folder = self
        while not folder.files and len(folder.filled) == 1:
            only = folder.filled[0]
            inner = [inner.name for inner in only.filled]
            if not inner or key(only.name) in known or (are_sites(inner) and not is_container(only.name)):
                break
            folder = only
        return folder


def shown(text: str) -> str:
    """A file name as text that can be printed and stored: bytes that are not UTF-8 appear as \\udcXX, and of an address
    what opens it is left out."""
    text = far.shown(text) if "://" in text and far.is_address(text) else text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def some(names: Sequence[str], most: int = EXAMPLES) -> str:
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more" if left > 0 else "")


def named(folders: Sequence[Folder]) -> str:
    """One name, "a and b", or "a, b, c and 4 more"."""
    found = [shown(folder.name) for folder in folders]
    return " and ".join(found) if len(found) <= 2 else some(found)


def images(count: int) -> str:
    return f"{count} image{'s' if count != 1 else ''}"


def contents(top: Folder) -> str:
    """What lies in a folder, counted: "24 .npy files in 3 folders (a, b, c)"."""
    strays: Counter[str] = Counter()
    for folder in top.below():
        strays += folder.strays
    kinds = [f"{count} {kind} file{'s' if count > 1 else ''}" for kind, count in strays.most_common()]
    if top.total:
        kinds.insert(0, images(top.total))
    inner = [shown(folder.name) for folder in top.folders]
    where = f"{len(inner)} folder{'s' if len(inner) > 1 else ''} ({some(inner)})" if inner else ""
    if not kinds:
        return where or "nothing"
    return some(kinds) + (f" in {where}" if where else "")


def remedy(top: Folder) -> str:
    """What to do with what lies in a folder without pictures."""
    kinds = {kind for folder in top.below() for kind in folder.strays}
    if kinds & {".zip", ".rar", ".7z", ".tar", ".gz", ".bz2", ".xz"}:
        return "; unpack the archive first"
    if kinds & {".npy", ".npz", ".mat", ".h5", ".hdf5"}:
        return "; arrays are taken in Python, by TransferClassifier().fit(arrays, labels)"
    if kinds & {".mp4", ".mov", ".avi", ".mkv", ".webm"}:
        return "; save frames of the videos as pictures first"
    return ""


def or_list(top: Folder) -> str:
    """A clause that names the lists which lie in the upper folders, "" where there are none."""
    upper = [folder for folder in top.below() if folder.depth <= top.depth + 2]
    found = [shown(str(Path(folder.path) / name)) for folder in upper for name in folder.lists]
    if not found:
        return ""
    readable = [path for path in found if path.lower().endswith((".csv", ".tsv", ".parquet"))]
    if not readable:
        return f"; if {some(found)} holds the labels, save it as CSV with the columns path,label and name that"
    return f"; if {some(readable)} holds the labels, name it: headstart fit {shlex.quote(readable[0])}"
