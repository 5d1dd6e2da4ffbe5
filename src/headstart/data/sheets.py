"""A list of images as a sheet: columns of text with their names."""

from __future__ import annotations

from dataclasses import dataclass, field

from headstart.files.cells import quoted

# What pandas writes and reads for a missing value (pandas.read_csv, na_values). Not "none": it names a class often.
MISSING = frozenset(
    """nan NaN NAN -nan -NaN None NA N/A n/a <NA> #N/A #NA NULL null NaT -1.#IND 1.#IND -1.#QNAN
    1.#QNAN""".split()  # noqa: SIM905
) | {"", "#N/A N/A"}
INVISIBLE = "\u00ad\u200b\u200c\u200d\u2060\ufeff"  # of no width: soft hyphen, joiners, marks of encodings
SAMPLED = 1000  # rows that are kept whole, to tell what the columns are that have no name known here


@dataclass
class Sheet:
    """Columns of text. `where`: the file, as it is shown. `names`: of all columns, as they are written. `values`:
    position -> a value for each row, of the columns that may matter here. `numbers`: the line of each row in its file.
    `sample`: the first rows, whole. `stated`: columns that the file itself calls labels. `unit`: what a row is called.
    `sets`: position -> the entries of each row, None for none, of columns whose cells are lists.
    """

    where: str
    kind: str
    names: list[str]
    values: dict[int, list[str]] = field(default_factory=dict)
    numbers: list[int] = field(default_factory=list)
    sample: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    stated: list[int] = field(default_factory=list)
    unit: str = "line"
    sets: dict[int, list[tuple[str, ...] | None]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers)

    def row(self, place: int) -> str:
        """Where a row stands, for a message."""
        return f"{self.where} {self.unit} {self.numbers[place]}"

    def seen(self, most: int = 8) -> str:
        """The names of its columns, for a message."""
        names = [quoted(name.strip()) for name in self.names]
        return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def stripped(text: str) -> str:
    """Without what nobody sees before and after it."""
    while (shorter := text.strip().strip(INVISIBLE)) != text:
        text = shorter
    return text
