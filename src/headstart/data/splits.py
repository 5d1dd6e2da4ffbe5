"""Which images train and which judge: stratified by class, whole groups, the same for the same pictures.

Strata are numbers (image,), one class an image, or (image, stratum) of 0 and 1 where an image is in several or in none:
labels, or bins of measured values. The latter are dealt by `stratify.py`.

The draw follows the content of the images, not their names or their order: groups are put in the order of a hash of
(seed, smallest content hash in the group). Renaming or re-listing files changes nothing, and added images leave the
order of the others as it was.

scikit-learn's StratifiedGroupKFold balances as well, but follows the order of the rows and the numbers of the groups,
and takes 3.4 s for 20,000 groups of 100 classes, where `folds` takes 0.2 s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from headstart.data.stratify import dealt, rarest
from headstart.errors import DataError, OptionError, OutputError
from headstart.files.arrow import numbers, texts, whole_numbers
from headstart.files.parquet import UNSOUND, open_parquet, read_columns
from headstart.files.reading import why
from headstart.files.whole import write_whole

_COLUMNS = ("path", "hash", "label", "split", "group")
_FINGERPRINT = b"headstart.split.fingerprint"


@dataclass(frozen=True)
class Split:
    """What `split.parquet` holds, one entry per image (n,): names, hashes, labels and splits are str, groups int."""

    names: NDArray[np.object_]
    hashes: NDArray[np.object_]
    labels: NDArray[np.object_]
    splits: NDArray[np.object_]
    groups: NDArray[np.int64]
    fingerprint: str


@dataclass(frozen=True)
class _Group:
    """One group that is dealt out whole: its rows, how many images it has of each of its classes, and its hash."""

    rows: NDArray[np.int64]
    counts: tuple[tuple[int, int], ...]
    draw: str


def folds(
    labels: NDArray[np.integer[Any]], groups: NDArray[np.integer[Any]], n_folds: int, seed: int, keys: Sequence[str]
) -> NDArray[np.int64]:
    """Fold number (image,) in 0 .. n_folds-1 for labels (image,) or strata (image, stratum), groups (image,) and keys,
    the content hashes (image,).

    Groups are dealt out largest first, each to the fold that has the smallest share of its classes, then the fewest
    images. So no group is in two folds, classes of single images differ by at most one between folds, a class of
    n_folds groups or more is in every fold, and a class of two groups or more is in every training part (exactly so
    where each group is of one class). Raises OptionError for fewer than 2 folds or fewer groups than folds.
    """
    drawn = _groups(labels, groups, seed, keys)
    if not 2 <= n_folds <= len(drawn):
        raise OptionError(f"folds: {n_folds} asked, allowed are 2 to {len(drawn)}, the number of groups of images")
    if labels.ndim == 2:
        return _spread(drawn, _dealt(drawn, labels, [1 / n_folds] * n_folds), len(labels))
    drawn.sort(key=lambda g: -len(g.rows))  # stable: equal sizes stay in drawn order
    totals = np.bincount(labels).tolist()
    held = [[0] * n_folds for _ in totals]
    sizes = [0] * n_folds
    fold_of = np.empty(len(labels), dtype=np.int64)
    for group in drawn:
        cost = [sum(count * held[c][f] / totals[c] for c, count in group.counts) for f in range(n_folds)]
        fold = min(range(n_folds), key=lambda f: (cost[f], sizes[f]))
        fold_of[group.rows] = fold
        sizes[fold] += len(group.rows)
        for c, count in group.counts:
            held[c][fold] += count
    return fold_of


def hold_out(
    labels: NDArray[np.integer[Any]], groups: NDArray[np.integer[Any]], fraction: float, seed: int, keys: Sequence[str]
) -> NDArray[np.bool_]:
    """True (image,) where the image is held out; labels, groups, keys as in `folds`, fraction in (0, 1) of the images.

    Each class has its share held out, to within one group (single images: within one image, and the total is exact).
    Every class keeps at least one image for training. Raises OptionError for a fraction outside (0, 1).
    """
    if not 0.0 < fraction < 1.0:
        raise OptionError(f"fraction held out: {fraction} given, allowed is more than 0 and less than 1")
    if labels.ndim == 2:
        drawn = _groups(labels, groups, seed, keys)
        part = _spread(drawn, _dealt(drawn, labels, [1 - fraction, fraction], keep=0), len(labels))
        return np.asarray(part == 1, dtype=bool)
    totals = np.bincount(labels)
    wanted = _shares(totals, fraction)
    held = [0] * len(totals)
    out = np.zeros(len(labels), dtype=bool)
    for group in _groups(labels, groups, seed, keys):
        nearer = sum(abs(held[c] + k - wanted[c]) - abs(held[c] - wanted[c]) for c, k in group.counts) < 0
        if nearer and all(held[c] + k < totals[c] for c, k in group.counts):
            out[group.rows] = True
            for c, k in group.counts:
                held[c] += k
    return out


def nested_order(labels: NDArray[np.integer[Any]], seed: int, keys: Sequence[str]) -> NDArray[np.int64]:
    """The rows (image,) in an order whose every beginning is stratified.

    One image of each class comes first, then all classes at an equal pace. Of images in several strata each goes by
    its rarest one.
    """
    drawn = np.argsort(_draw(keys, seed), kind="stable")
    if labels.ndim == 2:
        labels, first = rarest(labels, drawn)
        paced = nested_order(labels, seed, keys)
        return np.concatenate([first, paced[~np.isin(paced, first)]])
    by_class = drawn[np.argsort(labels[drawn], kind="stable")]
    ordered = labels[by_class]
    rank = np.arange(len(ordered)) - np.searchsorted(ordered, ordered, side="left")
    pace = (rank + 0.5) / np.bincount(labels)[ordered]
    return np.asarray(by_class[np.lexsort((pace, rank > 0))], dtype=np.int64)


def _dealt(
    drawn: list[_Group], strata: NDArray[np.integer[Any]], shares: Sequence[float], keep: int | None = None
) -> NDArray[np.int64]:
    """The part (group,) of groups in drawn order; strata (image, stratum)."""
    counts = np.array([strata[group.rows].sum(axis=0) for group in drawn], dtype=np.int64)
    sizes = np.array([len(group.rows) for group in drawn], dtype=np.int64)
    return dealt(counts.reshape(len(drawn), strata.shape[1]), sizes, shares, [group.draw for group in drawn], keep)


def _spread(drawn: list[_Group], part: NDArray[np.int64], n_images: int) -> NDArray[np.int64]:
    """The part (image,) of each group's images."""
    found = np.empty(n_images, dtype=np.int64)
    for group, at in zip(drawn, part, strict=True):
        found[group.rows] = at
    return found


