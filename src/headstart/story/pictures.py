"""The pictures that a report shows, each with its truth and its answer in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart import report
from headstart.data import images
from headstart.data.duplicates import find_conflicts, find_leaks
from headstart.data.sources import GoneSource
from headstart.data.truth import tags_in, values_in
from headstart.errors import ImageError
from headstart.heads.oddity import Oddity
from headstart.report.page import MAX_COPIES, MAX_GROUPS
from headstart.story.pipeline import Fitted
from headstart.story.reasons import heats_of, look_likes, overlays_of, small

GALLERY = 12  # pictures of a kind in the report
Pictures = tuple[report.Picture, ...]
COPIED = 128  # px of a copy: what is the same is seen so too, and 72 of them may be shown
PREVIEW = 256  # px, the longer side: sharp on a phone, 10 to 20 KiB


def _preview(fitted: Fitted, row: int, side: int = PREVIEW) -> bytes:
    """As a JPEG; of a picture that is not at hand its thumbnail, b"" of one that cannot be read any more."""
    seen = fitted.seen
    try:
        if isinstance(seen.table.sources[row], GoneSource):
            return images.preview(seen.features.thumbnails[row], side)
        return images.preview(seen.table.read(row), side, preprocess=seen.backbone.preprocess)
    except ImageError:
        return b""


def _picture(fitted: Fitted, row: int, predicted: str, probability: float, note: str = "") -> report.Picture:
    """Of sets of labels and of values the probability is of no one answer, and is left out; of identities it is how
    similar they are."""
    seen, task = fitted.seen, fitted.method.task.name
    return report.Picture(
        _preview(fitted, row),
        str(seen.table.names[row]),
        _truth_told(str(seen.table.labels[row]), task),
        predicted,
        probability if task == "classify" else None,
        f"similarity {probability:.3f}" if task == "recognise" else note,
    )


def _truth_told(text: str, task: str) -> str:
    """The truth of an image for a reader: labels with a plus between, values as answers are written."""
    if task == "tag":
        return " + ".join(sorted(tags_in(text)[0])) or "none of them"
    return ", ".join(f"{value:.4g}" for value in values_in(text)) if task == "regress" else text


def _interval_told(answer: npt.NDArray[np.floating[Any]], task: str) -> str:
    """The prediction interval of one image's values (column, 2), "" of another task."""
    if task != "regress":
        return ""
    ends = [(value - half, value + half) for value, half in answer if np.isfinite(half)]
    return "interval " + ", ".join(f"{low:.4g} to {high:.4g}" for low, high in ends) if ends else ""


def _with_reasons(fitted: Fitted, rows: npt.NDArray[np.int64], worst: Pictures, explain: bool) -> Pictures:
    """The worst mistakes, of these rows, with the training images they look like; `explain`: with where the network
    looked."""
    likes, looked = look_likes(fitted, rows), overlays_of(fitted, rows) if explain else {}
    told = []
    for row, shown in zip(map(int, rows), worst, strict=True):
        found = likes.get(row)
        name = "" if found is None else str(fitted.seen.table.names[found.row])
        like = None if found is None else report.Like(small(fitted, found.row), name, found.cosine)
        told.append(replace(shown, like=like, looked=looked.get(row, b"")))
    return tuple(told)


def galleries(fitted: Fitted, explain: bool = False) -> dict[str, Pictures]:
    """Name -> pictures; explain: with where the network looked, of the worst mistakes."""
    verdict, task, names = fitted.verdict, fitted.method.task, fitted.seen.targets.names

    def some(places: npt.NDArray[np.int64]) -> tuple[report.Picture, ...]:
        chosen = [(int(verdict.rows[k]), verdict.answers[k]) for k in places[:GALLERY]]
        return tuple(
            _picture(fitted, row, *task.said(names, answer, fitted.rule), _interval_told(answer, task.name))
            for row, answer in chosen
        )

    suspects = [
        _picture(fitted, s.row, names[s.suggested], s.score, s.reason(names)) for s in fitted.suspects[:GALLERY]
    ]
    places = task.galleries(verdict.marks)
    found = {name: some(mine) for name, mine in places.items()}
    if "worst" in found:
        found["worst"] = _with_reasons(fitted, verdict.rows[places["worst"][:GALLERY]], found["worst"], explain)
    for name in ("worst", "most_certain") if isinstance(fitted.head, Oddity) else ():
        heats = heats_of(fitted, verdict.rows[places[name][:GALLERY]])
        rows = map(int, verdict.rows[places[name][:GALLERY]])
        found[name] = tuple(replace(p, looked=heats.get(row, b"")) for row, p in zip(rows, found[name], strict=True))
    return found | {"suspects": tuple(suspects)}


def duplicate_groups(fitted: Fitted) -> tuple[report.DuplicateGroup, ...]:
    """The groups shown: leaks and conflicts first."""
    seen = fitted.seen
    bad = {
        id(s)
        for s in [*find_leaks(seen.duplicates, seen.table.splits), *find_conflicts(seen.duplicates, seen.table.labels)]
    }
    order = sorted(seen.duplicates, key=lambda s: id(s) not in bad)
    return tuple(
        report.DuplicateGroup(
            s.kind,
            tuple(
                report.Copy(
                    _preview(fitted, r, COPIED) if k < MAX_COPIES else b"",
                    str(seen.table.names[r]),
                    str(seen.table.labels[r]),
                    str(seen.table.splits[r]),
                )
                for k, r in enumerate(s.rows)
            ),
        )
        for s in order[:MAX_GROUPS]
    )
