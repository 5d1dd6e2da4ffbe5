"""Does `inspect` name planted shortcuts, and leave sets alone that have none?

    python benchmarks/planted_faults.py [--deals 200]

No network: the files are read, and looked at once and small. Of each set one class is saved anew at another JPEG
quality, or with a grey border (the others are saved anew too, at one quality); then labels are dealt out at random.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import measure
import numpy as np
from PIL import Image, ImageOps

from headstart.data.facts import facts_of
from headstart.data.images import small
from headstart.data.quality import SIDE, faults, looks_of
from headstart.data.table import read_table
from headstart.errors import ImageError
from headstart.judge import shortcut

SETS = ("hymenoptera", "eurosat_3000", "brain_mri_yes_no", "faces_orl")
MOST = 600  # images of a set that are saved anew


def saved(source: bytes, quality: int, border: bool) -> bytes:
    """The picture as a JPEG, with a border of a twentieth of its side where that is asked for."""
    picture, buffer = Image.open(io.BytesIO(source)).convert("RGB"), io.BytesIO()
    if border:
        width = max(2, min(picture.size) // 20)
        inner = picture.crop((width, width, picture.width - width, picture.height - width))
        picture = ImageOps.expand(inner, width, (128, 128, 128))
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def looked_at(sources: list[bytes]) -> tuple[list[Any], list[Any], list[int]]:
    facts, looks, rows = [], [], []
    for row, source in enumerate(sources):
        try:
            looks.append(looks_of(small(source, SIDE)))
        except ImageError:
            continue
        facts.append(facts_of(source))
        rows.append(row)
    return facts, looks, rows


def told(sources: list[bytes], labels: np.ndarray) -> dict[str, Any]:
    """What is said of the files, and how many pictures are called odd."""
    facts, looks, rows = looked_at(sources)
    labels = labels[rows]
    found = shortcut.told_by(shortcut.of_files(facts, looks), labels, 0)
    said = {"odd": len(faults(facts, looks)), "n": len(rows)}
    if found is None:
        return said | {"accused": False, "told": None}
    best = [name for name, value in found.facts if value >= found.facts[0][1] - 0.02]
    return said | {"accused": found.clear, "told": [found.value, found.low, found.high], "by": best}


def false_alarms(sources: list[bytes], labels: np.ndarray, deals: int) -> float:
    """The share of random labels that are accused."""
    facts, looks, rows = looked_at(sources)
    columns, rng = shortcut.of_files(facts, looks), np.random.default_rng(0)
    accused = 0
    for deal in range(deals):
        found = shortcut.told_by(columns, rng.permutation(labels[rows]), deal)
        accused += found is not None and found.clear
    return accused / deals


def one(name: str, shared: Path, deals: int) -> dict[str, Any]:
    table = read_table(shared / name, 1)
    rows = np.sort(np.random.default_rng(0).permutation(len(table))[:MOST])
    sources = [bytes(table.read(int(row))) for row in rows]
    labels = table.labels[rows]
    first = labels == sorted(set(labels))[0]
    chosen = list(zip(sources, first, strict=True))
    return {
        "untouched": told(sources, labels),
        "another quality": told([saved(s, 75 if mine else 90, False) for s, mine in chosen], labels),
        "a grey border": told([saved(s, 90, bool(mine)) for s, mine in chosen], labels),
        "saved alike": told([saved(s, 90, False) for s, _ in chosen], labels),
        "random labels accused": false_alarms(sources, labels, deals),
    }


def cell(said: dict[str, Any]) -> str:
    if said["told"] is None:
        return "nothing tells"
    value, low, high = (f"{100 * end:.0f}" for end in said["told"])
    return f"{'accused' if said['accused'] else 'not accused'}: {value} ({low} to {high}) by {', '.join(said['by'])}"


def main() -> None:
    parser = measure.arguments(__doc__)
    parser.add_argument("--deals", type=int, default=200)
    options = parser.parse_args()
    found = {name: one(name, options.data, options.deals) for name in SETS}
    rows, targets = [], []
    for name, said in found.items():
        kinds = [what for what in said if isinstance(said[what], dict)]
        rows.append([name, *(cell(said[what]) for what in kinds), f"{said['random labels accused']:.1%}"])
        for what in ("another quality", "a grey border"):
            targets.append(measure.Target(f"{name}, {what}: named", float(said[what]["accused"]), floor=1))
        targets.append(measure.Target(f"{name}: random labels accused", said["random labels accused"], ceiling=0.05))
    for name in ("hymenoptera", "eurosat_3000"):
        targets.append(
            measure.Target(f"{name}, untouched: accused", float(found[name]["untouched"]["accused"]), ceiling=0)
        )
    header = ("set", "untouched", "another quality", "a grey border", "saved alike", "random labels accused")
    title = "How well the class that is told best from the files alone is told, % (half by chance)"
    measure.publish(options, __doc__, [measure.Table(title, header, rows)], targets, found)


if __name__ == "__main__":
    main()
