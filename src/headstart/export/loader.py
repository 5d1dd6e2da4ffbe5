"""The program that lies beside an export: predict.py, which needs its runtime, NumPy and Pillow alone.

It is put together from the texts in `loaders/`: one that opens the format, one for all, and one
of what is answered. The decoder is headstart's
own rule (`data/images.py`) written once more, since neither of them may need the other; the check of every export runs
both on the user's pictures (`agreement.py`).
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from headstart.export.format import Format

CHECK = "check"  # the program of the check
ANSWERS, MASKS, BOXES = "answers", "masks", "boxes"  # what is made of a graph's output: one answer a picture, one a
# pixel, or some in places of the picture
IMPORTS = {MASKS: "import argparse\n"}


def program(of: Format, answers: str = ANSWERS) -> str:
    """The text of predict.py; `answers`: the text that says what is made of the graph's output."""
    opener = text(of.opener).strip()
    named = {"@PACKAGES@": of.runtime, "@FILE@": of.file, "@OPENER@": f"\n{opener}\n"}
    before = "" if answers == ANSWERS else text("upright")
    named |= {"@ANSWERS@": before + text(answers), "@IMPORTS@": IMPORTS.get(answers, "")}
    found = text("predict")
    for mark, value in named.items():
        found = found.replace(mark, value)
    return found


@cache
def text(name: str) -> str:
    """A text of `loaders/`."""
    return (resources.files("headstart.export") / "loaders" / f"{name}.py.txt").read_text(encoding="utf-8")
