"""Images and labels that a program hands over, in the forms in which Python's libraries have them.

| images | what they are |
|---|---|
| a list, tuple, generator, column of a frame: paths, Pillow images, arrays, also mixed | one image an entry |
| a frame of one column, an array (image, 1), a list of lists of one | that column |
| one Pillow image | one picture |
| numbers (image, height, width, channel) | one picture an entry of the first axis |
| numbers (a, b, c) | one picture where c is 1, 3 or 4, its channels; else grey ones (image, height, width) |
| anything else: several columns, numbers (image, pixel), channels first, torch tensors | refused with the remedy |

Labels are one for each image, as a list, a column or an array (image,) or (image, 1): texts, booleans, whole numbers,
or whole numbers written as floats. None, NaN, NaT and pandas.NA are no label, nor is a text that a data frame writes
for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.data.sources import ArraySource, PictureSource, Source, source_of
from headstart.data.tree import shown
from headstart.errors import DataError
from headstart.files.cells import printable

NO_LABEL = ("", "nan", "NaN", "None", "<NA>", "NaT")
MEASURED = 10  # different numbers, from which on classes of one image each are rather a measured value
ROUNDING = 1e-3  # above 1 or below 0: one step of float16 there, a quarter of a grey level
CHANNELS = (1, 3, 4)
# What the texts of a table's labels stand for, and with it their order.
KINDS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "bool": {"False": False, "True": True}.__getitem__,
    "int": int,
    "float": float,
}
ONE_LABEL = (
    "an image has one label. Where a column of 0 and 1 stands for each class (one-hot), give labels.argmax(axis=1) or "
    "the class's name; several labels an image are learned as task='tag'"
)


@dataclass(frozen=True)
class Labels:
    """texts (image,): the class's name, "" = none. kind: a key of KINDS. values (class,): the classes as they were
    given, each once, in their own order. written: texts such as "nan" that were read as no label. task, columns: as in
    `Table`."""

    texts: tuple[str, ...]
    kind: str
    values: npt.NDArray[Any]
    written: tuple[str, ...] = ()
    task: str = "classify"
    columns: tuple[str, ...] = ()

    def check_classes(self) -> None:
        """Raises DataError for labels that look like a measured value: as classes of one image they teach nothing."""
        n = sum(text != "" for text in self.texts)
        if self.kind in ("int", "float") and len(self.values) >= MEASURED and 2 * len(self.values) > n:
            raise DataError(
                f"{len(self.values)} different numbers for {n} images, {self.values[0]} to {self.values[-1]}, look "
                "like a measured value: learn them as task='regress', or put them into ranges with a name each"
            )


def sorted_names(names: Iterable[str], kind: str) -> tuple[str, ...]:
    """Class names in the order of what they stand for."""
    return tuple(sorted(names, key=KINDS[kind]))


def kind_of(names: Iterable[str], kind: str) -> str:
    """`kind`, if every name is written as that kind is; else they are texts."""
    try:
        return kind if all(_written(KINDS[kind](name)) == name for name in names) else "str"
    except (KeyError, ValueError, OverflowError):
        return "str"


def classes_of(names: Sequence[str], kind: str) -> npt.NDArray[Any]:
    """The labels (class,) that names of that kind stand for; texts where they stand for nothing else."""
    if kind == "str" or kind_of(names, kind) == "str":
        return np.array(names, dtype=object)
    return np.array([KINDS[kind](name) for name in names])


def _written(label: float | str) -> str:
    """A label's text; 3.0 and 3 are one class."""
    return str(int(label)) if isinstance(label, float) else str(label)


# Images


def images_of(given: object) -> list[tuple[str, Source]]:
    """Each image with its name, by the table above. Raises DataError."""
    if isinstance(given, (str, os.PathLike)):
        raise DataError(f"{_said(given)} is one path: give a list of images, or a folder without labels of its own")
    if isinstance(given, Image.Image):
        return [("image 0", PictureSource(given))]
    if getattr(given, "ndim", 1) > 1 and hasattr(given, "__array__") and not (_is_torch(given) or is_frame(given)):
        given = np.asarray(given)
    entries = _pictures(given) if _is_numbers(given) else [_alone(one) for one in _column(given, "images")]
    found = [_source(image, position) for position, image in enumerate(entries)]
    _check_range([image for image in entries if isinstance(image, np.ndarray)])
    return found


