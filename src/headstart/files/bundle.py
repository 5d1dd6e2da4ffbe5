"""The saved model: one folder of safetensors and JSON that needs no code of its own and no pickle to be read.

    MODEL/
    ├── headstart.json     format_version, classes, preprocess, backbone, head, calibration, thresholds ... ┐
    ├── config.json        timm's own description: timm.create_model("local-dir:MODEL") works               │ define
    ├── model.safetensors  the network with a plain linear top                                              │ the model
    ├── head.safetensors   only where the head is more than such a top                                      │
    ├── gallery.safetensors  only of a model that recognises: its metric and those enrolled                 │
    ├── reference.safetensors  features of some images that taught it, to know others by; not of old models │
    ├── novelty.safetensors  what an image is held against to know whether it is like those that taught     ┘
    ├── checksums.json     size and SHA-256 of those files
    └── metrics.json, run.json, split.parquet, report.html, README.md, suspected_labels.csv, duplicates.csv,
        mistakes.csv, set_aside.csv, export.json      about the model: free to edit, never needed to predict

This file knows the format and nothing of networks: tensors are NumPy arrays, so reading needs no torch. What the JSON
files must hold is stated in `files/forms.py`. A model that is read stays what it was, whatever becomes of its folder.

A save is whole or not at all, and a model that is saved over another replaces it whole (`swap.py`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from headstart.errors import BundleError, HeadstartError, OutputError, nearest
from headstart.files import forms, swap
from headstart.files.reading import MOST_TEXT, read_regular, why

T = TypeVar("T")

FORMAT_VERSION = 1
"""Raised when an older headstart would read a newer model wrongly, not for additions that it can ignore."""

MANIFEST = "headstart.json"
CONFIG = "config.json"
MODEL = "model.safetensors"
HEAD = "head.safetensors"
GALLERY = "gallery.safetensors"
REFERENCE = "reference.safetensors"
NOVELTY = "novelty.safetensors"
ODDITY = "oddity.safetensors"
CHECKSUMS = "checksums.json"
"""Its layout, {file: {"bytes": int, "sha256": hex}}, is the same in every format version."""

DEFINING = (MANIFEST, CONFIG, MODEL, HEAD, GALLERY, REFERENCE, NOVELTY, ODDITY)
REQUIRED = (MANIFEST, CONFIG, MODEL)
METRICS = "metrics.json"
RUN = "run.json"
EXPORT = "export.json"
CARD = "README.md"
ABOUT = (
    METRICS,
    RUN,
    "split.parquet",
    "report.html",
    CARD,
    "suspected_labels.csv",
    "duplicates.csv",
    "mistakes.csv",
    "set_aside.csv",
    EXPORT,
)

_OF_THE_DESKTOP = (".DS_Store", "Thumbs.db", "desktop.ini")
"""Files that looking at a folder creates; they do not make it somebody else's."""

MOST_BYTES = 32 * 2**30
"""Of one file of tensors: the largest network of timm, 6.7 billion numbers of 4 bytes, has 27 GB."""

_MOST_TRIES = 1000
"""Reads of a model that is replaced during each of them: nobody saves so often for long."""

_RESTORE = "copy the model again from where it was made, or run `headstart fit` again"


