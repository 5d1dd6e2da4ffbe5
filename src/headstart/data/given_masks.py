"""Masks that a program hands over: a path, an array of class numbers or a Pillow image for each picture, None for none.

An array (height, width) is of the upright picture, 255 is void. Masks of 0 and 255 alone, and of True and False, have
two classes. Where no names are given, the classes are the numbers that occur.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.data.given import Labels, classes_of, is_missing
from headstart.data.mask_classes import Classes, classes_given, classes_seen
from headstart.data.mask_files import Values, mask_bytes, number_of, values_of
from headstart.data.mask_text import Drawn
from headstart.data.placing import VOID
from headstart.data.tree import some
from headstart.errors import DataError, ImageError


def masks_given(given: object, classes: str | Sequence[str] | None = None) -> Labels:
    """The masks of a program, one an image. classes: as `read_table` takes them. Raises DataError, OptionError."""
    if isinstance(given, (str, bytes, dict)) or not isinstance(given, Iterable):
        raise DataError(
            f"masks are a {type(given).__name__}: give a list with one path or array (height, width) an image"
        )
    entries = [_entry(one, position) for position, one in enumerate(given)]
    keys = {values.key(code, None) for _, values in filter(None, entries) for code in values.counts()}
    if not keys:
        raise DataError("none of the images has a mask: give a path or an array (height, width) for some of them")
    named, _ = classes_seen(sorted(keys), None if classes is None else classes_given(classes, "classes"), "the program")
    texts = tuple("" if one is None else _text(*one, named, position) for position, one in enumerate(entries))
    numbers = classes is None and all(map(str.isdecimal, named.names))
    kind = "int" if numbers else "str"
    return Labels(texts, kind, classes_of(named.names, kind), (), "segment", named.names)


def _entry(one: Any, position: int) -> tuple[str | None, Values] | None:
    """(path or None, values) of a mask; None for none. Raises DataError."""
    if isinstance(one, (str, os.PathLike)):
        path = os.fspath(one)
        try:
            return (str(path), values_of(mask_bytes(str(path)))) if path else None
        except ImageError as error:
            raise DataError(f"mask {position}, {path}: {error}") from error
    array = np.asarray(one) if isinstance(one, (np.ndarray, Image.Image)) else None
    if array is None:
        if is_missing(one):
            return None
        raise DataError(f"mask {position} is of type {type(one).__name__}: allowed are paths, arrays, images and None")
    if array.ndim != 2 or array.dtype.kind not in "biu" or not array.size:
        raise DataError(
            f"mask {position} is an array of {array.dtype} and shape {array.shape}: give class numbers (height, width)"
        )
    if array.min() < 0 or array.max() > VOID:
        raise DataError(
            f"mask {position} holds {array.min()} to {array.max()}: class numbers are 0 to 254, 255 is void"
        )
    return None, Values(array.astype(np.uint8))


def _text(path: str | None, values: Values, named: Classes, position: int) -> str:
    """ "" of a mask that is void all over. Raises DataError for a value that is no class."""
    pixels: dict[int, int] = {}
    numbers = np.full(values.codes.shape, VOID, np.uint8)
    for code, n in values.counts().items():
        key = values.key(code, named.meant)
        number = number_of(key, named.meant)
        if number is None:
            raise DataError(
                f"mask {position} holds {key} in {n:,} px, which stands for none of the {len(named.names)} classes "
                f"({some(named.names)}): name all of them, or make it 255, which is void"
            )
        numbers[values.codes == code] = number
        if number != VOID:
            pixels[number] = pixels.get(number, 0) + n
    if not pixels:
        return ""
    height, width = numbers.shape
    if path is not None:
        return Drawn((height, width), pixels, path, named.meant).text
    shapes = tuple((number, {"counts": _runs(numbers == number)}) for number in sorted(pixels))
    return Drawn((height, width), pixels, shapes=shapes).text


def _runs(inside: NDArray[np.bool_]) -> list[int]:
    """Pixels outside and inside by turns, column by column, as COCO counts them."""
    flat = np.concatenate([[False], inside.T.ravel()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(n) for n in np.diff(np.concatenate([[0], changes, [inside.size]]))]
