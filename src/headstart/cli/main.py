"""Arguments in, pipeline called, errors turned into one line and an exit code.

0: done. 1: a failure that it explains. 2: wrong usage. Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from headstart.cli.arguments import parser
from headstart.cli.console import ClosedOutputError, drop_output, flush, tell
from headstart.cli.elapsed import process_start
from headstart.cli.progress import quiet_libraries, shown_to_somebody
from headstart.errors import HeadstartError, OptionError, lacks_memory, reason_of

_RESUMES = "no result was written; images that were read need not be read again by the same command"
INTERRUPTED = dict.fromkeys(("demo", "fit", "features", "inspect", "compare", "rank"), _RESUMES)


# Objects made before the next look for cycles: libraries make a million that stay (a start took 5.4 s of CPU, 4.0 so).
UNLOOKED = (50_000, 20, 50)


SMALLER = "take a smaller --size, or fewer images, or close other programs"
REMEDIES = dict.fromkeys(("fit", "features", "inspect", "compare", "classify", "rank"), SMALLER)


def main(arguments: Sequence[str] | None = None) -> None:
    """The `headstart` command."""
    begun = process_start() if arguments is None else time.perf_counter()
    gc.set_threshold(*UNLOOKED)
    quiet_libraries()
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    name = words[0]
    try:
        try:
            given = parser().parse_args(words)
            given.begun = begun
            run(given)
        finally:
            flush()
    except HeadstartError as error:
        _fail(str(error), 2 if isinstance(error, OptionError) else 1)
    except KeyboardInterrupt:
        if shown_to_somebody():
            sys.stderr.write("\r\x1b[K")  # over the ^C that the terminal shows, and over a bar
        _fail(f"interrupted: {INTERRUPTED.get(name, 'nothing was written')}", 130)
    except BrokenPipeError:
        drop_output()
        sys.exit(141)
    except (MemoryError, ImportError, OSError, RuntimeError) as error:
        if isinstance(error, ClosedOutputError):
            drop_output()
            _fail(
                f"the result cannot be written to the standard output ({reason_of(error)}): free some space, or send "
                "it elsewhere",
                1,
            )
        if not lacks_memory(error):
            raise
        _fail(f"out of memory ({reason_of(error)}): {REMEDIES.get(name, 'close other programs, or allow it more')}", 1)


def _fail(text: str, code: int) -> NoReturn:
    tell(f"headstart: {text}")
    sys.exit(code)


# command -> where its function is: imported when it is called, since most need what --help does not
COMMANDS = {
    "demo": "teaching.demo",
    "fit": "teaching.fit",
    "compare": "teaching.compare",
    "evaluate": "asking.evaluate",
    "predict": "asking.predict",
    "classify": "asking.classify",
    "suggest": "suggesting.suggest",
    "enrol": "people.enrol",
    "verify": "people.verify",
    "review": "reviewing.review",
    "relabel": "mending.relabel",
    "export": "exporting.export",
    "inspect": "looking.inspect",
    "rank": "ranking.rank",
    "features": "looking.features",
    "serve": "serving.serve",
    "backbones": "looking.backbones",
    "report": "looking.report",
    "push": "sharing.push",
    "cache": "looking.cache",
}


WRITTEN = ("output", "masks", "explain", "sheet", "cache")  # options that name what is written, of any command
ELSEWHERE = (("features", "output"), ("predict", "output"))  # those that may name an address: `files.output.output_of`


def run(given: argparse.Namespace) -> None:
    """Do what was asked for."""
    here = (option for option in WRITTEN if (given.command, option) not in ELSEWHERE)
    for name in (getattr(given, option, None) for option in here):
        if isinstance(name, str) and "://" in name:
            from headstart.files.output import check_here

            check_here(name)
    module, _, function = COMMANDS[given.command].partition(".")
    getattr(import_module(f"headstart.cli.{module}"), function)(given)


if __name__ == "__main__":
    main()
