"""The folder of an export: which one may be written, and how, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headstart.errors import OutputError
from headstart.files import swap
from headstart.files.reading import MOST_TEXT, read_regular, why

RECORD = "export.json"
PROGRAM = "predict.py"


def check_folder(folder: str | Path, data: str, force: bool) -> None:
    """Raise OutputError now if `write_folder` could not write there later. data: the fingerprint of the model's."""
    place = Path(folder).resolve()
    with _writing(place):
        swap.recover(place)
        _refuse_to_replace(place, data, force)
        swap.probe(place)


def write_folder(folder: str | Path, data: str, force: bool, fill: Callable[[Path], None]) -> None:
    """Let `fill` write into a new folder, which then takes the place of `folder`; where `fill` raises nothing does."""
    place = Path(folder).resolve()
    with _writing(place):
        swap.replace(place, fill, approve=lambda there: _refuse_to_replace(there, data, force))


def size_of(folder: Path) -> int:
    """Bytes of the model in it: of all files but the loader and the record."""
    return sum(f.stat().st_size for f in folder.iterdir() if f.is_file() and f.name not in (RECORD, PROGRAM))


def _refuse_to_replace(place: Path, data: str, force: bool) -> None:
    """Raise OutputError unless `place` is missing, empty, or an export and nothing else, of the same model's data."""
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        return
    if not place.is_dir():
        raise OutputError(f"the export cannot be written as {place}, which is a file: name a new folder with -o")
    record = _record(place)
    known = {RECORD, PROGRAM, *map(str, record.get("files", ()))}
    strangers = sorted(found.name for found in place.iterdir() if found.name not in known or found.is_dir())
    if strangers or not record:
        named = ", ".join(strangers[:3]) or "no export"
        raise OutputError(
            f"the export cannot be written to {place}: that folder holds {named}, which would be lost: name a new "
            "folder with -o"
        )
    if record.get("about", {}).get("data") != data and not force:
        raise OutputError(
            f"{place} holds the export of another model, which would be lost: name another folder with -o, or add "
            "--force"
        )


def _record(place: Path) -> dict[str, Any]:
    """What lies in an export's own record; nothing where it is none."""
    try:
        found = json.loads(read_regular(place / RECORD, MOST_TEXT))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("about"), dict) else {}


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """What the system says of a place, as OutputError."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"the export cannot be written to {place} ({why(error)}): name a folder that you can write to with -o"
        ) from error
