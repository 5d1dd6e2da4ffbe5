"""Numbers as a sentence says them: "1 image", "1,797 images"."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: float) -> str:
    """12345 -> "12,345"; one decimal where a count is a mean over repetitions."""
    if abs(number - round(number)) < 1e-9:
        return f"{round(number):,}"
    return f"{number:,.1f}"


def counted(number: float, noun: str, plural: str | None = None) -> str:
    """A number with its noun. The plural stands at the noun's end, or is given: counted(2, "class", "classes")."""
    return f"{count(number)} {noun if number == 1 else plural or noun + 's'}"


def and_so_on(names: Sequence[str], most: int = 10) -> str:
    """The names, of a long list the first: "'ant', 'bee' and 3 more"."""
    more = f" and {count(len(names) - most)} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
