"""What the name of a folder tells: a part of the data, pictures in general, masks, a site, images without label."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "trainval": "train",
    "trainvalid": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "validate": "validation",
    "dev": "validation",
    "devel": "validation",
    "development": "validation",
    "eval": "validation",
    "evaluation": "validation",
    "test": "test",
    "testing": "test",
    "tst": "test",
    "holdout": "test",
    "heldout": "test",
}
CONTAINERS = frozenset(
    ["images", "image", "imgs", "img", "data", "dataset", "datasets", "archive", "jpegimages"]
)  # no class is called so
PICTURES = CONTAINERS | frozenset(
    [
        "photos",
        "photo",
        "pictures",
        "picture",
        "pics",
        "pic",
        "frames",
        "frame",
        "input",
        "inputs",
        "rgb",
        "jpg",
        "jpeg",
        "png",
    ]
)
FILLERS = PICTURES | frozenset(  # say nothing of their own
    """set sets ds folder folders dir split part parts seg sample samples file files the my all raw full final new
    original originals labelled labeled annotated cropped resized partial default""".split()  # noqa: SIM905
)
ANNOTATIONS = frozenset(
    """annotation annotations masks mask label labels groundtruth gt segmentation segmentations trimap trimaps bbox
    bboxes""".split()  # noqa: SIM905
)
_BESIDE_ANNOTATION = frozenset(
    [
        "class",
        "classes",
        "object",
        "objects",
        "txt",
        "xml",
        "fine",
        "id",
        "ids",
        "instance",
        "instances",
        "semantic",
        "voc",
        "coco",
    ]
)
UNLABELLED = frozenset(["unlabelled", "unlabeled", "unsorted", "unannotated"])
OUTPUTS = frozenset(
    """pred predict prediction predictions submission submissions results result output outputs logs scripts
    metadata""".split()  # noqa: SIM905
)
ASIDE = (
    OUTPUTS
    | UNLABELLED
    | frozenset(  # beside train and test: what nobody trains on
        "docs figures extra extras sample samples example examples demo misc doc figure fig meta models preview".split()  # noqa: SIM905
    )
)
_SITES = (
    frozenset(
        """site cam camera left right front back rear top bottom upper lower inner outer north south east west day night
    morning noon evening session sequence seq video clip visit patient subject case person participant animal plate
    plot field well slide scan run rep repl replicate repeat batch lot burst roi tile view angle zoom fold location loc
    station transect trap raw original originals augmented augmentation aug cropped crop resized flipped rotated
    enhanced hires lores thumbs thumbnails p s c t r pat subj
    january february march april may june july august september october november december
    spring summer autumn fall winter""".split()  # noqa: SIM905
    )
    | PICTURES
)
_MARKS = frozenset(
    "augmented augmentation aug copy copie kopie backup bak resized cropped flipped rotated".split()  # noqa: SIM905
)
_UNNAMED = frozenset({"new folder", "untitled folder", "neuer ordner", "nouveau dossier", "nueva carpeta"})
_YEAR = re.compile(r"(?:19|20)\d\d(?:[-_. ]?\d\d){0,2}")
_CLASS_WORDS = frozenset(
    ["class", "label", "category", "cat", "cls", "type", "grade", "stage", "level", "digit", "species", "sp"]
)


def composed(name: str) -> str:
    """The name with its accents in one form (NFC): macOS writes them in another than Linux and Windows."""
    return unicodedata.normalize("NFC", name)


def key(name: str) -> str:
    """Equal for names that are spelt alike but for letter case, blanks and the form of their accents."""
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


@lru_cache(4096)
def tokens(name: str) -> tuple[str, ...]:
    """The words of a name in lower case, without digits: "seg_Train2" -> seg, train; "JPEGImages" -> jpeg, images."""
    plain = unicodedata.normalize("NFKC", name)
    parted = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", plain)
    return tuple(word.lower() for word in re.findall(r"[^\W\d_]+", parted))


def split_and_rest(name: str) -> tuple[str, tuple[str, ...]]:
    """(split, the words of the name that say something else): "seg_train" -> train, (). ("", ()) for other names."""
    found = [(_split_word(word), word) for word in tokens(name)]
    splits = {split for split, _ in found if split}
    if len(splits) != 1:
        return ("train", ()) if tokens(name) in (("train", "val"), ("train", "valid")) else ("", ())
    return splits.pop(), tuple(w for split, w in found if not split and w not in FILLERS and len(w) > 1)


def split_at_start(name: str) -> str:
    """The part that a file's name begins with: train-00000-of-00002.parquet, val_01.tar; "" for none."""
    return SPLIT_NAMES.get(name.lower().replace("_", "-").replace(".", "-").split("-")[0], "")


def split_of(name: str) -> str:
    """train, validation or test, where a name says that and nothing else; else ""."""
    split, rest = split_and_rest(name)
    return "" if rest else split


