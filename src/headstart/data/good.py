"""Good pictures, and odd ones to judge by: how `--task anomaly` reads folders, and which labels are good.

| what lies there | how it is read |
|---|---|
| one folder of pictures | all are good |
| train/ with pictures and no folders, test/CLASS/ | those of train are good |
| class folders, with or without parts (MVTec AD: train/good, test/good, test/crack) | by their names |

Labels are good that `--good` names, or whose names say so: good, ok, normal, no_crack, healthy ... Each other label
is a kind of oddity and keeps its name. Such pictures never teach; they judge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headstart.counted import counted
from headstart.data import folder_names as names
from headstart.data.folders import read_folder
from headstart.data.given import Labels
from headstart.data.sources import FileSource, Found, Row
from headstart.data.tree import Folder, shown, some
from headstart.data.walk import Walk
from headstart.errors import DataError, OptionError, nearest

GOOD = "good"  # what a good picture's label is called, whatever it was before
SAY_GOOD = frozenset(
    """good ok okay fine normal healthy intact undamaged unbroken clean pass passed accepted negative neg regular
    flawless perfect""".split()  # noqa: SIM905
)
SAY_NOT = frozenset(("no", "not", "non", "without", "free", "zero"))
ALONE = frozenset(("no", "none", "nothing", "0", "false", "absent"))


def says_good(name: str) -> bool:
    """Whether a label says that nothing is wrong: good, ok_front, no_tumor, notumor, defect-free, 0."""
    plain = name.strip().casefold()
    words = plain.replace("_", " ").replace("-", " ").split()
    if not words:
        return False
    if plain in ALONE or words[0] in SAY_GOOD:
        return True
    if words[0] in SAY_NOT:
        return not SAY_GOOD & set(words[1:])
    return words[-1] == "free" or plain in ("notumor", "nodefect", "nofinding", "defectfree")


def read_good_folder(root: Path, inner: str = "") -> Found:
    """The rows of a folder whose pictures are good, or some of them. Raises DataError. inner: as for `read_folder`."""
    walk = Walk(str(root), masks=False)
    top = walk.tree()
    place = list(top.chain())[-1]
    if place.files and not place.filled:
        rows = _rows(walk, place, GOOD, "none")
        said = f"{shown(str(root))}: one folder of pictures, {counted(len(rows), 'image')}, all taken as good"
        return Found(rows, walk.notes(), said, "anomaly")
    parted = _flat_train(walk, place)
    return read_folder(root, 1, inner) if parted is None else parted


def _rows(walk: Walk, place: Folder, label: str, split: str) -> list[Row]:
    return [
        Row(walk.relative(entry.path), FileSource(entry.path), label, split, "")
        for folder in place.below()
        for entry in folder.files
    ]


def _flat_train(walk: Walk, place: Folder) -> Found | None:
    """Of pictures in train, and folders of classes in the other parts; None for anything else."""
    parts = list(zip(place.filled, names.splits_of([folder.name for folder in place.filled]), strict=True))
    train = [folder for folder, split in parts if split == "train"]
    others = [(folder, split) for folder, split in parts if split in ("validation", "test")]
    if place.files or len(train) != 1 or train[0].filled or not any(folder.filled for folder, _ in others):
        return None
    rows = _rows(walk, train[0], GOOD, "train")
    for part, split in others:
        for folder in part.filled:
            rows += _rows(walk, folder, names.composed(shown(folder.name)), split)
    told = Counter(row.split for row in rows)
    sizes = ", ".join(f"{split} {n:,}" for split, n in told.items())
    said = f"{place.where}: split folders, those that teach all taken as good, {sizes}"
    return Found(rows, walk.notes(), said, "anomaly")


def with_good(found: Found, good: str | None, where: str) -> Found:
    """Each label that is good called GOOD, the others as they are. good: as `--good` names them, with commas between.

    Raises OptionError for one that is not there, DataError where nothing says which are good.
    """
    labels = sorted({row.label for row in found.rows} - {""})
    chosen = _named(labels, good, where) if good is not None else {name for name in labels if says_good(name)}
    if not chosen and labels:
        if len(labels) > 1 or any(row.split == "test" for row in found.rows):
            raise DataError(
                f"{where}: nothing says which pictures are good: its labels are {_listed(labels)}; name the good ones "
                f"with --good, such as --good {labels[0]}"
            )
        chosen = set(labels)
    chosen |= {GOOD} & set(labels)
    rows = [row._replace(label=GOOD if row.label in chosen else row.label) for row in found.rows]
    n, kinds = sum(row.label == GOOD for row in rows), sorted({row.label for row in rows} - {"", GOOD})
    note = [f"good: {_listed(sorted(chosen))} ({counted(n, 'image')})"] if chosen != {GOOD} else []
    teaching = sum(row.split in ("train", "none") and row.label not in ("", GOOD) for row in rows)
    judged = any(row.split in ("validation", "test") for row in rows)
    if kinds and teaching and judged:
        note.append(
            f"not used: {counted(teaching, 'image')} of the training part that are not good; none of them teach"
        )
    return found._replace(rows=rows, notes=[*found.notes, *note], task="anomaly")


def good_given(labels: Labels, good: str | None = None) -> Labels:
    """Labels that a program hands over, with each that is good called GOOD. good: as `--good` names them; None: those
    whose names say so, or 1 of the numbers 1 and -1. Raises OptionError, DataError."""
    names = sorted(set(labels.texts) - {""})
    if good is None and set(names) <= {"1", "-1"}:
        good = "1" if "1" in names else None
    chosen = _named(names, good, "those that were given") if good is not None else set(filter(says_good, names))
    if not chosen and names:
        raise DataError(
            f"nothing says which pictures are good: the labels are {_listed(names)}; name the good ones, such as "
            f"AnomalyDetector(good={names[0]!r}), or give 1 for a good picture and -1 for an odd one"
        )
    texts = tuple(GOOD if text in chosen else text for text in labels.texts)
    return replace(labels, texts=texts, kind="str", task="anomaly")


def _named(labels: Sequence[str], good: str, where: str) -> set[str]:
    """The labels that `--good` names: its whole text, or its parts between commas."""
    asked = [good.strip()] if good.strip() in labels else [part.strip() for part in good.split(",") if part.strip()]
    if not asked:
        raise OptionError("--good is empty: name the label of good pictures, or several with commas between")
    missing = next((name for name in asked if name not in labels), None)
    if missing is not None:
        raise OptionError(
            f"--good {missing!r} is no label of {where}{nearest(missing, labels)}: its labels are {_listed(labels)}"
        )
    return set(asked)


def _listed(labels: Sequence[str]) -> str:
    return some([repr(name) for name in labels], 6) if labels else "none"
