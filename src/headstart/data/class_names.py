"""What stands in a column of labels, as the names of classes: one spelling each, or a reason why these are none.

Blanks around a name and the way in which its accents are written do not tell classes apart; what a data frame writes
for a missing value is no class; 1.0 is the class 1. What was changed is said. What would become classes that nobody
means is refused: several labels in one cell, names of files, whole texts.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import PurePosixPath

from headstart.data.folder_names import SPLIT_NAMES
from headstart.data.places import PICTURES
from headstart.data.sheets import MISSING, Sheet, stripped
from headstart.data.truth import MEASURED
from headstart.errors import DataError
from headstart.files.cells import CONTROL, quoted

LONGEST = 500  # characters of a name, ImageNet's have up to 250: longer ones are texts, or pictures in a wrong column
BETWEEN = (";", "|", ",", "+", "/", "&")  # what people write between several labels
SURE = frozenset(";|")  # and seldom within one name
LISTING = frozenset(";|,")  # and not between the parts of one name, such as animals/cats


def class_names(sheet: Sheet, values: list[str]) -> list[str]:
    """The class of each row, "" for none. Raises DataError."""
    counts = Counter(values)
    clean = _without_brackets(sheet, clean_names(sheet, values))
    sizes = Counter[str]()
    for value, count in counts.items():
        sizes[clean[value]] += count
    _check_one_label(sheet, sizes)
    _check_no_files(sheet, sizes)
    whole = _whole_numbers(sheet, sizes)
    named = {value: whole.get(name, name) for value, name in clean.items()}
    _say_merged(sheet, clean)
    _say_alike(sheet, set(named.values()) - {""})
    return [named[value] for value in values]


def clean_names(sheet: Sheet, values: list[str]) -> dict[str, str]:
    """Each different value -> it in composed form without blanks around it, "" where it stands for none.

    Raises DataError for what is no name.
    """
    counts = Counter(values)
    clean = {value: unicodedata.normalize("NFC", stripped(value)) for value in counts}
    missing = Counter[str]()
    for value, name in clean.items():
        if name in MISSING:
            missing[name] += counts[value]
            clean[value] = ""
    _check_text(sheet, values, clean)
    _say_missing(sheet, missing)
    return clean


def _check_text(sheet: Sheet, values: list[str], clean: Mapping[str, str]) -> None:
    wrong = {value for value, name in clean.items() if len(name) > LONGEST or CONTROL.search(name)}
    if wrong:
        row = next(row for row, value in enumerate(values) if value in wrong)
        size = len(values[row])
        what = f"has {size:,} characters" if size > LONGEST else "holds control characters"
        raise DataError(
            f"{sheet.row(row)}: the label {quoted(values[row])} {what}, which is no name of a class (at most {LONGEST} "
            "characters, without control characters): is this the column of the labels?"
        )


def _without_brackets(sheet: Sheet, clean: dict[str, str]) -> dict[str, str]:
    """['ants'] is ants, where every label is such a list of one. Raises DataError where one is a list of several."""
    inner = listed({name for name in clean.values() if name})
    if inner is None:
        return clean
    several = next((name for name, found in inner.items() if len(found) > 1), None)
    if several is not None:
        raise DataError(_several(sheet, several))
    sheet.notes.append(
        f"each label is a list of one: {quoted(min(inner))} is the class {quoted(''.join(inner[min(inner)]))}"
    )
    return {value: "".join(inner.get(name, ())) for value, name in clean.items()}


def listed(names: AbstractSet[str]) -> dict[str, list[str]] | None:
    """Each name -> what stands in its brackets; None where not every name is such a list."""
    ends = (("[", "]"), ("(", ")"), ("{", "}"))
    inner = {name: _listed(name) for name in names if name and (name[0], name[-1]) in ends}
    return inner if names and len(inner) == len(names) else None


def _listed(name: str) -> list[str]:
    found = (part.strip().strip("'\"").strip() for part in name[1:-1].split(","))
    return [part for part in found if part]


def _several(sheet: Sheet, name: str) -> str:
    return (
        f"{sheet.where}: the label {quoted(name)} looks like several labels of one image: for --task tag write | "
        "between them; else keep one class for each image, or, if it is the name of one class, write it without "
        "brackets and delimiters"
    )


def _check_one_label(sheet: Sheet, sizes: Mapping[str, int]) -> None:
    """Raises DataError where names are put together from others."""
    if found := put_together(sizes):
        raise DataError(_several(sheet, found[1]))


def put_together(sizes: Mapping[str, int]) -> tuple[str, str] | None:
    """(sign, name) where names are put together from others: "ants;flower" beside "ants".

    Beside ; and | one part that stands elsewhere too, alone or with others, is enough. Beside the other signs all must,
    since names may hold them: "crane, bird" beside "crane" is a name. Half of the names with such a sign must be put
    together so: of the 21,000 classes of ImageNet, which are lists of synonyms, a few seem to be.
    """
    for between in BETWEEN:
        combined = {name: [part.strip() for part in name.split(between)] for name in sizes if between in name}
        within = Counter(part for parts in combined.values() for part in set(parts))
        together = [name for name, parts in combined.items() if _put_together(between, parts, sizes, within, combined)]
        if together and 2 * len(together) >= len(combined):
            return between, min(together)
    return None


def _put_together(
    between: str,
    parts: list[str],
    sizes: Mapping[str, int],
    within: Mapping[str, int],
    combined: Mapping[str, list[str]],
) -> bool:
    known = [bool(part) and (part in sizes or within[part] > 1) for part in parts]
    enough = any(known) if between in SURE else all(known)
    return enough and (between in LISTING or any(part in sizes for part in parts) or _change_places(combined))


def _change_places(combined: Mapping[str, list[str]]) -> bool:
    """Whether the names have different numbers of parts, or a part stands first here and second there.

    "left/cat" and "right/cat" are put together too, but always in one order.
    """
    if len({len(parts) for parts in combined.values()}) > 1:
        return True
    first: dict[str, int] = {}
    return any(first.setdefault(part, at) != at for parts in combined.values() for at, part in enumerate(parts))


def _check_no_files(sheet: Sheet, sizes: Mapping[str, int]) -> None:
    """Raises DataError where all labels are names of files, of kinds of them (jpg, image/png), or of parts (train)."""
    names = [name.lower() for name in sizes if name]
    meant = {
        "names of files": all(PurePosixPath(name).suffix in PICTURES for name in names),
        "kinds of files": all(name.startswith("image/") or f".{name}" in PICTURES for name in names),
        "parts of the data": len(names) > 1 and all(name in SPLIT_NAMES for name in names),
    }
    what = next((what for what, fits in meant.items() if fits and names), "")
    if what:
        raise DataError(
            f"{sheet.where}: the labels look like {what}, such as {quoted(min(names))}: name the column that "
            "holds the classes label, and no other"
        )


def _whole_numbers(sheet: Sheet, sizes: Mapping[str, int]) -> dict[str, str]:
    """1.0 -> 1, where all labels are whole numbers and some are written so; a data frame with gaps does that."""
    names = [name for name in sizes if name]
    if not all(re.fullmatch(r"-?(0|[1-9]\d*)(\.0+)?", name) for name in names):
        return {}
    floats = {name: name.partition(".")[0] for name in names if "." in name}
    if floats:
        one = min(floats)
        sheet.notes.append(
            f"labels are whole numbers, written with a point: {quoted(one)} is the class {quoted(floats[one])}"
        )
    return floats


def _say_missing(sheet: Sheet, missing: Counter[str]) -> None:
    missing.pop("", 0)
    for name, count in sorted(missing.items()):
        sheet.notes.append(
            f"the label {quoted(name)} of {count} {sheet.unit}{'s' if count != 1 else ''} was taken for a missing one: "
            "if it is a class, give it another name"
        )


def _say_merged(sheet: Sheet, named: Mapping[str, str]) -> None:
    spellings: dict[str, list[str]] = {}
    for value, name in named.items():
        if name:
            spellings.setdefault(name, []).append(value)
    merged = {name: sorted(found) for name, found in spellings.items() if len(found) > 1}
    if merged:
        name = min(merged)
        sheet.notes.append(
            f"{len(merged)} class{'es are' if len(merged) > 1 else ' is'} spelt in more than one way, with blanks or "
            f"accents, and counted as one: {' and '.join(map(quoted, merged[name][:3]))}"
        )


def _say_alike(sheet: Sheet, names: Iterable[str]) -> None:
    alike: dict[str, list[str]] = {}
    for name in sorted(names):
        alike.setdefault(re.sub(r"[\W_]+", " ", name.casefold()).strip() or name, []).append(name)
    twice = [found for found in alike.values() if len(found) > 1]
    if twice:
        sheet.notes.append(
            f"classes that differ only in letter case, blanks or signs: {' and '.join(map(quoted, twice[0]))}"
            f"{f', and {len(twice) - 1} more' if len(twice) > 1 else ''}; write them alike if they are one"
        )


def looks_measured(labels: Iterable[str]) -> bool:
    """Whether labels are numbers of which most stand for one image: a length, an age, a price."""
    sizes = Counter(label for label in labels if label)
    lonely = sum(size == 1 for size in sizes.values())
    numbers = all(re.fullmatch(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?", name) for name in sizes)
    return len(sizes) >= MEASURED and 2 * lonely >= len(sizes) and numbers


def check_not_measured(where: str, labels: Iterable[str]) -> None:
    """Raises DataError where the labels look like a measured value."""
    sizes = Counter(label for label in labels if label)
    if looks_measured(sizes.elements()):
        some = ", ".join(sorted(sizes)[:3])
        raise DataError(
            f"{where}: the labels look like a measured value, not like classes: {len(sizes)} different numbers ({some} "
            f"...), {sum(size == 1 for size in sizes.values())} of them with a single image; learn the value with "
            "--task regress, or write a class for each range of values, such as small, large"
        )
