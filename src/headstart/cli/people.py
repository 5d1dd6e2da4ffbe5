"""`headstart enrol` and `headstart verify`: who is known to a model, and whether two images are of the same."""

from __future__ import annotations

import argparse
import sys

from headstart.cli.console import say, say_json, tell
from headstart.cli.progress import watching
from headstart.counted import counted
from headstart.errors import OptionError


def enrol(given: argparse.Namespace) -> None:
    """Add images under a name, or take a name out."""
    taken = given.remove is not None
    if taken and (given.name is not None or given.images):
        raise OptionError(
            f"--remove {given.remove} takes one identity out and needs nothing else: leave {given.name} out"
        )
    if not taken and not (given.name is not None and given.images):
        raise OptionError("what to enrol is missing: headstart enrol MODEL NAME IMAGES, or --remove NAME")
    if taken:
        from headstart.story import enrol as gallery

        found = gallery.remove(given.model, given.remove)
    else:
        from headstart.data.table import list_images
        from headstart.data.to_label import named
        from headstart.files.bundle import check_writable

        table = list_images(named(given.images, sys.stdin))
        check_writable(given.model)
        from headstart.story import enrol as gallery

        with watching(tell) as watch:
            found = gallery.enrol(given.model, given.name, table, watch)
    for note in found.notes:
        tell(f"note: {note}")
    for path, reason in found.set_aside:
        tell(f"set aside: {path}: {reason}")
    if given.json:
        say_json(found.to_json() | {"model": given.model})
        return
    images, enrolled = counted(found.images, "image"), counted(found.identities, "identity", "identities")
    if found.removed:
        say(f"{found.name} removed with {images}: {given.model} knows {enrolled}")
    else:
        say(f"{found.name} enrolled with {images}, {found.total:,} in all: {given.model} knows {enrolled}")


def verify(given: argparse.Namespace) -> None:
    """Whether two images are of the same identity."""
    from headstart.data.table import list_images

    pair = list_images([given.first, given.second])
    from headstart.ship.embed import verify as compared
    from headstart.story import pipeline

    model = pipeline.load(given.model)
    with watching(tell) as watch:
        found = compared(model, pair, given.model, watch.bar)
    if given.json:
        say_json(found.to_json() | {"first": given.first, "second": given.second})
        return
    sign = ">=" if found.same else "<"
    rate = f"{found.false_accept_rate:.1%} of pairs of strangers pass it"
    if not found.supported:
        rate = f"the fit had too few pairs of strangers to say that {rate}"
    say(
        f"{'same' if found.same else 'not the same'}  similarity {found.similarity:.3f} {sign} {found.threshold:.3f}  "
        f"({rate})"
    )
