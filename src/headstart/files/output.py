"""Whether a result can be written where the user wants it, before the long work."""

from __future__ import annotations

import os
from pathlib import Path

from headstart.errors import OptionError, OutputError
from headstart.files.far import Far, Place, is_address, place_of, shown
from headstart.files.far_stores import BUCKETS, WRITTEN
from headstart.files.put import refusing
from headstart.files.whole import probe

PREDICTIONS = (".csv", ".jsonl", ".json", ".parquet")
ANSWERS = (".csv", ".jsonl", ".json")  # of a network's own top
PAGES = (".html", ".htm")
FEATURES = (".parquet", ".csv", ".jsonl")


def output_of(text: str) -> Place:
    """Where results go. Raises OptionError for an address at which nothing is written."""
    place = place_of(text)
    if is_address(text) and not (isinstance(place, Far) and place.takes_files):
        kinds = ", ".join(f"{name}://" for name in WRITTEN if name != "memory")
        raise OptionError(f"the output {shown(text)} cannot be written: {kinds} and folders of this disk can")
    return place


def check_output(path: Place, formats: tuple[str, ...]) -> None:
    """Raise now what would stop a write after long work; leaves nothing behind.

    OptionError for a name without one of these endings, OutputError for a place that cannot be written.
    """
    if path.suffix.lower() not in formats:
        raise OptionError(f"the output {path} cannot be written: its name must end in {' or '.join(formats)}")
    if isinstance(path, Far):
        _check_there(path.parent)
        return
    with refusing(f"{path} cannot be written"):
        beside, taken = path.parent.is_dir(), path.is_dir()
        if beside and not taken:
            probe(path)
    if not beside:
        raise OutputError(f"the folder {path.parent} does not exist: make it first, or choose another -o")
    if taken:
        raise OutputError(f"{path} is a folder: choose another -o")


def _check_there(folder: Far) -> None:
    """Raise OutputError where its store does not answer, or has no such bucket. Whether it takes files is seen with the
    first one: a trial would stay behind as an empty folder."""
    with refusing(f"{folder} cannot be written"):
        if not folder.names() and folder.scheme in BUCKETS:
            folder.bucket.is_dir()


def names_folder(name: str) -> bool:
    """Whether an output is meant to be a folder of files: it ends with a slash, or is one here."""
    return name.endswith(("/", os.sep)) or (not is_address(name) and Path(name).is_dir())


def check_folder_beside(path: Place) -> None:
    """Raise OutputError now where a folder cannot be made or written, before long work; leaves nothing behind."""
    if isinstance(path, Far):
        _check_there(path)
        return
    there = path if path.is_dir() else path.parent
    if not there.is_dir():
        raise OutputError(f"the folder {there} does not exist: make it first, or choose another -o")
    if os.path.lexists(path) and not path.is_dir():
        raise OutputError(f"{path} is a file: choose another -o, or leave out the slash at its end")
    with refusing(f"{path} cannot be written"):
        probe(there / "answers")


def check_folder_of_files(place: Place) -> None:
    """As `check_folder`, of a folder that may lie elsewhere. Raises OutputError where its store does not answer."""
    if isinstance(place, Far):
        _check_there(place)
    else:
        check_folder(str(place), "-o")


def check_here(name: str) -> None:
    """Raise OptionError for an address, before it becomes the path s3:/bucket."""
    if is_address(name):
        raise OptionError(
            f"the output {shown(name)} cannot be written: output is of this disk, write it here and copy it there"
        )


def check_folder(name: str, option: str) -> None:
    """Raise OptionError now for a name that no folder can have, before long work; makes nothing."""
    if not name:
        raise OptionError(f"{option} is empty: name a folder")
    if os.path.lexists(name) and not Path(name).is_dir():
        raise OptionError(f"{option} {name} is no folder: choose another one")


def from_folder(file: str, folder: Path) -> str:
    """The path of a file from a folder, where one leads there (not between drives); else whole. With slashes, as lists
    of images have it."""
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:
        return str(Path(file).absolute())
