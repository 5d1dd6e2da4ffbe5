"""New people or products for a saved model that recognises, without training: `headstart enrol MODEL NAME IMAGES`.

Only the gallery changes: the metric and the thresholds stay those of the fit, and so do the answers for everybody else
that were above the threshold and remain the most similar. What was enrolled, or removed, stands in run.json.
"""

from __future__ import annotations

import datetime
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.counted import counted
from headstart.data.images import content_hash
from headstart.data.splits import read_split
from headstart.data.table import Table
from headstart.errors import BundleError, DataError, HeadstartError, ImageError, OptionError, OutputError, nearest
from headstart.files import forms
from headstart.files.bundle import ABOUT, GALLERY, MODEL, REFERENCE, RUN, Bundle, read_bundle, write_bundle
from headstart.files.cells import quoted
from headstart.heads.gallery import Gallery
from headstart.ship.embed import embedded, recogniser_of
from headstart.ship.package import Loaded, unpack
from headstart.story.opening import QUIET, Watcher
from headstart.tasks.identifier import Identifier, described, tensors, with_gallery

Ints = npt.NDArray[np.int64]

UNKNOWN = "unknown"  # what `predict` says of nobody
GROWN = 2  # times the identities that the threshold was chosen with: strangers pass up to as many times as often
LONGEST = 200  # characters of a name


@dataclass(frozen=True)
class Enrolled:
    """`name` with `images` new ones, or without (`removed`); `total`: its images now; `identities`: all enrolled now;
    `set_aside`: (file, reason); `notes`: what should be looked at."""

    name: str
    images: int
    total: int
    identities: int
    removed: bool = False
    set_aside: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "removed": self.removed,
            "images": self.images,
            "images_of_it": self.total,
            "identities": self.identities,
            "set_aside": [{"path": path, "reason": reason} for path, reason in self.set_aside],
            "notes": list(self.notes),
        }


def checked_name(name: str) -> str:
    """A name as it is kept. Raises OptionError for one that could not be told or shown."""
    found = unicodedata.normalize("NFC", name.strip())
    if not found or len(found) > LONGEST or not found.isprintable() or found.casefold() == UNKNOWN:
        why = "is empty" if not found else f"has {len(found)} characters" if len(found) > LONGEST else "is not allowed"
        raise OptionError(
            f"the name {quoted(name[:40])} {why}: 1 to {LONGEST} characters that can be printed are, on one line, and "
            f"not {UNKNOWN!r}, which is said of nobody"
        )
    return found


def enrol(folder: str | Path, name: str, table: Table, watch: Watcher = QUIET) -> Enrolled:
    """Add the images of `table` as `name` to the model in `folder`, which is replaced whole.

    Raises OptionError for a name or a model that cannot take any, DataError where no new image can be read.
    """
    name = checked_name(name)
    bundle = read_bundle(folder)
    model, called = unpack(bundle), bundle.folder.name
    recogniser_of(model, called)
    hashes = _hashes(table)
    known, notes = _known(bundle)
    kept = _new_rows(table, hashes, known, name)
    found = embedded(model, table.take(kept), called, watch.bar)
    aside = tuple((str(table.names[kept[row]]), reason) for row, reason in found.unread)
    if not len(found.rows):
        first = f"{aside[0][0]}: {aside[0][1]}"
        raise DataError(f"{name} cannot be enrolled: no image can be read; the first, {first}")
    rows = kept[found.rows]
    bundle = _still(bundle)
    gallery = _gallery(bundle).enrol(name, found.values)
    head = _saved(bundle, model, gallery, {"name": name, "hashes": [hashes[row] for row in rows]})
    twice = len(table) - len(kept)
    notes += [f"not counted again, since {name} has it already: {counted(twice, 'image')}"] if twice else []
    notes += _doubtful(table, rows, hashes, known, name) + _grown(head)
    total = int(gallery.counts[gallery.names.index(name)])
    return Enrolled(name, len(rows), total, len(gallery.names), set_aside=aside, notes=(*found.notes, *notes))


def _doubtful(table: Table, rows: Ints, hashes: list[str], known: dict[str, set[str]], name: str) -> list[str]:
    """Images that were enrolled under another name too."""
    found = [(row, sorted(others)) for row in rows if (others := known.get(hashes[row], set()) - {name})]
    return [f"{table.names[row]} is enrolled as {', '.join(others)} too: remove one of them" for row, others in found]


def _grown(head: Identifier) -> list[str]:
    """That more are enrolled than the threshold was chosen for."""
    if len(head.names) <= GROWN * head.identities:
        return []
    return [
        f"{counted(len(head.names), 'identity', 'identities')} are enrolled now, and the threshold was chosen with "
        f"{head.identities}: strangers pass more often than was said; fit again with all images"
    ]


