"""The program that lies beside an export: predict.py, which needs its runtime, NumPy and Pillow alone.

It is put together from the texts in `loaders/`: one that opens the format, and one for all. The decoder is headstart's
own rule (`data/images.py`) written once more, since neither of them may need the other; the check of every export runs
both on the user's pictures (`agreement.py`).
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from headstart.export.format import Format

CHECK = "check"  # the program of the check


def program(of: Format) -> str:
    """The text of predict.py."""
    opener = text(of.opener).strip()
    named = {"@PACKAGES@": of.runtime, "@FILE@": of.file, "@OPENER@": f"\n{opener}\n"}
    found = text("predict")
    for mark, value in named.items():
        found = found.replace(mark, value)
    return found


@cache
def text(name: str) -> str:
    """A text of `loaders/`."""
    return (resources.files("headstart.export") / "loaders" / f"{name}.py.txt").read_text(encoding="utf-8")
