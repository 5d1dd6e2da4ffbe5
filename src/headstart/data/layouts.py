"""Which folders are classes and which are parts: train, validation and test. What can be read in two ways is refused.

| what lies there | how it is read |
|---|---|
| CLASS/ | one class a folder; folders inside a class belong to it |
| train/CLASS/, test/CLASS/ | parts, told by their names; a folder between, as in seg_train/seg_train/CLASS, is opened |
| CLASS/train/, CLASS/test/ | classes that are each divided |
| A/x, A/y, B/x, B/y | refused with the two readings, unless names tell parts (seg_train), or sites (site1, left) |
| images/ beside masks/ or Annotations/ | refused: `--task segment` or `--task detect` reads it |
"""

from __future__ import annotations

from collections.abc import Sequence

from headstart.data import folder_names as names
from headstart.data.class_folders import (
    PER_CLASS,
    Layout,
    check_classes,
    check_names,
    holds_parts,
    is_no_class,
    label_of,
    read_classes,
    refuse_annotations,
)
from headstart.data.folder_names import key
from headstart.data.tree import Folder, images, named, or_list
from headstart.errors import DataError

ORDER = ("train", "validation", "test")


def layout_of(top: Folder, classes_on_top: bool) -> Layout:
    """The one sane reading of a folder. Raises DataError where there is none, or more than one.

    classes_on_top: the user has said that the topmost folders are the classes, whatever lies in them.
    """
    for place in top.chain():
        refuse_annotations(place)
        found = _divided_classes(place) or _parts(place, classes_on_top)
        if found:
            return found
    return read_classes(top, classes_on_top)


# Parts


def _parts(place: Folder, classes_on_top: bool) -> Layout | None:
    """Folders of classes inside folders told after parts; None where no folder is one. Raises DataError."""
    inner = place.filled
    within = [folder.inner_names for folder in inner]
    splits = _splits(inner, within)
    if not any(splits):
        return None
    others = [folder for folder, split in zip(inner, splits, strict=True) if not split]
    told = [(folder, split) for folder, split in zip(inner, splits, strict=True) if split]
    deep = [(folder, split) for folder, split in told if folder.inner_names]
    if not deep:
        if not classes_on_top and all(is_no_class(folder) for folder in others):
            raise DataError(_no_labels(place, told))
        return None  # classes, of which some happen to be called "test"
    shared = set.intersection(*within)
    if len(told) == 1 and len(others) > 1 and names.are_sites(sorted(shared)):
        return None  # cars, trains and buses, each photographed in the same places
    _check_parts(place, deep, told, others)
    return _read_parts(place, told, others, classes_on_top)


def _splits(inner: list[Folder], within: list[set[str]]) -> list[str]:
    """The part that each folder is by its name, "" for none. Names such as A_train count where all hold the same."""
    found = names.splits_of([folder.name for folder in inner])
    deep = [(folder, held) for folder, held in zip(inner, within, strict=True) if held]
    loose = [names.split_and_rest(folder.name)[0] for folder, _ in deep]
    if len(set(loose)) > 1 and all(loose) and set.intersection(*(held for _, held in deep)):
        told = {folder: split for (folder, _), split in zip(deep, loose, strict=True)}
        return [split or told.get(folder, "") for folder, split in zip(inner, found, strict=True)]
    return found


def _check_parts(
    place: Folder, deep: list[tuple[Folder, str]], told: list[tuple[Folder, str]], others: list[Folder]
) -> None:
    """Raises DataError where parts are missing, there twice, or may be something else."""
    parts: dict[str, Folder] = {}
    for folder, split in deep:
        if split in parts:
            raise DataError(
                f"{place.where} has two {split} folders, {parts[split].name!r} and {folder.name!r}: keep one"
            )
        parts[split] = folder
    if "train" not in parts:
        raise DataError(_no_train(place, parts, told, others))
    known = parts["train"].inner_names
    for folder in others:
        if key(folder.name) in known or folder.inner_names & known:
            raise DataError(
                f"{place.where}: {named([folder])} holds or is a class of {named([parts['train']])} but its name "
                "tells no part: name it train, validation or test, or take it out"
            )
    doubtful = [folder for folder in others if not is_no_class(folder)]
    if len({split for _, split in told}) == 1 and doubtful:
        raise DataError(
            f"{place.where}: {named([parts['train']])} may be the part that teaches or a class beside "
            f"{named(doubtful)}: name {parts['train'].where} itself for the first, rename the folder for the second"
        )


