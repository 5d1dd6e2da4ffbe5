"""A saved model's own images, found again on this disk: those that were held out, to check what becomes of the model.

What a model was fitted on is known by name and content (split.parquet); where it lies is found as `whereabouts` says.
An image counts where its bytes are those that fit saw.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from headstart.counted import counted
from headstart.data import images
from headstart.data.splits import Split
from headstart.data.table import Table, list_images, read_table
from headstart.errors import DataError, ImageError
from headstart.files.bundle import Bundle
from headstart.story.whereabouts import content_of, known, own_images, split_of, words_of

MOST = 500  # images: a difference of 1 % in accuracy is then within its interval, and a check takes a minute
JUDGES = ("test", "validation")
CHECKED = "an export is checked on images"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Images that check a model, at most so many as were asked for, drawn from all there are.

    table: their rows. groups (image,): what belongs together. labelled: whether the truth of all is known.
    said: what they are, such as "153 of your validation images". teaching: rows of images that taught, not read yet;
    none where the images are others than the model's. taught: the images themselves taught the model in the end.
    """

    table: Table
    groups: npt.NDArray[np.int64]
    labelled: bool
    said: str
    teaching: Table
    taught: bool = False


def held_out(bundle: Bundle, data: str | None, most: int = MOST, seed: int = 0) -> HeldOut:
    """The test and validation images of a saved model; of one that was cross-validated all of them; of `data` that are
    no images of its fit those of its test part, else all. Raises DataError where there are none here."""
    table = _table_of(bundle, data)
    split = split_of(bundle)
    rows = {} if split is None else known(table, split)
    if split is None or not rows:
        return _others(table, split, bundle, most, seed)
    parts = {part: [row for row, at in rows.items() if str(split.splits[at]) == part] for part in JUDGES}
    judges = [row for part in JUDGES for row in parts[part]]
    named = " and ".join(part for part in JUDGES if parts[part])
    crossed = not judges
    judges = judges or list(rows)
    found = _readable(table, _drawn(judges, seed), most, {row: str(split.hashes[at]) for row, at in rows.items()})
    if not found:
        raise _nowhere(bundle, data)
    teaching = sorted(set(rows) - (set(found) if crossed else set(judges)))
    what = f"{named} images" if named else "images, which taught it too"
    return HeldOut(
        table.take(found),
        np.array([split.groups[rows[row]] for row in found], np.int64),
        bool((table.labels[found] != "").all()),
        f"{len(found):,} of your {what}",
        table.take(np.array(teaching, np.int64)),
        crossed,
    )


def _table_of(bundle: Bundle, data: str | None) -> Table:
    task, words = str(bundle.manifest.get("task", "classify")), words_of(bundle)
    label, good, classes = (_of_option(words, option) for option in ("--label", "--good", "--classes"))

    def read(place: str | Path) -> Table:
        return read_table(place, min_classes=1, task=task, label=label, good=good, classes=classes)

    if data is not None:
        try:
            return read(data)
        except DataError:
            if not Path(data).exists():
                raise
            return list_images([data], masks=task != "segment")
    return own_images(bundle, read, CHECKED)[1]


def _of_option(words: list[str], option: str) -> str | None:
    """What an option of the fit was given."""
    return next((value for name, value in pairwise(words) if name == option), None)


def _others(table: Table, split: Split | None, bundle: Bundle, most: int, seed: int) -> HeldOut:
    """Of images that are none of the model's own: the test part, else the validation part, else all."""
    part = next((part for part in JUDGES if (table.splits == part).any()), None)
    rows = np.flatnonzero(table.splits == part) if part else np.arange(len(table))
    found = _readable(table, _drawn(rows.tolist(), seed), most, {})
    if not found:
        raise _nowhere(bundle, None)
    labelled = bool((table.labels[found] != "").all())
    what = f"{counted(len(found), 'image')} that the fit has not seen" if split else counted(len(found), "image")
    return HeldOut(table.take(found), np.arange(len(found)), labelled, what, table.take([]))


def _drawn(rows: list[int], seed: int) -> list[int]:
    return [rows[k] for k in np.random.default_rng(seed).permutation(len(rows))]


def _readable(table: Table, rows: list[int], most: int, hashes: dict[int, str]) -> list[int]:
    """The first `most` of these rows whose bytes are there, and are those of the fit where their hash is known."""
    found: list[int] = []
    for row in rows:
        content = content_of(table, row)
        if content and hashes.get(row, content) == content:
            found.append(row)
        if len(found) == most:
            break
    return sorted(found)


def _nowhere(bundle: Bundle, data: str | None) -> DataError:
    where = "are not found here" if data is None else f"are not in {data}"
    return DataError(f"the images of {bundle.folder.name} {where}, and {CHECKED}: name them with --data DATA")


def decoded(held: HeldOut, preprocess: images.Preprocess, out: Path) -> tuple[HeldOut, Path]:
    """The pixels (image, height, width, 3) as a .npy file; images that cannot be decoded are left out of both. Raises
    DataError where none can, OSError."""
    kept: list[int] = []
    raw = out.with_suffix(".raw")
    with raw.open("wb") as file:  # not a mapped file: where the disk is full, writing to one ends the process
        for row in range(len(held.table)):
            try:
                file.write(images.load(held.table.read(row), preprocess).array.data)
            except ImageError:
                continue
            kept.append(row)
    if not kept:
        raise DataError("none of the images that the export is checked on can be read: name others with --data DATA")
    with raw.open("rb") as file, out.open("wb") as whole:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(kept), *preprocess.size, 3)}
        np.lib.format.write_array_header_1_0(whole, header)
        shutil.copyfileobj(file, whole)
    raw.unlink()
    if len(kept) == len(held.table):
        return held, out
    said = f"{len(kept):,}{held.said[len(f'{len(held.table):,}') :]}"
    return HeldOut(held.table.take(kept), held.groups[kept], held.labelled, said, held.teaching, held.taught), out
