"""The past teaches and the latest images judge: `--time COLUMN`, whose cells are ISO dates or numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from re import fullmatch, sub

from headstart.counted import counted
from headstart.data.sources import Row
from headstart.data.truth import number_in
from headstart.errors import DataError
from headstart.files.cells import quoted

LATEST = 0.2  # of the images judge, as of a set that is divided by chance (recipe.held_out_fraction), at most
MOST_JUDGE = 10_000
ALLOWED = "an ISO date such as 2024-03-01 or 2024-03-01 14:30, or a number such as 2024"


def moment(text: str) -> tuple[str, float] | None:
    """(kind, seconds or the number itself) of a time as it is written; None where it is none.

    A date without a zone is taken as UTC, and EXIF's 2024:03:01 14:30:00 as a date.
    """
    number = number_in(text)
    if number is not None:
        return "number", number
    if not fullmatch(r"\d{4}\D.*", text):
        return None
    try:
        found = datetime.fromisoformat(sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text))
    except ValueError:
        return None
    return "date", (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def check_times(values: Sequence[str], column: str, row: Sequence[str]) -> None:
    """Raises DataError for a cell that is no time, or is a number among dates. row (row,): where each stands."""
    first = ""
    for value, place in zip(values, row, strict=True):
        found = moment(value) if value else None
        if value and found is None:
            raise DataError(
                f"{place}: column {quoted(column)} holds {quoted(value)}, which is no time: allowed is {ALLOWED}; "
                "correct it, or leave the cell empty, and the image is not used"
            )
        if found is not None:
            if first and found[0] != first:
                raise DataError(
                    f"{place}: column {quoted(column)} holds {quoted(value)}, a {found[0]} among {first}s: write all "
                    "times alike"
                )
            first = found[0]


def by_time(rows: Sequence[Row], column: str, where: str, one_class: bool) -> tuple[list[Row], list[str]]:
    """The rows with the latest as the test part and all others as the train part, and notes. Images of one time stay
    together. one_class: whether a label is a class, of which the past must hold images.

    Raises DataError where the data are parted otherwise already, or all have one time.
    """
    if any(row.split != "none" for row in rows):
        raise DataError(f"{where} says already which images train and which test: leave --time out, or that column")
    when = [found[1] if row.label and (found := moment(row.time)) else None for row in rows]
    known = Counter(time for time in when if time is not None)
    times = sorted(known)
    if len(times) < 2:
        what = f"one time only, {quoted(next((r.time for r in rows if r.time), ''))}" if times else "no times"
        raise DataError(
            f"--time {column}: the labelled images of {where} have {what}: a past and a later part are needed"
        )
    wanted = min(LATEST * known.total(), MOST_JUDGE)
    later, best = 0, (float("inf"), times[0])
    for before, last in zip(times[-2::-1], times[:0:-1], strict=True):
        later += known[last]
        best = min(best, (abs(later - wanted), before))
    cut = best[1]
    text = next(row.time for row, time in zip(rows, when, strict=True) if time == cut)
    parts = ["" if time is None else "train" if time <= cut else "test" for time in when]
    taught = {row.label for row, part in zip(rows, parts, strict=True) if part == "train"}
    unseen = Counter(
        row.label
        for row, part in zip(rows, parts, strict=True)
        if one_class and part == "test" and row.label not in taught
    )
    found = [
        row._replace(label="", split="none") if not part or row.label in unseen else row._replace(split=part)
        for row, part in zip(rows, parts, strict=True)
    ]
    n, without = sum(row.split == "test" for row in found), sum(bool(r.label) for r in rows) - known.total()
    if not n:
        raise DataError(f"--time {column}: no class of the images after {text} has an earlier image in {where}")
    return found, _notes(column, text, n, without, unseen)


def _notes(column: str, text: str, n: int, without: int, unseen: Counter[str]) -> list[str]:
    notes = [f"judged on the {counted(n, 'image')} after {text} (--time {column}), taught by those up to then"]
    if without:
        notes.append(f"not used: {counted(without, 'image')} without a time")
    if unseen:
        some = ", ".join(sorted(unseen)[:3]) + (" ..." if len(unseen) > 3 else "")
        notes.append(
            f"not used: {counted(unseen.total(), 'image')} after {text} of {counted(len(unseen), 'class', 'classes')} "
            f"without an earlier image ({some})"
        )
    return notes