def _no_train(place: Folder, parts: dict[str, Folder], told: list[tuple[Folder, str]], others: list[Folder]) -> str:
    flat = [(folder, split) for folder, split in told if split == "train"]
    if flat:
        return _no_labels(place, flat)
    first = next(iter(parts.values()))
    deeper = next((folder.opened() for folder in others if holds_parts(folder.opened())), None)
    if deeper:
        return f"{place.where}: {deeper.where} holds {named(deeper.filled)}: name that folder"
    if not others:
        return (
            f"{place.where} has {named(list(parts.values()))} but no train folder: add one, or name the folder of "
            f"classes itself, such as {first.where}"
        )
    if {key(folder.name) for folder in others} & first.inner_names:
        return (
            f"{place.where}: {named(others)} lie beside {named([first])}, which holds folders of these names: put "
            "those that teach into a folder named train"
        )
    return (
        f"{place.where}: {named([first])} may be a part or a class beside {named(others)}: put the classes that "
        "teach into a folder named train, or rename the folder if it is a class"
    )


def _no_labels(place: Folder, parts: Sequence[tuple[Folder, str]]) -> str:
    parts = sorted(parts, key=lambda part: ORDER.index(part[1]))
    folders = [folder for folder, _ in parts]
    return (
        f"{place.where}: {named(folders)} hold{'s' if len(folders) == 1 else ''} images but no class folders, so "
        f"nothing says what is in them: {PER_CLASS}, such as {folders[0].where}/CLASS{or_list(place)}"
    )


def _read_parts(place: Folder, told: list[tuple[Folder, str]], others: list[Folder], classes_on_top: bool) -> Layout:
    found = Layout(
        "split folders with class folders", places=[place], beside={"folders beside the split folders": others}
    )
    known: set[str] = set()
    for folder, split in sorted(told, key=lambda part: ORDER.index(part[1])):
        inside = folder.opened(known)
        refuse_annotations(folder)
        refuse_annotations(inside)
        classes = _classes_of_part(folder, inside, known)
        mostly_flat = len(inside.files) > inside.total - len(inside.files)
        if split == "train" and (mostly_flat or not classes):
            raise DataError(_no_labels(place, [(folder, split)]))
        if classes:
            found.places += [folder] if folder is inside else [folder, inside]
        else:
            found.notes.append(
                f"{named([folder])}: {images(folder.total)} in no class folder, so without label: not used"
                f"{or_list(folder)}"
            )
        if len(set(names.splits_of([c.name for c in classes])) - {""}) > 1:
            raise DataError(f"{inside.where} holds {named(classes)}, parts in a part: name one of the two levels")
        found.classes += [(c, label_of(c), split) for c in classes]
        if split == "train":
            found.notes += check_classes(inside, classes, classes_on_top, in_part=True)
            known = {key(c.name) for c in classes}
    return found


def _classes_of_part(part: Folder, inside: Folder, known: set[str]) -> list[Folder]:
    """Its class folders; none where its one folder is no class, as in test/test/1.jpg and test/images/1.jpg.

    Raises DataError where that folder holds classes, and files beside it kept it from being opened.
    """
    classes = inside.filled
    if len(classes) != 1 or key(classes[0].name) in known:
        return classes
    name = classes[0].name
    if key(name) == key(part.name) or names.is_container(name) or names.split_of(name) or names.is_aside(name):
        if classes[0].filled:
            raise DataError(f"{inside.where} holds {images(len(inside.files))} beside {name!r}: take them out")
        return []
    return classes


def _divided_classes(place: Folder) -> Layout | None:
    """CLASS/train and CLASS/test; None where not every class is divided like that."""
    classes = place.filled
    splits = {folder: names.splits_of([inner.name for inner in folder.filled]) for folder in classes}
    kinds = {split for found in splits.values() for split in found}
    wrappers = all(names.splits_of([folder.name for folder in classes]))  # train/train/CLASS beside test/test/CLASS
    divided = all(inner and all(inner) for inner in splits.values())
    if "train" not in kinds or not divided or wrappers or len(classes) == 1:
        return None
    check_names(place, classes)
    found = Layout("class folders with split folders inside", places=[place])
    for folder in classes:
        inner = dict(zip(splits[folder], folder.filled, strict=True))
        if len(inner) < len(folder.filled):
            raise DataError(f"{folder.where} has the same part twice, {named(folder.filled)}: keep one")
        held = [part.inner_names for part in inner.values()]
        if all(held) and not names.are_sites(sorted(set.union(*held))):
            raise DataError(
                f"{place.where}: each of {named(classes)} holds train and test folders with folders inside, a set of "
                f"its own: name one, such as {folder.where}"
            )
        if folder.files:
            raise DataError(
                f"{folder.where} holds {images(len(folder.files))} beside its folders {named(folder.filled)}: move "
                "them into one of these"
            )
        found.classes += [(inner[split], label_of(folder), split) for split in ORDER if split in inner]
    found.classes.sort(key=lambda c: ORDER.index(c[2]))
    return found
