"""What the sets of classes and the largest error come to on the judged images: see `tasks/confidence.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headstart import report
from headstart.counted import and_so_on, count, counted
from headstart.data.splits import folds
from headstart.heads.confident import NEVER, least_answers, least_groups
from headstart.judge.class_marks import decision_of
from headstart.judge.intervals import accuracy_interval, interval, paired_losses
from headstart.report import ClassHeld
from headstart.tasks.confidence import CLASSWISE, abstains, has_sets, in_every_set, in_set, sets_of
from headstart.tasks.task import Rule

if TYPE_CHECKING:
    from headstart.story.pipeline import Fitted

FOLDS = 5  # of the training images, where these are the judged ones too
Rows = npt.NDArray[np.int64]


def measured(fitted: Fitted) -> report.Confidence | None:
    """Of the judged images, each by thresholds that it did not set; None for a model without sets."""
    rule, verdict = fitted.rule, fitted.verdict
    if not has_sets(rule):
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
        sets=not in_every_set(rule, meant.shape[1]).all(),
        answers=rule.get("answer_from", (0.0,))[0] < NEVER,
        method=sets_of(rule),
        classes=_by_class(truth, held, groups, fitted.seen.targets.names),
        in_every_set=_everywhere(fitted),
    )


def _by_class(truth: Rows, held: npt.NDArray[np.bool_], groups: Rows, names: Sequence[str]) -> tuple[ClassHeld, ...]:
    """The judged classes, of which least was held first; of equals the one with more images."""
    found = []
    for k in np.unique(truth):
        of = truth == k
        found.append(ClassHeld(names[k], int(of.sum()), accuracy_interval(held[of], groups[of])))
    return tuple(sorted(found, key=lambda c: (c.held["value"], -c.n)))


def _everywhere(fitted: Fitted) -> tuple[str, ...]:
    """The classes that every set holds."""
    names = fitted.seen.targets.names
    return tuple(name for name, always in zip(names, in_every_set(fitted.rule, len(names)), strict=True) if always)


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
    sets = {"sets": found.method, "coverage": found.coverage, "held": found.held, "set_size": found.size}
    classes = [{"class": c.name, "n": c.n, "held": c.held} for c in found.classes]
    sets |= {"by_class": classes, "in_every_set": list(found.in_every_set)}
    answers = {"max_error": found.max_error, "answered": found.answered, "error": found.error}
    return {"n": found.n, **sets, **answers}


def remarks(fitted: Fitted) -> list[str]:
    """What the training images are too few, or too often mistaken, to promise; a line each."""
    rule, said = fitted.rule, []
    known = np.isfinite(fitted.head.left_out).all(axis=1)
    n = len(np.unique(fitted.seen.groups[fitted.plan.train][known])) if has_sets(rule) else 0
    images = f"{counted(n, 'independent training image')} {'was' if n == 1 else 'were'} left out"
    everywhere = _everywhere(fitted) if has_sets(rule) else ()
    if everywhere and len(everywhere) == len(fitted.seen.targets.names):
        asked, each = rule["coverage"][0], " of each class" if sets_of(rule) == CLASSWISE else ""
        why = f": {count(least_groups(asked))}{each} are needed, {images}" if n < least_groups(asked) or each else ""
        said.append(f"sets with a coverage of {asked:.3g} hold all classes{why}")
    elif everywhere:
        few, asked = len(everywhere), rule["coverage"][0]
        said.append(
            f"{counted(few, 'class', 'classes')} of {len(fitted.seen.targets.names)} {'is' if few == 1 else 'are'} in "
            f"every set: {and_so_on(everywhere)}. A coverage of {asked:.3g} of a class needs "
            f"{counted(least_groups(asked), 'independent training image')} of its own"
        )
    if rule.get("answer_from", (0.0,))[0] >= NEVER:
        asked, least = rule["max_error"][0], least_answers(rule["max_error"][0])
        why = f"{count(least)} right answers are needed, {images}"
        if n >= least:
            why = f"too many of the surest answers to the {counted(n, 'independent training image')} are wrong"
        said.append(f"--max-error {asked:g} cannot be promised, so every answer is marked as not sure enough: {why}")
    return said
