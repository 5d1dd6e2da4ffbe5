"""DICOM and HEIC, where their extras are installed."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from headstart.data import images
from headstart.data.images import Preprocess, load, size_of
from headstart.errors import ImageError

EXACT = Preprocess((48, 80), 1.0, "bicubic", "squash", (0.5,) * 3, (0.25,) * 3)
GREY = np.linspace(0, 255, 80 * 48).reshape(48, 80)
Array = NDArray[Any]


def smooth() -> NDArray[np.uint8]:
    small = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((80, 48), Image.Resampling.BICUBIC))


def dicom(array: Array, kind: str = "MONOCHROME2", frames: int = 1, **values: Any) -> bytes:
    pydicom = pytest.importorskip("pydicom", reason="pip install headstart[medical]")
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.Rows, dataset.Columns = 48, 80
    dataset.SamplesPerPixel = 3 if kind.startswith(("RGB", "YBR")) else 1
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.PhotometricInterpretation = kind
    dataset.BitsAllocated = 8 * array.dtype.itemsize
    dataset.BitsStored = values.pop("BitsStored", dataset.BitsAllocated)
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(array.dtype.kind == "i")
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.PixelData = array.tobytes()
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def shown(data: bytes) -> Array:
    return load(data, EXACT).array[:, :, 0].astype(int)


def near(first: Array, second: Array) -> bool:
    return bool(np.abs(first.astype(float) - second).max() <= 1.01)


def test_12_bits_are_shown_by_the_range_and_monochrome1_is_inverted() -> None:
    stored = np.rint(GREY * 4095 / 255).astype(np.uint16)
    assert near(shown(dicom(stored, BitsStored=12)), GREY)
    assert near(shown(dicom(4095 - stored, "MONOCHROME1", BitsStored=12)), GREY)
    assert size_of(dicom(stored)) == (80, 48)
    assert images.deep_ends(dicom(stored, BitsStored=12)) == ("unsigned", (0.0, 4095.0))
    assert load(dicom(stored, BitsStored=12), EXACT).mode == "DICOM MONOCHROME2"


def test_8_bits_are_as_they_are() -> None:
    dark = np.rint(GREY / 4).astype(np.uint8)
    assert near(shown(dicom(dark)), np.rint(GREY / 4))
    assert near(shown(dicom(255 - dark, "MONOCHROME1")), np.rint(GREY / 4))


def test_slope_and_intercept_come_first_and_then_the_window() -> None:
    """A CT in Hounsfield units seen in a window of 400 around 40."""
    units = np.linspace(-1000, 1000, 80 * 48).reshape(48, 80).round()
    stored = (units + 1024).astype(np.uint16)
    data = dicom(
        stored, BitsStored=12, RescaleSlope="1", RescaleIntercept="-1024", WindowCenter="40", WindowWidth="400"
    )
    assert near(shown(data), ((units - 40 + 0.5) / 399 + 0.5).clip(0, 1) * 255)
    assert images.deep_ends(data) is None  # the window says what is black and white
    plain = dicom(stored, BitsStored=12, RescaleSlope="1", RescaleIntercept="-1024")
    kind, (low, high) = images.deep_ends(plain) or ("", (0, 0))
    assert (kind, low, high) == ("signed", -1000, 1000)


def test_the_first_of_several_windows_and_a_sigmoid() -> None:
    stored = np.rint(GREY * 4095 / 255).astype(np.uint16)
    data = dicom(stored, BitsStored=12, WindowCenter=["2048", "100"], WindowWidth=["4096", "10"])
    assert near(shown(data), GREY)
    curved = shown(dicom(stored, BitsStored=12, WindowCenter="2048", WindowWidth="1024", VOILUTFunction="SIGMOID"))
    assert near(curved, 255 / (1 + np.exp(-4 * (stored.astype(float) - 2048) / 1024)))


def test_colours_and_frames() -> None:
    rgb = smooth()
    assert near(load(dicom(rgb, "RGB"), EXACT).array, rgb)
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    assert np.abs(load(dicom(ycc, "YBR_FULL"), EXACT).array.astype(int) - rgb).max() <= 3
    stored = np.rint(GREY).astype(np.uint8)
    stack = dicom(np.stack([stored * 0, stored * 0, stored, stored[::-1]]), frames=4)
    found = load(stack, EXACT)
    assert near(found.array[:, :, 0], stored)
    assert found.remark == "of 4 frames number 3 is the picture"
    assert images.remark(stack, EXACT) == found.remark


def test_files_without_a_picture_and_broken_ones_are_named() -> None:
    data = dicom(np.rint(GREY).astype(np.uint8))
    with pytest.raises(ImageError, match="DICOM file"):
        load(data[: len(data) // 2], EXACT)
    report = data[: data.index(b"\x28\x00\x02\x00")]  # up to the first element of the picture
    with pytest.raises(ImageError, match="without a picture in it"):
        load(report, EXACT)
    with pytest.raises(ImageError, match="more than the limit"):
        load(data, EXACT, images.Limits(max_pixels=100))


def heic(array: NDArray[np.uint8], orientation: int) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pip install headstart[phone]")
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(array)).save(buffer, quality=95, chroma=444, exif=exif.tobytes())
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_heic_is_upright(orientation: int) -> None:
    upright = smooth()
    stored = np.rot90(upright, {1: 0, 3: 2, 6: 1}[orientation])
    data = heic(np.ascontiguousarray(stored), orientation)
    found = load(data, EXACT)
    assert size_of(data) == (80, 48)
    assert np.abs(found.array.astype(int) - upright).mean() < 2
    assert found.mode == "HEIC RGB"
    with pytest.raises(ImageError, match="HEIC"):
        load(data[: len(data) // 2], EXACT)
