"""Which images belong together, from their names or folders: `--group-by`."""

from __future__ import annotations

import re

from headstart.data.sources import Row
from headstart.data.tree import some
from headstart.errors import DataError, OptionError

WORDS = ("folder", "none")
ALLOWED = "a regular expression with at most one group in brackets, or folder, or none"


def expression(text: str | None) -> re.Pattern[str] | None:
    """The regular expression of --group-by; None for the words that it takes. Raises OptionError."""
    if text is None or text in WORDS:
        return None
    try:
        found = re.compile(text)
    except re.error as error:
        raise OptionError(f"--group-by {text!r} is no regular expression ({error}): allowed is {ALLOWED}") from error
    if found.groups > 1 or not text:
        raise OptionError(f"--group-by {text!r} has {found.groups} groups in brackets: allowed is {ALLOWED}")
    return found


def grouped(rows: list[Row], how: str | None, where: str) -> tuple[list[Row], list[str]]:
    """The rows with the groups that --group-by finds, and a note on groups. Raises DataError, OptionError.

    A regular expression is searched in each name below the folder that was read; its bracketed part, or all that it
    matches, is the group. Of a folder's images `folder` has been seen to when they were found.
    """
    pattern = expression(how)
    if pattern is None and how != "folder":
        return rows, []
    if pattern is not None:
        if any(row.group for row in rows):
            raise DataError(f"{where} has a column of groups: leave --group-by out, or rename that column")
        rows = _by_name(rows, pattern, where)
    kinds = {row.group for row in rows} - {""}
    if not kinds and how == "folder":
        raise DataError(
            f"--group-by folder: no image of {where} lies in a folder inside its class folder: give a regular "
            f"expression for the names, such as {rows[0].name}"
        )
    if len(kinds) <= 1:
        raise DataError(
            f"--group-by {how!r} finds one group only in {where}, {some(sorted(kinds))!r}: then no image could judge "
            f"what others taught; the first name is {rows[0].name}"
        )
    pairs = {(row.label, row.group) for row in rows if row.group and row.label}
    if len(pairs) == len({label for label, _ in pairs}) == len(kinds):
        raise DataError(
            f"--group-by {how!r} finds one group a class in {where}: then no image could judge what the others of its "
            f"class taught; the first name is {rows[0].name}"
        )
    return rows, _note(rows, f"--group-by {how}")


def by_folder(rows: list[Row]) -> list[Row]:
    """The images of a list in the groups that its paths name: their folders. A group of its own stays."""
    return [row._replace(group=row.group or row.name.replace("\\", "/").rpartition("/")[0]) for row in rows]


def _by_name(rows: list[Row], pattern: re.Pattern[str], where: str) -> list[Row]:
    """Raises DataError where the expression does not match every name."""
    matches = [pattern.search(row.name) for row in rows]
    missed = [row.name for row, match in zip(rows, matches, strict=True) if match is None]
    if missed:
        count = f"{len(missed)} of the {len(rows)}" if len(missed) < len(rows) else f"none of the {len(rows)}"
        verb = "does not match" if len(missed) < len(rows) else "matches"
        loose = "" if len(missed) == len(rows) else "; where those may stand alone, end it with |$"
        raise DataError(f"--group-by {pattern.pattern!r} {verb} {count} names in {where}, such as {missed[0]}{loose}")
    found = [match.group(pattern.groups) or "" for match in matches if match]
    return [row._replace(group=group) for row, group in zip(rows, found, strict=True)]


def _note(rows: list[Row], source: str) -> list[str]:
    """How many groups there are, and images without one."""
    counted = [row.group for row in rows if row.group]
    kinds = set(counted)
    alone = len(rows) - len(counted)
    rest = f"; {alone} image{'s have' if alone > 1 else ' has'} none and may go anywhere" if alone else ""
    each = ", each of one image, so they change nothing" if len(kinds) == len(counted) else ""
    return [f"{len(kinds)} groups of images that stay together ({source}): {some(sorted(kinds))}{each}{rest}"]