def _draw(keys: Sequence[str], seed: int) -> NDArray[np.str_]:
    """A random-looking sortable text for each key; 0 is a seed like any other."""
    salt = str(int(seed)).encode()[:16]
    return np.array([hashlib.blake2b(key.encode(), digest_size=16, salt=salt).hexdigest() for key in keys], dtype=str)


def _groups(
    labels: NDArray[np.integer[Any]], groups: NDArray[np.integer[Any]], seed: int, keys: Sequence[str]
) -> list[_Group]:
    """The groups in drawn order."""
    if not len(labels) == len(groups) == len(keys):
        raise DataError(
            f"split: {len(labels)} labels, {len(groups)} groups and {len(keys)} keys do not belong together"
        )
    by_key = np.argsort(np.asarray(keys, dtype=str), kind="stable")
    _, number = np.unique(groups, return_inverse=True)
    order = by_key[np.argsort(number[by_key], kind="stable")]
    parts = np.split(order, np.flatnonzero(np.diff(number[order])) + 1) if len(order) else []
    if not parts:
        return []
    drawn = _draw([keys[rows[0]] for rows in parts], seed)
    first = labels[[rows[0] for rows in parts]]
    several = labels.ndim == 2
    order = np.lexsort((*(first.T[::-1] if several else (first,)), drawn))
    return [_Group(parts[k], () if several else _counts(labels[parts[k]]), str(drawn[k])) for k in order]


