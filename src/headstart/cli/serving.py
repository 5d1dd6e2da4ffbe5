"""`headstart serve`: saved models behind HTTP. Its arguments, and what it says on the terminal."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.cli.console import flush, say, say_json, tell
from headstart.counted import counted
from headstart.errors import OptionError, OutputError

if TYPE_CHECKING:
    from headstart.serve.served import Served

TOKEN = "HEADSTART_TOKEN"
MOST_TOKEN = 4096  # bytes
MOST_MEGA = 1_000_000  # of a limit in millions: a terabyte


def add_serve(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    serve = command("serve", "answer over HTTP what saved models say of images, with a page to drop them on")
    serve.add_argument(
        "models", nargs="+", metavar="MODEL", help="folders that fit has written; a request names one by its name"
    )
    serve.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (default: %(default)s, this machine alone)"
    )
    serve.add_argument("--port", type=int, default=8000, help="0 for a free one (default: %(default)s)")
    serve.add_argument(
        "--token-file", metavar="FILE", help=f"a secret that each request must bring (or the environment's {TOKEN})"
    )
    serve.add_argument(
        "--queue", type=int, default=128, metavar="N", help="images that may wait; then 429 (default: %(default)s)"
    )
    serve.add_argument("--max-images", type=int, default=64, metavar="N", help="of one request (default: %(default)s)")
    serve.add_argument("--max-mb", type=float, default=32, metavar="MB", help="of one request (default: %(default)s)")
    serve.add_argument(
        "--max-megapixels", type=float, default=80, metavar="N", help="of one image (default: %(default)s)"
    )
    serve.add_argument(
        "--timeout", type=float, default=30, metavar="SECONDS", help="for an answer (default: %(default)s)"
    )
    serve.add_argument("--json", action="store_true", help="one JSON document on stdout when it listens: url, models")


def serve(given: argparse.Namespace) -> None:
    from headstart.serve.bounds import Bounds

    numbers = {"--max-mb": given.max_mb, "--max-megapixels": given.max_megapixels}
    for name, value in numbers.items():
        if not 0 < value < MOST_MEGA:
            raise OptionError(f"{name} {value:g} must be above 0 and below {MOST_MEGA:,}")
    bounds = Bounds(
        body=int(given.max_mb * 2**20),
        pixels=int(given.max_megapixels * 1e6),
        images=given.max_images,
        queue=given.queue,
        seconds=given.timeout,
    )
    try:
        from headstart.serve.running import bound, run, url_of
    except ImportError as error:
        raise OptionError(f"headstart serve needs {error.name}: pip install 'headstart[serve]'") from None
    token, at = token_of(given.token_file), bound(given.host, given.port)
    from headstart.serve.counts import Counts
    from headstart.serve.gate import Gate
    from headstart.serve.models import Models, names_of
    from headstart.serve.page import read_pages
    from headstart.serve.running import LOOPBACK
    from headstart.serve.served import load
    from headstart.serve.state import State

    folders = names_of(given.models)
    loaded = [load(folder, name, bounds.limits) for name, folder in folders.items()]
    gate = Gate(bounds)
    counts = Counts(gate)

    def switched(name: str, well: bool, line: str) -> None:
        counts.reloads.labels(name, "switched" if well else "refused").inc()
        tell(line)

    def listening(stop: Callable[[], None]) -> None:
        if given.json:
            say_json({"url": url_of(at), "models": [one.name for one in loaded]})
        else:
            say(listening_line(loaded, url_of(at)))
        flush()
        if token is None and given.host not in LOOPBACK:
            tell(f"note: whoever reaches {given.host} can ask, since no token is set: see --token-file")

    run(State(Models(loaded, bounds.limits, switched), bounds, gate, counts, read_pages(), token), at, listening)


def listening_line(loaded: list[Served], url: str) -> str:
    names = ", ".join(one.name for one in loaded)
    return f"{counted(len(loaded), 'model')} ({names}) at {url}  (Ctrl-C stops)"


def token_of(path: str | None) -> bytes | None:
    """The secret, without the end of its line. Raises OptionError."""
    if path is None:
        given = os.environ.get(TOKEN)
        if given is not None and not given.strip():
            raise OptionError(f"{TOKEN} is set and empty: give it a secret, or unset it")
        return None if given is None else given.strip().encode()
    try:
        with Path(path).open("rb") as file:
            content = file.read(MOST_TOKEN + 1).strip()
    except OSError as error:
        raise OutputError(f"--token-file {path} cannot be read ({error.strerror})") from None
    if not content or len(content) > MOST_TOKEN or b"\n" in content:
        raise OptionError(f"--token-file {path}: one line with a secret of at most {MOST_TOKEN:,} bytes is needed")
    return content
