"""Folders as classes, and the doubts: what looks like masks, containers, parts or a set of its own is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from headstart.data import folder_names as names
from headstart.data.folder_names import key
from headstart.data.tree import Folder, contents, images, named, or_list, shown, some
from headstart.errors import DataError

PER_CLASS = "put the images of each class into a folder named after it"


@dataclass
class Layout:
    """What a folder is read as."""

    kind: str
    classes: list[tuple[Folder, str, str]] = field(default_factory=list)  # folder, label, split
    beside: dict[str, list[Folder]] = field(default_factory=dict)  # why -> folders that are set aside
    places: list[Folder] = field(default_factory=list)  # files that lie directly in these are set aside
    notes: list[str] = field(default_factory=list)


def read_classes(top: Folder, classes_on_top: bool) -> Layout:
    """Each folder as a class. classes_on_top: whatever lies in them. Raises DataError on doubts."""
    classes = top.filled
    either = any(names.is_labelled(c.name) for c in classes)  # labelled bottles, and bottles without a label
    found = Layout("class folders", [(c, label_of(c, either), "none") for c in classes], places=[top])
    if not classes:
        raise DataError(
            f"{top.where} holds {len(top.files)} file{'s' if len(top.files) > 1 else ''} but no class folders: "
            f"{PER_CLASS}, or name a CSV file with the columns path,label{or_list(top)}"
        )
    if len(classes) == 1:
        _check_alone(top, classes[0])
    found.notes += check_classes(top, classes, classes_on_top)
    inside = top.total - len(top.files)
    if len(top.files) > inside:
        raise DataError(
            f"{top.where}: {images(len(top.files))} lie beside the folders {named(classes)}, which hold {inside}: "
            f"{PER_CLASS}, or name a CSV file with the columns path,label{or_list(top)}"
        )
    return found


def check_classes(place: Folder, classes: list[Folder], classes_on_top: bool, in_part: bool = False) -> list[str]:
    """Notes on folders that are to be classes; in_part: of a train folder. Raises DataError on doubts."""
    if len(classes) < 2:
        return []
    _check_nested(place, classes, classes_on_top)
    if not classes_on_top:
        _check_alike(place, classes, in_part)
    check_names(place, classes)
    return _called_like_parts(place, classes, classes_on_top)


def _called_like_parts(place: Folder, classes: list[Folder], classes_on_top: bool) -> list[str]:
    """A note on a class called train. Raises DataError where test, val or training_set would be a class."""
    taken = [c for c in classes if names.split_of(c.name)]
    words = {key(c.name) for c in taken}
    vehicle = words == {"train"} and len(classes) > 2  # beside buses and cars
    paper = words == {"valid"} and "invalid" in {key(c.name) for c in classes}
    if taken and not (classes_on_top or vehicle or paper):
        raise DataError(
            f"{place.where}: {named(taken)} may be a part of the data without class folders, or a class beside "
            f"{named([c for c in classes if c not in taken])}: put class folders into it, take it out, or say "
            "--group-by none if it is a class"
        )
    return [f"{named(taken)}: read as a class, not as a part of the data"] if taken else []


def _check_alone(top: Folder, only: Folder) -> None:
    """Raises DataError where the only folder is no class: pictures in images/, or classes one folder further down."""
    inner = only.opened().filled
    if len(inner) > 1 and not names.are_sites([folder.name for folder in inner]):
        raise DataError(
            f"{top.where} has one class only, {only.name!r}: at least two class folders with images are needed (did "
            f"you mean {only.opened().where}?){or_list(top)}"
        )
    if names.is_container(only.name) or names.split_of(only.name):
        raise DataError(
            f"{top.where} has one class only, {only.name!r}, and that is no class: it holds {contents(only)}; "
            f"{PER_CLASS}{or_list(top)}"
        )


def _check_nested(top: Folder, classes: list[Folder], classes_on_top: bool) -> None:
    """Raises DataError where a would-be class is itself a set of classes or parts."""
    for folder in classes:
        place = folder.opened()
        inner = [inner.name for inner in place.filled]
        if holds_parts(place):
            raise DataError(
                f"{top.where}: {named(classes)} would be the classes, but {place.where} holds "
                f"{named(place.filled)}: name that folder, or divide every class like that"
            )
        siblings = {key(c.name) for c in classes if c is not folder}
        if not classes_on_top and inner and all(names.splits_of(inner)):
            raise DataError(
                f"{top.where}: {named([folder])} holds {named(place.filled)}: if that is a part of the data, divide "
                "every class into train and test; if it belongs to the class, say --group-by none"
            )
        if same := siblings & set(map(key, inner)):
            raise DataError(
                f"{top.where}: {named([folder])} holds folders of the same names as those beside it "
                f"({some(sorted(same))}): take it out, or name the folder that is meant"
            )


def holds_parts(place: Folder) -> bool:
    """Whether train lies in it, and test or validation."""
    found = set(names.splits_of([inner.name for inner in place.filled])) - {""}
    return "train" in found and len(found) > 1


def _check_alike(top: Folder, classes: list[Folder], in_part: bool) -> None:
    """Raises DataError where folders hold the same folders and no name tells which of the two are the classes."""
    deep = [folder for folder in classes if folder.inner_names]
    inner = [[f for f in folder.opened().filled if not names.is_annotation(f.name)] for folder in deep]
    held = Counter(key(f.name) for found in inner for f in found)
    shared = {name for name, count in held.items() if count >= max(2, len(deep) / 2)}
    spelt = sorted({f.name for found in inner for f in found if key(f.name) in shared})
    alike = len(shared) > 1 or (
        shared and len(held) > 1 and any({key(f.name) for f in found} == shared for found in inner)
    )
    direct = sum(len(folder.files) for folder in deep)
    outer_sites = names.are_sites([folder.name for folder in deep])
    alike = alike or (outer_sites and any(annotated(folder)[1] for folder in deep))
    if not alike or direct > sum(folder.total for folder in deep) / 10:  # a class holds pictures of its own
        return
    if names.are_sites(spelt) and not outer_sites:
        return
    inside = deep[0].opened().where
    outer = f"put them into {top.where} itself" if in_part else "name the outer folders train, validation and test"
    raise DataError(
        f"{top.where}: {named(deep)} hold the same folders ({some(spelt)}): if those are the classes, {outer}, or name "
        f"one of them, such as {inside}; if {named(deep)} are the classes, say --group-by none, or --group-by folder "
        "where each inner folder is a site or a patient"
    )


def check_names(top: Folder, classes: list[Folder]) -> None:
    """Raises DataError where folders are called what no class is called, such as images and images_2."""
    called = [folder.name for folder in classes]
    masks = [f for f in classes if names.is_annotation(f.name) and _mirrors(f, classes)]
    if masks and not any(names.tells_of_masks(f.name) for f in classes if f not in masks):  # mask and no_mask
        raise DataError(
            f"{top.where}: the files in {named(masks)} are named as those of the other folders, so they look like "
            "masks and no class: take the folder out, or rename it if it is a class"
        )
    wrong = [f for f in classes if names.is_container(f.name) or _wraps_classes(f)]
    if names.parts_of_one_set(called) or all(names.says_nothing(name) for name in called):
        wrong = classes
    if wrong:
        deep = next((f.opened() for f in wrong if len(f.opened().filled) > 1), None)
        hint = f"name {deep.where} if its folders are the classes" if deep else PER_CLASS
        raise DataError(
            f"{top.where}: {named(classes)} would be the classes, but {named(wrong)} tells of a place for pictures and "
            f"not of what is in them: {hint}, or rename it{or_list(top)}"
        )
    odd = [f for f in classes if names.is_output(f.name) or names.is_unnamed(f.name)]
    rest = [f for f in classes if not names.is_aside(f.name)]
    if len(rest) == 1 and len(rest[0].opened().filled) > 1:  # flowers/CLASS beside docs
        odd = [f for f in classes if f not in rest]
    if odd:
        raise DataError(
            f"{top.where}: {named(odd)} would be a class beside {named([f for f in classes if f not in odd])}: take it "
            "out, or rename it if it is one"
        )
    if pairs := names.variants(called):
        raise DataError(
            f"{top.where}: {pairs[0][1]!r} would be a class beside {pairs[0][0]!r}, and its name tells of the same "
            "thing: put its images where they belong (a test part into test/CLASS), or rename it"
        )


def _wraps_classes(folder: Folder) -> bool:
    """Such as labelled/CLASS beside unlabelled/."""
    inner = [inner.name for inner in folder.opened().filled]
    return names.says_nothing(folder.name) and len(inner) > 1 and not names.are_sites(inner)


def _mirrors(masks: Folder, classes: list[Folder]) -> bool:
    """Whether at least half of its files have the name of a file in another folder."""
    stems = {_stem(entry.name) for c in classes if c is not masks for inner in c.below() for entry in inner.files}
    own = [_stem(entry.name) for inner in masks.below() for entry in inner.files]
    return 2 * sum(stem in stems for stem in own) >= len(own)


def _stem(name: str) -> str:
    """The name without its extension and without a mark of masks."""
    return name.rpartition(".")[0].lower().removesuffix("mask").removesuffix("_gt").rstrip("_-. ")


def label_of(folder: Folder, word_is_class: bool = False) -> str:
    """The class that a folder is named after; "" where it is called unlabelled, unless that is a class here."""
    return "" if names.is_unlabelled(folder.name) and not word_is_class else names.composed(shown(folder.name))


def annotated(place: Folder) -> tuple[list[Folder], list[Folder]]:
    """(folders of pictures, folders of masks or boxes) in a folder, where both are there; else nothing."""
    marks = [f for f in place.folders if names.is_annotation(f.name) and (f.total or _marked(f))]
    inner = [mark.inner_names for mark in marks if mark.inner_names]
    rest = [f for f in place.filled if f not in marks]
    pictures = [f for f in rest if names.holds_pictures(f.name) or _is_flat_part(f) or f.inner_names in inner]
    return (pictures, marks) if marks and (pictures or (place.files and not _others(place, marks))) else ([], [])


def _others(place: Folder, marks: list[Folder]) -> bool:
    return any(folder not in marks for folder in place.filled)


def _marked(folder: Folder) -> bool:
    return any(inner.strays for inner in folder.below())


def _is_flat_part(folder: Folder) -> bool:
    return bool(names.split_of(folder.name)) and not folder.filled


def refuse_annotations(place: Folder) -> None:
    """Raises DataError on images/ beside masks/, Annotations/ or labels/."""
    pictures, marks = annotated(place)
    if not marks:
        return
    masks = any(mark.total for mark in marks)
    task = "segmentation (a mask for each picture)" if masks else "detection (boxes for each picture)"
    option = "segment" if masks else "detect"
    inside = [folder.opened() for folder in pictures]
    deep = next((f for f in inside if len(f.filled) > 1 and not any(names.splits_of([c.name for c in f.filled]))), None)
    hint = f"if the folders in it are classes, name {deep.where}" if deep else PER_CLASS
    what = named(pictures) if pictures else images(len(place.files))
    raise DataError(
        f"{place.where} holds {what} beside {named(marks)}, so this looks like {task}, which --task {option} "
        f"learns; for the class of a whole picture: {hint}{or_list(place)}"
    )


def is_no_class(folder: Folder) -> bool:
    name = folder.name
    return names.is_aside(name) or names.is_annotation(name) or names.is_container(name)
