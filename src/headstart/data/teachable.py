"""Whether there is enough to learn a truth from, by task: what is too little is refused, what is scarce is noted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from headstart.counted import counted
from headstart.data.box_text import boxes_in
from headstart.data.good import GOOD
from headstart.data.mask_text import drawn_in
from headstart.data.tree import some
from headstart.data.truth import number_in, tags_in, values_in
from headstart.errors import DataError
from headstart.files.cells import quoted

# A 90 % interval by conformal residuals needs 9 of them, ceil(0.9 (n + 1)) <= n (Lei et al. 2018, section 2.2), and
# the image that is judged is none of them.
LEAST_VALUES = 10
LEAST_IMAGES = 2  # of a label or an identity: one is judged by what the other taught
LEAST_IDENTITIES = 2
LEAST_GOOD = 10  # pictures: with fewer, most patches of a good one are of no other
NAMED = 10


def check_teachable(where: str, task: str, labels: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Notes on the training images' labels (image,), in the form of `truth.py`. Raises DataError for too few.

    A label with a single image, or that no image lacks, is kept and noted: it can be learned, badly, and left out of
    the model it would be a wrong "no". Classes are seen to in `scarce.py`.
    """
    known = [label for label in labels if label]
    check = CHECKS.get(task)
    return check(where, known, columns) if check else []


def _tags(where: str, labels: Sequence[str], _: Sequence[str]) -> list[str]:
    sets = [tags_in(label) for label in labels]
    _check_one_kind(where, sorted(set().union(*(present for present, _ in sets))))
    there = Counter(name for present, _ in sets for name in present)
    known = {name: sum(name not in unknown for _, unknown in sets) for name in there}
    few = {name for name, count in there.items() if count < LEAST_IMAGES}
    always = {name for name, count in there.items() if count == known[name] and name not in few}
    if few | always == set(there):
        raise DataError(
            f"{where}: no label can be told, since each is in fewer than {LEAST_IMAGES} training images or in all of "
            "them: add images that have one, and images that lack it"
        )
    notes = []
    if few:
        notes.append(f"in a single training image, so no score says how well it is learned: {_listed(few)}")
    if always:
        notes.append(f"in every training image, so nothing says what its absence looks like: {_listed(always)}")
    return notes


def _check_one_kind(where: str, names: Sequence[str]) -> None:
    """Raises DataError where some labels are measured numbers and others are names: one column of mixed kinds."""
    measured = [name for name in names if number_in(name) is not None and not name.isdecimal()]
    others = [name for name in names if number_in(name) is None]
    if measured and others:
        raise DataError(
            f"{where} has both numbers such as {quoted(measured[0])} and names such as {quoted(others[0])} as labels: "
            "give one kind in a column, and name the one that holds the truth with --label"
        )


def _values(where: str, labels: Sequence[str], columns: Sequence[str]) -> list[str]:
    if len(labels) < LEAST_VALUES:
        raise DataError(
            f"{where} has {counted(len(labels), 'training image')} with a value: at least {LEAST_VALUES} are needed, "
            "since an interval that holds 90 % of the values is read from 9 errors or more"
        )
    values = np.array([values_in(label) for label in labels])
    constant = [name for name, column in zip(columns, values.T, strict=True) if np.ptp(column) == 0]
    if constant:
        value = values[0, list(columns).index(constant[0])]
        raise DataError(
            f"{where}: column {constant[0]!r} is {value:g} in all training images, so there is nothing to learn: name "
            "another with --label"
        )
    return []


def _identities(where: str, labels: Sequence[str], _: Sequence[str]) -> list[str]:
    sizes = Counter(labels)
    single = sorted(name for name, count in sizes.items() if count < LEAST_IMAGES)
    if len(sizes) - len(single) < LEAST_IDENTITIES:
        raise DataError(
            f"{where}: {len(sizes) - len(single)} of {len(sizes)} identities have {LEAST_IMAGES} training images or "
            f"more, and {LEAST_IDENTITIES} are needed: whether a picture is recognised is judged by another of the same"
        )
    return [f"identities with a single image, which can be told but not judged: {_listed(single)}"] if single else []


def _good(where: str, labels: Sequence[str], _: Sequence[str]) -> list[str]:
    n = sum(label == GOOD for label in labels)
    if n < LEAST_GOOD:
        raise DataError(
            f"{where} has {counted(n, 'good picture')} to learn from: at least {LEAST_GOOD} are needed, and 19 for a "
            "false-alarm rate of 5 %; add good ones, or say with --good which labels are good"
        )
    return []


def _masks(where: str, labels: Sequence[str], columns: Sequence[str]) -> list[str]:
    if len(labels) < LEAST_IMAGES:
        raise DataError(
            f"{where} has {counted(len(labels), 'training picture')} with a mask: at least {LEAST_IMAGES} are needed, "
            "since one is judged by what the others taught"
        )
    held = Counter(number for label in labels for number in drawn_in(label).pixels)
    if len(held) < 2:
        only = ", ".join(repr(columns[number]) for number in held)
        raise DataError(f"{where}: all training masks are of one class, {only}: there is nothing to tell apart")
    never = [name for number, name in enumerate(columns) if not held[number]]
    single = [name for number, name in enumerate(columns) if held[number] == 1]
    notes = [f"in no training mask, so never answered: {_listed(never)}"] if never else []
    return [*notes, f"in a single training mask, so hardly learned: {_listed(single)}"] if single else notes


def _boxes(where: str, labels: Sequence[str], columns: Sequence[str]) -> list[str]:
    if len(labels) < LEAST_IMAGES:
        raise DataError(
            f"{where} has {counted(len(labels), 'training picture')} of which boxes are known: at least {LEAST_IMAGES} "
            "are needed, since one is judged by what the others taught"
        )
    held = Counter(number for label in labels for number in {box.number for box in boxes_in(label)})
    single = [name for number, name in enumerate(columns) if held[number] == 1]
    return [f"in a single training picture, so hardly learned: {_listed(single)}"] if single else []


def _listed(names: Sequence[str] | set[str]) -> str:
    return some([repr(name) for name in sorted(names)], NAMED)


CHECKS = {
    "tag": _tags,
    "regress": _values,
    "recognise": _identities,
    "anomaly": _good,
    "segment": _masks,
    "detect": _boxes,
}
