"""How much the score differs between the user's groups: hospitals, cameras, sites.

Of a model that was cross-validated each group is left out in turn, if there are few: the others teach, all chosen anew
(`story/folds.py`). Else the images that judge the model are parted by group: no group taught and judged at once, unless
the user's own split says so.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from headstart.data.duplicates import DuplicateSet, tie_groups
from headstart.heads.material import Ints, Material
from headstart.heads.without import Shared
from headstart.judge.marks import Interval, Marks
from headstart.story.evidence import Method
from headstart.story.folds import Fitter, fitter
from headstart.story.plan import Plan
from headstart.tasks.task import Head, Verdict

FEWEST, MOST = 3, 50  # groups that are left out in turn: of more each fold of the cross-validation leaves out several
LEAST = 10  # images of a group that is compared with others: one image more or less moves it by 10 points at most
SHUFFLES = 999  # of images among groups

How = Literal["left out in turn", "by the fold that left it out", "of the judged images"]


@dataclass(frozen=True)
class OneGroup:
    """The headline on the `n` judged images of a group, as of independent images of it."""

    name: str
    n: int
    value: Interval


@dataclass(frozen=True)
class ByGroup:
    """each: worst first. `p`: how often chance alone makes as wide a spread (None: not known). not_judged: groups that
    alone hold a class."""

    how: How
    measure: str
    each: tuple[OneGroup, ...]
    p: float | None
    not_judged: tuple[str, ...] = ()

    @property
    def compared(self) -> tuple[OneGroup, ...]:
        """Those with enough images to be compared, worst first."""
        return tuple(one for one in self.each if one.n >= LEAST)

    def to_json(self) -> dict[str, Any]:
        """As metrics.json has it."""
        shown = self.compared
        return {
            "how": self.how,
            "measure": self.measure,
            "worst": shown[0].name if shown else None,
            "best": shown[-1].name if shown else None,
            "p": self.p,
            "each": [{"group": one.name, "n": one.n, **one.value} for one in self.each],
            "not_judged": list(self.not_judged),
        }


def by_group(
    names: npt.NDArray[np.object_],
    duplicates: list[DuplicateSet],
    material: Material,
    plan: Plan,
    head: Head,
    method: Method,
    verdict: Verdict,
    shared: Shared | None = None,
) -> ByGroup | None:
    """names (image,): the user's groups, "" = none; copies of a picture count as one. `shared`: as of `judge`. None
    where fewer than two groups are judged."""
    copies = tie_groups(len(names), duplicates, np.full(len(names), "", dtype=object))
    kinds = sorted(set(names[plan.train].tolist()) - {""})
    if plan.judge is None and method.closed and method.task.own is None and FEWEST <= len(kinds) <= MOST:
        rows, marks, missed = _left_out(names, kinds, material, plan, head, method, shared)
        return _told("left out in turn", names, rows, marks, copies, method, missed)
    how: How = "of the judged images" if plan.judge is not None else "by the fold that left it out"
    return _told(how, names, verdict.rows, verdict.marks, copies, method, ())


def _left_out(
    names: npt.NDArray[np.object_],
    kinds: list[str],
    material: Material,
    plan: Plan,
    head: Head,
    method: Method,
    shared: Shared | None,
) -> tuple[Ints, Marks | None, tuple[str, ...]]:
    """(rows, their marks, groups that cannot be left out): each group by what the others teach, without its copies."""
    mine, own = material.part(plan.train), names[plan.train]
    fit = fitter(method.task, mine, method.sets, shared=shared, near=head.candidates)
    parts, missed = [], []
    for kind in kinds:
        held = np.flatnonzero(own == kind)
        taught = np.flatnonzero(~np.isin(mine.groups, mine.groups[held]))
        (parts.append((taught, held)) if _teaches(mine, taught, method) else missed.append(kind))
    if not parts:
        return plan.train[:0], None, tuple(missed)
    with threadpool_limits(1, "blas"):
        if isinstance(fit, Fitter):
            fit.prepare([taught for taught, _ in parts])
        answers = np.concatenate([fit(taught)(held) for taught, held in parts])
    rows = np.concatenate([held for _, held in parts])
    marks = method.task.judging.mark(mine.targets.take(rows), answers)
    return plan.train[rows], marks, tuple(missed)


def _teaches(material: Material, rows: Ints, method: Method) -> bool:
    """Whether these rows hold what all rows do: two independent images of each class or label."""
    if len(np.unique(material.groups[rows])) < 2:
        return False
    strata = material.targets.strata
    if method.task.name == "regress":
        return True
    if strata.ndim > 1:
        return bool((strata[rows].sum(axis=0) > 0).all())
    pairs = np.unique(np.stack([strata[rows], material.groups[rows]]), axis=1)[0]
    return set(np.unique(strata)) <= {c for c, n in Counter(pairs.tolist()).items() if n > 1}


def _told(
    how: How,
    names: npt.NDArray[np.object_],
    rows: Ints,
    marks: Marks | None,
    copies: Ints,
    method: Method,
    missed: tuple[str, ...],
) -> ByGroup | None:
    measure, found = method.task.judging.headline, []
    if marks is None:
        return None
    of = names[rows]
    for kind in sorted(set(of.tolist()) - {""}):
        here = np.flatnonzero(of == kind)
        value = measure.of(marks.take(here), copies[rows[here]])
        if value["value"] is not None:
            found.append(OneGroup(kind, len(here), value))
    if len(found) < 2:
        return None
    sign = 1 if measure.higher_is_better else -1
    found.sort(key=lambda one: (sign * float(one.value["value"] or 0.0), -one.n, one.name))
    return ByGroup(how, measure.name, tuple(found), _p(of, rows, marks, copies), missed)


def _p(of: npt.NDArray[np.object_], rows: Ints, marks: Marks, copies: Ints) -> float | None:
    """How often pictures shuffled among the groups that are compared spread their shares as wide: the variance of
    shares by groups, weighted by their images."""
    sizes = Counter(of.tolist())
    here = np.flatnonzero([bool(name) and sizes[name] >= LEAST for name in of])
    if "right" not in marks.columns or len({*of[here]}) < 2:
        return None
    right = marks["right"][here].astype(np.float64)
    _, first, picture = np.unique(copies[rows[here]], return_index=True, return_inverse=True)
    right = (np.bincount(picture, weights=right) / np.bincount(picture)).astype(np.float64)
    _, group = np.unique(of[here][first], return_inverse=True)
    counts, rng = np.bincount(group), np.random.default_rng(0)

    def spread(values: npt.NDArray[np.float64]) -> float:
        return float((np.bincount(group, weights=values) ** 2 / counts).sum())

    seen = spread(right) - 1e-9
    return (1 + sum(spread(rng.permutation(right)) >= seen for _ in range(SHUFFLES))) / (1 + SHUFFLES)
