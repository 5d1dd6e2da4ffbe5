"""Who is it: the metric, the gallery and the thresholds together, and how they are judged without leaks.

Cross-validation asks two questions of each fold, whose metric, gallery and thresholds are all made of its own rows:
- known people: folds over images; is an image nearest to its own identity, enrolled from the other folds?
- strangers: folds over identities; how well do pairs of people verify whom the metric never saw, and how many of the
  enrolled are right and accepted at a threshold that keeps strangers out?
Metrics are compared on fewer images than in the fit that is handed over (JUDGED_CHOICE): its choice is the surer one.
It stands here and not in the judge, because what is chosen must be chosen inside the fold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from headstart.counted import counted
from headstart.data.splits import folds as stratified_folds
from headstart.errors import DataError
from headstart.heads.embedding import (
    CHOICE_IMAGES,
    JUDGED_CHOICE,
    LEAST,
    Blocks,
    Candidate,
    Embedding,
    choose_embedding,
)
from headstart.heads.gallery import RATE, Doubles, Gallery, Ints, Threshold, threshold_at
from headstart.heads.material import rows_of
from headstart.heads.taps import Part
from headstart.judge.identities import Pairs, closest, confused, scored_pairs, together, verification
from headstart.judge.intervals import accuracy_interval
from headstart.judge.marks import Interval, Marks, Score

FOLDS = 5
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Recogniser:
    """identify: the threshold of an image against the gallery; verify: of two images. Both were chosen by identities
    that the metric had not seen."""

    embedding: Embedding
    gallery: Gallery
    identify: Threshold
    verify: Threshold
    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Recognition:
    """What was found. marks, one an image that was judged: `row`, `best` (number of a name; -1 for none), `similarity`,
    `right`. shrinkages: of the metric, or of each fold's."""

    score: Score
    marks: Marks
    shrinkages: tuple[float | None, ...]
    notes: tuple[str, ...]


def fit_recogniser(
    blocks: Blocks,
    identities: Ints,
    names: Sequence[str],
    groups: Ints,
    parts: Sequence[Part],
    seed: int,
    rate: float = RATE,
    most: int = CHOICE_IMAGES,
) -> Recogniser:
    """Everything from these images: identities (image,) are numbers of names; rate: of strangers that are accepted;
    most: images on which metrics are compared and thresholds chosen."""
    chosen = choose_embedding(blocks, identities, groups, parts, seed, most)
    gallery = Gallery.of(chosen.embedding.embed(blocks), identities, names)
    identify = threshold_at(chosen.strangers.against_gallery, rate)
    pairs = chosen.strangers.pairs
    verify = threshold_at(np.zeros(0) if pairs is None else pairs.impostor, rate)
    notes = [*chosen.notes, *(t.note for t in (identify, verify) if t.note)]
    return Recogniser(chosen.embedding, gallery, identify, verify, chosen.candidates, tuple(dict.fromkeys(notes)))


@dataclass(frozen=True, eq=False)
class _Answers:
    """Rows (image,), number of the most similar name and its similarity, and whether it is accepted."""

    rows: Ints
    best: Ints
    similarity: Doubles
    accepted: npt.NDArray[np.bool_]


def folds_of_images(identities: Ints, groups: Ints, keys: Sequence[str], seed: int) -> Ints:
    """The fold (image,) in which each image asks who it is. Raises DataError where all images are one group."""
    n = len(np.unique(groups))
    if n < 2:
        raise DataError("all images are copies of each other or of one group, so that none can judge: add images")
    return stratified_folds(identities, groups, min(FOLDS, n), seed, keys)


def judge_recognition(
    blocks: Blocks,
    identities: Ints,
    names: Sequence[str],
    groups: Ints,
    keys: Sequence[str],
    parts: Sequence[Part],
    seed: int,
    progress: Progress | None = None,
) -> Recognition:
    """Cross-validated `identification_rate`, `eer`, `tar_at_far_1e2`, `tar_at_far_1e3` and `open_set_rate`.

    identities, groups (image,), keys (image,) content hashes. An estimate that the images cannot give is None, and a
    note says why: identification needs identities with two groups of images, strangers need LEAST identities.
    """

    def fit(rows: Ints) -> Recogniser:
        here = rows_of(blocks, rows)
        return fit_recogniser(here, identities[rows], names, groups[rows], parts, seed, most=JUDGED_CHOICE)

    def ask(model: Recogniser, rows: Ints) -> _Answers:
        return _answers(model, rows_of(blocks, rows), rows, names)

    of_image = folds_of_images(identities, groups, keys, seed)
    n_images = int(of_image.max()) + 1
    n_strangers = min(FOLDS, len(np.unique(identities)) // 2) if len(np.unique(identities)) >= LEAST else 0
    total = n_images + n_strangers
    known, strangers, models = [], [], []
    for f in range(n_images):
        model = fit(np.flatnonzero(of_image != f))
        rows = np.flatnonzero((of_image == f) & np.isin(identities, identities[of_image != f]))
        known.append(ask(model, rows))
        models.append(model)
        _tell(progress, f + 1, total)
    of_person = (
        stratified_folds(np.zeros_like(identities), identities, n_strangers, seed, keys) if n_strangers else None
    )
    for f in range(n_strangers):
        assert of_person is not None
        away = of_person == f
        taught = np.flatnonzero(~away & (of_image != f % n_images) & ~np.isin(groups, groups[away]))
        model = fit(taught)
        enrolled = ~away & (of_image == f % n_images) & np.isin(identities, identities[taught])
        new = np.flatnonzero(away)
        whole = fit(np.flatnonzero(~away & ~np.isin(groups, groups[away])))  # pairs need no image of the others
        pairs = scored_pairs(whole.embedding.embed(rows_of(blocks, new)), identities[new], groups[new], seed)
        strangers.append((ask(model, np.flatnonzero(enrolled)), ask(model, new), pairs))
        _tell(progress, n_images + f + 1, total)
    return _crossed(known, strangers, models, identities, names, groups, seed)


def _crossed(
    known: list[_Answers],
    strangers: list[tuple[_Answers, _Answers, Pairs]],
    models: list[Recogniser],
    identities: Ints,
    names: Sequence[str],
    groups: Ints,
    seed: int,
) -> Recognition:
    """The folds as one score."""
    closed = _joined(known)
    parts = [pairs for _, _, pairs in strangers]
    pairs = together(parts) if parts else Pairs(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))
    enrolled = _joined([a for a, _, _ in strangers])
    new = _joined([b for _, b, _ in strangers])
    score = _score((closed, enrolled, new, pairs), identities, names, groups, seed, len(known))
    notes = [note for model in models for note in model.notes]
    alone = len(identities) - len(closed.rows)
    if alone:
        notes.append(f"{counted(alone, 'image')} of identities without a second group of images cannot be identified")
    if not strangers:
        notes.append(f"pairs of strangers are not judged: fewer than {LEAST} identities")
    shrinkages = tuple(model.embedding.shrinkage for model in models)
    return Recognition(score, _marks(closed, identities), shrinkages, tuple(dict.fromkeys(notes)))


