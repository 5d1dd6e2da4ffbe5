"""`headstart suggest`: which images to label next."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from headstart.cli.console import say, say_json, tell
from headstart.cli.given import tell_notes
from headstart.cli.progress import watching
from headstart.counted import counted

LISTS, PAGES = (".csv",), (".html",)


def suggest(given: argparse.Namespace) -> None:
    from headstart.files.output import check_output

    for place, endings in ((given.output, LISTS), (given.sheet, PAGES)):
        if place:
            check_output(Path(place), endings)
    from headstart.data.table import list_images
    from headstart.data.to_label import named

    table = list_images(named(given.images, sys.stdin))
    from headstart.story import suggest as story

    tell_notes(table)
    with watching(tell) as watch:
        found = story.suggest(given.model, table, given.n, given.cache, watch)
    for note in found.notes:
        tell(f"note: {note}")
    for name, reason in found.set_aside:
        tell(f"set aside: {name}: {reason}")
    if given.output:
        story.write_suggested(found, table, Path(given.output))
        wanted = counted(len(found.records), "image")
        tell(f"{wanted} to label written to {given.output}: fill its column label, then fit")
    if given.sheet:
        story.write_sheet(found, table, Path(given.sheet))
    if given.json:
        say_json(
            {"suggested": list(found.records), "set_aside": [{"path": n, "reason": r} for n, r in found.set_aside]}
        )
    elif not given.output:
        for record in found.records:
            say(f"{record['path']}: {record['predicted']} {record['probability']:.1%}, {record['reason']}")
