"""Splits: stratified, whole groups, the same for the same pictures."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from headstart.data.splits import fingerprint, folds, hold_out, nested_order, read_split, write_split
from headstart.data.targets import Values
from headstart.errors import DataError, OptionError, OutputError

Ints = NDArray[np.int64]


def images(n: int, n_classes: int, seed: int = 0, largest_group: int = 1) -> tuple[Ints, Ints, list[str]]:
    """Labels, groups of one class each, and content hashes; class sizes differ."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, largest_group + 1, n)
    groups = np.repeat(np.arange(n), sizes)[:n]
    labels = np.minimum(rng.geometric(0.4, n) - 1, n_classes - 1)[groups]
    return labels, groups, [f"{v:016x}" for v in rng.integers(0, 2**62, n)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 6))
def test_folds_keep_groups_whole_and_spread_each_class(seed: int, n_folds: int, largest_group: int) -> None:
    labels, groups, keys = images(120, 4, seed, largest_group)
    fold = folds(labels, groups, n_folds, seed, keys)
    for group in np.unique(groups):
        assert len(np.unique(fold[groups == group])) == 1
    for c in np.unique(labels):
        n_groups = len(np.unique(groups[labels == c]))
        counts = np.bincount(fold[labels == c], minlength=n_folds)
        if n_groups >= 2:
            assert all((counts.sum() - counts) > 0)  # in every training part
        if n_groups >= n_folds:
            assert (counts > 0).all()  # in every fold
        assert np.ptp(counts) <= np.bincount(groups[labels == c]).max()
    assert np.ptp(np.bincount(fold, minlength=n_folds)) <= 4 * largest_group


def test_folds_of_single_images_differ_by_one_at_most() -> None:
    labels, groups, keys = images(997, 7)
    fold = folds(labels, groups, 5, 0, keys)
    counts = np.stack([np.bincount(labels[fold == f], minlength=7) for f in range(5)])
    assert np.ptp(counts, axis=0).max() <= 1
    assert np.ptp(counts.sum(axis=1)) <= 1


