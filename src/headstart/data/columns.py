"""Which column of a list holds what, by the names that people give them, and by what stands in them.

Letter case, blanks, dashes and underscores of a name do not matter. Where two columns could be meant, what stands in
them decides, and a note says so; where that does not decide either, the user is asked.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from headstart.data.folder_names import SPLIT_NAMES
from headstart.data.sheets import MISSING, Sheet
from headstart.data.times import check_times
from headstart.data.truth import Asked
from headstart.errors import DataError, nearest
from headstart.files.cells import quoted

PATHS = (  # the first is the first choice
    """path filepath imagepath imgpath picturepath photopath fullpath relpath relativepath filename imagename imgname
    picturename photoname fname imagefilename imgfilename imagefilepath imagefile imgfile file files image img picture
    photo pic images imageindex pathtoimage paths filenames filepaths imagepaths imagefiles uri url imageuri imageurl
    imgurl fileuri fileurl""".split()  # noqa: SIM905
)
WEAK_PATHS = "imageid imgid pictureid photoid fileid idcode isicid id name stem".split()  # noqa: SIM905 (often something else)
LABELS = """label labels class classname classlabel classes labelname labels category categoryname target targetname
    diagnosis dx breed species speciesname finelabel classid labelid categoryid classindex labelindex targetid
    groundtruth findinglabels variety disease""".split()  # noqa: SIM905
OFTEN_ELSE = frozenset(("id", "name", "stem"))
WEAK_LABELS = (  # often something else, such as a place in a picture
    "y type kind grade emotion animal plant severity genus family taxon scientificname commonname".split()  # noqa: SIM905
)
SPLITS = ("split", "splits")
WEAK_SPLITS = (  # if the words in them fit
    "set subset partition phase usage fold part datasplit datasetsplit splitname traintest dataset".split()  # noqa: SIM905
)
FLAGS = {"validation": ("validation", "train"), "test": ("test", "train"), "train": ("train", "test")}
"""A column of true and false -> what true means, and what false."""
FLAG = re.compile(
    r"(?:is|for)?(?:(val|valid|validation)|(test|testing)|(train|training))(?:image|img|set|sample|data|part)?"
)
GROUPS = ("group", "groupid", "groups")
LIKE_GROUPS = frozenset(
    """patient patientid patientname subject subjectid participant participantid person personid case caseid donor
    animal animalid individual individualid specimen specimenid site siteid location locationid camera cameraid station
    stationid trap trapid sequence sequenceid seq seqid session sessionid scene sceneid video videoid clip clipid slide
    slideid plot plotid visit visitid study studyid lesion lesionid plate plateid tree treeid fold folds batch batchid
    hospital hospitalid sensor sensorid observer survey surveyid burst burstid tile tileid""".split()  # noqa: SIM905
)
BOXES = frozenset("xmin ymin xmax ymax bbox bboxes boundingbox bboxx bboxy x1 y1 x2 y2".split())  # noqa: SIM905
SPLITS_ALLOWED = "train, validation, test or none"
TRUE, FALSE = frozenset(("true", "1", "1.0", "yes", "t", "y")), frozenset(("false", "0", "0.0", "no", "f", "n", ""))


@lru_cache(4096)
def squeezed(name: str) -> str:
    """A column's name without letter case, blanks, dashes and the like: "Image Name" and image_name are imagename."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())


def role_of(name: str) -> str:
    """path, path?, label, label?, split, split?, flag, group, group?, box, or "" for a name that is not known."""
    plain = squeezed(name)
    known = (
        ("path", PATHS),
        ("path?", WEAK_PATHS),
        ("label", LABELS),
        ("label?", WEAK_LABELS),
        ("split", SPLITS),
        ("split?", WEAK_SPLITS),
        ("flag", (plain,) if FLAG.fullmatch(plain) else ()),
        ("group", GROUPS),
        ("group?", LIKE_GROUPS),
        ("box", BOXES),
    )
    return next((role for role, names in known if plain in names), "")


def is_known(name: str) -> bool:
    return bool(role_of(name))


def places(sheet: Sheet, *roles: str) -> list[int]:
    """The columns whose values are at hand that have one of these roles, the usual names first."""
    order = (*PATHS, *WEAK_PATHS, *LABELS)
    found = [place for place in sheet.values if role_of(sheet.names[place]) in roles]
    known = {name: rank for rank, name in enumerate(order)}
    return sorted(found, key=lambda place: known.get(squeezed(sheet.names[place]), 0))


def named(sheet: Sheet, columns: Sequence[int]) -> str:
    return " and ".join(quoted(sheet.names[place].strip()) for place in columns)


class Described(NamedTuple):
    """Where the columns of a sheet put each row, as it is written there. `grouped`: how the groups are said."""

    splits: list[str]
    groups: list[str]
    times: list[str]
    grouped: str


