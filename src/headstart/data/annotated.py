"""Pictures with their boxes as an annotation states them, before anything is checked."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from headstart.data import folder_names as names
from headstart.data.tree import Folder
from headstart.data.walk import PICTURES, Walk


class Marked(NamedTuple):
    """A box as it is stated: the name of its class, its edges, and whether it is not to be counted."""

    label: str
    x1: float
    y1: float
    x2: float
    y2: float
    hard: bool = False


@dataclass
class Annotated:
    """A picture: its name as it is shown, its file and its part of the data. boxes: None where nothing is known of it.
    stated: (width, height) that the annotation gives it, None where it gives none. relative: the edges are shares of
    the picture's sides, else px."""

    name: str
    path: str
    split: str = "none"
    boxes: list[Marked] | None = None
    stated: tuple[int, int] | None = None
    relative: bool = False
    group: str = ""
    time: str = ""


@dataclass
class Remarks:
    """What was found wrong, and where: "what it is" -> the names, in order."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, name: str) -> None:
        self.found.setdefault(what, []).append(name)

    def notes(self) -> list[str]:
        return [f"{what}: {len(where):,}, the first {where[0]}" for what, where in self.found.items()]


@dataclass
class Read:
    """What a reader made of annotations. classes: in the order of the file that names them, None where none does and
    the sorted names of the training boxes are. kind: what it was read as, in a few words."""

    pictures: list[Annotated]
    kind: str
    classes: Sequence[str] | None = None
    remarks: Remarks = field(default_factory=Remarks)
    notes: list[str] = field(default_factory=list)


@dataclass
class Place:
    """A folder that was walked through: its tree, and its pictures, by their endings, but those in folders of masks or
    annotations."""

    root: str
    walk: Walk
    top: Folder
    pictures: list[str]

    def files(self, *endings: str) -> list[str]:
        """Files with one of these endings, in order, at any depth; hidden ones are not looked at."""
        found = []
        for folder in self.top.below():
            with os.scandir(folder.path) as entries:
                found += [
                    entry.path
                    for entry in sorted(entries, key=lambda e: os.fsencode(e.name))
                    if entry.name.lower().endswith(endings) and not entry.name.startswith(".") and entry.is_file()
                ]
        return [path for path in found if not path.lower().endswith(".aux.xml")]

    def name(self, path: str) -> str:
        """The path as it is shown: below the root, with forward slashes."""
        return self.walk.relative(path)


def place_of(root: str) -> Place:
    """Raises DataError where it cannot be listed."""
    walk = Walk(root, masks=False)
    top = walk.tree()
    pictures = []
    for folder in top.below():
        beside = folder is not top and any(names.is_annotation(part) for part in _parts(root, folder.path))
        for entry in folder.files:
            if beside:
                walk.ignore("files in folders of masks or annotations", entry.path)
            elif entry.name.rpartition(".")[2].lower() in PICTURES:
                pictures.append(entry.path)
            else:
                walk.ignore("files without the ending of a picture", entry.path)
    return Place(root, walk, top, pictures)


def _parts(root: str, path: str) -> list[str]:
    return [part for part in Path(os.path.relpath(path, root)).parts if part != "."]


def key_of(root: str, path: str) -> tuple[str, ...]:
    """What a picture and its annotation have in common: the folders they lie in, without those that only say "images"
    or "annotations", and the name without its ending. images/train/a.jpg and labels/train/a.txt: train, a."""
    *folders, file = _parts(root, path)
    kept = []
    for part in folders:
        if _says_pictures(part):
            part = names.split_of(part) or _split_in(part)
        if part:
            kept.append(part)
    return (*kept, file.rpartition(".")[0] or file)


def _split_in(name: str) -> str:
    """Of train_labels beside train_images."""
    return next((split for word in names.tokens(name) if (split := names.SPLIT_NAMES.get(word))), "")


def split_in(root: str, path: str) -> str:
    """The part of the data that the folders of a file tell, from the outermost on; none."""
    found = (
        names.split_of(part) or (_split_in(part) if _says_pictures(part) else "") for part in _parts(root, path)[:-1]
    )
    return next((split for split in found if split), "none")


def _says_pictures(part: str) -> bool:
    return names.is_annotation(part) or names.is_container(part) or names.holds_pictures(part)
