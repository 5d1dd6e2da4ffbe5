"""`headstart push`: a saved model to the Hugging Face hub."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from headstart.cli.console import say, say_json, tell


def add_push(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    made = command("push", "send a saved model to the Hugging Face hub, in a repository of your own")
    made.add_argument("model", metavar="MODEL", help="a folder that fit has written")
    made.add_argument("repository", metavar="REPO", help="OWNER/NAME on the hub, or NAME for your own; made if missing")
    made.add_argument("--public", action="store_true", help="for everybody to see (default: private)")
    made.add_argument(
        "--with-report", action="store_true", help="send the report and lists too, which hold your pictures and paths"
    )
    made.add_argument("--json", action="store_true", help="one JSON document on stdout")


def push(given: argparse.Namespace) -> None:
    from headstart.story.push import push as send

    found = send(given.model, given.repository, given.public, given.with_report)
    if found.left_out:
        tell(
            f"left out, since they hold your pictures or paths: {', '.join(found.left_out)} (--with-report sends them)"
        )
    if found.removed:
        tell(f"removed there, since this model has none: {', '.join(found.removed)}")
    if given.json:
        say_json(found.to_json())
        return
    say(f"{len(found.files)} files sent, {'private' if found.private else 'public'}: {found.address}")
