"""The one decoder: laws of orientation, colour, scale, damage and memory."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile

from headstart.data.images import DEFAULT_LIMITS, Limits, Preprocess, array_of, content_hash, load, preview
from headstart.errors import ImageError, OptionError

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
PHOTO = Preprocess((64, 64), 0.875, "bicubic", "shortest", MEAN, STD)
EXACT = Preprocess((48, 80), 1.0, "bicubic", "squash", MEAN, STD)  # of an 80 x 48 px picture: every pixel as it is


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def colours(width: int = 80, height: int = 48, seed: int = 0) -> Image.Image:
    """A smooth picture without symmetry."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 10, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def pixels(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(picture)


def apart(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Mean absolute difference in grey levels."""
    return float(np.abs(first.astype(int) - second.astype(int)).mean())


# Orientation


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_eight_orientations_are_one_picture(kind: str) -> None:
    upright = colours()
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the Transpose that stores it this way
    loaded = []
    for orientation, turn in undo.items():
        stored = upright if turn is None else upright.transpose(Image.Transpose(turn))
        exif = Image.Exif()
        exif[0x0112] = orientation
        options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0}
        loaded.append(
            load(encoded(stored, kind, exif=exif, **({} if kind in ("PNG", "TIFF") else options)), EXACT).array
        )
    for other in loaded:
        if kind == "JPEG":  # each was compressed in another direction
            assert apart(other, pixels(upright)) < 1.5
        else:
            np.testing.assert_array_equal(other, pixels(upright))


@pytest.mark.parametrize("family", ["Landscape", "Portrait"])
def test_orientation_files(shared: Path, family: str) -> None:
    folder = shared / "data/messy/exif_orientation"
    wide = Preprocess((150, 200) if family == "Landscape" else (200, 150), 1.0, "bicubic", "squash", MEAN, STD)
    first, *others = (load((folder / f"{family}_{n}.jpg").read_bytes(), wide).array for n in range(1, 9))
    for other in others:  # the eight were compressed separately: near, and nowhere turned
        assert apart(first, other) < 3
        assert apart(first, other) * 5 < apart(first, other[:, ::-1])


def test_nonsense_orientation_and_broken_exif_keep_the_picture() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    plain = encoded(colours(), "JPEG", quality=95)
    broken = encoded(colours(), "JPEG", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    for data in (encoded(colours(), "JPEG", quality=95, exif=exif), broken):
        np.testing.assert_array_equal(load(data, EXACT).array, load(plain, EXACT).array)


# Scale, crop and resize


@pytest.mark.parametrize("progressive", [False, True])
def test_scaled_jpeg_is_close_to_full_decode(progressive: bool, shared: Path) -> None:
    for path in sorted((shared / "data/hymenoptera/train/bees").glob("*.jpg"))[:10]:
        picture = Image.open(path).convert("RGB").resize((900, 700), Image.Resampling.LANCZOS)
        data = encoded(picture, "JPEG", quality=92, progressive=progressive)
        full = load(pixels(Image.open(io.BytesIO(data))), PHOTO)
        scaled = load(data, PHOTO)
        assert apart(scaled.array, full.array) < 1
        assert apart(scaled.thumbnail, full.thumbnail) < 1


def test_shortest_is_a_resize_and_a_centre_crop() -> None:
    picture = colours(300, 200)
    resized = picture.resize((120, 80), Image.Resampling.BICUBIC)  # short side 64 / 0.8
    wanted = Preprocess((64, 64), 0.8, "bicubic", "shortest", MEAN, STD)
    assert apart(load(pixels(picture), wanted).array, pixels(resized.crop((28, 8, 92, 72)))) < 0.2


def test_crop_of_another_shape_keeps_the_aspect() -> None:
    tall = Preprocess((80, 40), 1.0, "bilinear", "shortest", MEAN, STD)
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None, :], 100, axis=0)  # 200 wide, 100 high: value = column
    row = load(ramp, tall).array[40, :, 0].astype(int)  # covers the centre 50 columns
    assert abs(row[0] - 75) <= 1
    assert abs(row[-1] - 124) <= 1


@pytest.mark.parametrize("size", [(300, 100), (99, 300), (301, 97), (64, 64), (1, 500), (7, 5)])
def test_with_borders_a_whole_picture_lies_in_the_middle_in_its_own_shape(size: tuple[int, int]) -> None:
    wanted = Preprocess((64, 80), 1.0, "bilinear", "pad", (0.2, 0.4, 0.6), STD)
    found = load(pixels(Image.new("RGB", size, (255, 255, 255))), wanted).array
    inside = (found == 255).all(axis=2)
    assert (found[~inside] == wanted.fill).all()
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    assert inside[np.ix_(rows, columns)].all()
    scale = min(80 / size[0], 64 / size[1])
    assert abs(len(columns) - scale * size[0]) < 2  # the same on both sides: a px more, and no less than one
    assert abs(len(rows) - scale * size[1]) < 2
    assert (inside == inside[::-1, ::-1]).all()


def test_with_borders_a_mirrored_picture_is_the_mirrored_input() -> None:
    picture, wanted = pixels(colours(301, 97)), Preprocess((64, 80), 1.0, "bicubic", "pad", MEAN, STD)
    here, there = (load(array, wanted).array.astype(int) for array in (picture, picture[:, ::-1]))
    assert np.abs(here[:, ::-1] - there).max() <= 1


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (3, 2)])
@pytest.mark.parametrize("resize", ["shortest", "squash"])
def test_extreme_shapes(size: tuple[int, int], resize: str) -> None:
    flat = Image.new("RGB", size, (10, 200, 90))
    wanted = Preprocess((224, 224), 0.9, "lanczos", resize, MEAN, STD)
    for kind in ("PNG", "JPEG"):
        found = load(encoded(flat, kind, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {})), wanted)
        assert found.array.shape == (224, 224, 3)
        assert np.abs(found.array.astype(int) - (10, 200, 90)).max() <= 3


def test_thumbnail_shows_the_whole_picture() -> None:
    halves = np.zeros((160, 640, 3), np.uint8)
    halves[:, 320:] = 255
    thumbnail = load(halves, PHOTO).thumbnail
    assert (thumbnail[:, :7] == 0).all()
    assert (thumbnail[:, 9:] == 255).all()
    smooth = pixels(colours(320, 160))
    means = smooth.reshape(16, 10, 16, 20, 3).mean((1, 3))
    assert np.abs(load(smooth, PHOTO).thumbnail - means).mean() < 1.5


def test_preview_is_the_whole_picture_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    small = Image.open(io.BytesIO(preview(encoded(colours(800, 400), "JPEG", exif=exif), 100)))
    assert (small.format, small.size) == ("JPEG", (50, 100))


# Colour


def test_opaque_pixels_do_not_depend_on_alpha_and_clear_ones_are_white() -> None:
    picture = colours()
    alpha = np.full((48, 80), 255, np.uint8)
    alpha[:, 40:] = 0
    cut = picture.copy()
    cut.putalpha(Image.fromarray(alpha))
    whole = load(encoded(picture, "PNG"), EXACT).array
    for kind in ("PNG", "TIFF", "TGA"):
        found = load(encoded(cut, kind), EXACT).array
        np.testing.assert_array_equal(found[:, :40], whole[:, :40])
        assert (found[:, 40:] == 255).all()
    half = load(encoded(Image.new("RGBA", (80, 48), (0, 0, 0, 128)), "PNG"), EXACT).array
    assert (half == 127).all()


def test_every_kind_of_transparency_lies_on_white() -> None:
    palette = Image.new("P", (80, 48), 1)
    palette.putpalette([9, 9, 9, 40, 50, 60])
    for data in (
        encoded(palette, "PNG", transparency=1),
        encoded(palette, "GIF", transparency=1),
        encoded(Image.new("LA", (80, 48), (30, 0)), "PNG"),
        encoded(Image.new("RGB", (80, 48), (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
        encoded(Image.new("L", (80, 48), 7), "PNG", transparency=7),
    ):
        assert (load(data, EXACT).array == 255).all()
    for mode in ("La", "RGBa", "PA"):
        clear = Image.new("LA" if mode == "La" else "RGBA", (8, 8), 0)
        assert (array_of(clear.convert("P").convert("PA") if mode == "PA" else clear.convert(mode)) <= 255).all()
    assert (array_of(Image.new("RGBA", (8, 8), (9, 9, 9, 0)).convert("RGBa")) == 255).all()
    assert (load(encoded(palette, "PNG"), EXACT).array == (40, 50, 60)).all()


def test_sixteen_bits_are_eight_bits() -> None:
    grey = pixels(colours().convert("L"))
    expected = np.repeat(grey[:, :, None], 3, axis=2)
    wide = grey.astype(np.uint16) * 257
    big = encoded(Image.frombytes("I;16B", (80, 48), wide.astype(">u2").tobytes()), "TIFF")
    pgm = b"P5 80 48 65535\n" + wide.astype(">u2").tobytes()
    for source in (encoded(Image.fromarray(wide), "PNG"), encoded(Image.fromarray(wide), "TIFF"), big, pgm, wide):
        np.testing.assert_array_equal(load(source, EXACT).array, expected)


@pytest.mark.parametrize("scale", [1 / 255, 1.0, 257.0])
def test_float_pictures_by_their_range(scale: float) -> None:
    grey = pixels(colours().convert("L")).copy()
    grey[0, :2] = 0, 255
    values = (grey * scale).astype(np.float32)
    found = load(encoded(Image.fromarray(values), "TIFF"), EXACT).array
    np.testing.assert_array_equal(found, np.repeat(grey[:, :, None], 3, axis=2))
    values[5, 5:8] = np.nan, np.inf, -np.inf
    assert load(encoded(Image.fromarray(values), "TIFF"), EXACT).array[5, 5:8, 0].tolist() == [0, 255, 0]


def test_signed_integers_use_their_own_range() -> None:
    values = np.linspace(-1000, 3000, 80 * 48).astype(np.int32).reshape(48, 80)
    found = load(encoded(Image.fromarray(values), "TIFF"), EXACT).array
    assert (found.min(), found.max()) == (0, 255)
    assert (load(encoded(Image.fromarray(values * 0), "TIFF"), EXACT).array == 0).all()
    assert (load(encoded(Image.fromarray(np.full((48, 80), np.nan, np.float32)), "TIFF"), EXACT).array == 0).all()


def test_greyscale_and_two_colours_are_their_rgb() -> None:
    grey = colours().convert("L")
    black = grey.convert("1")
    for picture in (grey, black):
        found = load(encoded(picture, "PNG"), EXACT).array
        np.testing.assert_array_equal(found, load(encoded(picture.convert("RGB"), "PNG"), EXACT).array)
    jpeg = load(encoded(grey, "JPEG", quality=95), EXACT)
    assert jpeg.mode == "JPEG L"
    assert np.ptp(jpeg.array, axis=2).max() == 0
    assert apart(jpeg.array[:, :, 0], pixels(grey)) < 1.5


def test_cmyk_ycck_and_lab_come_back() -> None:
    picture = colours()
    cmyk = picture.convert("CMYK")
    assert apart(load(encoded(cmyk, "TIFF"), EXACT).array, pixels(picture)) < 1
    jpeg = load(encoded(cmyk, "JPEG", quality=98, subsampling=0), EXACT)  # Pillow writes Adobe's inverted CMYK
    assert jpeg.mode == "JPEG CMYK"
    assert apart(jpeg.array, pixels(picture)) < 3
    profiles = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
    lab = ImageCms.profileToProfile(picture, *profiles, outputMode="LAB")
    assert lab is not None
    assert apart(load(encoded(lab, "TIFF"), EXACT).array, pixels(picture)) < 3


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (80, 48), c) for c in ((250, 0, 0), (0, 250, 0))]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert (load(data, EXACT).array == (250, 0, 0)).all()


# Arrays


def test_arrays_of_every_type_are_the_same_picture() -> None:
    rgb = pixels(colours())
    alpha = np.dstack([rgb, np.full((48, 80), 255, np.uint8)])
    for same in (rgb, alpha, rgb.astype(np.uint16) * 257, rgb / 255, (rgb / np.float32(255)), rgb[::-1][::-1]):
        np.testing.assert_array_equal(load(same, EXACT).array, rgb)
    grey = rgb[:, :, 0]
    np.testing.assert_array_equal(load(grey, EXACT).array, load(grey[:, :, None], EXACT).array)
    mask = grey > 100
    np.testing.assert_array_equal(load(mask, EXACT).array[:, :, 1], np.where(mask, 255, 0))


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 2), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((4, 4), np.int64),
        np.full((4, 4), 2.0),
        np.full((4, 4), np.nan),
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 4), object),
    ],
)
def test_arrays_that_are_no_image_are_refused(array: NDArray[Any]) -> None:
    with pytest.raises(ImageError, match=r"allowed are|0\.\.1|no pixels"):
        load(array, PHOTO)


def test_content_hash_tells_type_and_shape() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    same: list[Any] = [array, array.copy(), np.asfortranarray(array)]
    other: list[Any] = [array.reshape(4, 3), array.astype(np.uint16), array + 1, array.tobytes()]
    assert len({content_hash(a) for a in same}) == 1
    assert len({content_hash(a) for a in same + other}) == 1 + len(other)
    assert len(content_hash(b"")) == 32


# Damage and limits


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg_is_refused_on_both_paths(mode: str, progressive: bool) -> None:
    data = encoded(colours(640, 480).convert(mode), "JPEG", quality=90, progressive=progressive)
    for part in (0.3, 0.6, 0.9, 0.999):
        cut = data[: int(len(data) * part)]
        for wanted in (PHOTO, Preprocess((640, 640), 1.0, "bicubic", "shortest", MEAN, STD)):
            with pytest.raises(ImageError, match=r"cut short|damaged"):
                load(cut, wanted)
        if part < 0.95 and not progressive:  # an end marker glued on: decoders alone would paint the rest grey
            with pytest.raises(ImageError, match=r"cut short|damaged"):
                load(cut + b"\xff\xd9", PHOTO)


def test_lossless_jpeg_never_reaches_the_scaling_decoder(shared: Path) -> None:
    """It would be written at full size into a buffer of the reduced size: the process aborts, or worse."""
    files = sorted((shared / "data/messy/fuzzed").glob("*lossless*.jpg"))
    assert len(files) >= 5
    for path in files:
        for side in (2, 16, 224):
            with pytest.raises(ImageError, match="not a picture"):
                load(path.read_bytes(), Preprocess((side, side), 1.0, "bicubic", "shortest", MEAN, STD))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "WEBP", "TGA", "PPM", "JPEG2000", "AVIF", "QOI"])
def test_truncated_files_are_refused(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    assert load(data, PHOTO).array.shape == (64, 64, 3)
    with pytest.raises(ImageError):
        load(data[: len(data) * 2 // 3], PHOTO)


def test_harmless_stray_bytes_in_a_jpeg_are_accepted() -> None:
    data = encoded(colours(), "JPEG", quality=95)
    found = load(data[:2] + b"\xff" + data[2:] + b"trailing", EXACT)
    assert apart(found.array, pixels(colours())) < 3
    padded = load(data[:-2] + bytes(3) + b"\xff\xd9", EXACT)
    assert apart(padded.array, found.array) < 0.5


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello", "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "program"),
        (b"\x01\0\0\0" + bytes(36) + b" EMF" + bytes(80), "EMF"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"%PDF-1.7\n", "PDF"),
    ],
)
def test_reasons_in_plain_words(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        load(data, PHOTO)


def test_limits_are_checked_before_decoding() -> None:
    small = Limits(max_pixels=80 * 48 - 1)
    for kind in ("PNG", "JPEG", "GIF", "ICO", "WEBP"):
        picture = colours(80, 80) if kind == "ICO" else colours()
        with pytest.raises(ImageError, match="more than the limit"):
            load(encoded(picture, kind), PHOTO, small)
    with pytest.raises(ImageError, match="bytes"):
        load(encoded(colours(), "PNG"), PHOTO, Limits(max_bytes=100))
    with pytest.raises(ImageError, match="more than the limit"):
        load(np.zeros((80, 48), np.uint8), PHOTO, small)
    with pytest.raises(OptionError):
        Limits(max_pixels=10**12)


def test_the_pictures_of_an_icon_are_checked_too() -> None:
    icon = encoded(colours(64, 64), "ICO", sizes=[(64, 64)])
    png = encoded(colours(300, 300), "PNG")
    at = icon.index(b"\x89PNG")
    with pytest.raises(ImageError, match="300 x 300"):
        load(icon[:at] + png, PHOTO, Limits(max_pixels=64 * 64))


def test_warnings_and_logs_stay_inside_and_others_stay_outside(recwarn: pytest.WarningsRecorder) -> None:
    bomb = b"GIF89a" + (10000).to_bytes(2, "little") * 2 + bytes(30)  # Pillow warns above 89 megapixels
    odd = Image.new("P", (8, 8))  # "should be converted to RGBA", Pillow warns
    odd.info["transparency"] = b"\0"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"damaged|short|not a picture"):
            load(bomb, PHOTO)
        array_of(odd)
        with pytest.raises(UserWarning, match="ours"):
            warnings.warn("ours", UserWarning, stacklevel=1)
    assert not recwarn.list
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_messy_files_decode_or_are_refused_the_same_on_threads(shared: Path) -> None:
    files = [
        p.read_bytes()
        for folder in ("odd", "fuzzed")
        for p in sorted((shared / "data/messy" / folder).iterdir())
        if p.is_file()
    ]

    def outcome(data: bytes) -> str:
        try:
            found = load(data, PHOTO)
        except ImageError as error:
            reason = str(error)
            assert 5 < len(reason) < 200
            assert "\n" not in reason
            return reason
        assert found.array.shape == (64, 64, 3)
        return content_hash(found.array) + content_hash(found.thumbnail) + found.mode

    once = [outcome(data) for data in files]
    with ThreadPoolExecutor(2) as pool:
        again = list(pool.map(outcome, files))
    assert once == again
    decoded = sum(" " not in o[:64] for o in once)
    assert decoded >= 560  # of 970; 571 with Pillow 13


MEMORY = """
import json, sys
from pathlib import Path
from headstart.data.images import Preprocess, load
from headstart.errors import ImageError
wanted = Preprocess((224, 224), 0.875, "bicubic", "shortest", (0.5,) * 3, (0.5,) * 3)

for folder in sys.argv[1:]:
    for path in sorted(Path(folder).iterdir()):
        if path.is_file():
            try:
                load(path.read_bytes(), wanted)
            except ImageError:
                pass
print(json.dumps(int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to read the peak memory")
def test_messy_files_keep_memory_bounded_and_stderr_empty(shared: Path) -> None:
    """Bombs, fuzzed and odd files together stay under 400 MB, imports included; no library writes to stderr."""
    folders = [str(shared / "data/messy" / name) for name in ("odd", "fuzzed")]
    command = [sys.executable, "-W", "error", "-c", MEMORY, *folders]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert json.loads(done.stdout) < 400_000  # kB
    assert done.stderr == ""


# Preprocess


def test_preprocess_survives_json() -> None:
    for one in (PHOTO, replace(PHOTO, views=2), replace(PHOTO, resize="pad", bands=(3, 2, 1))):
        assert Preprocess.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert not {"views", "bands", "ranges"} & set(PHOTO.to_json())  # part of the key of what was stored before


@pytest.mark.parametrize(
    "change",
    [
        {"size": [0, 5]},
        {"size": [224]},
        {"size": 224},
        {"crop_fraction": 0},
        {"crop_fraction": "x"},
        {"interpolation": "cubic"},
        {"resize": "stretch"},
        {"views": 3},
        {"std": [0, 1, 1]},
        {"mean": [0.5]},
        {"mean": None},
        {"extra": 1},
    ],
)
def test_preprocess_refuses_nonsense(change: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Preprocess.from_json(PHOTO.to_json() | change)


def test_defaults_pass_a_phone_camera() -> None:
    DEFAULT_LIMITS.check_size(12000, 9000)
