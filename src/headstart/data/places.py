"""Where the files of a list lie on this disk: as written, or else where exactly one file below its folder fits.

Lists are made on another machine, with another system's slashes, with or without folder or extension. A path that
exists as it is written is left alone. For the others the list's folder is looked through once, and of the files of
that name the one is taken that agrees with most of the folders written before it. It must agree with all of them, or
with all of its own below the list's folder; where only some agree, all such paths of the list must have moved from one
folder to one other, of which the list names no file otherwise, and which is of no other class or part, or all into one
such as images/. So a picture of another folder that has the same name is not taken for the one that is missing.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from headstart.counted import counted
from headstart.data.folder_names import SPLIT_NAMES
from headstart.data.sheets import stripped
from headstart.data.tree import shown
from headstart.data.walk import DROPPINGS, NO_IMAGE
from headstart.files.cells import quoted
from headstart.files.far import Far, Place, is_far

MOST_FILES = 2_000_000  # looked at below a list's folder: ImageNet has 1.3 million; a disk has more
PICTURES = frozenset(  # endings that a path is not without
    """.jpg .jpeg .jpe .jfif .png .tif .tiff .bmp .gif .webp .pgm .ppm .pbm .pnm .jp2 .j2k .avif .heic .heif .tga .dcm
    .ico .psd .dds .qoi .pcx""".split()  # noqa: SIM905
)
CONTAINERS = frozenset("images image imgs img pictures photos jpegimages jpg png data all".split())  # noqa: SIM905
MOST_ALIKE = 100  # files that fit a path alike and are looked at: two are one too many
DEEPEST = 64  # folders in each other
MASKS = frozenset(  # folders of what belongs to pictures
    "mask masks annotation annotations trimap trimaps segmentation segmentations labels groundtruth gt".split()  # noqa: SIM905
)
TOO_MANY = f"; there are more than {MOST_FILES:,} files below that folder, which is too many to look for it"
WEB = re.compile(r"\s*(https?|ftp|s3|gs|hf)://", re.IGNORECASE)


@dataclass
class Placed:
    """The file of each path of a list. `n_found`: of these, that exist. `moved`: path as written -> where it was found,
    below the folder. `missing`: paths that no file, or more than one, fits -> what lies there instead, for a message.
    """

    files: list[str]
    n_found: int = 0
    moved: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


class _Fit(NamedTuple):
    file: tuple[str, ...]  # below the folder
    sure: bool
    before: tuple[str, ...]  # what was written before them
    instead: tuple[str, ...]  # what lies before them here


def is_file(path: str) -> bool:
    """Whether there is something other than a folder; a link that leads nowhere is reported when it is read."""
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return os.path.islink(path) if "\0" not in path else False


def lies(folder: Place, name: str) -> bool:
    """Whether a path names a file as it is written, or but for blanks and slashes; nothing is looked for. An address
    does, and so does what looks like a picture in a list that lies elsewhere."""
    if isinstance(folder, Far):
        return is_far(name) or os.path.splitext(stripped(name).lower())[1] in PICTURES
    return is_far(name) or any(text and is_file(os.path.join(str(folder), text)) for text in (name, _respelt(name)))


def place(folder: Place, names: Sequence[str], labels: Sequence[str] = ()) -> Placed:
    """The files of these paths; relative ones start at the folder. labels: of the list, which no move may change.

    An address for which no file below the folder fits is that of a file elsewhere, which is asked for when it is read;
    so are all paths of a list that lies elsewhere.
    """
    if isinstance(folder, Far):
        return Placed([folder.beside(name).address for name in names], sum(bool(name.strip()) for name in names))
    base = str(folder)
    found: dict[str, str] = {}
    lost: dict[str, tuple[str, ...]] = {}
    placed = Placed([])
    for name in dict.fromkeys(names):
        written = os.path.join(base, name)
        if name and is_file(written):
            found[name] = written
            continue
        parts, plain = _parts(name), _respelt(name)
        other = next((text for text in (plain, unquote(plain)) if text and is_file(os.path.join(base, text))), "")
        if other:
            found[name] = os.path.join(base, other)
            placed.moved[name] = _below(found[name], base)
        elif parts:
            lost[name] = parts
        else:
            placed.missing[name] = ""
    if lost:
        _search(base, lost, found, placed, labels)
    for name in [name for name in placed.missing if is_far(name)]:
        del placed.missing[name]
        found[name] = name.strip()
    placed.n_found = sum(name in found for name in names)
    placed.files = [found.get(name) or os.path.join(base, name) for name in names]
    return placed


def _respelt(name: str) -> str:
    """The same path without blanks around it, with this system's slashes, and without file:// before it."""
    text = stripped(stripped(name).strip("\"'"))
    if text.lower().startswith("file:"):
        text = _path_of(text)
    return text.replace("\\", "/")


