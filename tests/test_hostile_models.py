"""Laws of models and weights that somebody made up: one line says what is wrong; no code runs, no memory is taken."""

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.bundle import CHECKSUMS, DEFINING, MANIFEST, read_bundle
from headstart.errors import BundleError, OutputError
from headstart.files import forms
from saved import DESCRIBED, METRICS, RUN, save


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder without a network, to be changed."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    save(tmp_path / "model")
    return tmp_path / "model"


def all_of(folder: Path) -> None:
    found = read_bundle(folder)
    _ = found.metrics, found.run


def refusal(folder: Path) -> str:
    """What is said of a model that is refused."""
    try:
        all_of(folder)
    except BundleError as error:
        return str(error)
    return ""


def wrong(content: bytes, form: forms.Check) -> str:
    """What is said of the content of a JSON file."""
    try:
        forms.parse(content, form)
    except ValueError as error:
        return str(error)
    return ""


# Files that are no files


@pytest.mark.skipif(os.name == "nt", reason="needs named pipes")
@pytest.mark.parametrize("kind", ["pipe", "endless", "process", "socket", "folder"])
@pytest.mark.parametrize("file", [*DEFINING, CHECKSUMS, "metrics.json", "run.json"])
def test_what_is_no_ordinary_file_is_named_and_never_waited_for(made: Path, file: str, kind: str) -> None:
    (made / file).unlink()
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        if kind == "pipe":
            os.mkfifo(made / file)
        elif kind == "folder":
            (made / file).mkdir()
        elif kind == "socket":
            with contextlib.chdir(made):  # the name of a socket is short
                listening.bind(file)
        else:
            (made / file).symlink_to("/dev/zero" if kind == "endless" else "/proc/self/maps")
        with pytest.raises(BundleError, match=file) as caught:
            all_of(made)
    assert "\n" not in str(caught.value)


def test_a_file_of_text_larger_than_any_is_not_read(made: Path) -> None:
    for file in ("metrics.json", MANIFEST, CHECKSUMS):
        with (made / file).open("r+b") as holes:
            holes.truncate(2**40)  # takes no room on the disk
        with pytest.raises(BundleError, match=rf"{file}.*bytes"):
            all_of(made)


# What the files say is checked before it is used


def signed(folder: Path, file: str, content: bytes) -> None:
    """Put a file into a model as somebody would who knows the format: with its checksum."""
    (folder / file).write_bytes(content)
    recorded = json.loads((folder / CHECKSUMS).read_bytes())
    recorded[file] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / CHECKSUMS).write_text(json.dumps(recorded))


FULL: dict[str, Any] = DESCRIBED | {
    "format_version": 1,
    "precision": "f32",
    "layer": {"name": "layer1", "module": "layer1", "pooling": "avg"},
    "data_fingerprint": "0f",
    "calibration": {"method": "none"},
    "versions": {"torch": "2"},
}
TRAINED: dict[str, Any] = FULL | {
    "head": {
        "kind": forms.TRAINED,
        "spec": "dense",
        "shape": [3],
        "scale": 0.5,
        "parts": DESCRIBED["head"]["parts"],
        "training": {
            "epochs": 1,
            "batch_size": 2,
            "optimizer": "adam",
            "rate": 1e-3,
            "warm_up": 0.1,
            "patience": 5,
            "held_out": 0.0,
        },
    }
}
RAW = ["NaN", "-Infinity", "1e400", "null", "true", "-1", "1e308", "[]", "{}", "[[]]", "0.5"]
NASTY = [*RAW, '""', '"\\u202e\\u001b[2J"', f'"{"x" * 200_000}"', "[" * 10_000 + "]" * 10_000, "7" * 5000, "[null]"]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON document, as the keys that lead to it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield (*path, key)
        yield from places(below, (*path, key))


def changed(document: dict[str, Any], path: tuple[Any, ...], put: str | None) -> bytes:
    """The document with other JSON at one place; without it for None."""
    mark, copy_of = "@@here@@", copy.deepcopy(document)
    holder = functools.reduce(lambda value, key: value[key], path[:-1], copy_of)
    if put is None:
        del holder[path[-1]]
    else:
        holder[path[-1]] = mark
    return json.dumps(copy_of).replace(f'"{mark}"', put or "").encode()


@pytest.mark.parametrize("document", [FULL, TRAINED], ids=["linear", "trained"])
def test_whatever_stands_in_the_manifest_it_is_read_or_refused_in_one_line(
    made: Path, document: dict[str, Any]
) -> None:
    signed(made, MANIFEST, json.dumps(document).encode())
    read_bundle(made)
    refused = 0
    for path in places(document):
        for put in (*NASTY, None):
            said = wrong(changed(document, path, put), forms.manifest(1))
            assert said or put not in ("NaN", "-Infinity", "1e400")
            assert not said or (said.isprintable() and len(said) < 300)
            refused += bool(said)
    for put in NASTY:  # the same through the door
        signed(made, MANIFEST, changed(document, ("classes",), put))
        assert MANIFEST in refusal(made)
    assert refused > 200


@pytest.mark.parametrize("version", ["null", "0", "-1", "true", "1.0", "2.0", '"2"', "[1]", "{}", "1e400", "NaN", None])
def test_a_format_version_that_no_save_wrote_is_refused(made: Path, version: str | None) -> None:
    signed(made, MANIFEST, changed(FULL, ("format_version",), version))
    with pytest.raises(BundleError, match=MANIFEST) as caught:
        read_bundle(made)
    assert version in ("1e400", "NaN") or "format_version" in str(caught.value)


@pytest.mark.parametrize(
    ("path", "put", "said"),
    [
        (("classes",), '["ant", "ant"]', "classes holds 'ant' twice"),
        (("classes",), '["ant", null]', "entry 2 of classes is null"),
        (("classes",), '["ant", ""]', "entry 2 of classes is empty"),
        (("head", "parts"), "[]", "head.parts is a list with 0 entries"),
        (("head", "parts"), json.dumps(DESCRIBED["head"]["parts"] * 2), "head.parts holds entry 2 twice"),
        (("head", "kind"), '"magic"', "head.kind is 'magic'"),
        (("backbone",), "{}", "backbone.name is missing"),
    ],
)
def test_what_is_wrong_in_the_manifest_is_said(made: Path, path: tuple[str, ...], put: str, said: str) -> None:
    signed(made, MANIFEST, changed(FULL, path, put))
    with pytest.raises(BundleError) as caught:
        read_bundle(made)
    assert said in str(caught.value)


@pytest.mark.parametrize(("file", "document"), [("metrics.json", METRICS), ("run.json", RUN)])
def test_broken_words_about_a_model_are_refused_where_they_are_asked_for(
    made: Path, file: str, document: dict[str, Any]
) -> None:
    for path in places(document):
        for put in (*NASTY, None):
            said = wrong(changed(document, path, put), forms.METRICS if file == "metrics.json" else forms.RUN)
            assert said or put not in ("NaN", "-Infinity", "1e400")
            assert not said or (said.isprintable() and len(said) < 300)
    for put in NASTY:
        (made / file).write_text(put)
        read_bundle(made)  # enough to predict
        said = refusal(made)
        assert file in said or put == "{}"


def test_nothing_is_saved_that_could_not_be_read_again(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="'ant' twice"):
        save(tmp_path / "model", manifest=DESCRIBED | {"classes": ["ant", "ant"]})
    assert not list(tmp_path.iterdir())
