"""The judged images that were answered wrongly, as a list that can be edited and applied (`relabel`, `review`).

The truth is at fault in some of them, and the model in the others: the list says what was answered and how surely, the
surest first, and leaves the decision to who looks.
"""

from __future__ import annotations

from headstart.files.cells import csv_bytes
from headstart.story.pipeline import Fitted

COLUMNS = ("path", "action", "label", "given", "probability", "reason")  # label: what was answered


def mistakes_list(fitted: Fitted) -> bytes | None:
    """The content of mistakes.csv, in the columns of suspected_labels.csv; None for answers that are no one class."""
    verdict, task, names = fitted.verdict, fitted.method.task, fitted.seen.targets.names
    if task.name != "classify":
        return None
    how = "in cross-validation" if fitted.plan.judge is None else "as a judged image"
    rows = []
    for place in task.galleries(verdict.marks)["worst"]:
        row, (answer, probability) = int(verdict.rows[place]), task.said(names, verdict.answers[place], fitted.rule)
        given = str(fitted.seen.table.labels[row])
        reason = f"answered {answer} at {probability:.0%} {how}"
        rows.append((str(fitted.seen.table.names[row]), "", answer, given, round(probability, 4), reason))
    return csv_bytes(COLUMNS, rows)