def test_folds_stratify_large_mixed_groups_within_one_group() -> None:
    """30 patients with 2 to 40 images of three classes each."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), rng.integers(2, 41, 30))
    labels = rng.choice(3, len(groups), p=[0.6, 0.3, 0.1])
    fold = folds(labels, groups, 5, 0, [f"{i:05d}" for i in range(len(groups))])
    shares = np.array([[np.mean(labels[fold == f] == c) for c in range(3)] for f in range(5)])
    assert np.abs(shares - np.bincount(labels) / len(labels)).max() < 0.1


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_the_draw_follows_the_content_not_names_order_or_numbers(seed: int) -> None:
    labels, groups, keys = images(300, 5, largest_group=4)
    fold, held = folds(labels, groups, 5, seed, keys), hold_out(labels, groups, 0.2, seed, keys)
    order = np.random.default_rng(9).permutation(300)
    renumbered = np.random.default_rng(8).permutation(301)[groups]
    moved = [keys[i] for i in order]
    assert np.array_equal(folds(labels[order], renumbered[order], 5, seed, moved), fold[order])
    assert np.array_equal(hold_out(labels[order], renumbered[order], 0.2, seed, moved), held[order])


def test_each_seed_is_one_draw_and_zero_is_a_seed() -> None:
    labels, groups, keys = images(200, 3)
    draws = [folds(labels, groups, 5, seed, keys) for seed in (0, 1, 2, 0)]
    assert np.array_equal(draws[0], draws[3])
    same = [np.mean(draws[0] == draws[i]) for i in (1, 2)]
    assert all(0.1 < share < 0.35 for share in same)  # 1 in 5 agrees by chance


def test_added_images_leave_most_of_the_held_out_set_as_it_was() -> None:
    labels, groups, keys = images(1000, 3)
    before = hold_out(labels[:950], groups[:950], 0.2, 0, keys[:950])
    after = hold_out(labels, groups, 0.2, 0, keys)[:950]
    assert np.mean(before == after) > 0.95


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.6), st.integers(1, 8))
def test_hold_out_is_stratified_to_within_one_group(seed: int, fraction: float, largest_group: int) -> None:
    labels, groups, keys = images(200, 4, seed, largest_group)
    held = hold_out(labels, groups, fraction, seed, keys)
    for group in np.unique(groups):
        assert len(np.unique(held[groups == group])) == 1
    for c in np.unique(labels):
        of_class = labels == c
        assert (of_class & ~held).sum() >= 1
        largest = np.bincount(groups[of_class]).max()
        assert abs((held & of_class).sum() - fraction * of_class.sum()) <= largest + (
            1 if of_class.sum() <= largest else 0
        )


def test_hold_out_of_single_images_has_the_exact_size() -> None:
    labels = np.repeat(np.arange(30), 2)  # a fifth of each class is less than one image; of all it is 12
    held = hold_out(labels, np.arange(60), 0.2, 0, [f"{i:04d}" for i in range(60)])
    assert held.sum() == 12
    assert np.bincount(labels[held]).max() == 1


def test_a_class_of_one_image_is_never_held_out() -> None:
    labels = np.array([0] * 20 + [1])
    for seed in range(20):
        assert not hold_out(labels, np.arange(21), 0.5, seed, [f"{i:04d}" for i in range(21)])[20]


def test_impossible_numbers_are_refused() -> None:
    labels, groups, keys = images(10, 2)
    for n_folds in (0, 1, 11):
        with pytest.raises(OptionError, match="allowed are 2 to 10"):
            folds(labels, groups, n_folds, 0, keys)
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(OptionError, match="fraction"):
            hold_out(labels, groups, fraction, 0, keys)
    with pytest.raises(DataError, match="do not belong together"):
        folds(labels, groups[:-1], 2, 0, keys)


def test_every_beginning_of_the_nested_order_is_stratified() -> None:
    labels, _, keys = images(500, 5)
    order = nested_order(labels, 0, keys)
    assert sorted(order) == list(range(500))
    total = np.bincount(labels)
    for n in (5, 20, 100, 333):
        counts = np.bincount(labels[order[:n]], minlength=5)
        assert counts.min() >= 1
        assert np.abs(counts - np.maximum(1, n * total / 500)).max() <= 5


def columns(n: int = 40) -> tuple[list[str], list[str], list[str], list[str], Ints]:
    labels, groups, keys = images(n, 3, largest_group=3)
    splits = ["test" if i % 4 == 0 else "train" for i in range(n)]
    return [f"bild_{i}_é.jpg" for i in range(n)], keys, [f"class {c}" for c in labels], splits, groups


def test_split_round_trip(tmp_path: Path) -> None:
    names, hashes, labels, splits, groups = columns()
    path = tmp_path / "split.parquet"
    mark = write_split(path, names, hashes, labels, splits, groups)
    back = read_split(path)
    assert back.fingerprint == mark == fingerprint(hashes, labels, splits, groups)
    assert back.names.tolist() == names
    assert (back.hashes.tolist(), back.labels.tolist(), back.splits.tolist()) == (hashes, labels, splits)
    assert np.array_equal(back.groups, groups)
    assert [f.name for f in tmp_path.iterdir()] == ["split.parquet"]


def test_fingerprint_ignores_names_order_and_group_numbers_but_nothing_else() -> None:
    _, hashes, labels, splits, groups = columns()
    mark = fingerprint(hashes, labels, splits, groups)
    order = np.random.default_rng(3).permutation(40)
    moved_hashes, moved_labels, moved_splits = ([column[i] for i in order] for column in (hashes, labels, splits))
    assert fingerprint(moved_hashes, moved_labels, moved_splits, 1000 - groups[order]) == mark
    for changed in (
        (["0" * 16, *hashes[1:]], labels, splits, groups),
        (hashes, ["other", *labels[1:]], splits, groups),
        (hashes, labels, ["train", *splits[1:]], groups),
        (hashes, labels, splits, np.append(groups[:-1], groups[0])),
        (hashes[:-1], labels[:-1], splits[:-1], groups[:-1]),
    ):
        assert fingerprint(*changed) != mark


def test_a_changed_split_is_refused(tmp_path: Path) -> None:
    names, hashes, labels, splits, groups = columns()
    path = tmp_path / "split.parquet"
    write_split(path, names, hashes, labels, splits, groups)
    table = pq.read_table(path)
    moved = pa.array(["train", *splits[1:]])
    pq.write_table(table.set_column(3, "split", moved), path)
    with pytest.raises(DataError, match="changed after it was written"):
        read_split(path)
    path.write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot read the split"):
        read_split(path)
    pq.write_table(pa.table({"path": ["a"]}), path)
    with pytest.raises(DataError, match="is no split of headstart"):
        read_split(path)
    with pytest.raises(DataError, match="cannot read the split"):
        read_split(tmp_path / "absent.parquet")


def test_an_unwritable_place_is_an_output_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write the split"):
        write_split(tmp_path / "file" / "split.parquet", *columns())
    target = tmp_path / "split.parquet"
    target.mkdir()
    with pytest.raises(OutputError):
        write_split(target, *columns())
    assert sorted(f.name for f in tmp_path.iterdir()) == ["file", "split.parquet"]


# Several strata an image: labels, bins of values


def sets(n: int, n_labels: int, seed: int = 0, largest_group: int = 1) -> tuple[Ints, Ints, list[str]]:
    """Label sets (image, label) that hang together, groups, and content hashes; some images have no label."""
    rng = np.random.default_rng(seed)
    often = rng.uniform(0.03, 0.5, n_labels)
    strata = (0.6 * rng.random((n, n_labels)) + 0.4 * rng.random((n, 1)) < often).astype(np.int64)
    groups = np.repeat(np.arange(n), rng.integers(1, largest_group + 1, n))[:n]
    return strata, groups, [f"{v:016x}" for v in rng.integers(0, 2**62, n)]


def largest(strata: Ints, groups: Ints) -> Ints:
    """The most images of each label (label,) in one group."""
    return np.stack([np.bincount(groups, weights=column) for column in strata.T]).max(axis=1).astype(np.int64)


def test_classes_are_dealt_as_ever() -> None:
    """Bit for bit what the draws were before an image could be in several strata."""
    golden = {
        0: ("8de6981e985efecb", "4f109549b5868e2e", "e3e1a705ff0cc032"),
        7: ("3edfb0a8cea5ce4a", "19409489e79c294b", "6bfc86065dcd4cd6"),
    }
    for seed, marks in golden.items():
        labels, groups, keys = images(300, 5, seed, largest_group=4)
        held = hold_out(labels, groups, 0.2, seed, keys).astype(np.int64)
        drawn = (folds(labels, groups, 5, seed, keys), held, nested_order(labels, seed, keys))
        assert tuple(hashlib.sha256(a.astype("<i8").tobytes()).hexdigest()[:16] for a in drawn) == marks


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(1, 5))
def test_label_sets_are_dealt_in_whole_groups_and_even_folds(seed: int, n_folds: int, largest_group: int) -> None:
    strata, groups, keys = sets(200, 4, seed, largest_group)
    fold = folds(strata, groups, n_folds, seed, keys)
    assert all(len(np.unique(fold[groups == group])) == 1 for group in np.unique(groups))
    assert np.ptp(np.bincount(fold, minlength=n_folds)) <= largest_group + 1
    counts = np.stack([strata[fold == f].sum(axis=0) for f in range(n_folds)])
    assert (np.ptp(counts, axis=0) <= 2 * largest(strata, groups) + 2).all()


@pytest.mark.parametrize("largest_group", [1, 4])
def test_each_label_has_its_share_in_each_fold_within_a_group_where_that_is_possible(largest_group: int) -> None:
    within = []
    for seed in range(25):
        strata, groups, keys = sets(200, 4, seed, largest_group)
        fold = folds(strata, groups, 5, seed, keys)
        counts = np.stack([strata[fold == f].sum(axis=0) for f in range(5)])
        within += (np.ptp(counts, axis=0) <= largest(strata, groups)).tolist()
    assert np.mean(within) > 0.97


def test_many_labels_are_dealt_far_more_evenly_than_by_chance() -> None:
    strata, groups, keys = sets(2000, 40)
    fold = folds(strata, groups, 5, 0, keys)
    shuffled = np.random.default_rng(0).permutation(fold)
    uneven = [np.ptp([strata[f == k].sum(axis=0) for k in range(5)], axis=0) for f in (fold, shuffled)]
    assert uneven[0].mean() < 0.2 * uneven[1].mean()
    assert np.bincount(fold).tolist() == [400] * 5


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.6), st.integers(1, 5))
def test_label_sets_held_out_have_their_share_and_leave_each_label_one(
    seed: int, part: float, largest_group: int
) -> None:
    strata, groups, keys = sets(200, 4, seed, largest_group)
    held = hold_out(strata, groups, part, seed, keys)
    assert all(len(np.unique(held[groups == group])) == 1 for group in np.unique(groups))
    assert (strata[~held].sum(axis=0) >= (strata.sum(axis=0) > 0)).all()
    assert (np.abs(strata[held].sum(axis=0) - part * strata.sum(axis=0)) <= largest(strata, groups) + 1).all()
    assert abs(held.sum() - part * 200) <= largest_group + 1
    one = np.eye(2, dtype=np.int64)[[0] * 20 + [1]]
    assert not hold_out(one, np.arange(21), 0.5, seed, [f"{i:04d}" for i in range(21)])[20]


@pytest.mark.parametrize("n", [12, 300])
def test_the_draw_of_label_sets_follows_the_content_and_the_seed(n: int) -> None:
    strata, groups, keys = sets(n, 5, largest_group=3)
    order = np.random.default_rng(9).permutation(n)
    moved = [keys[i] for i in order]
    renumbered = np.random.default_rng(8).permutation(n + 1)[groups]
    for seed in (0, 5):
        fold, held = folds(strata, groups, 3, seed, keys), hold_out(strata, groups, 0.3, seed, keys)
        assert np.array_equal(folds(strata[order], renumbered[order], 3, seed, moved), fold[order])
        assert np.array_equal(hold_out(strata[order], renumbered[order], 0.3, seed, moved), held[order])
        nested = nested_order(strata, seed, keys)
        assert np.array_equal(order[nested_order(strata[order], seed, moved)], nested)
    assert not np.array_equal(folds(strata, groups, 3, 1, keys), folds(strata, groups, 3, 2, keys))


def test_few_values_are_dealt_anew_by_each_seed() -> None:
    """Ten images, a bin each: nothing but the seed tells the folds apart."""
    strata, keys = Values(np.arange(10.0)[:, None], ("x",)).strata, [f"{i:04d}" for i in range(10)]
    draws = {tuple(folds(strata, np.arange(10), 5, seed, keys)) for seed in range(10)}
    assert len(draws) == 10
    assert all(sorted(np.bincount(draw)) == [2] * 5 for draw in draws)


def test_bins_of_values_are_even_in_each_fold_and_do_not_follow_the_rows() -> None:
    rng = np.random.default_rng(0)
    values = np.stack([rng.poisson(8, 400), rng.lognormal(size=400)], axis=1).astype(float)
    keys, order = [f"{v:016x}" for v in rng.integers(0, 2**62, 400)], rng.permutation(400)
    strata = Values(values, ("cells", "area")).strata
    assert np.array_equal(Values(values[order], ("cells", "area")).strata, strata[order])
    fold = folds(strata, np.arange(400), 5, 0, keys)
    assert np.ptp([strata[fold == f].sum(axis=0) for f in range(5)], axis=0).max() <= 2
    means = np.array([values[fold == f].mean(axis=0) for f in range(5)])
    assert (np.ptp(means, axis=0) < 0.15 * values.std(axis=0)).all()


def test_every_beginning_of_the_nested_order_holds_every_label() -> None:
    strata, _, keys = sets(500, 6)
    order = nested_order(strata, 0, keys)
    assert sorted(order) == list(range(500))
    for n in (6, 50, 200):
        assert (strata[order[:n]].sum(axis=0) > 0).all()
    shares = strata[order[:200]].mean(axis=0)
    assert np.abs(shares - strata.mean(axis=0)).max() < 0.06
    labels, _, keys = images(300, 5)  # one stratum an image: as classes, but for the names of the classes
    alone = nested_order(np.eye(5, dtype=np.int64)[labels], 0, keys)
    assert [sorted(labels[alone[:n]]) for n in (5, 60)] == [
        sorted(labels[nested_order(labels, 0, keys)[:n]]) for n in (5, 60)
    ]
