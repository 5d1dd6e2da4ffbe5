"""Hundreds of made-up folders: the right table, or one line that names the trouble; never classes that nobody meant."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.data.table import read_table
from headstart.errors import DataError

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # folders are made and removed 5 times faster there
CLASSES = ("Forest", "river", "Ångström", "café", "sea lake", "0", "7", "日本", "no_mask", "Class_1", "a.b", "bus (1)")
OUTER = ("north", "A", "B", "fold1", "fold2", "2019", "2020", "color", "grayscale", "web")
SITES = ("site1", "site2", "left", "right", "day 1", "day 2", "p01", "p02", "2019-05", "camera_b")
WRAPPERS = ("archive", "Dataset", "data", "raw-img", "My Photos", "Ångström data")
WORDS = {
    "train": ("train", "training", "trainval"),
    "validation": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
FORMS = ("{}", "{}_set", "seg_{}", "01_{}", "{}-data", "{}_images", "{}2017", "flowers_{}", "{} split", "{}set")
CLUTTER = (
    *("x.tfw", "x.jpg.aux.xml", "x.tif.ovr", "x.xmp", "x.tif.msk", "x.vat.dbf", "x.shp", "notes.txt", ".DS_Store"),
    *("Thumbs.db", "desktop.ini", "._1.jpg", ".ipynb_checkpoints/1.jpg", "__MACOSX/1.jpg", "@eaDir/1.jpg", "empty/"),
)


@dataclass
class Made:
    """A folder to be: where each picture lies, and what it is, or None where nobody can know."""

    truth: dict[str, tuple[str, str]] | None
    pictures: list[str]
    clutter: list[str] = field(default_factory=list)
    must_read: bool = False


@st.composite
def some_names(draw: st.DrawFn, pool: tuple[str, ...], least: int = 2, most: int = 4) -> list[str]:
    return draw(st.lists(st.sampled_from(pool), min_size=least, max_size=most, unique=True))


@st.composite
def spelt(draw: st.DrawFn, name: str) -> str:
    """The name with its accents in one of two forms."""
    return unicodedata.normalize(draw(st.sampled_from(("NFC", "NFD"))), name)


@st.composite
def parts(draw: st.DrawFn) -> dict[str, str]:
    """Folder name -> split: train, and one or two others, as people call them."""
    form = draw(st.sampled_from(FORMS))
    case = draw(st.sampled_from((str, str.upper, str.title)))
    splits = ["train", *draw(st.sampled_from((["test"], ["validation"], ["validation", "test"])))]
    return {case(form.format(draw(st.sampled_from(WORDS[split])))): split for split in splits}


def below(folder: str, n: int = 2) -> list[str]:
    return [f"{folder}/{k}.jpg" for k in range(n)]


@st.composite
def class_folders(draw: st.DrawFn) -> Made:
    truth = {}
    sites = draw(st.one_of(st.just([]), st.just(["images"]), some_names(SITES)))
    for name in draw(some_names(CLASSES)):
        folder = draw(spelt(name))
        for place in [f"{folder}/{site}" for site in sites] or [folder]:
            truth |= dict.fromkeys(below(place), (name, "none"))
    return Made(truth, list(truth), must_read=True)


@st.composite
def split_folders(draw: st.DrawFn) -> Made:
    truth = {}
    classes, names = draw(some_names(CLASSES)), draw(parts())
    wrapper = draw(st.sampled_from(("", "", "same", "images", "inner")))
    for part, split in names.items():
        place = f"{part}/{part if wrapper == 'same' else wrapper}" if wrapper else part
        for name in classes:
            truth |= dict.fromkeys(below(f"{place}/{draw(spelt(name))}"), (name, split))
    return Made(truth, list(truth), must_read=True)


@st.composite
def divided_classes(draw: st.DrawFn) -> Made:
    names = draw(parts())
    truth = {
        picture: (name, split)
        for name in draw(some_names(CLASSES))
        for folder in [draw(spelt(name))]
        for part, split in names.items()
        for picture in below(f"{folder}/{part}")
    }
    return Made(truth, list(truth), must_read=True)


@st.composite
def two_readings(draw: st.DrawFn) -> Made:
    """Folders whose names tell nothing, and which all hold the same folders."""
    inner = draw(some_names(CLASSES))
    pictures = [p for outer in draw(some_names(OUTER)) for name in inner for p in below(f"{outer}/{draw(spelt(name))}")]
    return Made(None, pictures)


@st.composite
def no_labels(draw: st.DrawFn) -> Made:
    """Parts, or one folder, or parts of one set, with pictures directly inside."""
    numbered = ["images_1", "images_2"], ["Set_images_part_1", "Set_images_part_2"], ["batch1", "batch2", "batch3"]
    folders = draw(st.one_of(parts().map(list), st.sampled_from((["images"], ["data"], *numbered))))
    return Made(None, [p for folder in folders for p in below(folder)])


@st.composite
def other_tasks(draw: st.DrawFn) -> Made:
    """Masks and boxes."""
    pictures = draw(st.sampled_from(("images", "JPEGImages", "imgs", "train_images", "Photos")))
    marks, kind = draw(
        st.sampled_from(
            (("masks", "png"), ("labels", "txt"), ("Annotations", "xml"), ("SegmentationClass", "png"), ("gt", "png"))
        )
    )
    places = draw(st.one_of(st.just(["."]), parts().map(list)))
    files = [f"{place}/{pictures}/{k}.jpg" for place in places for k in range(2)]
    others = [f"{place}/{marks}/{k}.{kind}" for place in places for k in range(2)]
    return Made(None, files, others)


@st.composite
def sets_in_sets(draw: st.DrawFn) -> Made:
    """A set in its own folder, with something else beside it, or a second copy of its folders."""
    made = draw(st.one_of(class_folders(), split_folders()))
    name = draw(st.sampled_from(("images", "data", "archive")))
    pictures = [f"{name}/{p}" for p in made.pictures]
    beside = draw(st.sampled_from(("docs", "figures", "copy")))
    again = [f"{beside}/{p}" for p in made.pictures] if beside == "copy" else below(beside)
    return Made(None, pictures + again)


@st.composite
def folders(draw: st.DrawFn) -> Made:
    made = draw(
        st.one_of(
            *(class_folders(), split_folders(), divided_classes(), two_readings(), no_labels()),
            *(other_tasks(), sets_in_sets()),
        )
    )
    places = sorted({str(Path(p).parent) for p in made.pictures})
    found = draw(st.lists(st.tuples(st.sampled_from(places), st.sampled_from(CLUTTER)), max_size=4))
    made.clutter += [f"{place}/{stray}" for place, stray in found]
    wrapped = "/".join(draw(st.lists(st.sampled_from(WRAPPERS), max_size=2)))
    if wrapped:
        made.pictures = [f"{wrapped}/{p}" for p in made.pictures]
        made.clutter = [f"{wrapped}/{p}" for p in made.clutter]
        made.must_read &= made.truth is not None and all(split != "none" for _, split in made.truth.values())
        made.truth = made.truth and {f"{wrapped}/{p}": known for p, known in made.truth.items()}
    return made


def made_into(made: Made, place: str) -> None:
    for name in (*made.pictures, *made.clutter):
        path = Path(place, name)
        os.makedirs(path if name.endswith("/") else path.parent, exist_ok=True)  # noqa: PTH103 (half the time)
        if not name.endswith("/"):
            os.close(os.open(path, os.O_CREAT))


def refusal(place: str) -> str:
    """Why the folder is refused; "" if it is read."""
    try:
        read_table(place)
    except DataError as error:
        return str(error)
    return ""


@settings(max_examples=320, deadline=None, derandomize=True)
@given(folders())
def test_a_folder_is_read_as_it_was_meant_or_the_trouble_is_named(made: Made) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as place:
        made_into(made, place)
        said = refusal(place)
        assert not (said and made.must_read), said
        assert "\n" not in said
        if said:
            assert place in said
            return
        table = read_table(place)
    assert made.truth is not None, table.layout
    rows = zip(table.names, table.labels, table.splits, strict=True)
    assert {name: (label, split) for name, label, split in rows} == made.truth
