"""The truth of an image as one text, for every task: what stands in a table, in split.parquet and in reports.

| task | the text | without label |
|---|---|---|
| classify, recognise | the name of the class: `ants` | "" |
| anomaly | `good`, or the kind of oddity: `crack` | "" |
| tag | the labels that are there, sorted: `RBC|WBC`; unknown ones after them: `RBC|?WBC`; none of them: `|` | "" |
| segment | JSON, where the mask is or the shapes in it (`mask_text.py`) | "" |
| detect | JSON, a list of boxes (`box_text.py`): `[[0,1,1,9,9,0]]`; `[]` for a picture without any | "" |
| regress | a number for each column, in the order of the columns: `12.5`, `12.5|3` | "" |

Each text is read back without loss: `tags_in(tag_text(a, b)) == (a, b)`, and a number is written with as many digits
as it needs. So a label cannot hold `|` and cannot begin with `?`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from headstart.errors import DataError, OptionError, nearest
from headstart.files.cells import quoted

PLACED = ("segment", "detect")  # tasks whose answers lie in the picture
TASKS = ("classify", "tag", "regress", "recognise", "anomaly", *PLACED)
BETWEEN = "|"
NONE_OF_THEM = "|"
UNKNOWN = "?"
NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
MEASURED = 10  # different numbers, of which half stand for one image: digits and grades are fewer


@dataclass(frozen=True)
class Asked:
    """What the user says of the truth: its task, or "auto", and the names of the columns that hold it, if given.

    measured: whether numbers may be taken for measured values where nobody says so; not where a model is judged, whose
    classes may be numbers. group, time: the columns of --group and --time. classes: what the values in masks are
    called, as --classes has it, or as a list of names. known: the names of the pictures, where these need not be here.
    """

    task: str = "auto"
    label: str | None = None
    measured: bool = True
    group: str | None = None
    time: str | None = None
    classes: str | Sequence[str] | None = None
    known: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.task not in ("auto", *TASKS):
            raise OptionError(
                f"--task {self.task!r}: allowed are auto, {', '.join(TASKS)}{nearest(self.task, ('auto', *TASKS))}"
            )
        if self.label is not None and not self.label.strip():
            raise OptionError("--label is empty: name the column that holds the truth, or several with commas between")
        if self.classes is not None and self.task != "segment":
            said = "it is not said (--task segment)" if self.task == "auto" else f"the task here is {self.task}"
            raise OptionError(f"--classes names what the values in masks are, for --task segment, and {said}")
        for name in ("group", "time"):
            if getattr(self, name) is not None and not getattr(self, name).strip():
                raise OptionError(f"--{name} is empty: name a column of the list, or leave it out")

    @property
    def beside(self) -> tuple[str, ...]:
        """The columns that are asked for and hold no truth."""
        return tuple(name for name in (self.group, self.time) if name is not None)

    @property
    def one_class(self) -> bool:
        """Whether the truth is to be the name of one class."""
        return self.task in ("classify", "recognise", "anomaly")

    @property
    def as_class(self) -> str:
        """The task of a truth that is found to be the name of one class."""
        return self.task if self.one_class else "classify"


def check_tag(name: str, where: str) -> None:
    """Raises DataError for the name of a label that could not be told from others in a text."""
    if BETWEEN in name or name.startswith(UNKNOWN):
        raise DataError(
            f"{where}: the label {quoted(name)} holds {BETWEEN!r} or begins with {UNKNOWN!r}, which stand between "
            "labels and for unknown ones: write it otherwise"
        )


def tag_text(present: Iterable[str], unknown: Iterable[str] = ()) -> str:
    """The labels of one image as a text."""
    parts = [*sorted(set(present)), *(UNKNOWN + name for name in sorted(set(unknown)))]
    return BETWEEN.join(parts) or NONE_OF_THEM


def tags_in(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """(present, unknown) labels of a text that is not ""."""
    parts = [part for part in text.split(BETWEEN) if part]
    unknown = frozenset(part[1:] for part in parts if part.startswith(UNKNOWN))
    return frozenset(part for part in parts if not part.startswith(UNKNOWN)), unknown


def number_text(value: float) -> str:
    """A number with as many digits as it takes to read it back: 3.0 is 3, -0.0 is 0."""
    return repr(float(value) + 0.0).removesuffix(".0")


def value_text(values: Sequence[float]) -> str:
    return BETWEEN.join(map(number_text, values))


def values_in(text: str) -> list[float]:
    return [float(part) for part in text.split(BETWEEN)]


def number_in(text: str) -> float | None:
    """The finite number that a text writes; None where it writes none."""
    if not NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None
