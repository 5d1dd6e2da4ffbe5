"""The images that every peer is given: the same split under the same names, and 20 messy files.

A set is a folder with train/CLASS/ and val/CLASS/, which teach and judge; judged/, the pictures of val/ under numbers,
so that nothing but a picture can be answered from; and truth.json, {file in judged/: class}.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

JUDGED = 0.25  # share of each class that judges where the folder has no split of its own
TAUGHT, TESTED = 50, 200  # images a class of a set in Parquet files: they are many, and few labels are the question
# Files by what Pillow says of them: strange and whole, and those that hold no picture or a part of one.
WHOLE = (
    "odd/pil_sample_cmyk.jpg",
    "odd/hopper_gray.jpg",
    "odd/hopper_orientation_6.jpg",
    "odd/16bit.cropped.tif",
    "odd/hopper_lzw.tif",
    "odd/mode_grayscale_alpha.png",
    "odd/p_trns_single.png",
    "odd/rgb16.bmp",
    "odd/hopper.gif",
    "odd/flower2.webp",
)
BROKEN = (
    "fuzzed/001_*.jpg",  # ends early
    "fuzzed/002_*.jpg",  # not known as any format
    "fuzzed/003_*.bmp",  # a header of another kind
    "fuzzed/007_*.gif",  # says that it has 4 billion pixels
    "fuzzed/008_*.jpg",  # broken in the middle
    "fuzzed/024_*.bmp",  # ends early
    "odd/broken.png",
    "odd/truncated_image.png",
    "odd/broken_data_stream.png",
    "odd/crash-2020-10-test.tif",
)
MESSY = "messy"  # the name of that set


def made(source: Path, folder: Path) -> Path:
    """The set of a folder of images, below `folder`; made where it is not there."""
    place = folder / source.name
    if not (place / "truth.json").exists():
        shutil.rmtree(place, ignore_errors=True)
        for part, label, name, content in parts_of(source):
            path = place / part / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        number_judged(place)
    return place


def number_judged(place: Path) -> None:
    truth = {}
    (place / "judged").mkdir()
    for number, path in enumerate(sorted((place / "val").glob("*/*"))):
        name = f"{number:05}{path.suffix.lower()}"
        os.link(path, place / "judged" / name)
        truth[name] = path.parent.name
    (place / "truth.json").write_text(json.dumps(truth))


def parts_of(source: Path) -> Iterator[tuple[str, str, str, bytes]]:
    """(train or val, class, file name, content) of each image: a split of the folder's own, Parquet, or by content."""
    if list(source.glob("*.parquet")):
        yield from from_parquet(source)
    elif (source / "train").is_dir() and (source / "val").is_dir():
        for part in ("train", "val"):
            for path in files_of(source / part):
                yield part, path.parent.name, path.name, path.read_bytes()
    else:
        for label in sorted(path.name for path in source.iterdir() if path.is_dir()):
            paths = sorted((p for p in files_of(source) if p.parent.name == label), key=digest)
            judged = round(JUDGED * len(paths))
            for place, path in enumerate(paths):
                yield "val" if place < judged else "train", label, path.name, path.read_bytes()


def files_of(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*/*")) if path.is_file() and not path.name.startswith(".")]


def digest(path: Path) -> tuple[str, str]:
    """By content, so that the split is the same anywhere and copies lie on one side (but for the pair at the edge)."""
    return hashlib.sha256(path.read_bytes()).hexdigest(), path.name


def from_parquet(source: Path) -> Iterator[tuple[str, str, str, bytes]]:
    """The first images of each class in the order of their digests: few teach, more judge."""
    import pyarrow.parquet as pq

    for stored, part, most in (("train", "train", TAUGHT), ("test", "val", TESTED)):
        taken: dict[int, int] = {}
        (file,) = source.glob(f"{stored}-*.parquet")
        rows = zip(*(pq.read_table(file)[name].to_pylist() for name in ("image", "label")), strict=True)
        for digested, content, label in sorted(
            (hashlib.sha256(i["bytes"]).hexdigest(), i["bytes"], k) for i, k in rows
        ):
            if taken.setdefault(label, 0) < most:
                taken[label] += 1
                yield part, f"class{label}", f"{digested[:12]}.jpg", content


def messy(data: Path, folder: Path) -> Path:
    """20 images a class of hymenoptera with the messy files among those that teach; judged/ holds the messy ones."""
    place = folder / MESSY
    if (place / "truth.json").exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    taken: dict[tuple[str, str], int] = {}
    for part, label, name, content in parts_of(data / "hymenoptera"):
        taken[part, label] = taken.get((part, label), 0) + 1
        if taken[part, label] <= 20:
            path = place / part / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (place / "judged").mkdir()
    truth = {}
    for number, pattern in enumerate(WHOLE + BROKEN):
        (path,) = (data / "messy").glob(pattern)
        name = f"m{number:02}{path.suffix}"
        truth[name] = "whole" if number < len(WHOLE) else "broken"
        shutil.copyfile(path, place / "judged" / name)
        shutil.copyfile(path, place / "train" / ("ants", "bees")[number % 2] / name)
    (place / "truth.json").write_text(json.dumps(truth))
    return place
