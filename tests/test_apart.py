"""Two parts of one kind are not told apart; two of different kinds are, whatever else they differ in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from headstart.heads.apart import DEALS, LEAST, MOST, RARE, Apart, _auroc, _dealt, apart

Ints = npt.NDArray[np.int64]


def features(n: int, classes: Ints, rng: np.random.Generator, width: int = 300) -> npt.NDArray[np.float16]:
    """Of classes far from each other."""
    centres = 4 * np.abs(np.random.default_rng(9).standard_normal((3, width)))
    return np.abs(centres[classes] + rng.standard_normal((n, width))).astype(np.float16)


def asked(x: npt.NDArray[np.float16], first: Ints, classes: Ints, groups: Ints | None = None) -> Apart | None:
    second = np.setdiff1d(np.arange(len(x)), first)
    ties = np.arange(len(x)) if groups is None else groups
    return apart(lambda rows: {"pre_logits": x[rows]}, first, second, classes, ties, 0)


def test_random_parts_are_told_apart_as_seldom_as_is_stated() -> None:
    clear, rare = 0, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        classes = rng.integers(0, 3, 120)
        found = asked(features(120, classes, rng), rng.permutation(120)[:60], classes)
        assert found is not None
        clear, rare = clear + found.clear, rare + (found.chance <= 0.2)
    assert clear <= 2
    assert 2 <= rare <= 16  # 8 expected: the share of deals is what it says


@pytest.mark.parametrize("n", [50, 300])
def test_parts_of_another_kind_are(n: int) -> None:
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, n)
    x = features(n, classes, rng)
    x[: n // 2, :40] += np.float16(1.0)
    found = asked(x, np.arange(n // 2), classes)
    assert found is not None
    assert found.clear
    assert found.low <= found.auroc <= found.high <= 1


def test_another_mixture_of_the_same_classes_is_no_other_kind() -> None:
    rng = np.random.default_rng(1)
    classes = np.repeat([0, 1, 2], 100)
    x = features(300, classes, rng)
    first = np.concatenate([np.arange(90), np.arange(100, 130), np.arange(200, 230)])
    found = asked(x, first, classes)
    assert found is not None
    assert not found.clear
    unmatched = asked(x, first, np.zeros(300, np.int64))
    assert unmatched is not None
    assert unmatched.clear  # what a comparison that forgets the classes would say


def test_images_of_one_group_count_once_and_not_at_all_where_they_are_in_both_parts() -> None:
    rng = np.random.default_rng(2)
    classes = np.zeros(200, np.int64)
    x = features(200, classes, rng)
    takes = np.arange(200) // 2  # pairs, each inside one part
    found = asked(x, np.arange(100), classes, takes)
    assert found is not None
    assert found.n == 50
    across = np.tile(np.arange(100), 2)  # every image has its copy in the other part
    assert asked(x, np.arange(100), classes, across) is None


def test_too_few_to_say() -> None:
    rng = np.random.default_rng(3)
    classes = np.zeros(2 * LEAST - 1, np.int64)
    assert asked(features(2 * LEAST - 1, classes, rng), np.arange(LEAST), classes) is None


def test_of_many_images_a_fixed_number_is_looked_at_and_the_same_every_time() -> None:
    rng = np.random.default_rng(4)
    classes = np.zeros(2500, np.int64)
    x = features(2500, classes, rng, 20)
    found = asked(x, np.arange(1250), classes)
    assert found is not None
    assert found.n == MOST
    assert found == asked(x, np.arange(1250), classes)


def test_a_deal_keeps_each_class_in_its_proportion_and_the_real_one_counts_among_them() -> None:
    rng = np.random.default_rng(5)
    part, strata = np.repeat([0.0, 1.0], 30), np.tile([0, 1, 2], 20)
    dealt = _dealt(part, strata, rng)
    assert not np.array_equal(dealt, part)
    assert [dealt[strata == c].sum() for c in range(3)] == [part[strata == c].sum() for c in range(3)]
    assert 1 / (DEALS + 1) < RARE


def test_the_area_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(6)
    scores, truth = np.round(rng.standard_normal((40, 3)), 1), np.tile(np.repeat([0.0, 1.0], 20)[:, None], 3)
    for k, value in enumerate(_auroc(scores, truth)):
        pairs = scores[20:, k][:, None] - scores[:20, k]
        assert value == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
