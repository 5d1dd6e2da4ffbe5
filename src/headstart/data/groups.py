"""Which images belong together, from their names or folders: `--group-by`; and what looks like frames of films."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from math import log2

from headstart.data.sources import Row
from headstart.data.tree import some
from headstart.errors import DataError, OptionError

WORDS = ("folder", "none")
FRAME = re.compile(r"(?P<take>.*?)(?P<number>\d+)(?:\.\w+)?")
TAKE = r"([^/\\]*?)\d+(?:\.\w+)?$"  # of a name with folders before it, as FRAME of one without
FEWEST = 5  # frames of a take
STEPS = range(2, 121)  # frames between two pictures: up to 4 s of a film of 30 a second
ON_STEP = 0.9  # of the distances, at least, are whole steps; some frames are added by hand
EXCEPTION_BITS = 0.47  # a distance: the entropy of one exception in ten
EVIDENCE = 30.0  # bits: by chance in one of 10^9 takes, and 10^7 with the 119 steps that are tried
MOST_OF = 0.8  # of the names must be such frames
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


def grouped(rows: list[Row], how: str | None, where: str, classes: bool = True) -> tuple[list[Row], list[str]]:
    """The rows with the groups that --group-by finds, and a note on groups. Raises DataError, OptionError.

    A regular expression is searched in each name below the folder that was read; its bracketed part, or all that it
    matches, is the group. Of a folder's images `folder` has been seen to when they were found. classes: whether each
    label is one class.
    """
    pattern = expression(how)
    if pattern is None and how != "folder":
        return rows, [] if how or any(row.group for row in rows) else _films(rows)
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
    if classes and len(pairs) == len({label for label, _ in pairs}) == len(kinds):
        raise DataError(
            f"--group-by {how!r} finds one group a class in {where}: then no image could judge what the others of its "
            f"class taught; the first name is {rows[0].name}"
        )
    return rows, _note(rows, f"--group-by {how}")


def _films(rows: list[Row]) -> list[str]:
    """A note where names show frames of films, and nothing keeps films together."""
    takes = sorted(set(sequences_in([row.name for row in rows]) or ()) - {""})
    if not takes:
        return []
    return [
        f"names look like frames of {len(takes)} films ({some(takes)}): frames of one film are alike, so a score over "
        f"single images is too good for another film; --group-by '{TAKE}' keeps films together"
    ]


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


def sequences_in(names: Sequence[str]) -> list[str] | None:
    """The take of each image (image,), "" = none, where names show frames of several films; else None.

    A frame's name is its take and its number, as 0001TP_006690.jpg. Numbers of a camera or of a folder's files run on
    by one, or have gaps of any length; frames picked from films have distances that are whole steps of 30, 15 or the
    like, or the word frame before the number. A take holds a digit (a film's number): names such as cat_0010 are a
    class's.
    Names alone don't tell every single frame of a film without that word, frames whose film is a folder, or one film
    alone; and every tenth of independent photos of several numbered cameras would be taken for frames.
    """
    found = [FRAME.fullmatch(re.split(r"[/\\]", name)[-1]) for name in names]
    takes: dict[str, set[int]] = {}
    for match in found:
        if match:
            takes.setdefault(match["take"], set()).add(int(match["number"][-18:]))
    films = {take for take, numbers in takes.items() if _is_film(take, sorted(numbers))}
    of = [match["take"] if match and match["take"] in films else "" for match in found]
    return of if len(films) > 1 and sum(map(bool, of)) >= MOST_OF * len(of) else None


def _is_film(take: str, numbers: Sequence[int]) -> bool:
    if len(numbers) < FEWEST or not any(sign.isdigit() for sign in take):
        return False
    if re.search(r"frame", take, re.IGNORECASE):
        return True
    apart = [b - a for a, b in pairwise(numbers)]
    on_step = ((sum(distance % step == 0 for distance in apart), step) for step in STEPS)
    return any(
        fits >= ON_STEP * len(apart) and fits * log2(step) - EXCEPTION_BITS * len(apart) >= EVIDENCE
        for fits, step in on_step
    )
