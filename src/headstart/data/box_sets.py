"""Pictures with boxes, for `--task detect`: what lies there, and which reader takes it.

| what lies there | how it is read |
|---|---|
| JPEGImages/, Annotations/*.xml, ImageSets/Main/*.txt; or XML files beside their pictures | Pascal VOC |
| .json with images, annotations and categories | COCO; paths below its folder |
| images/ and labels/*.txt, with data.yaml or classes.txt | YOLO |
| a .csv with path,x1,y1,x2,y2,label, a line a box; in a folder one for each part | a list |

A file can be named itself: the JSON, data.yaml, or the list. So can the folder; where it holds two kinds, one is asked
for.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headstart.data.annotated import Place, Read, place_of, split_in
from headstart.data.box_rows import found_of
from headstart.data.coco_boxes import is_coco, read_coco
from headstart.data.listed_boxes import is_box_list, read_box_list
from headstart.data.sources import Found
from headstart.data.tree import contents, remedy, shown
from headstart.data.truth import Asked
from headstart.data.voc_boxes import read_voc
from headstart.data.yolo_boxes import described_in, label_files, read_yolo
from headstart.errors import DataError

LISTS = (".csv", ".tsv")
YAML = (".yaml", ".yml")
EXPECTED = "expected are Pascal VOC XML, COCO JSON, YOLO labels or a list with the columns path,x1,y1,x2,y2,label"


def read_boxes(path: Path, asked: Asked) -> Found:
    """The rows of a set of pictures with boxes. Raises DataError."""
    where = shown(str(path))
    if not path.exists():
        raise DataError(f"{where} does not exist: name a folder of pictures with boxes; {EXPECTED}")
    if path.is_file() and path.suffix.lower() in (*LISTS, ".txt"):
        return found_of(where, read_box_list(path, asked))
    _check_asked(where, asked)
    return found_of(where, _of_folder(path, where) if path.is_dir() else _of_file(path, where))


def _check_asked(where: str, asked: Asked) -> None:
    named = [name for name in ("label", "group", "time") if getattr(asked, name) is not None]
    if named:
        raise DataError(f"{where} is no list with columns, so --{named[0]} names none: leave it out")


def _of_file(path: Path, where: str) -> Read:
    """A JSON or YAML file, with the pictures below its folder, or the folder above where none are."""
    if path.suffix.lower() == ".json" or path.suffix.lower() in YAML:
        place = place_of(str(path.parent))
        place = place if place.pictures else place_of(str(path.resolve().parent.parent))
        if path.suffix.lower() == ".json":
            return read_coco(place, [str(path)])
        return read_yolo(place, label_files(place), path)
    raise DataError(f"{where} is no set of pictures with boxes: {EXPECTED}")


def _of_folder(path: Path, where: str) -> Read:
    place = place_of(str(path))
    if not place.pictures:
        raise DataError(f"no images found in {where}: it holds {contents(place.top)}{remedy(place.top)}; {EXPECTED}")
    xml, labels = place.files(".xml"), label_files(place)
    json = [file for file in place.files(".json") if is_coco(file)]
    lists = [file for file in place.files(*LISTS) if is_box_list(Path(file))]
    kinds = [("XML", xml), ("COCO JSON", json), ("YOLO labels", list(labels.values())), ("a list of boxes", lists)]
    there = [(kind, files[0]) for kind, files in kinds if files]
    if not there:
        raise DataError(f"{where} holds pictures and no boxes of them: {contents(place.top)}; {EXPECTED}")
    if len(there) > 1:
        both = " and ".join(f"{kind} ({place.name(file)})" for kind, file in there)
        raise DataError(f"{where} holds {both}: name the one file to be read, or move the others away")
    if json:
        return read_coco(place, json)
    if labels:
        return read_yolo(place, labels, described_in(place))
    return _of_lists(place, lists) if lists else read_voc(place, xml)


def _of_lists(place: Place, files: Sequence[str]) -> Read:
    """Lists in a folder, one for all pictures or one in the folder of each part. Raises DataError."""
    read = Read([], "")
    named: dict[str, str] = {}
    for file in files:
        found = read_box_list(Path(file), Asked("detect"))
        split, above = split_in(place.root, file), Path(place.name(file)).parent.as_posix()
        for picture in found.pictures:
            if picture.path in named:
                raise DataError(
                    f"{picture.name} is listed both in {place.name(named[picture.path])} and in {place.name(file)}: "
                    "name the one list that counts"
                )
            named[picture.path] = file
            picture.split = split if picture.split == "none" else picture.split
            picture.name = picture.name if above == "." else f"{above}/{picture.name}"
        read.pictures += found.pictures
        read.notes += found.notes
        read.kind = found.kind if len(files) == 1 else "lists of boxes"
    return read