def _is_numbers(given: object) -> bool:
    return isinstance(given, np.ndarray) and given.dtype.kind not in "OUSV"


def _pictures(array: Any) -> list[Any]:
    """The pictures in an array of numbers."""
    shape = array.shape
    if len(shape) == 4 and shape[1] in CHANNELS and shape[3] not in CHANNELS:
        raise DataError(f"images of shape {shape} have their channels first: give images.transpose(0, 2, 3, 1)")
    if len(shape) == 3 and shape[2] in CHANNELS:
        return [array]
    if len(shape) in (3, 4):
        return list(array)
    raise DataError(
        f"numbers of shape {shape} are no pictures: give (image, height, width, channel) or (image, height, width), a "
        "single grey picture as a list of one"
    )


def _source(image: object, position: int) -> tuple[str, Source]:
    if isinstance(image, (str, os.PathLike)):
        path = str(os.fspath(image))
        return shown(path), source_of(path)
    if isinstance(image, Image.Image):
        return f"image {position}", PictureSource(image)
    if isinstance(image, np.ndarray):
        return f"image {position}", ArraySource(image)
    remedy = "allowed are paths, numpy arrays and Pillow images"
    if is_missing(image):
        remedy = "it is missing: leave it out, and its label"
    elif isinstance(image, bytes):
        remedy = "open an encoded file with PIL.Image.open(io.BytesIO(...)), or give its path"
    elif isinstance(image, (list, tuple)):
        remedy = "give pixels as a numpy array, and one image an entry"
    elif _is_torch(image):
        remedy = "give a numpy array with its channels last: tensor.permute(1, 2, 0).numpy()"
    raise DataError(f"image {position} is of type {type(image).__name__}: {remedy}")


def _check_range(arrays: list[Any]) -> None:
    """Raises DataError where the type or the range of numbers says that none of the arrays means what is expected.

    A float picture of 0..255 that happens to be nearly black lies in 0..1: only the others tell.
    """
    for array in arrays:
        if array.dtype.kind in "iu" and array.dtype not in (np.uint8, np.uint16) and array.size:
            fits = array.min() >= 0 and array.max() <= 255
            how = "give images.astype(numpy.uint8)" if fits else "bring them to 0..255, then images.astype(numpy.uint8)"
            raise DataError(
                f"pixels of type {array.dtype}, {array.min()} to {array.max()}, do not say what is white: {how}"
            )
    floats = [array for array in arrays if array.dtype.kind == "f" and array.size]
    ends = [(float(np.nanmin(array)), float(np.nanmax(array))) for array in floats if not np.isnan(array).all()]
    low, high = min((e[0] for e in ends), default=0.0), max((e[1] for e in ends), default=0.0)
    if low < -ROUNDING or high > 1 + ROUNDING:
        how = "divide them by 255" if low >= 0 and high <= 255 else "give them as they were before they were normalised"
        raise DataError(f"pixels in floating point are 0 to 1, these are {low:g} to {high:g}: {how}")


# Labels


def labels_of(given: object) -> Labels:
    """Labels as they were given, by the rules above. Raises DataError."""
    values = [_plain(_alone(one), position) for position, one in enumerate(_column(given, "labels"))]
    written = tuple(v for v in values if isinstance(v, str) and (v in NO_LABEL or not v.strip()))
    values = [None if isinstance(v, str) and v in written else v for v in values]
    kind = _kind(values)
    texts = tuple("" if v is None else _written(v) for v in values)
    classes = sorted({v for v in values if v is not None})
    distinct = np.array(classes, dtype=getattr(given, "dtype", None) if _is_numbers(given) else None)
    return Labels(texts, kind, distinct, written)


def _kind(values: list[Any]) -> str:
    """The one kind of all labels. Raises DataError."""
    first = {type(v): v for v in reversed(values) if v is not None}
    if len(first) > 1 and set(first) != {int, float}:
        some = " and ".join(repr(v) for v in list(first.values())[:2])
        raise DataError(
            f"labels are of several kinds, such as {some}: give all as texts, [str(label) for label in labels]"
        )
    if float not in first:
        return next((t.__name__ for t in first), "str")
    broken = next((v for v in values if v is not None and v != np.floor(v)), None)
    if broken is not None or np.inf in values or -np.inf in values:
        raise DataError(
            f"a label such as {np.inf if broken is None else broken:g} looks like a measured value: learn it "
            "as task='regress', or put the values into ranges with a name each, or give classes as texts"
        )
    return "float"


