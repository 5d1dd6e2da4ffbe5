"""Pictures with boxes, for `--task detect`: what lies there, and which reader takes it.

| what lies there | how it is read |
|---|---|
| JPEGImages/, Annotations/*.xml, ImageSets/Main/*.txt; or XML files beside their pictures | Pascal VOC |
| .json with images, annotations and categories | COCO; paths below its folder |
| images/ and labels/*.txt, with data.yaml or classes.txt | YOLO |
| a .csv with path,x1,y1,x2,y2,label, a line a box | a list |

A file can be named itself: the JSON, data.yaml, or the list.
"""

from __future__ import annotations

from pathlib import Path

from headstart.data.annotated import place_of
from headstart.data.box_rows import found_of
from headstart.data.sources import Found
from headstart.data.tree import contents, remedy, shown
from headstart.data.truth import Asked
from headstart.data.voc_boxes import read_voc
from headstart.errors import DataError

EXPECTED = "expected are Pascal VOC XML, COCO JSON, YOLO labels or a list with the columns path,x1,y1,x2,y2,label"


def read_boxes(path: Path, asked: Asked) -> Found:
    """The rows of a set of pictures with boxes. Raises DataError."""
    where = shown(str(path))
    place = place_of(str(path))
    if not place.pictures:
        raise DataError(f"no images found in {where}: it holds {contents(place.top)}{remedy(place.top)}; {EXPECTED}")
    xml = place.files(".xml")
    return found_of(where, read_voc(place, xml))