def judge_given(model: Recogniser, blocks: Blocks, truth: Sequence[str], groups: Ints, seed: int = 0) -> Recognition:
    """The scores of a held-out part. truth (image,): names, enrolled or new: the images of the former are identified,
    those of the latter should be unknown at the model's threshold, and pairs among all of them are verified."""
    new_names = sorted(set(map(str, truth)) - set(model.gallery.names))
    names = (*model.gallery.names, *new_names)
    number = {name: i for i, name in enumerate(names)}
    identities = np.array([number[str(name)] for name in truth], dtype=np.int64)
    rows = np.arange(len(identities))
    answers = _answers(model, blocks, rows, names)
    enrolled = identities < len(model.gallery.names)
    known, new = _part(answers, enrolled), _part(answers, ~enrolled)
    pairs = scored_pairs(model.embedding.embed(blocks), identities, groups, seed)
    score = _score((known, known, new, pairs), identities, names, groups, seed, None)
    score.tables["false_accept_rate"]["asked"] = model.identify.rate
    marks = _marks(answers, np.where(enrolled, identities, -1))
    right = np.where(enrolled, marks["right"], ~answers.accepted)
    columns = {**marks.columns, "right": right}
    return Recognition(score, Marks(columns), (model.embedding.shrinkage,), model.notes)


def _score(
    found: tuple[_Answers, _Answers, _Answers, Pairs],
    identities: Ints,
    names: Sequence[str],
    groups: Ints,
    seed: int,
    folds: int | None,
) -> Score:
    """Of known images, of images that are enrolled beside strangers, of strangers, and of pairs."""
    closed, enrolled, new, pairs = found
    estimates, tables = verification(pairs, seed)
    right = enrolled.accepted & (enrolled.best == identities[enrolled.rows])
    estimates = {
        "identification_rate": _share(closed.best == identities[closed.rows], groups[closed.rows]),
        **estimates,
        "open_set_rate": _share(right, groups[enrolled.rows]),
    }
    tables |= {
        "false_accept_rate": {"asked": RATE, **_share(new.accepted, identities[new.rows])},
        "confused": confused(identities[closed.rows], closed.best, names),
        "closest": closest(pairs, names),
    }
    return Score(len(closed.rows), estimates, tables, folds, None if folds is None else 1)


def _share(hit: npt.NDArray[np.bool_], groups: Ints) -> Interval:
    if not len(hit):
        return {"value": None, "low": None, "high": None}
    found = accuracy_interval(hit, groups)
    return {"value": found["value"], "low": found["low"], "high": found["high"]}


def _answers(model: Recogniser, blocks: Blocks, rows: Ints, names: Sequence[str]) -> _Answers:
    number = {name: i for i, name in enumerate(names)}
    place = np.array([*(number[name] for name in model.gallery.names), -1])  # the last for an empty gallery
    best, similarity = model.gallery.best(model.embedding.embed(blocks))
    return _Answers(rows, place[best], similarity, similarity >= model.identify.value)


def _joined(parts: list[_Answers]) -> _Answers:
    none = _Answers(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0, bool))
    columns = ("rows", "best", "similarity", "accepted")
    return _Answers(*(np.concatenate([getattr(p, c) for p in (none, *parts)]) for c in columns))


def _part(answers: _Answers, kept: npt.NDArray[np.bool_]) -> _Answers:
    return _Answers(answers.rows[kept], answers.best[kept], answers.similarity[kept], answers.accepted[kept])


def _marks(answers: _Answers, identities: Ints) -> Marks:
    order = np.argsort(answers.rows, kind="stable")
    rows, best = answers.rows[order], answers.best[order]
    right = best == identities[rows]
    return Marks({"row": rows, "best": best, "similarity": answers.similarity[order], "right": right})


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total)
