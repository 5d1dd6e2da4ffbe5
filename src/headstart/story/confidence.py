"""What the sets of classes and the largest error come to on the judged images: see `tasks/confidence.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headstart import report
from headstart.counted import count, counted
from headstart.data.splits import folds
from headstart.heads.confident import NEVER, least_answers, least_groups
from headstart.judge.class_marks import decision_of
from headstart.judge.intervals import accuracy_interval, interval, paired_losses
from headstart.tasks.confidence import abstains, in_set
from headstart.tasks.task import Rule

if TYPE_CHECKING:
    from headstart.story.pipeline import Fitted

FOLDS = 5  # of the training images, where these are the judged ones too
Rows = npt.NDArray[np.int64]


def measured(fitted: Fitted) -> report.Confidence | None:
    """Of the judged images, each by thresholds that it did not set; None for a model without sets."""
    rule, verdict = fitted.rule, fitted.verdict
    if "set_from" not in rule:
        return None
    meant = np.empty(verdict.answers.shape[:2], dtype=bool)
    silent = np.empty(len(verdict.rows), dtype=bool)
    for rows, own in _thresholds(fitted):
        meant[rows], silent[rows] = in_set(verdict.answers[rows], own), abstains(verdict.answers[rows], own)
    truth, groups = verdict.marks["truth"], fitted.seen.groups[verdict.rows]
    held, sizes = meant[np.arange(len(truth)), truth], meant.sum(axis=1).astype(np.float64)
    mean = paired_losses(sizes, np.zeros(len(sizes)), groups)
    answered, error = None, None
    if "answer_from" in rule:
        wrong = decision_of(verdict.answers) != truth
        answered = accuracy_interval(~silent, groups)
        error = accuracy_interval(wrong[~silent], groups[~silent]) if not silent.all() else None
    return report.Confidence(
        n=len(truth),
        coverage=rule["coverage"][0],
        held=accuracy_interval(held, groups),
        size=interval(mean["value"], mean["low"], mean["high"], float(meant.shape[1]), 1.0),
        max_error=rule.get("max_error", (None,))[0],
        answered=answered,
        error=error,
        n_answered=int((~silent).sum()),
        sets=rule["set_from"][0] > 0,
        answers=rule.get("answer_from", (0.0,))[0] < NEVER,
    )


def _thresholds(fitted: Fitted) -> Iterator[tuple[Rows, Rule]]:
    """(places among the judged rows, the rule for them): the model's own where images were held out. Where the training
    images judge it by cross-validation, that of the other folds' left-out answers, since the model's own knows these
    images."""
    plan, rows = fitted.plan, fitted.verdict.rows
    material = fitted.seen.material(fitted.options.seed).part(plan.train)
    n_folds = min(FOLDS, len(np.unique(material.groups)))
    if plan.judge is not None or n_folds < 2:
        yield np.arange(len(rows)), fitted.rule
        return
    fold = folds(material.targets.strata, material.groups, n_folds, material.seed, material.keys)
    for k in range(n_folds):
        taught = np.flatnonzero(fold != k)
        left_out = fitted.head.left_out[taught]
        own = fitted.method.task.rule(material.targets.take(taught), left_out, material.groups[taught])
        yield np.flatnonzero(np.isin(rows, plan.train[fold == k])), own


def to_json(found: report.Confidence | None) -> dict[str, Any] | None:
    """As metrics.json has it."""
    if found is None:
        return None
    sets = {"coverage": found.coverage, "held": found.held, "set_size": found.size}
    answers = {"max_error": found.max_error, "answered": found.answered, "error": found.error}
    return {"n": found.n, **sets, **answers}


def remarks(fitted: Fitted) -> list[str]:
    """What the training images are too few, or too often mistaken, to promise; a line each."""
    rule, said = fitted.rule, []
    known = np.isfinite(fitted.head.left_out).all(axis=1)
    n = len(np.unique(fitted.seen.groups[fitted.plan.train][known])) if "set_from" in rule else 0
    images = f"{counted(n, 'independent training image')} {'was' if n == 1 else 'were'} left out"
    if "set_from" in rule and not rule["set_from"][0]:
        asked = rule["coverage"][0]
        why = f": {count(least_groups(asked))} are needed, {images}" if n < least_groups(asked) else ""
        said.append(f"sets with a coverage of {asked:.3g} hold all classes{why}")
    if rule.get("answer_from", (0.0,))[0] >= NEVER:
        asked, least = rule["max_error"][0], least_answers(rule["max_error"][0])
        why = f"{count(least)} right answers are needed, {images}"
        if n >= least:
            why = f"too many of the surest answers to the {counted(n, 'independent training image')} are wrong"
        said.append(f"--max-error {asked:g} cannot be promised, so every answer is marked as not sure enough: {why}")
    return said
