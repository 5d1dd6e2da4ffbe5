"""`headstart rank`: which network suits these images."""

from __future__ import annotations

import argparse
from dataclasses import replace
from textwrap import wrap
from typing import TYPE_CHECKING

from headstart.cli.console import say, say_json, tell
from headstart.cli.given import options_of, table_of
from headstart.cli.progress import watching
from headstart.counted import counted
from headstart.judge.marks import ends

if TYPE_CHECKING:
    from headstart.story.ranked import Ranked, Ranking

WIDTH = 100  # columns of text
NAME = 30  # of them for the name of a network, at most
DIAGNOSTICS = ("nce", "leep", "logme")


def rank(given: argparse.Namespace) -> None:
    from headstart.story.options import seconds_of

    options, budget = options_of(given), seconds_of(given.whole_job)
    from headstart.story.candidates import gathered

    candidates = gathered(given.backbones, given.download)
    table = table_of(given)
    from headstart.story.pipeline import announce, labelled
    from headstart.story.rank import Asked, rank
    from headstart.tasks.known import TASKS

    task = TASKS[table.task]
    table = task.prepare(labelled(table), given.min_images)
    with watching(tell) as watch:
        announce(table, watch)
        asked = Asked(candidates, budget, given.diagnostics, together=True)
        found = rank(task, table, replace(options, min_images=None), asked, watch)
    if given.json:
        say_json(found.to_json())
        return
    for line in lines(found):
        say(line)


def lines(found: Ranking) -> list[str]:
    """The ranking as a table of at most WIDTH columns, the cheapest network first, with what it means."""
    measure = found.measure.replace("_", " ")
    head = ("network", "images", measure, "95 % interval", "behind the best", "img/s", "whole job")
    rows = [head, *(_cells(found, row) for row in found.rows)]
    text = [_line(row, rows) for row in rows]
    more = [text[0], *(f"{line}{_mark(found, row)}" for line, row in zip(text[1:], found.rows, strict=True))]
    notes = [
        found.why,
        "* chosen; - behind beyond doubt before all images were seen; ~ within one standard error of the best",
        f"whole job: opening, a pass over {counted(found.n_images, 'image')} that teach, heads and their proof; s, "
        "predicted on this machine; its pace is part of the choice: another machine may choose another network",
        f"The {measure} of the best of several is flattered by the choice: fit judges what is chosen by other means.",
    ]
    if found.together:
        notes.append(_together(found))
    notes += [f"note: {note}" for note in found.notes]
    return [*more, *_diagnostics(found), "", *(line for note in notes for line in wrap(note, WIDTH))]


def _cells(found: Ranking, row: Ranked) -> tuple[str, ...]:
    value, low, high = ends(row.score)
    unit = 100 if found.percent else 1
    behind = ""
    if row.behind is not None:
        behind = "{:+.1f} ({:+.1f} to {:+.1f})".format(*(unit * end for end in ends(row.behind)))
    share = f"{value:.1%}" if found.percent else f"{value:.3f}"
    name = row.name if len(row.name) <= NAME else f"{row.name[: NAME - 3]}..."
    between = f"[{unit * low:.1f}, {unit * high:.1f}]" if found.percent else f"[{low:.3f}, {high:.3f}]"
    return name, f"{row.images:,}", share, between, behind, f"{row.images_per_second:.0f}", f"{row.seconds:.0f}"


def _line(row: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    width = [max(len(r[k]) for r in rows) for k in range(len(row))]
    return " ".join(
        cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, width, strict=True))
    )


def _mark(found: Ranking, row: Ranked) -> str:
    if row is found.chosen:
        return " *"
    return " -" if row.dropped else " ~" if row.as_good else ""


def _together(found: Ranking) -> str:
    pair = found.together
    assert pair is not None
    unit = 100 if found.percent else 1
    value, low, high = (unit * end for end in ends(pair.difference))
    verdict = "more than one standard error" if pair.wins else "no more than one standard error"
    return (
        f"{pair.first} and {pair.second} side by side: {value:+.1f} ({low:+.1f} to {high:+.1f}) beside the best alone, "
        f"{verdict}; headstart fit --backbone A+B weighs that again, and runs both where it wins."
    )


def _diagnostics(found: Ranking) -> list[str]:
    """NCE, LEEP and LogME, and how little they say."""
    if not any(row.diagnostics for row in found.rows):
        return []
    head = ("network", *(name.upper() if name != "logme" else "LogME" for name in DIAGNOSTICS))
    rows: list[tuple[str, ...]] = [head]
    for row in found.rows:
        values = [row.diagnostics.get(name) for name in DIAGNOSTICS]
        rows.append((row.name[:NAME], *("" if value is None else f"{value:.3f}" for value in values)))
    return [
        "",
        *(_line(row, rows) for row in rows),
        "Higher is better. They choose nothing: they tell less of the accuracy to come than left-out answers do.",
    ]