def _plain(label: Any, position: int) -> Any:
    """A label as bool, int, float or str; None if there is none. Raises DataError."""
    if is_missing(label):
        return None
    if isinstance(label, np.generic) or (getattr(label, "ndim", None) == 0 and hasattr(label, "item")):
        label = label.item()
    if isinstance(label, bool | int | float):
        return label
    if isinstance(label, str):
        return str(label)
    if isinstance(label, (list, tuple, AbstractSet, np.ndarray)) or hasattr(label, "shape"):
        raise DataError(f"label {position} is {_said(label)}: {ONE_LABEL}")
    remedy = "label.decode()" if isinstance(label, bytes) else "str(label)"
    raise DataError(
        f"label {position} is of type {type(label).__name__}: allowed are texts, whole numbers and booleans, so give "
        f"{remedy}"
    )


# Both


def _column(given: Any, what: str) -> list[Any]:
    """The entries of a list, a column, a frame of one column or an array of one. Raises DataError."""
    one = what.removesuffix("s")
    if _is_torch(given) and what == "images":
        raise DataError(
            "images are a torch tensor: give numpy arrays with channels last, tensor.permute(0, 2, 3, 1).numpy()"
        )
    if isinstance(given, (str, bytes, Mapping, AbstractSet)) or given is None:
        raise DataError(f"{what} are a {type(given).__name__}: give a list with one {one} an entry")
    if is_frame(given):
        given = _only_column(given, what)
    if isinstance(given, np.ma.MaskedArray):
        gone = np.ma.getmaskarray(given)
        given = np.array(given, object)
        given[gone] = None
    if getattr(given, "ndim", 1) != 1 or hasattr(given, "toarray"):  # the latter: a sparse matrix
        given = _flat(given, what)
    for method in ("to_pylist", "tolist"):  # Arrow's and torch's entries are objects of their own
        if not isinstance(given, np.ndarray) and hasattr(given, method):
            return list(getattr(given, method)())
    try:
        return list(given)
    except TypeError:
        raise DataError(f"{what} are of type {type(given).__name__}: give a list with one {one} an entry") from None


def is_frame(given: object) -> bool:
    return hasattr(given, "columns") and hasattr(given, "shape")


def _only_column(frame: Any, what: str) -> Any:
    names = list(getattr(frame, "column_names", frame.columns))  # Arrow has the names under another name
    if len(names) == 1:
        return frame[names[0]]
    said = f"{what} have {len(names)} columns ({', '.join(map(_said, names[:8]))})"
    raise DataError(f"{said}: {ONE_LABEL if what == 'labels' else 'give the one that holds the images'}")


def _flat(given: Any, what: str) -> Any:
    """(n, 1) as (n,)."""
    shape = tuple(given.shape)
    if len(shape) == 2 and shape[1] == 1 and not hasattr(given, "toarray"):
        return given[:, 0]
    remedy = ONE_LABEL if what == "labels" else "give the one column that holds the images"
    raise DataError(f"{what} have the shape {shape}: {remedy}")


def _alone(entry: Any) -> Any:
    """The entry of a list or an array of objects that has just one."""
    listed = isinstance(entry, (list, tuple)) or (isinstance(entry, np.ndarray) and not _is_numbers(entry))
    return entry[0] if listed and len(entry) == 1 else entry


def is_missing(value: Any) -> bool:
    """None, NaN, NaT, pandas.NA or a masked entry."""
    if value is None or value is np.ma.masked:
        return True
    if isinstance(value, np.ndarray | Image.Image) or hasattr(value, "shape"):
        return isinstance(value, np.generic) and bool(value != value)
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA neither equals itself nor does not
        return True


def _is_torch(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "torch"


def _said(value: object) -> str:
    return printable(repr(value if not isinstance(value, os.PathLike) else os.fspath(value))[:80])
