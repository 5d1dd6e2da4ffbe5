"""Decisions about images as they are made: a list that `relabel` applies, on the disk after each of them.

A kill loses nothing that was decided. What stands in the list of other images stays, and what another program has
written there since is never overwritten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from headstart.data.relabel import ACTIONS, MOST_BYTES, read_fixes
from headstart.errors import OptionError, OutputError
from headstart.files.cells import cell, csv_bytes, quoted
from headstart.files.reading import read_regular, why
from headstart.files.whole import write_whole

COLUMNS = ("path", "action", "label", "given", "reason")
LONGEST_LABEL = 200  # characters: a folder's name has at most 255 bytes


class Decision(NamedTuple):
    """One of ACTIONS; `label`: the new one of "relabel", else "" """

    action: str
    label: str = ""


class Fixes:
    """The decisions in one file. Threads may share it.

    about: path of each image that may be decided, as headstart's lists have it -> (its label, why it is looked at).
    labels: those that the images have; decisions may bring new ones.
    Raises DataError for a file that is no list of fixes, OutputError for one that cannot be read.
    """

    def __init__(self, file: Path, about: Mapping[str, tuple[str, str]], labels: frozenset[str]) -> None:
        self.file, self.labels, self._about, self._lock = file, labels, about, Lock()
        self._written = _content(file)
        found = [] if self._written is None else read_fixes(file)
        spelt = {str(cell(label)): label for label in labels}
        self._made = {
            f.path: Decision(f.action.lower(), spelt.get(f.label, f.label))
            for f in found
            if f.action or f.path not in about
        }
        self._before: list[tuple[str, Decision | None]] = [(path, None) for path in self._made if path in about]

    def of(self, path: str) -> Decision | None:
        """What was decided of an image; None for nothing."""
        return self._made.get(path)

    def done(self) -> Counter[str]:
        """How many images were decided, by action."""
        return Counter(made.action for path, made in list(self._made.items()) if path in self._about)

    def new_labels(self) -> tuple[str, ...]:
        """Those that decisions bring and no image has."""
        return tuple(sorted({made.label for made in list(self._made.values())} - {"", *self.labels}))

    def decide(self, path: str, made: Decision) -> None:
        """Decide of one image, and save. Raises OptionError for an action or label that cannot be, OutputError."""
        _check(made, self.labels)
        with self._lock:
            if path not in self._about:
                raise OptionError(f"{quoted(path, 120)} is none of the images to look at")
            old = self._made.get(path)
            if made != old:
                self._save({**{p: m for p, m in self._made.items() if p != path}, path: made})
                self._before.append((path, old))

    def undo(self) -> str | None:
        """Take the last decision back, and save. Returns its image; None where there is none. Raises OutputError."""
        with self._lock:
            if not self._before:
                return None
            path, old = self._before[-1]
            rest = {p: m for p, m in self._made.items() if p != path}
            self._save(rest if old is None else {**rest, path: old})
            self._before.pop()
            return path

    def _save(self, made: dict[str, Decision]) -> None:
        """All decisions, or none of the change. Raises OutputError."""
        if _content(self.file) != self._written:
            raise OutputError(
                f"{self.file} was changed by another program, so nothing is saved there: end this review and start it "
                "again, and it goes on from what the file then holds"
            )
        lines = [(path, *found, *self._about.get(path, ("", ""))) for path, found in made.items()]
        content = csv_bytes(COLUMNS, lines)
        try:
            write_whole(self.file, lambda place: place.write_bytes(content))
        except OSError as error:
            raise OutputError(f"{self.file} cannot be written ({why(error)}): the decision is not saved") from error
        self._written, self._made = content, made


def _check(made: Decision, labels: frozenset[str]) -> None:
    """Raises OptionError."""
    if made.action not in ACTIONS:
        raise OptionError(f"the action {quoted(made.action)} is not known: {', '.join(ACTIONS)}")
    label = made.label
    if (made.action == "relabel") != bool(label):
        raise OptionError(f"{made.action} {'needs a label' if not label else 'has no label'}")
    if label not in {"", *labels} and (label != label.strip() or not label.isprintable() or len(label) > LONGEST_LABEL):
        raise OptionError(
            f"the label {quoted(label)} cannot be used: at most {LONGEST_LABEL} characters of one line, without blanks "
            "at its ends"
        )


def _content(file: Path) -> bytes | None:
    """What stands in the file; None where there is none. Raises OutputError."""
    try:
        return read_regular(file, MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"{file} cannot be read ({why(error)}): choose another -o") from error
