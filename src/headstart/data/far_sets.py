"""What an address names: a list, Parquet, tar or zip files, or a folder of pictures in a bucket.

A folder is listed once. Parquet and tar files in it are read in place, by their parts; of any other folder the readers
of folders see a likeness (`likeness.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from headstart.data.archives import read_zip
from headstart.data.folder_names import split_at_start, split_of
from headstart.data.likeness import as_here
from headstart.data.manifests import LISTS, read_csv, read_parquet
from headstart.data.parquet import image_column, read_parquet_folder
from headstart.data.sources import FarSource, Found, Row
from headstart.data.tars import TEXTS, is_tar, read_tars, several
from headstart.data.truth import PLACED, Asked
from headstart.errors import DataError
from headstart.files.far import WEB, Far, Listed, listed
from headstart.files.reading import why


def is_file(address: str) -> bool:
    """Whether an address names a file of images and not a folder, by its ending."""
    far = Far(address.strip())
    return far.suffix.lower() in (*LISTS, ".parquet") or is_tar(far.name)


def read_far(address: str, asked: Asked, read: Callable[[Path], Found]) -> Found:
    """A labelled set. `read`: for a folder of pictures. Raises DataError."""
    far = Far(address.strip())
    if asked.task in PLACED:
        raise DataError(f"{far}: --task {asked.task} reads what lies on this disk: copy the set here first")
    found = _found(far, asked, read)
    if found is None:
        raise DataError(
            f"{far} is neither a folder nor a list: name a folder with one folder of images per class, a .csv with "
            "the columns path,label, or .parquet or .tar files"
        )
    return found


def pictures_at(address: str, read: Callable[[Path], Found]) -> Found:
    """The pictures, without labels; or the one picture. `read`: for a folder of pictures. Raises DataError."""
    far = Far(address.strip())
    found = _found(far, None, read)
    return found or Found([Row(str(far), FarSource(far), "", "none")], [], "")


def _found(far: Far, asked: Asked | None, read: Callable[[Path], Found]) -> Found | None:
    """None for a single file of another kind. Raises DataError."""
    kind = far.suffix.lower()
    if is_tar(far.name):
        return read_tars([Far(one) for one in several(far.address)], str(far), asked)
    if kind in LISTS:
        return read_csv(far, asked)
    if kind == ".parquet":
        return read_parquet(far, asked)
    if kind == ".zip" and asked is None:
        return read_zip(far)
    if far.scheme in WEB:
        return None
    try:
        files = listed(far) if far.is_dir() else None
    except OSError as error:
        raise DataError(f"{far} cannot be read: {why(error)}") from None
    return None if files is None else _folder(far, files, asked, read)


def _folder(folder: Far, files: Sequence[Listed], asked: Asked | None, read: Callable[[Path], Found]) -> Found:
    if parts := _parquet(folder, files):
        return read_parquet_folder(folder, parts, asked)
    seen = [one for one in files if not one.path.rpartition("/")[2].startswith(".")]
    tars = [folder.within(one.path, one.stamp) for one in seen if is_tar(one.path) and "/" not in one.path]
    if tars and all(is_tar(one.path) or one.path.lower().endswith(TEXTS) for one in seen):
        return read_tars(tars, str(folder), asked)
    return as_here(folder, files, read)


def _parquet(folder: Far, files: Sequence[Listed]) -> list[tuple[Far, str]]:
    """(file, split) of a set of Parquet files with images: in the folder, in `data`, or in train, validation and test;
    [] where there is none. Raises DataError."""
    found: dict[str, list[tuple[Far, str]]] = {"": [], "data": [], "parts": []}
    for one in files:
        above, _, name = one.path.rpartition("/")
        if not name.lower().endswith(".parquet") or name.startswith("."):
            continue
        if above in ("", "data"):
            found[above].append((folder.within(one.path, one.stamp), split_at_start(name)))
        elif "/" not in above and (split := split_of(above)):
            found["parts"].append((folder.within(one.path, one.stamp), split))
    return next((parts for parts in found.values() if parts and image_column(parts[0][0])), [])
