"""Whether a result can be written where the user wants it, before the long work."""

from __future__ import annotations

import os
from pathlib import Path

from headstart.errors import OptionError, OutputError

PREDICTIONS = (".csv", ".jsonl", ".json", ".parquet")
ANSWERS = (".csv", ".jsonl", ".json")  # of a network's own top
FEATURES = (".parquet", ".csv", ".jsonl")


def check_output(path: Path, formats: tuple[str, ...]) -> None:
    """Raise now what would stop a write after long work; leaves nothing behind.

    OptionError for a name without one of these endings, OutputError for a place that cannot be written.
    """
    if path.suffix.lower() not in formats:
        raise OptionError(f"the output {path} cannot be written: its name must end in {' or '.join(formats)}")
    if not path.parent.is_dir():
        raise OutputError(f"the folder {path.parent} does not exist: make it first, or choose another -o")
    if path.is_dir():
        raise OutputError(f"{path} is a folder: choose another -o")
    trial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): choose another -o") from None