@dataclass(frozen=True)
class Bundle:
    """A saved model, found undamaged.

    folder: the model's folder, absolute.
    manifest: the content of headstart.json.
    config: the content of config.json, timm's description of the network.
    checksums: the content of checksums.json: {file: {"bytes": int, "sha256": hex}}.
    contents: of the files of tensors; of metrics.json and run.json, or why one cannot be read.
    """

    folder: Path
    manifest: dict[str, Any]
    config: dict[str, Any]
    checksums: dict[str, dict[str, Any]]
    contents: Mapping[str, bytes | BundleError] = field(repr=False)

    @property
    def has_head(self) -> bool:
        """Whether head.safetensors is part of the model."""
        return HEAD in self.checksums

    @property
    def has_reference(self) -> bool:
        """Whether reference.safetensors is part of the model."""
        return REFERENCE in self.checksums

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json. Raises BundleError if the user's copy is gone or broken."""
        return self._about(METRICS, forms.METRICS)

    @property
    def run(self) -> dict[str, Any]:
        """The content of run.json: command, recipe, machine, seconds. Raises BundleError if gone or broken."""
        return self._about(RUN, forms.RUN)

    def _about(self, file: str, form: forms.Check) -> dict[str, Any]:
        content = self.contents[file]
        if isinstance(content, BundleError):
            raise content
        return _parse_json(self.folder / file, content, form)

    def tensors(self, file: str = MODEL) -> dict[str, NDArray[Any]]:
        """The tensors of a file of them, by name, each with its own shape and type.

        Raises BundleError if the file is no part of this model, or holds something else.
        """
        path = self.folder / file
        if file not in self.checksums:
            raise BundleError(f"{path} is not part of this model, which has {', '.join(self.checksums)}")
        content = self.contents[file]
        assert isinstance(content, bytes)
        try:
            return safetensors.load(content)
        except (SafetensorError, KeyError, TypeError, ValueError, MemoryError) as error:
            raise BundleError(f"{path} cannot be read as safetensors ({error}): {_RESTORE}") from error

    def without_tensors(self) -> Bundle:
        """The same, for keeping: a network in memory does not need its file there too."""
        return replace(self, contents={k: v for k, v in self.contents.items() if k not in self.checksums})


# Reading


def read_bundle(folder: str | Path) -> Bundle:
    """The model saved in `folder`, after every byte that defines it was checked against its SHA-256.

    Raises BundleError, naming the file and the next step: no model there, saved in a newer format, a file missing,
    truncated or changed.
    """
    place = Path(folder).resolve()
    try:
        for _ in range(_MOST_TRIES):
            with swap.held(place) as seen:
                try:
                    found = _read(place)
                except (BundleError, OSError):
                    swap.recover(place)
                    if swap.identity(place) == seen:
                        raise
                else:
                    if swap.identity(place) == seen:
                        return found
    except OSError as error:
        raise BundleError(f"the model in {place} cannot be read: {why(error)}") from error
    raise BundleError(f"the model in {place} is replaced again and again: try again when nobody saves there")


def read_with(folder: str | Path, use: Callable[[Bundle], T]) -> T:
    """What `use` makes of the model saved in `folder`; anew where another model took its place meanwhile.

    For what reads more of the folder than `Bundle` holds. Raises BundleError, and what `use` raises.
    """
    while True:
        bundle = read_bundle(folder)
        try:
            return use(bundle)
        except HeadstartError:
            if read_bundle(folder).checksums == bundle.checksums:
                raise


def _read(place: Path) -> Bundle:
    _refuse_other_things(place)
    _refuse_newer(place)
    checksums = _read_checksums(place)
    content: dict[str, Any] = {file: _read_checked(place / file, recorded) for file, recorded in checksums.items()}
    for file in (METRICS, RUN):
        try:
            content[file] = _read_file(place / file)
        except BundleError as error:  # an answer needs neither
            content[file] = error
    return Bundle(
        place,
        manifest=_parse_json(place / MANIFEST, content.pop(MANIFEST), forms.manifest(FORMAT_VERSION)),
        config=_parse_json(place / CONFIG, content.pop(CONFIG)),
        checksums=checksums,
        contents=content,
    )


def _refuse_other_things(folder: Path) -> None:
    what = "name a folder that `headstart fit DATA -o MODEL` has written"
    if not folder.exists():
        models = (found.parent.name for found in folder.parent.glob(f"*/{MANIFEST}"))
        raise BundleError(f"there is no model at {folder}{nearest(folder.name, models)}: {what}")
    if not folder.is_dir():
        raise BundleError(f"{folder} is a file, not a saved model: {what}")
    if not (folder / MANIFEST).is_file() and not (folder / CHECKSUMS).is_file():
        raise BundleError(f"{folder} is not a saved model, since it holds no {MANIFEST}: {what}")


