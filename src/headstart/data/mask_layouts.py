"""Which mask belongs to which picture of a folder.

| what lies there | how it is read |
|---|---|
| images/ beside masks/, labels/, annotations/, SegmentationClass/, gtFine/ ... | pictures, and their masks |
| train/images/ and train/masks/; images/train/ and masks/train/; train/ beside train_labels/ or trainannot/ | parts |
| a.jpg beside a_mask.png, a_gt.png | a picture and its mask |
| a.jpg beside a.json, with `shapes` | Labelme |
| a .json with `images`, `annotations` and `categories` | COCO |

A mask has the name of its picture, whatever their endings; after it may stand _mask, _masks, _gt, _L, _label, _labels,
_seg, _segmentation, _annotation, _groundtruth, _labelIds, _labelTrainIds or _gtFine_labelIds. Where two masks fit, the
one of exactly that name counts, then _labelTrainIds before _labelIds. Folders between, as of a city or a film, must be
the same for both. Masks of objects or instances (SegmentationObject, _instanceIds, _color) are not taken.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from headstart.counted import counted
from headstart.data import folder_names as names
from headstart.data.mask_classes import Classes, found_classes
from headstart.data.masked import Pictured, found_in
from headstart.data.sources import Found
from headstart.data.tree import shown, some
from headstart.data.walk import Walk
from headstart.errors import DataError
from headstart.files.reading import read_regular, why

SUFFIX = re.compile(
    r"[-_. ](?:masks?|gt|L|labels?|seg|segmentation|annotations?|groundtruth|ground_truth|gtfine_labelids|"
    r"gtfine_labeltrainids|labelids|labeltrainids)$",
    re.IGNORECASE,
)
OF_PICTURES = re.compile(r"[-_](?:leftImg8bit|image|img|rgb|sat)$", re.IGNORECASE)
NOT_CLASSES = re.compile(r"[-_](?:instanceIds|color|colour|polygons|instanceTrainIds|panoptic)$", re.IGNORECASE)
OBJECTS = frozenset(("segmentationobject", "instances", "instance", "object", "objects"))
MASK_WORDS = names.ANNOTATIONS | frozenset(
    "annot annots gtfine gtcoarse labelids groundtruths seg segs segmentationclass segmentationclassaug".split()  # noqa: SIM905
)
STRAYS = "stray files that are no images"
LAYOUT = (
    "expected are pictures in images/ and masks of the same names in masks/ beside it, or both in each of train, val "
    "and test; or a list with the columns path,mask, or COCO or Labelme JSON"
)
Key = tuple[str, ...]


class Piece(NamedTuple):
    """A file of the folder. key: what a picture and its mask have in common beside the part. order: which of several
    masks is taken, the least."""

    path: str
    split: str
    key: Key
    is_mask: bool
    order: int = 0


def pieces_of(walk: Walk) -> list[Piece]:
    """The files below a folder, in order, masks told from pictures. Raises DataError."""
    files = [file.path for folder in walk.tree().below() for file in folder.files]
    return _with_masks_beside([piece for path in files if (piece := _piece(walk.root, path)) is not None])


def has_masks(pieces: Sequence[Piece]) -> bool:
    return len({piece.is_mask for piece in pieces}) == 2


def without_masks(walk: Walk) -> list[str]:
    """The pictures below a folder, in order; masks are told from them as where they teach. Raises DataError."""
    pieces = pieces_of(walk)
    masks = [piece.path for piece in pieces if piece.is_mask] if has_masks(pieces) else []
    for path in masks:
        walk.ignore("masks of pictures", path)
    dropped = set(masks)
    return [piece.path for piece in pieces if piece.path not in dropped]


def key_of(root: Path, path: Path) -> Key:
    """What an annotation has in common with its picture."""
    piece = _piece(str(root), str(path))
    return piece.key if piece else ()


def part_of(root: Path, path: Path) -> str:
    """The part of the data that the folders of a picture tell; none."""
    piece = _piece(str(root), str(path))
    return piece.split if piece else "none"


def read_masked_folder(walk: Walk, pieces: Sequence[Piece], grouped: bool, given: Classes | None) -> Found:
    """The rows of pictures with masks. grouped: the folders between are groups. given: classes that the user names.
    Raises DataError."""
    where = shown(walk.root)
    pictures = [piece for piece in pieces if not piece.is_mask]
    masks = [piece for piece in pieces if piece.is_mask]
    if not pictures or not masks:
        lacking = "masks" if pictures else "pictures"
        seen = counted(len(pieces), "picture") if pieces else "nothing that could be a picture"
        raise DataError(f"{where} has no {lacking}: it holds {seen}; {LAYOUT}")
    found, notes = _matched(pictures, masks, walk, grouped)
    if all(one.split == "none" for one in found):
        found, stated = _with_lists(found, Path(walk.root))
        notes += stated
    classes = given or found_classes([walk.root, *_upper(walk.root, masks)])
    if classes is not None and given is None:
        notes.append(f"the classes are named by {classes.where}")
        strays = walk.ignored.get(STRAYS, [])
        walk.ignored[STRAYS] = [path for path in strays if shown(str(Path(walk.root) / path)) != classes.where]
    parts = {one.split for one in found} - {"none"}
    kind = "split folders of pictures and masks" if parts else "pictures and masks"
    return found_in(found, kind, where, classes, [*walk.passed_over(), *notes])


def _with_lists(pictures: list[Pictured], root: Path) -> tuple[list[Pictured], list[str]]:
    """The parts that Pascal VOC's lists name, ImageSets/Segmentation/train.txt and val.txt, a stem in each line."""
    found: dict[str, str] = {}
    lists = [place for above in ("", "*/", "*/*/") for place in root.glob(f"{above}ImageSets/Segmentation/*.txt")]
    for place in sorted(place for place in lists if place.stem in ("train", "val", "test")):
        try:
            text = read_regular(place).decode("utf-8", "replace")
        except OSError as error:
            raise DataError(f"{shown(str(place))} cannot be read: {why(error)}") from error
        found |= dict.fromkeys(text.split(), names.SPLIT_NAMES[place.stem])
    if not found:
        return pictures, []
    told = [replace(one, split=found.get(Path(one.path).stem, "none")) for one in pictures]
    return told, ["parts as ImageSets/Segmentation lists them"]


