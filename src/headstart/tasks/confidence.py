"""What a classifier says of its own answers: the set of classes that can be meant, and whether it is sure enough.

Both are a part of the model's rule: `coverage` and `set_from`, the probability from which a class belongs to the set,
one for all classes or one for each; of adaptive sets `set_limit` and `set_penalty` (penalty, free classes) instead;
`max_error` and `answer_from`, the probability from which an answer counts, where the user has set a largest error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.targets import Targets, class_numbers
from headstart.heads.adaptive import above_all, adaptive, scores
from headstart.heads.confident import NEVER, answer_threshold, class_thresholds, set_threshold
from headstart.heads.material import Ints
from headstart.heads.spectrum import Doubles
from headstart.judge.class_marks import decision_of, probabilities_of
from headstart.tasks.task import Record, Rule

LEAST_AMBIGUOUS, ADAPTIVE, CLASSWISE = SETS = ("lac", "raps", "classwise")
COVERAGE = 0.9  # of the sets, where the user says nothing; the intervals of measured values have it too


def confidence(
    coverage: float | None,
    max_error: float | None,
    targets: Targets,
    left_out: Doubles,
    groups: Ints,
    decided: Ints | None = None,
    sets: str = LEAST_AMBIGUOUS,
) -> Rule:
    """The rule, from log-probabilities left out (image, class); None: COVERAGE, and no largest error. decided (image,):
    the answers, where they are not the most probable classes. sets: one of SETS."""
    known = np.isfinite(left_out).all(axis=1)
    p, y, groups = np.exp(left_out[known]), class_numbers(targets)[known], groups[known]
    share = COVERAGE if coverage is None else coverage
    answer = p.argmax(axis=1) if decided is None else decided[known]
    found = {"coverage": (share,), **_sets(sets, p, answer, y, share, groups)}
    if max_error is None:
        return found
    sure = p[np.arange(len(y)), answer]
    least = answer_threshold(sure, answer == y, max_error, groups) if len(y) else NEVER
    return {**found, "max_error": (max_error,), "answer_from": (least,)}


def _sets(sets: str, p: Doubles, answer: Ints, y: Ints, share: float, groups: Ints) -> dict[str, tuple[float, ...]]:
    if sets == ADAPTIVE:
        found = adaptive(p, answer, y, share, groups)
        return {"set_limit": (found.limit,), "set_penalty": (found.penalty, float(found.free))}
    if sets == CLASSWISE:
        return {"set_from": tuple(class_thresholds(p, y, share, groups).tolist())}
    return {"set_from": (set_threshold(p[np.arange(len(y)), y], share, groups),)}


def has_sets(rule: Rule) -> bool:
    """Whether it says which classes can be meant; models of before have none."""
    return "set_from" in rule or "set_limit" in rule


def sets_of(rule: Rule) -> str:
    """Which of SETS a rule that has them makes."""
    if "set_limit" in rule:
        return ADAPTIVE
    return LEAST_AMBIGUOUS if len(rule["set_from"]) == 1 else CLASSWISE


def in_every_set(rule: Rule, n_classes: int) -> NDArray[np.bool_]:
    """(class,): which classes each set holds, since the images were too few to say more, or nothing less would do."""
    if "set_limit" in rule:
        return np.full(n_classes, rule["set_limit"][0] >= above_all(n_classes, rule["set_penalty"][0]))
    return np.broadcast_to(np.array(rule["set_from"]) <= 0, (n_classes,))


def check_sets(rule: Rule, n_classes: int) -> None:
    """Raises ValueError for a saved rule whose sets are not of so many classes."""
    if len(rule.get("set_from", (0.0,))) not in (1, n_classes):
        raise ValueError(f"it has {len(rule['set_from'])} thresholds of sets, needed: 1 or {n_classes}")
    if ("set_limit" in rule) != ("set_penalty" in rule):
        raise ValueError("of set_limit and set_penalty it has one, and they belong together")


def in_set(answers: NDArray[np.floating[Any]], rule: Rule) -> NDArray[np.bool_]:
    """(image, class): which classes each image's set holds, of answers as the judge takes them. Never none of them: the
    answer at least, which can only hold the truth more often. Raises KeyError for a rule without sets."""
    p, answer = probabilities_of(answers), decision_of(answers)
    first = np.arange(answers.shape[1]) == answer[:, None]
    if "set_limit" in rule:
        penalty, free = rule["set_penalty"]
        return np.asarray((scores(p, answer, penalty, int(free)) <= rule["set_limit"][0]) | first)
    return np.asarray((p >= np.array(rule["set_from"])) | first)


def abstains(answers: NDArray[np.floating[Any]], rule: Rule) -> NDArray[np.bool_]:
    """(image,): whether the answer is not sure enough; never, where no largest error was set."""
    sure = probabilities_of(answers)[np.arange(len(answers)), decision_of(answers)]
    return np.asarray(sure < rule.get("answer_from", (0.0,))[0])


def ranking(answer: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Classes of one image's answer: the one answered, then the others by their probability, the highest first."""
    p, first = probabilities_of(answer[None])[0], int(decision_of(answer[None])[0])
    order = np.argsort(-p, kind="stable")
    return np.concatenate([[first], order[order != first]]).astype(np.int64)


def decided(names: Sequence[str], answer: NDArray[np.floating[Any]], rule: Rule) -> Record:
    """{"set": the classes that can be meant, best first, "abstain"}; each only where the rule has it: models of before
    have none, and without a largest error there is nothing to abstain from."""
    said: Record = {}
    if has_sets(rule):
        order = ranking(answer)
        meant = in_set(answer[None], rule)[0]
        said["set"] = [names[k] for k in order if meant[k]]
    if "answer_from" in rule:
        said["abstain"] = bool(abstains(answer[None], rule)[0])
    return said
