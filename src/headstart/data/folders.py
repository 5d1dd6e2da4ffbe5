"""A folder of images as rows: one folder per class, or train, validation and test folders with class folders inside."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from headstart.data.sources import FileSource, Found, Row
from headstart.errors import DataError

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
DROPPINGS = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "system volume information"})
NO_IMAGE = frozenset(  # extensions that no picture has
    """txt csv tsv json jsonl xml yaml yml toml ini cfg md rst html htm css js db sqlite log py
    ipynb sh bat exe dll zip tar gz bz2 xz 7z rar npy npz mat h5 hdf5 parquet arrow pkl pickle pt
    pth onnx safetensors mp3 wav mp4 mov avi mkv webm doc docx xls xlsx ppt pptx pdf lnk url""".split()  # noqa: SIM905
)
EXAMPLES = 3  # names given in a note


@dataclass
class Walk:
    """Files that might be images, below a folder, and what was passed over on the way."""

    root: str
    ignored: dict[str, list[str]] = field(default_factory=dict)
    nested: Counter[str] = field(default_factory=Counter)

    def entries(self, folder: str) -> tuple[list[os.DirEntry[str]], list[os.DirEntry[str]]]:
        """(folders, candidate files) directly in a folder, sorted bytewise by name. Raises DataError if unreadable."""
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda e: os.fsencode(e.name))
        except OSError as error:
            raise DataError(f"{shown(folder)} cannot be listed: {error.strerror}") from error
        folders, files = [], []
        for entry in entries:
            if entry.name.startswith(".") or entry.name.lower() in DROPPINGS:
                self.ignore("hidden or system files", entry.path)
            elif _is(entry, folder=True):
                folders.append(entry)
            elif entry.name.rpartition(".")[2].lower() in NO_IMAGE:
                self.ignore("stray files that are no images", entry.path)
            elif _is(entry, folder=False) or entry.is_symlink():  # a broken link is reported when it is read
                files.append(entry)
            else:
                self.ignore("pipes and devices", entry.path)
        return folders, files

    def below(self, folder: str, above: tuple[str, ...] = ()) -> Iterator[os.DirEntry[str]]:
        """Candidate files at any depth, in order; links back into folders already entered are not followed."""
        entered = {_identity(place) for place in (*above, folder)}
        pending = [(folder, 0)]
        while pending:
            place, depth = pending.pop()
            folders, files = self.entries(place)
            if depth and files:
                self.nested[folder] += len(files)
            yield from files
            inner = []
            for entry in folders:
                identity = _identity(entry.path)
                if identity in entered:
                    self.ignore("links that lead in a circle", entry.path)
                else:
                    entered.add(identity)
                    inner.append((entry.path, depth + 1))
            pending += reversed(inner)

    def ignore(self, why: str, path: str) -> None:
        self.ignored.setdefault(why, []).append(self.relative(path))

    def relative(self, path: str) -> str:
        """The path as it is shown: below the root, with forward slashes."""
        return shown(os.path.relpath(path, self.root).replace(os.sep, "/"))

    def notes(self) -> list[str]:
        """What was passed over, and which classes took in the images of folders inside them."""
        return self.passed_over() + [
            f"{self.relative(folder)}: {count} images in folders inside it belong to the same class"
            for folder, count in self.nested.items()
        ]

    def passed_over(self) -> list[str]:
        return [f"ignored {len(paths)} {why}: {_some(paths)}" for why, paths in sorted(self.ignored.items())]


def read_folder(root: Path, min_classes: int) -> Found:
    """The rows of a folder of class folders, with or without split folders around them. Raises DataError."""
    walk = Walk(str(root))
    folders, files = walk.entries(str(root))
    parts = _split_folders(walk, folders)
    if not parts:
        return _class_folders(walk, folders, files, min_classes)
    for entry in files:
        walk.ignore("files beside the split folders", entry.path)
    for entry in folders:
        if entry not in parts.values():
            walk.ignore("folders beside the split folders", entry.path)
    rows: list[Row] = []
    for split in ("train", "validation", "test"):
        if split in parts:
            rows += _split_rows(walk, parts[split], split)
    notes = walk.notes() + _check_classes(root, rows, min_classes)
    return Found(rows, notes, _layout(root, "split folders with class folders", rows))


def _split_folders(walk: Walk, folders: list[os.DirEntry[str]]) -> dict[str, os.DirEntry[str]]:
    """split -> folder, where folders named after splits hold folders; {} for a plain folder of classes."""
    named = [e for e in folders if e.name.lower() in SPLIT_NAMES]
    parts: dict[str, os.DirEntry[str]] = {}
    for entry in named:
        if not Walk(walk.root).entries(entry.path)[0]:
            continue
        split = SPLIT_NAMES[entry.name.lower()]
        if split in parts:
            raise DataError(
                f"{shown(walk.root)} has two {split} folders, {parts[split].name!r} and {entry.name!r}: keep one"
            )
        parts[split] = entry
    if parts and "train" not in parts:
        if len(named) < len(folders):
            return {}  # classes of which one happens to be called "test"
        names = ", ".join(shown(e.name) for e in parts.values())
        raise DataError(
            f"{shown(walk.root)} has {names} but no train folder: add one, or name the folder of classes itself, "
            f"such as {shown(next(iter(parts.values())).path)}"
        )
    return parts


def _split_rows(walk: Walk, part: os.DirEntry[str], split: str) -> list[Row]:
    folders, files = walk.entries(part.path)
    for entry in files:
        walk.ignore("files beside the class folders", entry.path)
    return [row for entry in folders for row in _class_rows(walk, entry, split, (walk.root, part.path))]


def _class_rows(walk: Walk, entry: os.DirEntry[str], split: str, above: tuple[str, ...]) -> list[Row]:
    label = shown(entry.name)
    rows = [
        Row(walk.relative(file.path), FileSource(file.path), label, split) for file in walk.below(entry.path, above)
    ]
    if not rows:
        walk.ignore("folders without images", entry.path)
    return rows


def _class_folders(
    walk: Walk, folders: list[os.DirEntry[str]], files: list[os.DirEntry[str]], min_classes: int
) -> Found:
    root = Path(walk.root)
    rows = [row for entry in folders for row in _class_rows(walk, entry, "none", (walk.root,))]
    if not rows and files:
        raise DataError(
            f"{shown(walk.root)} holds {len(files)} files but no class folders: put the images of each class into a "
            "folder named after it, or name a CSV file with the columns path,label"
        )
    for entry in files:
        walk.ignore("files beside the class folders", entry.path)
    notes = walk.notes() + _check_classes(root, rows, min_classes)
    return Found(rows, notes, _layout(root, "class folders", rows))


def _check_classes(root: Path, rows: list[Row], min_classes: int) -> list[str]:
    """Notes on classes that a split lacks. Raises DataError on no images or too few classes."""
    if not rows:
        raise DataError(f"no images found in {shown(str(root))}: expected one folder per class with images inside")
    classes: dict[str, set[str]] = {}
    for row in rows:
        classes.setdefault(row.split, set()).add(row.label)
    training = classes.get("train", classes.get("none", set()))
    if len(training) == 1 < min_classes:
        raise DataError(_one_class(root, rows, next(iter(training))))
    return [
        f"{split} has no images of class {_some(missing)}"
        for split, names in classes.items()
        if (missing := sorted(training - names))
    ]


def _one_class(root: Path, rows: list[Row], label: str) -> str:
    text = f"{shown(str(root))} has one class only, {label!r}: at least two class folders with images are needed"
    inner = {row.name.split("/")[1] for row in rows if row.name.count("/") >= 2}
    return f"{text} (did you mean {shown(str(root / label))}?)" if len(inner) > 1 else text


def _layout(root: Path, kind: str, rows: list[Row]) -> str:
    return f"{shown(str(root))}: {kind}, {counts(rows)}"


def counts(rows: list[Row]) -> str:
    """How many images of which class and split, in one line: "train 244 (ants 123, bees 121), validation ..."."""
    by_split: dict[str, Counter[str]] = {}
    for row in rows:
        by_split.setdefault(row.split, Counter())[row.label or "unlabelled"] += 1
    parts = []
    for split in ("train", "validation", "test", "none"):
        if split in by_split:
            labels = by_split[split]
            each = [f"{label} {n}" for label, n in sorted(labels.items())]
            what = f"{sum(labels.values())} images" if split == "none" else f"{split} {sum(labels.values())}"
            parts.append(f"{what} of {len(labels)} classes ({_some(each, 10)})")
    return ", ".join(parts)


def shown(text: str) -> str:
    """A file name as text that can be printed and stored: bytes that are not UTF-8 appear as \\udcXX."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _some(names: list[str], most: int = EXAMPLES) -> str:
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more" if left > 0 else "")


def _is(entry: os.DirEntry[str], folder: bool) -> bool:
    try:
        return entry.is_dir() if folder else entry.is_file()
    except OSError:  # a link to itself
        return False


def _identity(path: str) -> tuple[int, int]:
    status = Path(path).stat()
    return status.st_dev, status.st_ino