def described(sheet: Sheet, asked: Asked | None) -> Described:
    """The splits, groups and times of a sheet's rows; asked None: they do not matter. Raises DataError."""
    nothing = [""] * len(sheet)
    if asked is None:
        return Described(["none"] * len(sheet), nothing, nothing, "")
    times = nothing
    if asked.time is not None:
        place = _called(sheet, asked.time, "time")
        times = _cells(sheet, place)
        check_times(times, sheet.names[place].strip(), [sheet.row(k) for k in range(len(sheet))])
    groups, grouped = groups_of(sheet, None if asked.group is None else _called(sheet, asked.group, "group"))
    return Described(splits_of(sheet), groups, times, grouped)


def column_called(names: Sequence[str], asked: str) -> int | None:
    """The column of this name; letter case, blanks, dashes and the like matter only where two would be alike."""
    exact = [name.strip() for name in names]
    plain = [squeezed(name) for name in names]
    if asked.strip() in exact:
        return exact.index(asked.strip())
    return plain.index(squeezed(asked)) if squeezed(asked) and plain.count(squeezed(asked)) == 1 else None


def _called(sheet: Sheet, asked: str, option: str) -> int:
    """Raises DataError where --group or --time names no column of texts or numbers."""
    place = column_called(sheet.names, asked)
    if place is None or place not in sheet.values:
        raise DataError(
            f"{sheet.where} has no column {quoted(asked)} of texts or numbers, which --{option} names"
            f"{nearest(asked, [n.strip() for n in sheet.names])}: its columns are {sheet.seen()}"
        )
    return place


def _cells(sheet: Sheet, place: int) -> list[str]:
    return ["" if value.strip() in MISSING else value.strip() for value in sheet.values[place]]


def label_column(sheet: Sheet) -> int | None:
    """The column of the labels, or None. Raises DataError where several may be."""
    found = [place for place in places(sheet, "label") if any(v.strip() for v in sheet.values[place])]
    found = found or sheet.stated or places(sheet, "label?")
    if len(found) > 1:
        found = _same_classes(sheet, found)
    if len(found) > 1:
        raise DataError(
            f"{sheet.where}: which column is the class, {named(sheet, found)}? Keep the name of that one and rename "
            "the others, for instance to note1"
        )
    if found and role_of(sheet.names[found[0]]) == "label?":
        sheet.notes.append(f"the classes are those of column {named(sheet, found)}, since no column is called label")
    return found[0] if found else next(iter(places(sheet, "label")), None)


def _same_classes(sheet: Sheet, found: list[int]) -> list[int]:
    """One of the columns where all part the images into the same classes, which is that with names, not numbers."""
    fine = [place for place in found if squeezed(sheet.names[place]) == "finelabel"]
    coarse = [place for place in found if squeezed(sheet.names[place]) in ("coarselabel", "superclass")]
    if len(fine) == 1 and len(fine) + len(coarse) == len(found):
        sheet.notes.append(f"the classes are those of column {named(sheet, fine)}, not of {named(sheet, coarse)}")
        return fine
    columns = [[value.strip() for value in sheet.values[place]] for place in found]
    pairs = set(zip(*columns, strict=True))
    if not all(len({pair[k] for pair in pairs}) == len(pairs) for k in range(len(found))):
        return found
    words = [place for place, column in zip(found, columns, strict=True) if not all(map(_is_number, column))]
    best = (words or found)[0]
    others = [place for place in found if place != best]
    sheet.notes.append(
        f"the classes are named by column {named(sheet, [best])}; {named(sheet, others)} parts them alike"
    )
    return [best]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return text == ""
    return True


def no_label(sheet: Sheet) -> str:
    """Why a sheet without a column of labels cannot teach: its columns, and which one is perhaps meant."""
    held = [name for name in sheet.names if role_of(name) in ("label", "label?")]
    if held:
        return f"{sheet.where}: column {quoted(held[0])} holds neither a text nor a number for each image"
    hot = one_hot(sheet)
    if len(hot) > 1:
        some = ", ".join(quoted(name) for name in hot[:4]) + (f" and {len(hot) - 4} more" if len(hot) > 4 else "")
        return (
            f"{sheet.where} has no column 'label' but one of 0 and 1 for each of {len(hot)} classes ({some}): if an "
            "image has one class, write its name into one column label; for several labels an image say --task tag"
        )
    close = {name.strip(): squeezed(name) for name in sheet.names if not role_of(name)}
    like = next((name for name, plain in close.items() if plain and nearest(plain, ("label", "class", "category"))), "")
    meant = f"rename {quoted(like)} to label if it holds the classes" if like else "name the one with the classes label"
    meant += ", or say which one holds the truth with --label"
    return f"{sheet.where} has no column 'label': its columns are {sheet.seen()}; {meant}"


