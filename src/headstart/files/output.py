"""Whether a result can be written where the user wants it, before the long work."""

from __future__ import annotations

import os
from pathlib import Path

from headstart.errors import OptionError, OutputError
from headstart.files.far import is_address, shown
from headstart.files.reading import why
from headstart.files.whole import probe

PREDICTIONS = (".csv", ".jsonl", ".json", ".parquet")
ANSWERS = (".csv", ".jsonl", ".json")  # of a network's own top
PAGES = (".html", ".htm")
FEATURES = (".parquet", ".csv", ".jsonl")


def check_output(path: Path, formats: tuple[str, ...]) -> None:
    """Raise now what would stop a write after long work; leaves nothing behind.

    OptionError for a name without one of these endings, OutputError for a place that cannot be written.
    """
    if path.suffix.lower() not in formats:
        raise OptionError(f"the output {path} cannot be written: its name must end in {' or '.join(formats)}")
    try:
        beside, taken = path.parent.is_dir(), path.is_dir()
        if beside and not taken:
            probe(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({why(error)}): choose another -o") from None
    if not beside:
        raise OutputError(f"the folder {path.parent} does not exist: make it first, or choose another -o")
    if taken:
        raise OutputError(f"{path} is a folder: choose another -o")


def names_folder(name: str) -> bool:
    """Whether an output is meant to be a folder of files: it ends with a slash, or is one."""
    return name.endswith(("/", os.sep)) or Path(name).is_dir()


def check_folder_beside(path: Path) -> None:
    """Raise OutputError now where a folder cannot be made or written, before long work; leaves nothing behind."""
    there = path if path.is_dir() else path.parent
    if not there.is_dir():
        raise OutputError(f"the folder {there} does not exist: make it first, or choose another -o")
    if os.path.lexists(path) and not path.is_dir():
        raise OutputError(f"{path} is a file: choose another -o, or leave out the slash at its end")
    try:
        probe(there / "answers")
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({why(error)}): choose another -o") from None


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