def _path_of(address: str) -> str:
    try:
        return unquote(urlsplit(address).path)
    except ValueError:  # such as file://[x
        return address


def _parts(name: str) -> tuple[str, ...]:
    """The names in a path, the file's last, as they are compared: "C:\\Data\\a.JPG" -> c:, data, a.jpg."""
    text = _respelt(name)
    if WEB.match(text):
        text = _path_of(text)
    return tuple(_plain(part) for part in text.split("/") if part.strip() not in ("", ".", ".."))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip()).casefold()


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _search(
    base: str, lost: dict[str, tuple[str, ...]], found: dict[str, str], placed: Placed, labels: Sequence[str]
) -> None:
    """Look for these paths below the folder."""
    index = _Index(base, lost.values())
    fits = {name: index.fits(name, parts) for name, parts in lost.items()}
    single = {name: some[0] for name, some in fits.items() if len(some) == 1}
    sure = _alone({name: fit for name, fit in single.items() if fit.sure}, lost)
    found |= {name: os.path.join(base, *fit.file) for name, fit in sure.items()}
    unsure = {name: fit for name, fit in single.items() if not fit.sure}
    taken = sure | (unsure if _one_move(base, unsure, found, labels) else {})
    for name, parts in lost.items():
        if name in taken:
            found[name] = os.path.join(base, *taken[name].file)
            placed.moved[name] = "/".join(taken[name].file)
        else:
            alike = _hint([fit.file for fit in fits[name]])
            placed.missing[name] = TOO_MANY if index.too_many else alike or _hint(index.alike(parts), " but its ending")


class _Index:
    """The files below a folder that have one of the wanted names, by all that a path may end with."""

    def __init__(self, base: str, wanted: Iterable[tuple[str, ...]]) -> None:
        names = {key for parts in wanted for key in (parts[-1], _stem(parts[-1]))}
        self._above = tuple(_plain(part) for part in Path(os.path.abspath(base)).parts)
        self._named: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        self._bare: dict[tuple[str, ...], list[tuple[str, ...]]] = {}  # without the ending
        self.too_many = False
        for n_seen, file in enumerate(_files(base)):
            if n_seen == MOST_FILES:
                self.too_many = True
                self._named, self._bare = {}, {}
                break
            plain = _plain(file[-1])
            if plain in names or _stem(plain) in names:
                self._add(file, tuple(_plain(part) for part in file))

    def _add(self, file: tuple[str, ...], plain: tuple[str, ...]) -> None:
        for start in range(len(plain)):
            self._named.setdefault(plain[start:], []).append(file)
            self._bare.setdefault((*plain[start:-1], _stem(plain[-1])), []).append(file)

    def alike(self, parts: tuple[str, ...]) -> list[tuple[str, ...]]:
        """Files of the same name but for the ending."""
        return self._bare.get((_stem(parts[-1]),), [])

    def fits(self, name: str, parts: tuple[str, ...]) -> list[_Fit]:
        """The files that fit a path best: more than one where they fit alike."""
        files = self._best(self._named, parts)
        if not files and os.path.splitext(parts[-1])[1] not in PICTURES:
            files = self._best(self._bare, parts)
        if len(files) > 1:
            written = _respelt(name).split("/")
            exact = [file for file in files if file[-1] == written[-1]]  # a.jpg beside A.JPG
            files = exact if len(exact) == 1 else files
            pictures = [file for file in files if not any(_plain(part) in MASKS for part in file[:-1])]
            files = pictures if len(pictures) == 1 else files
        return [_fit(parts, file, self._above) for file in files[:MOST_ALIKE]]

    @staticmethod
    def _best(index: dict[tuple[str, ...], list[tuple[str, ...]]], parts: tuple[str, ...]) -> list[tuple[str, ...]]:
        for start in range(max(0, len(parts) - DEEPEST), len(parts)):
            if parts[start:] in index:
                return index[parts[start:]]
        return []