def one_hot(sheet: Sheet) -> list[str]:
    """The names of columns that hold nothing but 0 and 1, and both of them."""
    found = []
    for place, name in enumerate(sheet.names):
        seen = {row[place].strip().lower() for row in sheet.sample if place < len(row)}
        if not role_of(name) and len(seen) == 2 and seen <= {"0", "1", "0.0", "1.0", "true", "false"}:
            found.append(name.strip())
    return found


def splits_of(sheet: Sheet) -> list[str]:
    """train, validation, test or none for each row, by the one column that says so. Raises DataError."""
    found: dict[int, list[str]] = {}
    for place in places(sheet, "split"):
        found[place] = [_split(sheet, row, value, place) for row, value in enumerate(sheet.values[place])]
    for place in places(sheet, "split?"):
        if any(_known_split(value) for value in set(sheet.values[place])):
            found[place] = [_split(sheet, row, value, place) for row, value in enumerate(sheet.values[place])]
        else:
            _say_no_split(sheet, place)
    for place in places(sheet, "flag"):
        if flags := _flags(sheet, place):
            found[place] = flags
    if len({tuple(splits) for splits in found.values()}) > 1:
        raise DataError(
            f"{sheet.where}: which column parts the images, {named(sheet, list(found))}? They do not say the same: "
            "keep one, and rename the others, for instance to note1"
        )
    if not found:
        return ["none"] * len(sheet)
    if squeezed(sheet.names[next(iter(found))]) != "split":
        sheet.notes.append(f"column {named(sheet, list(found)[:1])} says which images train, validate and test")
    return next(iter(found.values()))


def _known_split(value: str) -> str:
    word = squeezed(value)
    return SPLIT_NAMES.get(word) or SPLIT_NAMES.get(word.removesuffix("set").removesuffix("ing"), "")


def _split(sheet: Sheet, row: int, value: str, place: int) -> str:
    if squeezed(value) in ("", "none", "nan", "null"):
        return "none"
    if found := _known_split(value):
        return found
    near = nearest(value.strip(), SPLIT_NAMES)
    name = sheet.names[place].strip()
    what = "split" if squeezed(name) == "split" else f"in column {quoted(name)},"
    raise DataError(f"{sheet.row(row)}: {what} {quoted(value)} is not one of {SPLITS_ALLOWED}{near}")


def _flags(sheet: Sheet, place: int) -> list[str]:
    """The splits that a column of true and false says; [] where it holds something else, or no two parts."""
    words = [value.strip().lower() for value in sheet.values[place]]
    seen = set(words)
    if not seen <= TRUE | FALSE or not seen & TRUE or not seen - TRUE:
        return []
    mark = FLAG.fullmatch(squeezed(sheet.names[place]))
    yes, no = FLAGS[("validation", "test", "train")[(mark.lastindex or 1) - 1 if mark else 0]]
    share = sum(word in TRUE for word in words) / len(words)
    if yes != "train" and share > 0.5:
        raise DataError(
            f"{sheet.where}: is {named(sheet, [place])} the mark of the {yes} images? It is true in {share:.0%} of the "
            f"lines: if so, name the column split and write {yes} and train; if not, give it another name"
        )
    return [yes if word in TRUE else no for word in words]


def _say_no_split(sheet: Sheet, place: int) -> None:
    seen = sorted({value.strip() for value in sheet.values[place]} - {""})
    if len(seen) > 1 and squeezed(sheet.names[place]) != "dataset":
        some = ", ".join(quoted(value) for value in seen[:4]) + (" ..." if len(seen) > 4 else "")
        sheet.notes.append(
            f"column {named(sheet, [place])} holds {some}, which says of no image whether it trains or tests: unused; "
            "a column split holds the words train, validation and test, and a column group keeps the images of each "
            "value together"
        )


def groups_of(sheet: Sheet, asked: int | None = None) -> tuple[list[str], str]:
    """(the group of each row, how that is said); columns that look like one and are not used are noted. asked: the
    column that --group names."""
    found = places(sheet, "group") if asked is None else [asked]
    if len(found) > 1:
        raise DataError(f"{sheet.where}: which column is the group, {named(sheet, found)}? Keep one of them")
    for place in places(sheet, "group?") if not found else []:
        sizes = Counter(value.strip() for value in sheet.values[place])
        sizes.pop("", 0)
        if 1 < len(sizes) < sum(sizes.values()):
            sheet.notes.append(
                f"column {named(sheet, [place])} looks like a group ({len(sizes)} different values) and is not used: "
                "name it with --group to keep the images of each value together, in training or in testing"
            )
    if not found:
        return [""] * len(sheet), ""
    values = _cells(sheet, found[0])
    n = len(set(values) - {""})
    return values, f", in {n} group{'s' if n != 1 else ''} of column {named(sheet, found)}"
