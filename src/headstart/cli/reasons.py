"""What `inspect --fail-on` may name."""

from __future__ import annotations

from headstart.errors import OptionError, nearest

# name -> what it is
REASONS = {
    "leaks": "copies in more than one of train, validation and test",
    "conflicts": "copies with different labels",
    "unreadable": "files that cannot be read",
    "shift": "parts that look different",
    "shortcut": "classes that their files give away",
}


def reasons(text: str | None) -> tuple[str, ...]:
    """What `--fail-on` names. Raises OptionError for anything else."""
    words = [word.strip() for word in (text or "").split(",") if word.strip()]
    for word in words:
        if word not in REASONS:
            raise OptionError(
                f"--fail-on {word!r} is not known{nearest(word, REASONS)}: one of {', '.join(REASONS)}, or several "
                "with commas between"
            )
    if text is not None and not words:
        raise OptionError(f"--fail-on names nothing: one of {', '.join(REASONS)}, or several with commas between")
    return tuple(dict.fromkeys(words))
