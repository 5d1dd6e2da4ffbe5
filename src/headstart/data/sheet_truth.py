"""What the columns of a list say of each image, for its task: a class, labels, measured values.

| what stands there | read by itself ("auto") as |
|---|---|
| a column of labels, one a cell | classes |
| cells with `;` or `|` between labels that stand elsewhere too; lists in Parquet, JSON and brackets | tags |
| no such column but several of 0 and 1 (true, yes), empty = unknown | tags; classes where every row has exactly one 1 |
| numbers, 10 or more different ones in the training rows, half of them or more of a single image | values |
| a numeric column called value, score or the like, where no column is called label | values |

`--task` decides otherwise and `--label` names the columns; what does not fit is refused.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from headstart.counted import counted
from headstart.data.class_names import class_names, clean_names, listed, looks_measured, put_together
from headstart.data.columns import column_called, label_column, named, no_label, places, role_of, squeezed
from headstart.data.folders import counts
from headstart.data.good import GOOD
from headstart.data.sheets import MISSING, Sheet, stripped
from headstart.data.sources import Row
from headstart.data.truth import (
    BETWEEN,
    MEASURED,
    NONE_OF_THEM,
    NUMBER,
    Asked,
    check_tag,
    number_in,
    number_text,
    tag_text,
    tags_in,
)
from headstart.errors import DataError, LabelsError, nearest
from headstart.files.cells import quoted

VALUES = frozenset("value values measurement measurements measured score scores amount quantity".split())  # noqa: SIM905
TRUE = frozenset(("1", "1.0", "true", "yes", "t", "y"))
FALSE = frozenset(("0", "0.0", "false", "no", "f", "n"))
DOUBTFUL = frozenset(("-1", "-1.0"))  # CheXpert's mark of an uncertain finding
SEPARATORS = (BETWEEN, ";")


class Truth(NamedTuple):
    """texts (row): in the form of `truth.py`. columns: from which values, or labels of 0 and 1, were read."""

    texts: list[str]
    task: str
    columns: tuple[str, ...] = ()


def wanted(names: Sequence[str], asked: Asked | None) -> set[int]:
    """The columns that must be read although their names say nothing; asked None: no truth is needed."""
    if asked is None:
        return set()
    also = {place for name in asked.beside if (place := column_called(names, name)) is not None}
    if asked.label is not None:
        return set(_asked_for(names, asked.label)[0]) | also
    labelled = any(role_of(name) in ("label", "label?") for name in names)
    return set(range(len(names))) if not labelled or not (asked.one_class or asked.task == "auto") else also


def truth_of(sheet: Sheet, asked: Asked, splits: Sequence[str]) -> Truth:
    """The truth of each row; splits (row,) say which rows teach. Raises DataError."""
    if asked.task == "anomaly" and asked.label is None and label_column(sheet) is None:
        return _all_good(sheet, asked)
    columns = _named_columns(sheet, asked.label) if asked.label is not None else _columns(sheet, asked)
    if len(columns) == 1 and (asked.task != "tag" or not _is_flags(sheet, columns[0])):
        return _of_column(sheet, columns[0], asked, splits)
    if asked.task != "regress" and all(_is_flags(sheet, column) for column in columns):
        return _of_flags(sheet, columns, asked)
    if asked.task == "regress" or (asked.task == "auto" and all(_is_numeric(sheet, column) for column in columns)):
        return _of_numbers(sheet, columns)
    where = f"{sheet.where}: columns {named(sheet, columns)}"
    if asked.one_class:
        raise DataError(f"{where} are several, and one holds the classes: name that one with --label")
    wrong = next(column for column in columns if not _is_flags(sheet, column))
    row, value = _first_not(sheet, wrong, TRUE | FALSE)
    raise DataError(
        f"{where} are not all of 0 and 1, one a label: {sheet.row(row)} holds {quoted(value)} in column "
        f"{named(sheet, [wrong])}; leave that one out, or write 1, 0, or nothing where it is unknown"
    )


def _all_good(sheet: Sheet, asked: Asked) -> Truth:
    """A list of pictures without labels, all of them good. Raises DataError where a column may hold the truth."""
    beside = {column_called(sheet.names, name) for name in asked.beside}
    maybe = [place for place in sheet.values if place not in beside and _is_varied(sheet, place)]
    if maybe:
        raise DataError(f"{no_label(sheet)}; without labels all pictures would be taken as good")
    sheet.notes.append("no column of labels: all pictures are taken as good")
    return Truth([GOOD] * len(sheet), asked.task)


def _asked_for(names: Sequence[str], label: str) -> tuple[list[int], list[str]]:
    """(the columns that --label names, names that are none)."""
    exact = [name.strip() for name in names]
    plain = [squeezed(name) for name in names]
    found, missing = [], []
    for name in [label.strip()] if label.strip() in exact else [part.strip() for part in label.split(",")]:
        if name in exact:
            found.append(exact.index(name))
        elif squeezed(name) and plain.count(squeezed(name)) == 1:
            found.append(plain.index(squeezed(name)))
        else:
            missing.append(name)
    return list(dict.fromkeys(found)), missing


def _named_columns(sheet: Sheet, label: str) -> list[int]:
    found, missing = _asked_for(sheet.names, label)
    missing += [sheet.names[place] for place in found if place not in sheet.values]
    if missing or not found:
        name = "".join(missing[:1])
        raise DataError(
            f"{sheet.where} has no column {quoted(name)} of texts or numbers, which --label names"
            f"{nearest(name, [n.strip() for n in sheet.names])}: its columns are {sheet.seen()}"
        )
    return found


def _columns(sheet: Sheet, asked: Asked) -> list[int]:
    """The columns of the truth where nobody names them. Raises DataError, LabelsError where none holds it."""
    if asked.task == "regress":
        return _numeric_columns(sheet, {column_called(sheet.names, name) for name in asked.beside})
    column = label_column(sheet)
    if column is not None:
        return [column]
    beside = {column_called(sheet.names, name) for name in asked.beside}
    free = [place for place in sheet.values if place not in beside]
    flags = [place for place in free if not role_of(sheet.names[place]) and _is_varied(sheet, place)]
    if len(flags) > 1 or (flags and asked.task == "tag"):
        return flags
    values = [place for place in free if squeezed(sheet.names[place]) in VALUES and _is_numeric(sheet, place)]
    if len(values) == 1 and asked.task == "auto" and asked.measured:
        return values
    raise LabelsError(no_label(sheet))


def _numeric_columns(sheet: Sheet, beside: set[int | None]) -> list[int]:
    """The one column of numbers: by its usual name, else the only one. `beside`: those that hold no truth. Raises
    DataError where several may be."""
    labels = places(sheet, "label") or places(sheet, "label?")
    numeric = [place for place in sheet.values if place not in beside and _is_numeric(sheet, place)]
    by_name = [place for place in numeric if squeezed(sheet.names[place]) in VALUES]
    unknown = [place for place in numeric if not role_of(sheet.names[place])]
    found = next((f for f in ([p for p in labels if p in numeric], by_name, unknown, labels) if f), [])
    if len(found) > 1:
        some = ",".join(sheet.names[place].strip() for place in found[:2])
        raise DataError(
            f"{sheet.where}: which column holds the values, {named(sheet, found[:8])}? Name it with --label "
            f"{sheet.names[found[0]].strip()}, or several with --label {some}"
        )
    if not found:
        raise DataError(
            f"{sheet.where} has no column of numbers: its columns are {sheet.seen()}; name one with --label"
        )
    return found


def _seen(sheet: Sheet, place: int) -> set[str]:
    """The different values of a column, without those that stand for a missing one."""
    return {text for value in set(sheet.values[place]) if (text := stripped(value)) not in MISSING}


def _is_numeric(sheet: Sheet, place: int) -> bool:
    seen = _seen(sheet, place)
    return bool(seen) and all(NUMBER.fullmatch(value.replace(",", ".")) for value in seen)


def _is_flags(sheet: Sheet, place: int) -> bool:
    seen = {value.lower() for value in _seen(sheet, place)}
    return place not in sheet.sets and bool(seen) and seen <= TRUE | FALSE | DOUBTFUL


def _is_varied(sheet: Sheet, place: int) -> bool:
    seen = {value.lower() for value in _seen(sheet, place)}
    return _is_flags(sheet, place) and bool(seen & TRUE) and bool(seen - TRUE)


def _first_not(sheet: Sheet, place: int, allowed: frozenset[str]) -> tuple[int, str]:
    texts = ((row, stripped(value)) for row, value in enumerate(sheet.values[place]))
    return next(((row, text) for row, text in texts if text not in MISSING and text.lower() not in allowed), (0, ""))


def _of_column(sheet: Sheet, place: int, asked: Asked, splits: Sequence[str]) -> Truth:
    values = sheet.values[place]
    if asked.task == "regress":
        return _of_numbers(sheet, [place])
    sets = sheet.sets.get(place)
    several = next((row for row, held in enumerate(sets or ()) if held and len(held) > 1), None)
    if asked.task == "tag" or (asked.task == "auto" and (several is not None or _are_sets(values))):
        return Truth(_of_lists(sheet, sets) if sets else _of_cells(sheet, place), "tag")
    if several is not None:
        raise DataError(
            f"{sheet.row(several)}: {quoted(values[several])} in column {named(sheet, [place])} are several labels of "
            "one image: keep one class for each image, or learn them all with --task tag"
        )
    teaching = [v for v, split in zip(values, splits, strict=True) if split in ("train", "none")]
    clean = {value: "" if (text := stripped(value)) in MISSING else text for value in set(values)}
    texts = [clean[value] for value in teaching or values]
    by_name = squeezed(sheet.names[place]) in VALUES
    if asked.task == "auto" and asked.measured and (by_name or looks_measured(texts)) and _is_numeric(sheet, place):
        return _of_numbers(sheet, [place])
    classes = class_names(sheet, values)
    numbers = set(classes) - {""}
    if asked.task == "auto" and len(numbers) >= MEASURED and all(map(NUMBER.fullmatch, numbers)):
        sheet.notes.append(
            f"the {len(numbers)} classes of column {named(sheet, [place])} are numbers: if they are counts or "
            "measured values, say --task regress"
        )
    return Truth(classes, asked.as_class)


def _are_sets(values: Sequence[str]) -> bool:
    """Whether cells are clearly sets: lists in brackets of which one is longer, or parts between ; or |."""
    names = {stripped(value) for value in values} - MISSING
    inside = listed(names)
    if inside is not None:
        return any(len(parts) > 1 for parts in inside.values())
    counts = Counter(values)
    sizes = Counter[str]()
    for value, count in counts.items():
        sizes[stripped(value)] += count
    found = put_together(sizes)
    return found is not None and found[0] in SEPARATORS


def _of_lists(sheet: Sheet, sets: Sequence[tuple[str, ...] | None]) -> list[str]:
    texts = []
    for row, held in enumerate(sets):
        names = None if held is None else [unicodedata.normalize("NFC", stripped(name)) for name in held]
        texts.append("" if names is None else _tags(sheet, row, names))
    return texts


def _tags(sheet: Sheet, row: int, names: Sequence[str]) -> str:
    names = [name for name in names if name]
    for name in names:
        check_tag(name, sheet.row(row))
    return tag_text(names)


def _of_cells(sheet: Sheet, place: int) -> list[str]:
    """Cells of labels with | or ; between them, or lists in brackets. Raises DataError."""
    clean = clean_names(sheet, sheet.values[place])
    sizes = Counter(clean[value] for value in sheet.values[place])
    inside = listed({name for name in clean.values() if name})
    used = [sign for sign in SEPARATORS if any(sign in name for name in sizes)] if inside is None else []
    if len(used) > 1:
        rows = [next(r for r, v in enumerate(sheet.values[place]) if sign in v) for sign in used]
        raise DataError(
            f"{sheet.row(rows[0])} has {used[0]} between labels and {sheet.unit} {sheet.numbers[rows[1]]} has {used[1]}"
            ": write one of them everywhere"
        )
    if inside is None and not used and (found := put_together(sizes)):
        raise DataError(
            f"{sheet.where}: the label {quoted(found[1])} seems to hold several with {found[0]} between them: write | "
            "between labels, as in ants|bees"
        )
    sign = used[0] if used else BETWEEN
    held = {name: inside[name] if inside is not None else name.split(sign) for name in clean.values() if name}
    texts = []
    for row, value in enumerate(sheet.values[place]):
        name = clean[value]
        texts.append(_tags(sheet, row, [stripped(part) for part in held[name]]) if name else "")
    bare = texts.count("")
    if bare:
        sheet.notes.append(
            f"{counted(bare, 'image')} with an empty cell of labels count{'s' if bare == 1 else ''} as unlabelled: "
            f"write {NONE_OF_THEM} where an image was looked at and has none"
        )
    return texts


def _of_flags(sheet: Sheet, columns: Sequence[int], asked: Asked) -> Truth:
    """One column of 0 and 1 a label; where every row has exactly one, the classes that they mean. DataError."""
    names = [unicodedata.normalize("NFC", stripped(sheet.names[place])) for place in columns]
    for name in names:
        check_tag(name, sheet.where)
    read = [[stripped(value).lower() for value in sheet.values[place]] for place in columns]
    seen = {value for column in read for value in column}
    if seen & DOUBTFUL and not seen & FALSE:
        raise DataError(
            f"{sheet.where}: columns {named(sheet, columns[:4])} hold 1 and -1 but no 0: write 0 where a label is not "
            "there, and nothing where it is unknown"
        )
    present = [[n for n, c in zip(names, read, strict=True) if c[row] in TRUE] for row in range(len(sheet))]
    unknown = [[n for n, c in zip(names, read, strict=True) if c[row] not in TRUE | FALSE] for row in range(len(sheet))]
    single = all(len(p) == 1 and not u for p, u in zip(present, unknown, strict=True))
    if single and asked.task != "tag":
        sheet.notes.append(
            f"columns {named(sheet, columns[:4])} hold exactly one 1 in each {sheet.unit}: read as {len(names)} "
            "classes; --task tag reads them as labels that may come together"
        )
        return Truth([p[0] for p in present], asked.as_class)
    if asked.one_class:
        row = next(r for r, p in enumerate(present) if len(p) != 1 or unknown[r])
        raise DataError(
            f"{sheet.row(row)}: {len(present[row])} of the columns {named(sheet, columns[:4])} are 1, and an image has "
            "one class: write its name into one column label, or learn several labels an image with --task tag"
        )
    texts = ["" if len(u) == len(names) else tag_text(p, u) for p, u in zip(present, unknown, strict=True)]
    return Truth(texts, "tag", tuple(names))


def _of_numbers(sheet: Sheet, columns: Sequence[int]) -> Truth:
    """A number from each column; a row that lacks one has no label. Raises DataError."""
    read = [_numbers(sheet, place) for place in columns]
    texts = [BETWEEN.join(parts) if all(parts) else "" for parts in zip(*read, strict=True)]
    torn = sum(not text and any(parts) for text, parts in zip(texts, zip(*read, strict=True), strict=True))
    if torn:
        sheet.notes.append(
            f"{counted(torn, 'image')} with only some of the values {named(sheet, columns)}: used with none"
        )
    return Truth(texts, "regress", tuple(sheet.names[place].strip() for place in columns))


def _numbers(sheet: Sheet, place: int) -> list[str]:
    """The numbers of a column as `number_text` writes them, "" for none. Raises DataError."""
    clean = {value: stripped(value) for value in set(sheet.values[place])}
    clean = {value: "" if text in MISSING else text for value, text in clean.items()}
    comma = sorted(text for text in clean.values() if "," in text)
    pointed = any("." in text for text in clean.values())
    if comma and not pointed and any(len(text.partition(",")[2]) != 3 for text in comma):
        sheet.notes.append(
            f"column {named(sheet, [place])} has decimal commas: {comma[0]} is {comma[0].replace(',', '.')}"
        )
        clean = {value: text.replace(",", ".") for value, text in clean.items()}
    numbers = {value: number_in(text) for value, text in clean.items() if text}
    for row, value in enumerate(sheet.values[place]):
        if numbers.get(value, 0.0) is None:
            raise DataError(
                f"{sheet.row(row)}: column {named(sheet, [place])} holds {quoted(value)}, which is no finite number "
                "such as 12.5: correct it, or leave the cell empty where there is no value"
            )
    return ["" if (n := numbers.get(value)) is None else number_text(n) for value in sheet.values[place]]


def said_of(rows: list[Row], truth: Truth) -> str:
    """What was read, in one line; where it is not one class an image, as what, and how to say otherwise."""
    return (
        counts(rows) if truth.task in ("classify", "recognise", "anomaly") else summary(rows, truth.task, truth.columns)
    )


def summary(rows: Sequence[Row], task: str, columns: Sequence[str]) -> str:
    """What tags or values were read, in one line, and how to say otherwise."""
    parts = Counter(row.split for row in rows)
    sizes = ", ".join(
        f"{parts[s]:,} images" if s == "none" else f"{s} {parts[s]:,}"
        for s in ("train", "validation", "test", "none")
        if parts[s]
    )
    texts = [row.label for row in rows if row.label]
    bare = f", {len(rows) - len(texts):,} unlabelled" if len(texts) < len(rows) else ""
    if task == "tag":
        counts = Counter(name for text in texts for name in tags_in(text)[0])
        each = ", ".join(f"{name} {n:,}" for name, n in sorted(counts.items())[:10])
        more = " ..." if len(counts) > 10 else ""
        return (
            f"{sizes}{bare}, read as several labels an image, {counted(len(counts), 'label')} ({each}{more}); --task "
            "classify for one class an image"
        )
    return (
        f"{sizes}{bare}, read as measured values of {' and '.join(map(quoted, columns))} ({_spread(texts)}); --task "
        "classify if the numbers name classes"
    )


def _spread(texts: Sequence[str]) -> str:
    values = [float(text.partition(BETWEEN)[0]) for text in texts]
    return f"{min(values):g} to {max(values):g}" if values else "none"