def _refuse_newer(folder: Path) -> None:
    """Say that a model is too new before anything that a newer format may have changed is judged by this one's rules.

    A damaged digit can look like a newer version too. Only the checksum tells, so its answer is part of the message.
    """
    try:
        version = _parse_json(folder / MANIFEST, _read_file(folder / MANIFEST)).get("format_version")
    except BundleError:
        return  # missing or broken: the checksums will say which
    if type(version) is not int or version <= FORMAT_VERSION:
        return
    newer = (
        f"{folder} was saved in format version {version}, and this headstart reads versions up to {FORMAT_VERSION}: "
        "upgrade headstart (pip install --upgrade headstart)"
    )
    try:
        _read_checked(folder / MANIFEST, _read_checksums(folder)[MANIFEST])
    except BundleError:
        newer += f"; or, since {MANIFEST} does not match its checksum and may be damaged, {_RESTORE}"
    raise BundleError(newer)


def _read_checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """checksums.json, after a check that it has the form that a save writes and lists the files that are here."""
    path = folder / CHECKSUMS
    recorded = _parse_json(path, _read_file(path))
    known = all(file in DEFINING and _is_checksum(entry) for file, entry in recorded.items())
    if not known or not set(REQUIRED) <= set(recorded):
        raise BundleError(f"{path} is damaged or was edited: {_RESTORE}")
    for file in (HEAD, GALLERY, REFERENCE, NOVELTY, ODDITY):
        if file not in recorded and (folder / file).exists():
            raise BundleError(f"{folder / file} is not part of this model ({CHECKSUMS} does not list it): {_RESTORE}")
    return recorded


def _checksum(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _is_checksum(entry: Any) -> bool:
    return isinstance(entry, dict) and {key: type(value) for key, value in entry.items()} == {
        "bytes": int,
        "sha256": str,
    }


def _read_checked(path: Path, recorded: Mapping[str, Any]) -> bytes:
    """The content of a file, if it is what was saved."""
    if path.is_file() and (size := path.stat().st_size) != recorded["bytes"]:
        raise BundleError(f"{path} has {size} bytes instead of {recorded['bytes']}: {_RESTORE}")
    content = _read_file(path, MOST_TEXT if path.suffix == ".json" else MOST_BYTES)
    if _checksum(content) != recorded:
        raise BundleError(f"{path} is damaged or was edited (its SHA-256 is not the one in {CHECKSUMS}): {_RESTORE}")
    return content


def _read_file(path: Path, most: int = MOST_TEXT) -> bytes:
    """A file of the folder, if it is an ordinary one of a bounded size."""
    try:
        return read_regular(path, most)
    except FileNotFoundError as error:
        raise BundleError(f"{path} is missing: {_RESTORE}") from error
    except (OSError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or "there is not memory enough for it"
        raise BundleError(f"{path} cannot be read ({reason}): {_RESTORE}") from error


def _parse_json(path: Path, content: bytes, form: forms.Check = forms.ANYTHING) -> dict[str, Any]:
    """The object that a file holds, if it has this form."""
    try:
        return forms.parse(content, form)
    except ValueError as error:
        raise BundleError(f"{path} {error}: {_RESTORE}") from error


# Writing


def check_writable(folder: str | Path) -> None:
    """Raise OutputError now if `write_bundle` could not save a model in `folder` later. Leaves nothing behind.

    The folder may be new, empty, or a saved model, which a save replaces; never one that holds anything else.
    """
    place = Path(folder).resolve()
    with _saving(place):
        swap.recover(place)
        _refuse_to_replace(place)
        swap.probe(place)


def write_bundle(
    folder: str | Path,
    *,
    manifest: Mapping[str, Any],
    config: Mapping[str, Any],
    metrics: Mapping[str, Any] | None,
    run: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, NDArray[Any]]],
    files: Mapping[str, bytes | Path] | None = None,
) -> None:
    """Save a model in `folder`, whole or not at all. A model that is there is replaced; missing parents are made.

    manifest, config, metrics, run: the contents of the JSON files; `format_version` is added to the manifest. metrics:
    None where it is among the `files`, or gone.
    tensors: {"model.safetensors": {name: array}, and the others where there are any}; arrays of any layout.
    files: the other files, each by its content or by the path of a file to copy; of tensors, as they were saved.

    Raises OutputError where the place cannot be written or holds anything but a saved model, and where the manifest
    would be refused when it is read (see `forms.manifest`); ValueError or TypeError
    for a file name that is not part of the format and for values that JSON has no word for, such as NaN.
    """
    described = _json_bytes({**manifest, "format_version": FORMAT_VERSION})
    contents: dict[str, bytes | Path] = {
        **(files or {}),
        MANIFEST: described,
        CONFIG: _json_bytes(config),
        **({} if metrics is None else {METRICS: _json_bytes(metrics)}),
        RUN: _json_bytes(run),
        **{file: _tensor_bytes(arrays) for file, arrays in tensors.items()},
    }
    if MODEL not in contents or not set(contents) <= {*DEFINING, *ABOUT}:
        raise ValueError(f"a saved model needs {MODEL} and has {DEFINING + ABOUT}, got {sorted(contents)}")
    place = Path(folder).resolve()
    try:
        forms.parse(described, forms.manifest(FORMAT_VERSION))
    except ValueError as error:
        raise OutputError(f"the model cannot be saved in {place}: its {MANIFEST} {error}") from None
    with _saving(place):
        swap.replace(place, lambda new: _fill(new, contents), approve=_refuse_to_replace)