def splits_of(names: Sequence[str]) -> list[str]:
    """The same for names that lie side by side: flowers_train beside flowers_test are splits too."""
    found = [split_and_rest(name) for name in names]

    def paired(split: str, rest: tuple[str, ...]) -> bool:
        return any(other and other != split and rest == also for other, also in found)

    return [split if split and (not rest or paired(split, rest)) else "" for split, rest in found]


def _split_word(word: str) -> str:
    if word in SPLIT_NAMES:
        return SPLIT_NAMES[word]
    for known in sorted(SPLIT_NAMES, key=len, reverse=True):  # trainset, testimages
        if (word.startswith(known) and word[len(known) :] in FILLERS) or (
            word.endswith(known) and word[: -len(known)] in FILLERS
        ):
            return SPLIT_NAMES[known]
    return ""


def holds_pictures(name: str) -> bool:
    """Such as images, JPEGImages, raw_img: a place for pictures."""
    words = tokens(name)
    return any(w in PICTURES for w in words) and all(w in FILLERS or _split_word(w) for w in words)


def is_container(name: str) -> bool:
    """Such as images, data_1, img_raw: a place, and never what is seen in a picture."""
    words = tokens(name)
    return any(w in CONTAINERS for w in words) and all(w in FILLERS for w in words)


def is_annotation(name: str) -> bool:
    """Such as masks, Annotations, train_labels, SegmentationClass, ground_truth."""
    words = tokens(name)
    if words[-2:] == ("ground", "truth"):
        words = (*words[:-2], "groundtruth")
    known = ANNOTATIONS | FILLERS | _BESIDE_ANNOTATION
    return any(w in ANNOTATIONS for w in words) and all(w in known or _split_word(w) for w in words)


def tells_of_masks(name: str) -> bool:
    return any(word.removeprefix("no").removeprefix("non") in ("mask", "masks") for word in tokens(name))


def is_output(name: str) -> bool:
    """Such as predictions, results_2, figures: never a class."""
    words = tokens(name)
    return any(w in OUTPUTS for w in words) and all(w in OUTPUTS or w in FILLERS for w in words)


def is_unnamed(name: str) -> bool:
    """What a new folder is called before somebody names it."""
    return key(re.sub(r"\s*\(?\d+\)?$", "", name)) in _UNNAMED


def is_unlabelled(name: str) -> bool:
    words = tokens(name)
    return any(w in UNLABELLED for w in words) and all(w in UNLABELLED or w in FILLERS for w in words)


def is_labelled(name: str) -> bool:
    return tokens(name) in (("labelled",), ("labeled",))


def says_nothing(name: str) -> bool:
    """Such as labelled, all, original_images."""
    return bool(tokens(name)) and all(word in FILLERS for word in tokens(name))


def is_aside(name: str) -> bool:
    """Such as extra, seg_pred, unlabelled, docs: beside the parts of a set it is none of its classes."""
    return any(word in ASIDE for word in tokens(name)) and not split_of(name)


def are_sites(names: Sequence[str]) -> bool:
    """Whether all are names of places, times, views or repetitions, such as a class is photographed in."""
    return bool(names) and (all(_is_site(name) for name in names) or _is_series(names))


def _is_site(name: str) -> bool:
    words = tokens(name)
    if not words:
        return bool(_YEAR.fullmatch(name.strip()))
    return any(w in _SITES for w in words) and all(w in _SITES or w in FILLERS or len(w) == 1 for w in words)


def _is_series(names: Sequence[str]) -> bool:
    """plot-1, plot-2, plot-7: the same word with different numbers, and no word for a class."""
    found = {tokens(name) for name in names}
    numbered = all(re.search(r"\d", name) for name in names)
    alike = numbered and len(found) == 1 and len(names) > 1
    return alike and bool(words := found.pop()) and not any(w in _CLASS_WORDS for w in words)


def variants(names: Sequence[str]) -> list[tuple[str, str]]:
    """(a name, that of the same with a mark): cat and cat_augmented, dog and test_dog, bus and "bus - Copy"."""
    plain = {tokens(name): name for name in names if name and not re.search(r"\(\d+\)$", name)}
    found = []
    for name in names:
        words = tuple(w for w in tokens(name) if w not in _MARKS and w not in SPLIT_NAMES and w not in ("of",))
        numbered = re.fullmatch(r"(.+?) ?\(\d+\)", name)
        original = numbered[1] if numbered and numbered[1] in names else plain.get(words) if words else None
        if original and original != name and (numbered or words != tokens(name)):
            found.append((original, name))
    return found


def parts_of_one_set(names: Sequence[str]) -> bool:
    """images_001, images_002 or set_part_1, set_part_2: one set of pictures in several folders."""
    found = {tokens(name) for name in names}
    numbered = len({tuple(re.findall(r"\d+", name)) for name in names}) == len(names) > 1
    if len(found) != 1 or not numbered:
        return False
    words = next(iter(found))
    return any(w in CONTAINERS or w in ("batch", "chunk", "shard") for w in words)


def differ_only_in_spelling(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ only in letter case or blanks."""
    ordered = sorted(names, key=lambda n: (key(n), n))
    return [(a, b) for a, b in pairwise(ordered) if key(a) == key(b)]