def _fit(parts: tuple[str, ...], file: tuple[str, ...], above: tuple[str, ...]) -> _Fit:
    below = tuple(_plain(part) for part in file)
    whole = above + below
    common = 1
    while common < min(len(parts), len(whole)) and parts[-1 - common] == whole[-1 - common]:
        common += 1
    sure = common == len(parts) or (common >= len(below) and common > 1)
    return _Fit(file, sure, parts[:-common], below[: max(0, len(below) - common)])


def _alone(fits: dict[str, _Fit], lost: dict[str, tuple[str, ...]]) -> dict[str, _Fit]:
    """Those without the ones that want one file and are not one path: x/1.jpg and y/1.jpg, if there is but 1.jpg."""
    claims: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for name, fit in fits.items():
        claims.setdefault(fit.file, []).append(lost[name])

    def agree(paths: list[tuple[str, ...]]) -> bool:
        longest = max(paths, key=len)
        return all(longest[-len(path) :] == path for path in paths)

    several = {file for file, paths in claims.items() if not agree(paths)}
    return {name: fit for name, fit in fits.items() if fit.file not in several}


def _one_move(base: str, unsure: dict[str, _Fit], found: dict[str, str], labels: Sequence[str]) -> bool:
    """Whether all these paths moved together into one folder that is nobody else's: from one other, or into images/."""
    into = {fit.instead for fit in unsure.values()}
    if len(into) != 1 or len({fit.file for fit in unsure.values()}) < len(unsure):
        return False
    instead = into.pop()
    taken = [_below(file, base).split("/") for file in found.values()]
    if any([_plain(part) for part in file[: len(instead)]] == list(instead) for file in taken):
        return False
    if not instead or instead[-1] in CONTAINERS:
        return True
    before = {fit.before for fit in unsure.values()}
    ends = {instead[-1], *(path[-1] for path in before if path)}
    parts = {SPLIT_NAMES[end] for end in ends if end in SPLIT_NAMES}
    return len(before) == 1 and len(parts) < 2 and not ends & {_plain(label) for label in labels if label}


def _below(file: str, base: str) -> str:
    return os.path.relpath(file, base).replace(os.sep, "/")


def _hint(files: Sequence[tuple[str, ...]], what: str = "") -> str:
    lie = ["/".join(file) for file in files[:2]]
    if not lie:
        return ""
    more = f" and {len(files) - 2} more" if len(files) > 2 else ""
    return f"; a file of that name{what} lies at {' and '.join(map(shown, lie))}{more}"


def _files(base: str) -> Iterator[tuple[str, ...]]:
    """Files that may be pictures at any depth below a folder, as the names on the way; no folder is entered twice."""
    entered: set[tuple[int, int]] = set()
    pending: list[tuple[str, ...]] = [()]
    while pending:
        above = pending.pop()
        path = os.path.join(base, *above)
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                inner = list(entries)
        except OSError:  # not ours to read, or gone: its files are missing, and that is said
            continue
        for entry in inner:
            if entry.name.startswith(".") or entry.name.lower() in DROPPINGS:
                continue
            if is_file(entry.path):
                if entry.name.rpartition(".")[2].lower() not in NO_IMAGE:
                    yield (*above, entry.name)
            else:
                pending.append((*above, entry.name))


def say_moved(placed: Placed) -> list[str]:
    if not placed.moved:
        return []
    name, file = next(iter(placed.moved.items()))
    n = len(placed.moved)
    what = f"{counted(n, 'path')} {'was' if n == 1 else 'were'}"
    return [f"{what} found otherwise than written: {quoted(name, 60)} is {shown(file)}"]


def say_missing(placed: Placed, unit: str = "") -> list[str]:
    if not placed.missing:
        return []
    name, hint = next(iter(placed.missing.items()))
    n = len(placed.missing)
    what = f"{counted(n, 'path')} {'names' if n == 1 else 'name'}"
    return [f"{what} no file that exists, such as {quoted(name, 60)}{hint}"]


def none_exists(where: str, folder: Place, placed: Placed) -> str:
    """What to say of a list of which no file exists."""
    name, hint = next(iter(placed.missing.items()))
    n = len(placed.missing)
    what = "the file that it lists does not exist" if n == 1 else f"none of the {n} files that it lists exists"
    web = " (such addresses are not fetched: download the pictures first)" if WEB.match(name) else ""
    return (
        f"{where}: {what}: the first is {quoted(name, 60)}{web}; relative paths start at {shown(str(folder))}"
        f"{hint or ', and no file below it has that name'}"
    )
