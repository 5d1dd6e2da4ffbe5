"""DICOM pictures, by pydicom (headstart[medical]).

Values are those of the modality (rescale slope and intercept, so a CT is in Hounsfield units). Where the file names a
window (VOI), that is what its maker wants to be seen, and it is what is shown; else the set's range decides as for any
picture of more than 8 bits. MONOCHROME1 is inverted. Of several frames the first that is not of one value is taken.
"""

from __future__ import annotations

import io
import math
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.deep import Samples, ends_of
from headstart.data.jpeg import SCAN, check_count
from headstart.data.limits import Limits, one_at_a_time
from headstart.errors import ImageError

DEFLATED, PEEK = b"1.2.840.10008.1.2.1.99", 2048  # a transfer syntax, which stands near the beginning
BYTES = 20  # a sample: rescaled and windowed values are of 8 bytes
FULL = 1e9  # beyond every value, to learn what a window gives to the darkest and the brightest


def read_dicom(data: bytes, limits: Limits, held: ExitStack) -> tuple[Samples, str, str]:
    """(samples, what it is, a remark). Raises ImageError, and whatever pydicom does."""
    import pydicom

    if DEFLATED in data[:PEEK]:  # pydicom unpacks all of it before anything can be checked
        raise ImageError("a DICOM file that is packed as a whole (deflated): save it unpacked")
    dataset = pydicom.dcmread(io.BytesIO(data))
    if "Rows" not in dataset or not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & {*dataset.dir()}:
        raise ImageError("a DICOM file without a picture in it: a report, a plan or a folder of others")
    width, height = int(dataset.Columns), int(dataset.Rows)
    limits.check_size(width, height)
    colours = int(dataset.get("SamplesPerPixel", 1))
    limits.check_unpacked(width * height * colours * 4)
    held.enter_context(one_at_a_time(width * height * colours * BYTES))
    frames = max(1, int(dataset.get("NumberOfFrames", 1) or 1))
    check_count(data.count(SCAN) // frames, width, height)
    taken, samples = 0, _frame(dataset, 0, colours)
    for k in range(1, min(frames, 1 + limits.max_pixels // (width * height))):
        ends = ends_of(samples)
        if ends is not None and ends[0] < ends[1]:
            break
        taken, samples = k, _frame(dataset, k, colours)
    else:
        if frames > 1:
            taken, samples = 0, _frame(dataset, 0, colours)
    remark = "" if frames == 1 else f"of {frames} frames number {taken + 1} is the picture"
    return samples, f"DICOM {dataset.get('PhotometricInterpretation', '')}".strip(), remark


def size_of(data: bytes) -> tuple[int, int]:
    """(width, height) in px. Raises what pydicom does."""
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True)
    return int(dataset.Columns), int(dataset.Rows)


def _frame(dataset: Any, index: int, colours: int) -> Samples:
    from pydicom import pixels

    array: Any = pixels.pixel_array(dataset, index=index)
    kind = str(dataset.get("PhotometricInterpretation", ""))
    if kind == "PALETTE COLOR":
        array = pixels.apply_color_lut(array, dataset)
        return Samples(_in_sixteen(array, 16 if array.dtype.itemsize > 1 else 8))
    if colours == 3:
        return Samples(_in_sixteen(array, int(dataset.get("BitsStored", 8))))
    inverted = kind == "MONOCHROME1"
    values = _whole(pixels.apply_modality_lut(array, dataset))
    if "WindowCenter" not in dataset and "VOILUTSequence" not in dataset:
        missing = dataset.get("PixelPaddingValue")
        plain = "RescaleSlope" not in dataset and "ModalityLUTSequence" not in dataset
        if dataset.get("BitsStored", 16) <= 8 and values.dtype.kind == "u":
            return Samples(values.astype(np.uint8), inverted=inverted)
        return Samples(values, float(missing) if plain and isinstance(missing, int) else None, inverted)
    seen = np.asarray(pixels.apply_voi_lut(values, dataset), np.float64)
    black, white = _ends_of_window(dataset, values, pixels)
    grey = ((seen - black) / max(white - black, 1e-9)).clip(0, 1) * 255
    return Samples(np.rint(grey).astype(np.uint8), inverted=inverted)


def _ends_of_window(dataset: Any, values: NDArray[Any], pixels: Any) -> tuple[float, float]:
    """What a window or a table makes of the darkest and of the brightest value there can be."""
    if "VOILUTSequence" in dataset:
        descriptor = dataset.VOILUTSequence[0].LUTDescriptor
        return 0.0, float(2 ** int(descriptor[2]) - 1)
    ends = pixels.apply_voi_lut(np.array([[-FULL, FULL]]), dataset)
    low, high = (float(v) for v in np.asarray(ends).reshape(-1))
    return min(low, high), max(low, high)


def _in_sixteen(array: NDArray[Any], bits: int) -> NDArray[Any]:
    """Colours of `bits` bits as uint8, or as uint16 of 0..65535."""
    if bits <= 8:
        return array.astype(np.uint8)
    wide: NDArray[np.float64] = array.astype(np.float64) * (65535 / (2**bits - 1))
    return np.rint(wide).clip(0, 65535).astype(np.uint16)


def _whole(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers as integers: pydicom rescales to float64."""
    if values.dtype.kind != "f" or not np.isfinite(values).all() or not (np.rint(values) == values).all():
        return values.astype(np.float32) if values.dtype.kind == "f" else values
    most = float(np.abs(values).max(initial=0))
    return values.astype(np.int16) if most < 32767 else values.astype(np.int32) if most < math.ldexp(1, 31) else values