def _fill(folder: Path, contents: Mapping[str, bytes | Path]) -> None:
    """Write and sync every file and the checksums."""
    checksums = {}
    for file, given in contents.items():
        content = given if isinstance(given, bytes) else given.read_bytes()
        _write(folder / file, content)
        if file in DEFINING:
            checksums[file] = _checksum(content)
    _write(folder / CHECKSUMS, _json_bytes(checksums))


def _refuse_to_replace(place: Path) -> None:
    """Raise OutputError unless `place` is missing, empty, or holds a saved model and nothing that is not part of it."""
    if place.is_mount():
        raise OutputError(f"a model cannot take the place of {place}, a mount point: name a folder in it")
    if not place.exists():
        return
    if not place.is_dir():
        raise OutputError(f"the model cannot be saved as {place}, which is a file: name a new folder")
    known = {*DEFINING, *ABOUT, CHECKSUMS, *_OF_THE_DESKTOP} if _is_model(place) else set()
    strangers = sorted(found.name for found in place.iterdir() if found.name not in known or found.is_dir())
    if strangers:
        named = ", ".join(strangers[:3]) + (f" and {len(strangers) - 3} more" if len(strangers) > 3 else "")
        raise OutputError(
            f"the model cannot be saved in {place}: that folder holds {named}, which no saved model contains and which "
            "would be lost: name a new folder"
        )


def _is_model(place: Path) -> bool:
    """Whether a folder was written by a save, perhaps damaged since: both files are there under their names."""
    return (place / MANIFEST).is_file() and (place / CHECKSUMS).is_file()


@contextlib.contextmanager
def _saving(place: Path) -> Iterator[None]:
    """Turn what the system says of a place into OutputError."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        reason = why(error)
        raise OutputError(
            f"the model cannot be saved in {place} ({reason}): name a folder that you can write to"
        ) from error


# Bytes


def _json_bytes(content: Mapping[str, Any]) -> bytes:
    """Indented UTF-8, with escapes only where a name has no UTF-8 form (a file name in some older encoding)."""
    text = json.dumps(dict(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        return text.encode()
    except UnicodeEncodeError:
        return (json.dumps(dict(content), indent=2, allow_nan=False) + "\n").encode()


def _tensor_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The safetensors form. It copies memory as it lies, so each array is laid out in C order first."""
    return bytes(safetensors.save({name: np.asarray(array, order="C") for name, array in arrays.items()}))


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
