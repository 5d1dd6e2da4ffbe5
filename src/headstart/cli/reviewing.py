"""`headstart review`: walk through the images that a model's lists doubt, on a page of this machine."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.cli.console import say, say_json, tell
from headstart.counted import counted
from headstart.errors import DataError, OptionError

if TYPE_CHECKING:
    from headstart.data.fixes import Fixes
    from headstart.data.table import Table
    from headstart.files.bundle import Bundle

READING = ("label", "group", "time")  # options by which fit and relabel read a list in the same way
HIGHEST_PORT = 65535
LISTS = ("suspected_labels.csv", "duplicates.csv", "mistakes.csv", "set_aside.csv")


def review_arguments(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """Its options."""
    review = command(
        "review", "walk through suspected labels, copies and mistakes on a local page; one key keeps, corrects or drops"
    )
    review.add_argument("model", metavar="MODEL", help="a folder that fit has written, of one class an image")
    review.add_argument(
        "--data", metavar="DATA", help="the images that it was fitted to (default: where fit found them)"
    )
    review.add_argument(
        "-o",
        "--output",
        default="fixes.csv",
        metavar="FILE.csv",
        help="the list of decisions, saved after each, which relabel applies; one that is there goes on (default: "
        "%(default)s)",
    )
    review.add_argument("--port", type=int, default=0, metavar="N", help="of 127.0.0.1 (default: a free one)")
    review.add_argument("--no-browser", action="store_true", help="only say the address")
    review.add_argument("--json", action="store_true", help="one JSON document on stdout, at the end")


def review(given: argparse.Namespace) -> None:
    """Serve the page until it is ended there, or by Ctrl-C; then say what was decided."""
    from headstart.files.output import check_output

    output, model = Path(given.output), Path(given.model)
    check_output(output, (".csv",))
    if output.name in LISTS and output.resolve().parent == model.resolve():
        raise OptionError(f"-o {given.output} is a list of the model's own: choose another name")
    if not 0 <= given.port <= HIGHEST_PORT:
        raise OptionError(f"--port {given.port} is none: 1 to {HIGHEST_PORT}, or 0 for a free one")
    _check_installed()
    from headstart.data.preprocess import Preprocess
    from headstart.files.bundle import read_bundle

    bundle = read_bundle(model)
    task = str(bundle.manifest.get("task", "classify"))
    if task != "classify":
        raise OptionError(f"review walks through one class an image, and {model} is of the task {task}: see its report")
    data, table, reading = _table(bundle, given.data, output)
    from headstart.data.fixes import Fixes
    from headstart.story.doubts import doubts_of

    found = doubts_of(model, table)
    for note in found.notes:
        tell(f"note: {note}")
    labels = frozenset(str(label) for label in table.labels) - {""}
    fixes = Fixes(output, {d.path: (d.label, "; ".join(r.said for r in d.reasons)) for d in found.every}, labels)
    command = _next(data, output, reading)
    if found.every:
        from headstart.serve.local import serve_here
        from headstart.serve.review import Review, app_of
        from headstart.story.alike import LookAlikes

        decided = counted(fixes.done().total(), "of them", "of them")
        tell(f"{counted(len(found.every), 'image')} to look at, {decided} decided in {output} already")
        seen = Preprocess.from_json(bundle.manifest["preprocess"])
        alike, classes = LookAlikes(model, table), tuple(sorted(labels))
        serve_here(
            lambda end: app_of(
                Review(str(model), table, found.every, classes, fixes, seen, alike, lambda: command(fixes), end)
            ),
            given.port,
            lambda address, once: _started(address, once, not given.no_browser),
        )
    _tell_end(fixes, len(found.every), command(fixes), given.json)


def _check_installed() -> None:
    """Raises OptionError where the extra is missing."""
    from importlib.util import find_spec

    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise OptionError("headstart review needs what is not installed: pip install 'headstart[serve]'")


def _table(bundle: Bundle, data: str | None, output: Path) -> tuple[str, Table, Mapping[str, str]]:
    """Where the images are, they as `relabel` will read them, and the options for it. Raises HeadstartError."""
    from headstart.data.sources import FileSource
    from headstart.data.table import read_table
    from headstart.story.whereabouts import own_images, words_of

    options = dict(pairwise(words_of(bundle)))
    reading = {name: options[f"--{name}"] for name in READING if f"--{name}" in options}

    def read(place: str | Path) -> Table:
        return read_table(place, min_classes=1, task="classify", known=None, **reading)

    place, table = own_images(bundle, read, "review shows them") if data is None else (data, read(data))
    data = str(place)
    if not all(isinstance(source, FileSource) for source in table.sources):
        raise DataError(
            f"{data} holds images elsewhere, or inside an archive or Parquet file, and relabel writes a list of files"
        )
    if output.exists() and Path(data).is_file() and output.samefile(data):
        raise OptionError(f"-o {output} is the list of images itself: choose another name")
    return data, table, reading


def _next(data: str, output: Path, reading: Mapping[str, str]) -> Callable[[Fixes], str]:
    """What to type when all is decided."""
    taken = (f"relabelled-{k}.csv" if k > 1 else "relabelled.csv" for k in range(1, 10_000))
    target = next(name for name in taken if not Path(name).exists())
    words = ["headstart", "relabel", data, str(output), "-o", target]
    words += [word for name, value in reading.items() for word in (f"--{name}", value)]
    return lambda fixes: shlex.join([*words, *(["--new-labels"] if fixes.new_labels() else [])])


def _started(address: str, once: str, browser: bool) -> None:
    """Say where the page is, and show it: a browser that takes a moment does not hold the server up."""
    tell(f"open {address}")
    tell("it is for you alone on this machine; Ctrl-C, or the button on the page, ends it")
    screen = sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if browser and screen:  # without a screen a browser of text would take this terminal
        import webbrowser

        def show() -> None:
            with suppress(webbrowser.Error, OSError):
                webbrowser.open(once)

        threading.Thread(target=show, daemon=True).start()


def _tell_end(fixes: Fixes, n: int, command: str, as_json: bool) -> None:
    done, made = fixes.done(), fixes.done().total()
    counts = {"kept": done["keep"], "relabelled": done["relabel"], "dropped": done["drop"]}
    if as_json:
        written: Any = str(fixes.file) if made else None
        say_json({"images": n, "decided": made, **counts, "fixes": written, "next": command if made else None})
        return
    if not n:
        say("nothing to review: the lists of this model doubt no image")
        return
    if not made:
        say(f"none of {counted(n, 'image')} decided: nothing was written")
        return
    told = ", ".join(f"{number:,} {what}" for what, number in counts.items())
    say(f"{fixes.file}: {made:,} of {counted(n, 'image')} decided: {told}; next: {command}")