def remove(folder: str | Path, name: str) -> Enrolled:
    """Take `name` out of the model in `folder`. Raises OptionError where it is not enrolled, DataError for the last."""
    bundle = read_bundle(folder)
    model = unpack(bundle)
    gallery = recogniser_of(model, bundle.folder.name).gallery
    own = next((known for known in (name, unicodedata.normalize("NFC", name.strip())) if known in gallery.names), None)
    if own is None:
        raise OptionError(f"{quoted(name)} is not enrolled{nearest(name, gallery.names)}: {_listed(gallery.names)}")
    n = int(gallery.counts[gallery.names.index(own)])
    _saved(bundle, model, gallery.remove(own), {"name": own, "removed": True})
    return Enrolled(own, n, 0, len(gallery.names) - 1, removed=True)


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"those enrolled are {', '.join(names[:10])}{more}"


def _hashes(table: Table) -> list[str]:
    """The content hash of each image; "" where the file cannot be read."""
    found = []
    for row in range(len(table)):
        try:
            found.append(content_hash(table.read(row)))
        except ImageError:
            found.append("")
    return found


def _known(bundle: Bundle) -> tuple[dict[str, set[str]], list[str]]:
    """(content hash -> names under which such an image was enrolled, by the fit and since; notes)."""
    known: dict[str, set[str]] = {}
    notes = []
    try:
        split = read_split(bundle.folder / "split.parquet")
        for digest, label, part in zip(split.hashes, split.labels, split.splits, strict=True):
            if part == "train":
                known.setdefault(str(digest), set()).add(str(label))
    except HeadstartError:
        notes.append("the model's split.parquet cannot be read, so images that it was made of are not told apart")
    for change in _changes(bundle):
        if change.get("removed"):
            known = {digest: names - {change["name"]} for digest, names in known.items()}
        for digest in change.get("hashes", ()):
            known.setdefault(digest, set()).add(change["name"])
    return known, notes


def _changes(bundle: Bundle) -> list[dict[str, Any]]:
    """What run.json says was enrolled and removed since the fit, the oldest first; what has another form is passed
    over, since the user may edit that file."""
    found = _run(bundle).get("enrolled", [])
    entries = found if isinstance(found, list) else []
    return [e for e in entries if isinstance(e, dict) and isinstance(e.get("name"), str) and _texts(e.get("hashes"))]


def _run(bundle: Bundle) -> dict[str, Any]:
    """run.json; nothing where the user's copy is gone or broken."""
    content = bundle.contents[RUN]
    try:
        return {} if isinstance(content, BundleError) else forms.parse(content, forms.ANYTHING)
    except ValueError:
        return {}


def _texts(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _new_rows(table: Table, hashes: list[str], known: dict[str, set[str]], name: str) -> Ints:
    """Rows that are not enrolled as this name yet, each picture once. Raises DataError where all of them are."""
    first = {digest: row for row, digest in reversed(list(enumerate(hashes))) if digest}
    kept = [row for row, h in enumerate(hashes) if not h or (first[h] == row and name not in known.get(h, ()))]
    if not any(hashes[row] for row in kept) and any(hashes):
        raise DataError(
            f"{name} has {'this image' if len(table) == 1 else 'all of these images'} already: nothing to add"
        )
    return np.array(kept, dtype=np.int64)


def _still(before: Bundle) -> Bundle:
    """The model as it is saved now: somebody else may have enrolled meanwhile. Raises OutputError where another model
    took its place."""
    now = read_bundle(before.folder)
    if now.checksums[MODEL] != before.checksums[MODEL] or _of_the_fit(now) != _of_the_fit(before):
        raise OutputError(f"{before.folder} was replaced by another model meanwhile: enrol again")
    return now


def _of_the_fit(bundle: Bundle) -> dict[str, Any]:
    return {name: value for name, value in bundle.manifest.items() if name not in ("classes", "class_type")}


def _gallery(bundle: Bundle) -> Gallery:
    return Gallery.read(bundle.manifest["classes"], bundle.tensors(GALLERY))


def _saved(bundle: Bundle, model: Loaded, gallery: Gallery, change: dict[str, Any]) -> Identifier:
    """Write the model with this gallery; everything else stays as it is."""
    assert isinstance(model.head, Identifier)
    head = with_gallery(model.head, gallery)
    same = {f: content for f in (MODEL, REFERENCE) if isinstance(content := bundle.contents.get(f), bytes)}
    files = {f: bundle.folder / f for f in ABOUT if f != RUN and (bundle.folder / f).is_file()}
    manifest = bundle.manifest | {"classes": list(gallery.names), "head": bundle.manifest["head"] | described(head)}
    changes = [*_changes(bundle), change | {"at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}]
    write_bundle(
        bundle.folder,
        manifest=manifest,
        config=bundle.config,
        metrics=None,
        run=_run(bundle) | {"enrolled": changes},
        tensors={GALLERY: tensors(head)},
        files={**files, **same},
    )
    return head
