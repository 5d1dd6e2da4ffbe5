"""Whether a list of images is the one that it was: their names and places, and what the system says of each file.

No picture is read. A file counts as the same as long as its size, its time of change and that of its entry are: a
picture that another program put in its place is noticed even where its size and date were kept. A file elsewhere counts
as the same as long as its address is, and its size and time of change where a folder was listed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from headstart.data.archives import MemberSource
from headstart.data.sources import CellSource, FarSource, FileSource, RefusedSource, Source
from headstart.data.table import Table
from headstart.data.tars import TarredSource
from headstart.files.far import Far, Place

Status = Callable[[Place], str]


def identity(table: Table) -> str | None:
    """A digest of all that the pictures of a table depend on, in their order; None where a program holds them."""
    known: dict[str, str] = {}  # of files that hold many pictures

    def shared(path: Place) -> str:
        text = str(path)
        if text not in known:
            known[text] = status(path if isinstance(path, Far) else text)
        return known[text]

    digest = hashlib.blake2b(digest_size=16)
    for name, source in zip(table.names, table.sources, strict=True):
        said = _said(source, shared)
        if said is None:
            return None
        digest.update(os.fsencode(f"{name}\0{said}\0"))
    return digest.hexdigest()


def status(path: str | Far) -> str:
    """What the system says of a file, as one text; that it is not there, too. Of one elsewhere what was listed."""
    if isinstance(path, Far):
        return path.stamp
    try:
        found = os.stat(path)  # noqa: PTH116 (60,000 of them)
    except (OSError, ValueError):
        return "none"
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def _said(source: Source, shared: Status) -> str | None:
    if isinstance(source, FileSource):
        return f"{source.path}\0{status(source.path)}"
    if isinstance(source, FarSource):
        return f"{source.far}\0{source.far.stamp}"
    if isinstance(source, MemberSource):
        return f"{source.archive.path}\0{shared(source.archive.path)}\0{source.name}"
    if isinstance(source, TarredSource):
        return f"{source.tar.path}\0{shared(source.tar.path)}\0{source.offset}"
    if isinstance(source, CellSource):
        file = source.groups.files[source.file]
        beside = _beside(source, file)
        return f"{file}\0{shared(file)}\0{source.row_group}\0{source.row}\0{beside}"
    return f"refused\0{source.reason}" if isinstance(source, RefusedSource) else None


def _beside(source: CellSource, file: Place) -> str:
    """What the system says of the picture that a cell names instead of holding it."""
    named = source.groups.named(source.file, source.row_group, source.row)
    if not named or isinstance(file, Far):
        return ""
    return status(str(file.parent / named))
