"""Where a saved model's own images are on this machine.

A model is handed on, and names no private folder: of an absolute path its command has the last part. So what `fit` read
is remembered here and nowhere else, in a file of the cache under the fingerprint of the data. Images are looked for
where the command names them, from here and from beside the model, then where they are remembered to be; a place counts
where some image has the very bytes that taught the model.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from headstart.data import images
from headstart.data.splits import Split, read_split
from headstart.data.table import Table
from headstart.errors import BundleError, DataError, HeadstartError, ImageError
from headstart.files.bundle import Bundle
from headstart.files.far import Far, is_far, place_of
from headstart.files.reading import read_regular
from headstart.files.whole import write_whole
from headstart.trunk.store import cache_root

FOLDER = "data"  # of the cache
COMPARED = 20  # images: some may have been edited since, and all of other data with the same names differ


def remember(fingerprint: str, data: str, cache: str | None = None) -> None:
    """That the data of this fingerprint are `data`, a folder or list; where the cache cannot be written, nothing. What
    lies elsewhere is not remembered: nothing is fetched that nobody names."""
    if is_far(data):
        return
    place = _file(fingerprint, cache_root(cache))
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.parent.chmod(0o700)  # names of private folders
        write_whole(place, lambda beside: beside.write_text(json.dumps({"data": str(Path(data).resolve())})))


def handed_on(path: str | Path) -> str:
    """A path as a model may name it: of an absolute one, or an address, the last part alone: all else is private."""
    place = place_of(path)
    return place.name if isinstance(place, Far) or place.is_absolute() else str(path)


def without_place(layout: str) -> str:
    """What the data were read as, without private places."""
    place, colon, rest = layout.partition(": ")
    return f"{handed_on(place)}{colon}{rest}"


def forget(root: Path) -> None:
    """All that is remembered in a cache."""
    shutil.rmtree(root / FOLDER, ignore_errors=True)


def own_images(bundle: Bundle, read: Callable[[Path], Table], what_for: str) -> tuple[Path, Table]:
    """The first place with images of this model's fit, and they as `read` reads them. Raises DataError, which names
    what was tried, and says that `what_for`."""
    split, tried = split_of(bundle), _places(bundle)
    for place in tried:
        try:
            table = read(place)
        except HeadstartError:
            continue
        if split is None or _same(table, split):
            return place, table
    said = f" (tried: {', '.join(map(str, tried))})" if tried else ""
    raise DataError(
        f"the images of {bundle.folder.name} are not found here{said}, and {what_for}: name them with --data DATA"
    )


def words_of(bundle: Bundle) -> list[str]:
    """The command of the fit; none where it is gone."""
    try:
        return shlex.split(str(bundle.run.get("command", "")))
    except (ValueError, BundleError):
        return []


def split_of(bundle: Bundle) -> Split | None:
    """Names and contents of the images of the fit; None where a model was handed on without."""
    try:
        return read_split(bundle.folder / "split.parquet")
    except HeadstartError:
        return None


def known(table: Table, split: Split) -> dict[int, int]:
    """Row of the table -> row of the split, by name; by content where no name is known."""
    named = {str(name): at for at, name in enumerate(split.names)}
    found = {row: named[str(name)] for row, name in enumerate(table.names) if str(name) in named}
    if found:
        return found
    contents = {str(content): at for at, content in enumerate(split.hashes)}
    hashes = ((row, content_of(table, row)) for row in range(len(table)))
    return {row: contents[content] for row, content in hashes if content in contents}


def content_of(table: Table, row: int) -> str:
    """The hash of an image's bytes; empty where it cannot be read."""
    try:
        return images.content_hash(table.read(row))
    except ImageError:
        return ""


def _same(table: Table, split: Split) -> bool:
    """Whether some of COMPARED images have the bytes of the fit."""
    rows = list(known(table, split).items())
    some = rows[:: max(1, len(rows) // COMPARED)]
    return any(content_of(table, row) == str(split.hashes[at]) for row, at in some)


def _places(bundle: Bundle) -> list[Path]:
    """Where the images may be, in the order in which they are tried. No fit writes an absolute path into a model: one
    that is there was put there, and is not looked at."""
    given = next((word for word in words_of(bundle)[2:] if not word.startswith("-")), None)
    if given is not None and Path(given).is_absolute():
        given = None
    beside = (Path(), bundle.folder.parent, bundle.folder.parent.parent)
    found = [] if given is None else [folder / given for folder in beside]
    remembered = _remembered(str(bundle.manifest.get("data_fingerprint", "")))
    return list(dict.fromkeys(found if remembered is None else [*found, remembered]))


def _remembered(fingerprint: str) -> Path | None:
    try:
        found = json.loads(read_regular(_file(fingerprint, cache_root())))
        return Path(str(found["data"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _file(fingerprint: str, root: Path) -> Path:
    """A fingerprint stands in a model that somebody else may have made: it does not become a path as it is."""
    return root / FOLDER / f"{hashlib.sha256(fingerprint.encode()).hexdigest()[:32]}.json"