def _counts(classes: NDArray[np.integer[Any]]) -> tuple[tuple[int, int], ...]:
    """(class, images) of a group's classes (image,)."""
    found, counts = (classes, [1]) if len(classes) == 1 else np.unique(classes, return_counts=True)
    return tuple((int(c), int(k)) for c, k in zip(found, counts, strict=True))


def _shares(totals: NDArray[np.int64], fraction: float) -> list[int]:
    """How many images of each class to hold out: the rounded total, shared out by largest remainder."""
    exact = totals * fraction
    wanted = np.floor(exact).astype(int)
    missing = round(float(exact.sum())) - int(wanted.sum())
    wanted[np.argsort(wanted - exact, kind="stable")[:missing]] += 1
    return [int(w) for w in wanted]


def fingerprint(
    hashes: Sequence[str], labels: Sequence[str], splits: Sequence[str], groups: NDArray[np.integer[Any]]
) -> str:
    """32 hex digits over the sorted (content hash, label, split, group) of all images; names, order and group numbers
    do not matter.

    A group stands there under the smallest content hash of its images.
    """
    smallest: dict[int, str] = {}
    for digest, group in zip(hashes, groups, strict=True):
        smallest[int(group)] = min(digest, smallest.get(int(group), digest))
    rows = sorted(
        (str(h), str(la), str(s), smallest[int(g)]) for h, la, s, g in zip(hashes, labels, splits, groups, strict=True)
    )
    state = hashlib.blake2b(digest_size=16)
    for row in rows:
        for field in row:
            raw = field.encode("utf-8", "surrogateescape")
            state.update(len(raw).to_bytes(8, "little") + raw)
    return state.hexdigest()


def write_split(
    path: str | Path,
    names: Sequence[str],
    hashes: Sequence[str],
    labels: Sequence[str],
    splits: Sequence[str],
    groups: NDArray[np.integer[Any]],
) -> str:
    """Write the split as Parquet (path, hash, label, split, group), whole or not at all; returns its fingerprint.

    Raises OutputError where the file cannot be written.
    """
    mark = fingerprint(hashes, labels, splits, groups)
    said = [[_storable(v) for v in column] for column in (names, hashes, labels, splits)]
    arrays = [texts(column) for column in said] + [numbers(np.asarray(groups, dtype=np.int64))]
    table = pa.table(dict(zip(_COLUMNS, arrays, strict=True))).replace_schema_metadata({_FINGERPRINT: mark.encode()})
    target = Path(path)
    try:
        write_whole(target, lambda beside: pq.write_table(table, beside))
    except OSError as error:
        raise OutputError(f"cannot write the split {target}: {why(error)}") from error
    return mark


def _storable(text: str) -> str:
    """A file name that is no valid UTF-8 is written with replacement characters: Parquet holds UTF-8 alone."""
    return str(text).encode("utf-8", "replace").decode("utf-8")


def read_split(path: str | Path) -> Split:
    """Read what `write_split` wrote. Raises DataError where the file is missing, damaged or changed since."""
    try:
        with open_parquet(Path(path)) as parquet:
            schema = parquet.schema_arrow
        missing = [column for column in _COLUMNS if column not in schema.names]
        if not missing and not pa.types.is_integer(schema.field("group").type):
            missing = ["whole numbers as groups"]
        mark = (schema.metadata or {}).get(_FINGERPRINT, b"").decode("ascii", "replace")
        if missing or not mark:
            raise DataError(f"{path} is no split of headstart: lacks {', '.join(missing) or 'its fingerprint'}")
        table = read_columns(Path(path), _COLUMNS)
        groups = whole_numbers(table["group"])
    except UNSOUND as error:
        raise DataError(f"cannot read the split {path}: {why(error)}") from error
    names, hashes, labels, splits = (np.array(table[c].to_pylist(), dtype=object) for c in _COLUMNS[:4])
    found = fingerprint(hashes.tolist(), labels.tolist(), splits.tolist(), groups)
    if found != mark:
        raise DataError(
            f"the split {path} was changed after it was written: fingerprint {found}, expected {mark}; fit again"
        )
    return Split(names, hashes, labels, splits, groups, mark)
