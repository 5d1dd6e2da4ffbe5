"""Whether the files of the images that teach give their class away: asked in every fit, from headers alone."""

from __future__ import annotations

from headstart.data.facts import facts_of
from headstart.data.table import Table
from headstart.errors import ImageError
from headstart.heads.material import Ints
from headstart.judge import shortcut
from headstart.judge.shortcut import Told

OF_CLASSES = ("classify", "recognise")  # tasks in which an image is of one class
MOST = 600  # images: their headers take a fiftieth of the shortest fit


def given_away(table: Table, rows: Ints, groups: Ints, seed: int) -> Told | None:
    """How well the files alone tell the class of `rows` (row,); None where too little can be said. groups (image,)."""
    if table.task not in OF_CLASSES:
        return None
    chosen = rows[shortcut.drawn(table.labels[rows], groups[rows], seed, MOST)]
    try:
        facts = [facts_of(table.read(int(row))) for row in chosen]
    except ImageError:  # the images of a model that grew are gone
        return None
    return shortcut.told_by(shortcut.of_files(facts), table.labels[chosen], seed) if facts else None


def shortcut_line(told: Told) -> str:
    """That files give a class away, in one line."""
    best = ", ".join(f"{name} alone {value:.0%}" for name, value in told.facts[:2] if value >= told.low)
    by = f"; by {best}" if best else ""
    return (
        f"class {told.label} can be told from file facts alone in {told.value:.0%} [{told.low:.0%}, {told.high:.0%}] "
        f"where guessing gives 50 %{by}: a model may learn how the files were made, not what they show"
    )