def _upper(root: str, masks: Sequence[Piece]) -> list[str]:
    """The folders of the masks, and those between them and the root."""
    found: dict[str, None] = {}
    for folder in dict.fromkeys(Path(piece.path).parent for piece in masks):
        for above in (folder, *folder.parents):
            if above == Path(root):
                break
            found[str(above)] = None
    return sorted(found, key=lambda folder: (folder.count(os.sep), folder))


def _piece(root: str, path: str) -> Piece | None:
    """None for what is neither a picture nor a mask of classes."""
    *folders, file = Path(path).relative_to(root).parts
    stem = names.composed(Path(file).stem)
    split, is_mask, between = "", False, list[str]()
    for folder in folders:
        if "".join(names.tokens(folder)) in OBJECTS:
            return None
        part, mask = _told(folder)
        split, is_mask = split or part, is_mask or mask
        if not (part or mask or names.holds_pictures(folder)):
            between.append(names.composed(folder))
    if is_mask and NOT_CLASSES.search(stem):
        return None
    order = 0
    if is_mask and (found := SUFFIX.search(stem)):
        order = 2 if found[0].lower().endswith("labelids") else 1
        plain = stem[: found.start()]
        stem = re.sub(r"_gtFine$", "", plain) if order == 2 or "TrainIds" in found[0] else plain
    elif not is_mask:
        stem = OF_PICTURES.sub("", stem)
    return Piece(path, split or "none", (*between, stem), is_mask, order)


def _told(folder: str) -> tuple[str, bool]:
    """(the part that a folder is, "" for none; whether it holds masks): train_labels is both, and trainannot."""
    words = names.tokens(folder)
    split = next((names.SPLIT_NAMES[word] for word in words if word in names.SPLIT_NAMES), "")
    mask = names.is_annotation(folder) or "".join(words) in MASK_WORDS
    for word in words:
        ending = next((mark for mark in ("annot", "masks", "labels") if word.endswith(mark) and word != mark), "")
        if ending and (before := word.removesuffix(ending)) in names.SPLIT_NAMES:
            split, mask = names.SPLIT_NAMES[before], True
    if mask:
        return split, True
    return names.split_of(folder) or (split if names.holds_pictures(folder) else ""), False


def _with_masks_beside(pieces: list[Piece]) -> list[Piece]:
    """With a_mask.png beside a.jpg as the mask that it is, where no folder holds masks."""
    if any(piece.is_mask for piece in pieces):
        return pieces
    known = {(Path(piece.path).parent, piece.key) for piece in pieces}
    found = []
    for piece in pieces:
        mark = SUFFIX.search(piece.key[-1])
        key = (*piece.key[:-1], piece.key[-1][: mark.start()]) if mark else piece.key
        beside = mark is not None and (Path(piece.path).parent, key) in known
        found.append(piece._replace(key=key, is_mask=True) if beside else piece)
    return found


def _matched(
    pictures: Sequence[Piece], masks: Sequence[Piece], walk: Walk, grouped: bool
) -> tuple[list[Pictured], list[str]]:
    """Each picture with its mask, and notes on what belongs to none."""
    if not {mask.key for mask in masks} & {picture.key for picture in pictures}:  # then folders say nothing
        pictures = [picture._replace(key=picture.key[-1:]) for picture in pictures]
        masks = [mask._replace(key=mask.key[-1:]) for mask in masks]
    split_apart = {p.split for p in pictures} != {"none"} and {m.split for m in masks} != {"none"}
    of = defaultdict[tuple[str, Key], list[Piece]](list)
    twins = defaultdict[tuple[str, Key], list[Piece]](list)
    for mask in masks:
        of[mask.split if split_apart else "", mask.key].append(mask)
    for picture in pictures:
        twins[picture.split if split_apart else "", picture.key].append(picture)
    found = []
    for place, alike in twins.items():
        fitting = sorted(of.pop(place, []), key=lambda mask: mask.order)
        best = [mask for mask in fitting if mask.order == fitting[0].order]
        why = ""
        if len(alike) > 1 and best:
            why = "set aside, another picture has the same name, and one mask cannot be of both"
        elif len(best) > 1:
            why = f"set aside, {len(best)} masks have its name"
        for picture in alike:
            split = picture.split if picture.split != "none" or not best else best[0].split
            mask = best[0].path if best and not why else None
            group = "/".join(map(shown, picture.key[:-1])) if grouped else ""
            name = walk.relative(picture.path)
            found.append(Pictured(name, picture.path, split, mask, why=why, group=group))
    found.sort(key=lambda one: os.fsencode(os.path.relpath(one.path, walk.root)))
    lone = [walk.relative(mask.path) for rest in of.values() for mask in rest]
    return found, [f"masks without a picture: {len(lone):,}, {some(sorted(lone))}"] if lone else []
