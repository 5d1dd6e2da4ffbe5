"""What the values in masks are called: a file of classes, or the names that the user gives.

| a line of the file | what it says |
|---|---|
| `road` | the class of the next number, from 0 on |
| `7 road`, `7,road`, `road,7`, `7: road` | the class of that number |
| `road,128,64,128`, `128 64 128 road`, `road:128,64,128::` | the class of that colour; its number is the next |

Blanks, commas, colons, semicolons and tabs part the words; lines that begin with `#`, and a first line that names
columns, say nothing. Where a file gives colours and a mask holds numbers, they are the lines of the file, from 0 on.

Pixels of a class called void, unlabelled, ignore or the like are void, as those of value 255 are
without any file: they neither teach nor judge, and the class has no number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.data.columns import squeezed
from headstart.data.placing import VOID
from headstart.data.tree import shown, some
from headstart.errors import DataError, OptionError
from headstart.files.cells import quoted
from headstart.files.reading import read_regular, why

FILES = """classes.txt classes.csv class_names.txt class_dict.csv labels.txt labels.csv label_colors.txt
    label_colors.csv labelmap.txt label_map.txt codes.txt palette.txt palette.csv colors.txt colours.txt
    _classes.csv""".split()  # noqa: SIM905
SAY_VOID = frozenset(
    """void unlabelled unlabeled ignore ignored ignoreregion dontcare unknown undefined unclassified invalid nolabel
    outofroi unannotated notlabelled notlabeled""".split()  # noqa: SIM905
)
HEADS = frozenset(
    """name names class classes classname label labels labelname category id index number value pixelvalue color colour
    colorrgb rgb r g b red green blue parts actions""".split()  # noqa: SIM905
)
MOST = VOID  # classes: numbers of 8 bits, and 255 is void
MOST_UNNAMED = 100  # different numbers without names: more are grey levels; ADE20K's 150 classes come with names
NUMBER = re.compile(r"[0-9]{1,9}")
MOST_BYTES = 1 << 20
MOST_LISTED = 8  # numbers in a note


@dataclass(frozen=True)
class Classes:
    """names: of the classes, in the order of their numbers, without those that are void. meant: a value as a text ->
    its class number, VOID for void. void: names of classes that are void. where: what says so, for a message."""

    names: tuple[str, ...]
    meant: dict[str, int]
    void: tuple[str, ...]
    where: str

    @property
    def by_colour(self) -> bool:
        return any("," in key for key in self.meant)


def classes_given(given: str | Sequence[str], where: str = "--classes") -> Classes:
    """Names with commas between, or a list of them, or the path of a file of classes. Raises DataError, OptionError."""
    if isinstance(given, str) and Path(given).is_file():
        return read_classes(Path(given))
    names = [part.strip() for part in given.split(",")] if isinstance(given, str) else [str(name) for name in given]
    if isinstance(given, str) and len(names) == 1 and (os.sep in given or "." in given):
        raise OptionError(f"--classes {given}: there is no such file; give a file of names, or names with commas")
    if not all(names):
        raise OptionError(f"--classes {given!r}: a name is empty; give names with commas between, or a file of them")
    return _classes([(name, None, None) for name in names], where)


def found_classes(folders: Sequence[str]) -> Classes | None:
    """Of the first file of classes in these folders. Raises DataError."""
    for folder in folders:
        for name in FILES:
            if (place := Path(folder) / name).is_file():
                return read_classes(place)
    return None


def read_classes(path: Path) -> Classes:
    """A file of classes, by the table above. Raises DataError."""
    where = shown(str(path))
    try:
        text = read_regular(path, MOST_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{where} cannot be read: {why(error)}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8 text: save it as UTF-8") from error
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if lines and {squeezed(word) for word in re.split(r"[,;:\t]", lines[0]) if word.strip()} <= HEADS:
        lines = lines[1:] if len(lines) > 1 else lines
    if not lines:
        raise DataError(f"{where} names no classes: a line is a name, number,name or name,r,g,b")
    return _classes([_line(line, f"{where}: {quoted(line[:40])}") for line in lines], where)


def _line(line: str, where: str) -> tuple[str, int | None, str | None]:
    """(name, number or None, colour or None) of a line. Raises DataError for one that has no name."""
    parts = [part for part in re.split(r"[,;:\t]+", line) if part.strip()]
    words = [word.strip().strip("\"'") for word in parts]
    words = [part for word in words for part in (word.split() if re.fullmatch(r"[\d\s]+", word) else [word])]
    if len(words) == 1 and re.match(r"\d+\s+\S|.*\S\s+\d+\s+\d+\s+\d+$", line):
        words = line.split()
    numbers = [int(word) for word in words if NUMBER.fullmatch(word)]
    names = [word for word in words if not NUMBER.fullmatch(word)]
    if not names and len(words) == 1:
        return words[0], None, None
    if not names or len(numbers) not in (0, 1, 3, 4):
        raise DataError(f"{where} is no line of a class: write a name, number,name or name,r,g,b")
    name = " ".join(names)
    if len(numbers) >= 3:
        colour = numbers[-3:]
        if max(colour) > 255:
            raise DataError(f"{where}: the parts of a colour are 0 to 255")
        return name, None, ",".join(map(str, colour))
    return name, numbers[0] if numbers else None, None


def _classes(lines: Sequence[tuple[str, int | None, str | None]], where: str) -> Classes:
    """Numbers of classes by their order, void ones left out. Raises DataError."""
    kinds = {(number is not None, colour is not None) for _, number, colour in lines}
    if len(kinds) > 1:
        raise DataError(f"{where}: some lines have a number or a colour and others have none: write all alike")
    keys = [colour or str(place if number is None else number) for place, (_, number, colour) in enumerate(lines)]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{where} gives {twice} to two classes: each has a number or a colour of its own")
    if lines[0][1] is not None:
        order = sorted(range(len(lines)), key=lambda k: int(keys[k]))
        lines, keys = [lines[k] for k in order], [keys[k] for k in order]
    names, meant, void = list[str](), dict[str, int](), list[str]()
    for key, (name, _, _) in zip(keys, lines, strict=True):
        if squeezed(name) in SAY_VOID or key == str(VOID):
            void.append(name)
            meant[key] = VOID
        else:
            if name not in names:  # several numbers or colours of one class
                names.append(name)
            meant[key] = names.index(name)
    if any("," in key for key in keys) and not all(len(set(key.split(","))) == 1 for key in keys):
        meant |= {str(place): meant[key] for place, key in enumerate(keys)}  # of masks that hold numbers nevertheless
    if len(names) > MOST:
        raise DataError(f"{where} names {len(names)} classes: at most {MOST} are possible, numbers of 8 bits")
    if not names:
        raise DataError(f"{where} names no class but void: {some(void)}")
    return Classes(tuple(names), meant, tuple(void), where)


def classes_seen(keys: Sequence[str], given: Classes | None, where: str) -> tuple[Classes, str]:
    """(the classes of all values that stand in the masks, a note or ""). given: as the user or a file names them.

    Without names the numbers are the names. Masks of 0 and 255 alone have two classes, and no void: that is how most
    programs write black and white. Raises DataError for colours without names.
    """
    if given is not None:
        if len(given.names) == 2 and not given.by_colour and set(keys) == {"0", "255"}:
            return Classes(given.names, {"0": 0, "255": 1}, (), given.where), f"255 in the masks is {given.names[1]!r}"
        return given, ""
    colours = [key for key in keys if "," in key]
    if colours:
        raise DataError(
            f"{where}: the masks are in colours ({_listed(colours)}) and no file says which class each is: put "
            "classes.csv beside the folders, with a line name,r,g,b for each class, or name such a file with --classes"
        )
    if set(keys) == {"0", "255"}:
        note = "the masks hold 0 and 255 alone: 0 is 'background' and 255 'foreground' (--classes names them)"
        return Classes(("background", "foreground"), {"0": 0, "255": 1}, (), "the masks"), note
    numbers = sorted(int(key) for key in keys if key != str(VOID))
    if len(numbers) > MOST_UNNAMED or (numbers and numbers[-1] > VOID):
        raise DataError(
            f"{where}: the masks hold {len(numbers)} different numbers, {numbers[0]} to {numbers[-1]}: these are no "
            f"class numbers; save masks with one number for each class, or name the classes with --classes"
        )
    names = tuple(map(str, numbers))
    return Classes(names, {name: k for k, name in enumerate(names)}, (), "the masks"), _unnamed(
        names, str(VOID) in keys
    )


def _unnamed(names: Sequence[str], with_void: bool) -> str:
    """What is said where no file names numbers: none of them tells by itself that nothing is known of its pixels."""
    listed = ", ".join(names) if len(names) <= MOST_LISTED else f"{names[0]} to {names[-1]}"
    void = f"{VOID} is void" if with_void else "none is void"
    return f"no file names the numbers in the masks: {listed} are classes, {void} (--classes names them, void ones too)"


def _listed(colours: Sequence[str], most: int = 6) -> str:
    return "; ".join(sorted(colours)[:most]) + (f" and {len(colours) - most} more" if len(colours) > most else "")
