"""What results need of the place that they go to, on this disk or elsewhere (`far.py`)."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headstart.errors import OutputError
from headstart.files.far import Place
from headstart.files.reading import why
from headstart.files.whole import write_whole


@contextmanager
def refusing(said: str) -> Iterator[None]:
    """What the system says of a place that cannot be written, as OutputError, which begins with `said`."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(f"{said} ({why(error)}): choose another -o") from None


def put(place: Place, write: Callable[[Path], object], partial: Path | None = None) -> int:
    """`write(path)` makes a file, which takes its place when it is whole: `write_whole`, here. Gives its bytes. Raises
    OSError."""
    if isinstance(place, Path):
        write_whole(place, write, partial)
        return place.stat().st_size
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        made = Path(folder) / f"made{place.suffix}"
        write(made)
        place.write(made)
        return made.stat().st_size


def names_in(folder: Place) -> dict[str, int | None]:
    """What lies in a folder: bytes by name, None for a folder; nothing where it is not there. Raises OSError."""
    if not isinstance(folder, Path):
        return folder.names()
    if not folder.is_dir():
        return {}
    return {one.name: None if one.is_dir() else one.lstat().st_size for one in folder.iterdir()}


def work_beside(output: Place, root: Path) -> Path:
    """The name beside which half-done work for an output lies: its own, or one below `root` where it lies elsewhere.
    Raises OSError."""
    if isinstance(output, Path):
        return output
    folder = root / "unfinished"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / hashlib.blake2b(output.address.strip().encode(), digest_size=16).hexdigest()
