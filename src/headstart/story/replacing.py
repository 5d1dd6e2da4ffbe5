"""Whether a model may take the place of the one that a folder holds: where both are of the same data; and be added to.

What is compared must be known before any work, and must hold when images were added, labels corrected or options
changed since: some images of the saved model are looked for among the new ones, by name, label and content. More
than half of them must be there. Neither a folder's name nor those of its files are enough: "photos" and "0/1.png" are
common.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from headstart.counted import counted
from headstart.data.images import content_hash
from headstart.data.sources import GoneSource
from headstart.data.splits import Split, read_split
from headstart.data.table import Table
from headstart.errors import HeadstartError, ImageError, OptionError, OutputError
from headstart.files.bundle import MANIFEST, Bundle, read_bundle

SAMPLE = 32  # images of the saved model that are looked for: more than half of 32 is no accident


def check_replaceable(folder: str | Path, table: Table | None, add_to: str | Path | None = None) -> None:
    """Raise OutputError where `folder` holds a model of other data than `table` (with the model `add_to`).

    An empty or missing folder may be written. So may the model that is added to.
    """
    place = Path(folder)
    if not (place / MANIFEST).is_file():
        return
    if add_to is not None and Path(add_to).resolve() == place.resolve():
        return
    try:
        held = read_split(place / "split.parquet")
        more = read_split(Path(add_to) / "split.parquet") if add_to is not None else None
    except HeadstartError:
        held, more = None, None
    if held is not None and table is not None and _same(held, table, more):
        return
    raise OutputError(
        f"{folder} holds a model of other data{_about(place)}, which would be lost: name another folder with -o, "
        "or add --force"
    )


def check_grows(bundle: Bundle) -> None:
    """Raise OptionError for a model that nothing is added to by a fit: one that recognises, or knows good images."""
    if bundle.manifest.get("task") == "anomaly":
        raise OptionError(
            f"--add-to is of classes, labels and values, and {bundle.folder.name} knows good pictures: fit on all of "
            "them together, which reads no stored picture again"
        )
    if bundle.manifest.get("task") == "recognise":
        name = bundle.folder.name
        raise OptionError(
            f"--add-to fits anew, and {name} recognises: add somebody with `headstart enrol {name} NAME IMAGES`, or "
            "fit on all images together"
        )


def _same(held: Split, table: Table, more: Split | None) -> bool:
    """Whether more than half of a saved model's images, by a sample, are among the new ones."""
    rows = np.unique(np.linspace(0, len(held.names) - 1, min(SAMPLE, len(held.names))).astype(int))
    here = {
        (str(name), str(label)): row for row, (name, label) in enumerate(zip(table.names, table.labels, strict=True))
    }
    added = set(zip(map(str, more.hashes), map(str, more.labels), strict=True)) if more is not None else set()
    found = 0
    for row in rows:
        digest, label = str(held.hashes[row]), str(held.labels[row])
        at = here.get((str(held.names[row]), label))
        found += (digest, label) in added or (at is not None and _hash(table, at) == digest)
    return 2 * found > len(rows)


def _hash(table: Table, row: int) -> str:
    source = table.sources[row]
    if isinstance(source, GoneSource):
        return source.content_hash
    try:
        return content_hash(table.read(row))
    except ImageError:
        return ""


def _about(place: Path) -> str:
    """What the model is, in brackets; nothing where it cannot be read."""
    try:
        bundle = read_bundle(place)
    except HeadstartError:
        return ""
    classes = [str(name) for name in bundle.manifest["classes"]]
    more = " ..." if len(classes) > 3 else ""
    saved = str(bundle.run.get("created", ""))[:10]
    return f" ({counted(len(classes), 'class', 'classes')}: {', '.join(classes[:3])}{more}; saved {saved or 'earlier'})"
