"""What `inspect` found -> its page: which pictures are shown, and the words."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from headstart.counted import counted
from headstart.data import images
from headstart.data.duplicates import DuplicateSet
from headstart.data.quality import Odd
from headstart.data.targets import counts
from headstart.errors import ImageError
from headstart.files.put import refusing
from headstart.files.whole import write_whole
from headstart.report.inspection import (
    MOST_OF_SET,
    MOST_PICTURES,
    MOST_SETS,
    Alike,
    Card,
    FactTable,
    FaultSheet,
    Inspection,
    Sheet,
    Thumb,
    render_inspection,
    told_sentence,
)
from headstart.story.given_away import shortcut_line
from headstart.story.look import Look, shift_lines
from headstart.story.pipeline import Seen

SIDE = 96  # px, the longer side of a picture in a contact sheet
FAULTS = {
    "tiny": ("Tiny", "So small that most of what the network sees is made up by enlarging."),
    "huge": ("Huge", "They take long to read, and show much less of themselves than the others when shrunk."),
    "odd shape": ("Odd shape", "Far longer than the others: what lies at their ends may be cut off."),
    "blank": ("Blank", "One colour from edge to edge: nothing can be learned from them."),
    "dark": ("Dark", "Even their brightest parts are dark."),
    "washed out": ("Washed out", "Hardly any difference between dark and bright."),
    "blurred": ("Blurred", "Blurring them once more changes little."),
}
SHEETS = {
    "leaks": ("Leaks: copies in more than one part", "A model that has seen a picture scores too well on its copy."),
    "conflicts": ("Conflicts: copies with different labels", "At least one of the labels is wrong, or both are right."),
    "exact": ("Exact copies", "The same bytes under several names. They stay together when images are split."),
    "near": ("Near copies", "Nearly the same picture. They stay together when images are split."),
}
QUESTIONS = {  # question, what is found, and what is said where nothing is
    "leaks": (
        "Does the test hold training pictures?",
        "in more than one part",
        "No copy stands in more than one part.",
    ),
    "conflicts": (
        "Do copies agree in their labels?",
        "different labels",
        "No copies with different labels were found.",
    ),
    "unreadable": ("Can all files be read?", "cannot be read", "All files can be read."),
}
BY_FILES = "facts of the files alone (size, format, compression, camera, frame)"
BY_PICTURES = "a glance at the pictures alone (brightness, colour, contrast, sharpness, bytes)"


def write_page(look: Look, path: Path, title: str) -> None:
    """Raises OutputError where it cannot be written."""
    content = render_inspection(inspection_data(look, title)).encode()
    with refusing(f"the page cannot be written to {path}"):
        write_whole(path, lambda place: place.write_bytes(content))


def inspection_data(look: Look, title: str) -> Inspection:
    """Everything that the page says."""
    seen = look.seen
    table, targets = seen.table, seen.targets
    splits = sorted(set(table.splits))
    by_split = {split: counts(targets.take(table.splits == split)) for split in splits}
    each = {name: {split: by_split[split].get(name, 0) for split in splits} for name in targets.names}
    return Inspection(
        title=title,
        layout=table.layout.partition(": ")[2] or table.layout,
        images=len(table),
        cards=_cards(look),
        copies=_copies(look),
        unreadable=seen.features.set_aside,
        faults=_faults(seen, look.faults),
        shortcuts=_shortcuts(look),
        shifts=tuple(shift_lines(look)),
        counts=each,
        imbalance=_imbalance({name: sum(row.values()) for name, row in each.items()}),
        notes=table.notes,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _thumb(seen: Seen, row: int, note: str = "") -> Thumb:
    table = seen.table
    try:
        jpeg = images.preview(table.read(row), SIDE, preprocess=seen.backbone.preprocess)
    except ImageError:
        jpeg = b""
    return Thumb(jpeg, str(table.names[row]), str(table.labels[row]), str(table.splits[row]), note)


def _copies(look: Look) -> tuple[Sheet, ...]:
    """Leaks and conflicts, then the other copies; a set is shown once."""
    told = {id(s) for s in [*look.leaks, *look.conflicts]}
    rest = [s for s in look.seen.duplicates if id(s) not in told]
    leaks = {id(s) for s in look.leaks}
    found = {
        "leaks": look.leaks,
        "conflicts": [s for s in look.conflicts if id(s) not in leaks],
        "exact": [s for s in rest if s.kind == "exact"],
        "near": [s for s in rest if s.kind == "near"],
    }
    return tuple(_sheet(look.seen, key, sets) for key, sets in found.items() if sets)


def _sheet(seen: Seen, key: str, sets: Sequence[DuplicateSet]) -> Sheet:
    shown = tuple(
        Alike(s.kind, tuple(_thumb(seen, row) for row in _different(seen, s)[:MOST_OF_SET]), len(s.rows))
        for s in sets[:MOST_SETS]
    )
    return Sheet(key, *SHEETS[key], shown, len(sets))


def _different(seen: Seen, one: DuplicateSet) -> list[int]:
    """Rows of a set, those first that show each part and label once."""
    met: set[tuple[str, str]] = set()
    first, later = [], []
    for row in one.rows:
        key = (str(seen.table.splits[row]), str(seen.table.labels[row]))
        (later if key in met else first).append(row)
        met.add(key)
    return first + later


def _faults(seen: Seen, odd: Sequence[Odd]) -> tuple[FaultSheet, ...]:
    sheets = []
    for fault, (title, said) in FAULTS.items():
        mine = [one for one in odd if one.fault == fault]
        if mine:
            shown = tuple(_thumb(seen, one.row, one.measured) for one in mine[:MOST_PICTURES])
            sheets.append(FaultSheet(title, said, shown, len(mine)))
    return tuple(sheets)


def _shortcuts(look: Look) -> tuple[FactTable, ...]:
    found = []
    for told, what in ((look.files, BY_FILES), (look.pictures, BY_PICTURES)):
        if told is None:
            continue
        said = told_sentence(told.label, told.value, told.low, told.high, told.n, what)
        if what == BY_FILES and told.clear:
            said += " A model may learn how the files were made, not what they show: save all classes in the same way."
        elif what == BY_PICTURES and told.clear:
            said += " That may be what sets the class apart, as with sea and forest; or it is the light of the day."
        found.append(FactTable(said, told.facts))
    return tuple(found)


def _imbalance(totals: dict[str, int]) -> str:
    sizes = Counter(totals)
    if len(sizes) < 2:
        return ""
    (most, top), (least, low) = sizes.most_common()[0], sizes.most_common()[-1]
    if low == 0:
        return f"{least} has no image that can be read."
    times = top / low
    tail = " Look at the balanced accuracy, in which each class counts the same." if times >= 3 else ""
    return f"The largest class, {most}, has {times:.1f} times the images of the smallest, {least}.{tail}"


def _cards(look: Look) -> tuple[Card, ...]:
    """The questions of the first screen, each with its answer."""
    found = look.found()
    copies = [s for s in look.seen.duplicates if s not in look.leaks and s not in look.conflicts]
    odd = Counter(FAULTS[one.fault][0].lower() for one in look.faults)
    cards = [
        _asked("leaks", found["leaks"], "set of copies stands", "sets of copies stand"),
        _asked("conflicts", found["conflicts"], "set of copies has", "sets of copies have"),
        _asked("unreadable", found["unreadable"], "file", "files"),
    ]
    if set(look.seen.table.splits) <= {"none", "train"}:
        cards = cards[1:]
    said = ", ".join(f"{n} {name}" for name, n in odd.items())
    none = Card("good", "Are there odd pictures?", "None is far from the others of this set.")
    cards.append(Card("unsure", "Are there odd pictures?", f"{said}.", "faults") if odd else none)
    if look.files is not None and look.files.clear:
        text = shortcut_line(look.files)
        cards.append(Card("bad", "Do files give the class away?", f"{text[0].upper()}{text[1:]}.", "shortcut"))
    elif look.seen.table.task == "classify":
        cards.append(
            Card("good", "Do files give the class away?", "Not by size, format, compression, camera or frame.")
        )
    for part, one in look.shifts.items():
        answer = f"Told apart with AUROC {one.auroc:.2f}, where 0.5 is chance."
        question = f"Do the {part} images look like the training images?"
        cards.append(Card("bad" if one.clear else "good", question, answer, "shift"))
    if copies:
        said = f"{counted(len(copies), 'set')} of copies beside the above; they stay together when images are split."
        key = "exact" if any(s.kind == "exact" for s in copies) else "near"
        cards.append(Card("unsure", "Are there other copies?", said, key))
    return tuple(cards)


def _asked(key: str, n: int, one: str, several: str) -> Card:
    """One of QUESTIONS, answered by how often it was found."""
    question, bad, good = QUESTIONS[key]
    return Card("bad", question, f"{counted(n, one, several)} {bad}.", key) if n else Card("good", question, good)
