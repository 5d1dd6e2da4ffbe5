"""Recognition: laws of the metric, the gallery, the thresholds and their judge, on made identities."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.errors import OptionError
from headstart.heads.embedding import Embedding, choose_embedding, fit_embedding, within_identities
from headstart.heads.gallery import Gallery, leave_images_out, threshold_at, unit
from headstart.heads.recognition import fit_recogniser, judge_given, judge_recognition
from headstart.heads.taps import Part
from headstart.judge.identities import Pairs, accepted_at, drawn_pairs, equal_error_rate, verification

PARTS = (Part("a", root=False, unit=False),)


def people(n=16, each=6, d=12, spread=0.6, seed=0, first=0):
    """(blocks, identities) whose first three features vary most within an identity."""
    rng = np.random.default_rng([seed, first])
    identities = np.repeat(np.arange(first, first + n), each)
    scale = np.where(np.arange(d) < 3, 4.0, spread)
    centres = rng.normal(size=(n, d))[identities - first]
    return {"a": centres + scale * rng.normal(size=(n * each, d))}, identities


def alone(identities):
    return np.arange(len(identities))


def keys(identities):
    return tuple(f"{i:08}" for i in range(len(identities)))


def test_without_shrinkage_a_change_of_units_changes_no_similarity():
    blocks, y = people(each=10)
    turn = np.random.default_rng(1).normal(size=(12, 12))
    x = blocks["a"]
    one, other = (within_identities(v, y).embedding(PARTS, 0.0).of(v) for v in (x, x @ turn + 3))
    assert np.abs(one @ one.T - other @ other.T).max() < 1e-3
    shrunk = [within_identities(v, y).embedding(PARTS, 0.9).of(v) for v in (x, x @ turn)]
    assert np.abs(shrunk[0] @ shrunk[0].T - shrunk[1] @ shrunk[1].T).max() > 0.1


def test_fewer_images_than_features_and_the_same_with_zeros_appended_are_one_metric():
    blocks, y = people(n=8, each=10, d=60)
    x = blocks["a"]
    found = within_identities(x, y)
    wide = within_identities(np.concatenate([x, np.zeros((80, 40))], axis=1), y)  # now through the Gram matrix
    assert wide.basis.shape[0] > len(x)
    assert wide.basis.shape[1] <= len(x)
    assert wide.scale * 100 == pytest.approx(found.scale * 60)
    one, other = (x - found.mean) @ found.basis, (x - wide.mean[:60]) @ wide.basis[:60]
    kept = wide.values > 1e-9
    plain = [np.sort(v)[::-1][:60] for v in (found.values, wide.values[kept])]
    assert np.allclose(plain[0], plain[1])
    assert np.allclose(one @ one.T, other @ other.T)


def test_a_batch_is_embedded_as_its_rows():
    blocks, y = people()
    metric = fit_embedding(blocks, y, alone(y), PARTS, 0)
    whole = metric.embed(blocks)
    rows = np.concatenate([metric.embed({"a": blocks["a"][i : i + 1]}) for i in range(len(y))])
    assert np.allclose(whole, rows, atol=1e-5)
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    again = Embedding.read(PARTS, metric.shrinkage, metric.arrays())
    assert (again.embed(blocks) == whole).all()


def test_what_varies_within_identities_is_whitened_and_what_does_not_is_left_to_the_cosine():
    blocks, y = people(n=24)
    assert choose_embedding(blocks, y, alone(y), PARTS, 0).embedding.kind == "whitened"
    rng = np.random.default_rng(0)
    same = {"a": np.eye(24)[y] + 1e-3 * rng.normal(size=(len(y), 24))}
    assert choose_embedding(same, y, alone(y), PARTS, 0).embedding.kind == "cosine"  # all without mistakes: a tie


def test_a_fold_is_scored_by_a_metric_that_has_not_seen_it(monkeypatch):
    from headstart.heads import embedding

    blocks, y = people()
    taught = []
    learn = embedding.within_identities
    monkeypatch.setattr(embedding, "within_identities", lambda x, i: taught.append(i) or learn(x, i))
    held = [np.unique(y[s]) for s in embedding._identity_splits(y, 0)]
    choose_embedding(blocks, y, alone(y), PARTS, 0)
    for left, seen in zip(held, taught, strict=False):
        assert not np.isin(left, seen).any()
    assert sorted(np.concatenate(held)) == list(range(16))


@pytest.mark.parametrize(("n", "each"), [(1, 3), (2, 1), (2, 4), (3, 5), (9, 1)])
def test_few_identities_or_images_still_give_a_model(n, each):
    blocks, y = people(n=n, each=each)
    model = fit_recogniser(blocks, y, [f"p{i}" for i in range(n)], alone(y), PARTS, 0)
    assert model.embedding.kind == "cosine"
    assert "needed to choose a metric" in model.notes[0]
    assert model.gallery.counts.tolist() == [each] * n


def test_the_order_of_enrolling_does_not_matter():
    rows = unit(np.random.default_rng(0).normal(size=(9, 5)))
    y = np.array([2, 0, 1, 2, 0, 1, 2, 0, 1])
    names = ["x", "b", "m"]
    at_once = Gallery.of(rows, y, names)
    for order in (range(9), range(8, -1, -1)):
        one_by_one = Gallery.empty(5)
        for i in order:
            one_by_one = one_by_one.enrol(names[y[i]], rows[i : i + 1])
        assert one_by_one.names == at_once.names == ("b", "m", "x")
        assert np.allclose(one_by_one.means, at_once.means)
        assert (one_by_one.counts == 3).all()
    saved = Gallery.read(at_once.names, at_once.arrays())
    assert (saved.nearest(rows) == at_once.nearest(rows)).all()


def test_a_stranger_is_unknown_and_changes_nobody_elses_answer():
    rows = np.eye(4)[:2]
    gallery = Gallery.of(rows, np.array([0, 1]), ["a", "b"])
    answers = gallery.identify(np.eye(4), 0.5)
    assert [name for name, _ in answers] == ["a", "b", None, None]
    more = gallery.enrol("c", np.eye(4)[2:3])
    assert [n for n, _ in more.identify(np.eye(4), 0.5)] == ["a", "b", "c", None]
    assert (more.nearest(rows)[:, :2] == gallery.nearest(rows)).all()
    assert more.remove("c").names == gallery.names
    assert Gallery.empty(4).identify(rows, 0.5) == [(None, -1.0)] * 2
    with pytest.raises(OptionError, match="ab is not enrolled: did you mean"):
        gallery.remove("ab")


def test_leaving_images_out_by_formula_is_enrolling_without_them():
    blocks, y = people(n=4, each=5)
    rows, groups = unit(blocks["a"]), np.arange(20) // 2
    found = leave_images_out(rows, y, groups)
    for i in range(20):
        rest = rows[(y == y[i]) & (groups != groups[i])]
        others = [unit(rows[y == c].sum(axis=0)[None])[0] @ rows[i] for c in range(4) if c != y[i]]
        assert found.own[i] == pytest.approx(unit(rest.sum(axis=0)[None])[0] @ rows[i])
        assert found.other[i] == pytest.approx(max(others))


@pytest.mark.parametrize("n", [60, 99, 150, 399])
def test_new_strangers_are_accepted_at_the_stated_rate_or_less(n):
    rng = np.random.default_rng(n)
    shares = []
    for _ in range(400):
        found = threshold_at(rng.normal(size=n), 0.02)
        shares.append((rng.normal(size=500) >= found.value).mean())
    expected = max(int(0.02 * (n + 1)), 1) / (n + 1)
    assert np.mean(shares) == pytest.approx(expected, abs=4 * np.std(shares) / 20)
    assert found.supported
    assert found.note is None


def test_too_few_strangers_are_said():
    found = threshold_at(np.arange(20.0), 0.01)
    assert found.value > 19
    assert "99 are needed" in found.note


def test_equal_error_rate_is_that_of_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(20):
        genuine, impostor = rng.normal(1, 1, 13).round(1), rng.normal(0, 1, 37).round(1)
        points = []
        for t in [*sorted({*genuine, *impostor}), np.inf]:
            points.append((sum(s >= t for s in impostor) / 37, sum(s < t for s in genuine) / 13))
        low = max(i for i, (a, r) in enumerate(points) if r < a)
        (a0, r0), (a1, r1) = points[low], points[low + 1]
        t = (a0 - r0) / ((a0 - r0) + (r1 - a1))
        assert equal_error_rate(genuine, impostor) == pytest.approx(a0 + t * (a1 - a0))
        t = min(t for t in [*genuine, *impostor, np.inf] if sum(s >= t for s in impostor) / 37 <= 0.1)
        assert accepted_at(genuine, impostor, 0.1) == pytest.approx((genuine >= t).mean())
    assert accepted_at(genuine, impostor, 0.01) is None


def test_random_embeddings_verify_nobody_and_the_interval_says_so():
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(30), 6)
    one, other = drawn_pairs(y, alone(y), 0)
    x = unit(rng.normal(size=(180, 8)))
    estimates, tables = verification(Pairs((x[one] * x[other]).sum(axis=1), y[one], y[other]))
    assert estimates["eer"]["low"] < 0.5 < estimates["eer"]["high"]
    assert estimates["eer"]["value"] == pytest.approx(0.5, abs=0.06)
    assert tables["pairs"] == {"genuine": 30 * 15, "impostor": 180 * 179 // 2 - 30 * 15}


def test_pairs_of_one_group_are_left_out_and_drawn_pairs_are_as_many_as_asked():
    y = np.repeat(np.arange(300), 5)
    groups = np.arange(1500) // 2
    one, other = drawn_pairs(y, groups, 0, most=1000)
    assert (groups[one] != groups[other]).all()
    same = y[one] == y[other]
    assert 700 < same.sum() <= 1000
    assert 950 < (~same).sum() <= 1000
    assert len(set(zip(one[same], other[same], strict=True))) == same.sum()


def test_recognition_is_right_where_it_can_be_and_chance_where_identities_are_shuffled():
    blocks, y = people(n=12, each=6, spread=0.3)
    names = [f"p{i:02}" for i in range(12)]
    done = []
    found = judge_recognition(blocks, y, names, alone(y), keys(y), PARTS, 0, lambda k, n: done.append((k, n)))
    assert found.score.value("identification_rate") > 0.8 > 0.3 > found.score.value("eer")
    assert done[-1][0] == done[-1][1] == len(done)
    assert found.marks["right"].mean() == found.score.value("identification_rate")
    shuffled = np.random.default_rng(3).permutation(y)
    chance = judge_recognition(blocks, shuffled, names, alone(y), keys(y), PARTS, 0).score
    assert chance["identification_rate"]["low"] < 1 / 12 < chance["identification_rate"]["high"]
    assert chance["eer"]["low"] < 0.5 < chance["eer"]["high"]


def test_strangers_of_a_held_out_part_are_accepted_about_as_often_as_stated():
    rates = []
    for seed in range(8):
        blocks, y = people(n=48, each=4, spread=0.3, seed=seed)
        names = [f"p{i:03}" for i in range(48)]
        model = fit_recogniser(blocks, y, names, alone(y), PARTS, 0, rate=0.05)
        new, who = people(n=150, each=1, spread=0.3, seed=seed, first=100)
        found = judge_given(model, new, [f"q{i}" for i in who], alone(who))
        assert found.score["identification_rate"]["value"] is None
        assert found.score.tables["false_accept_rate"]["asked"] == 0.05
        assert found.marks["right"].mean() == 1 - found.score.tables["false_accept_rate"]["value"]
        rates.append(found.score.tables["false_accept_rate"]["value"])
    assert np.mean(rates) == pytest.approx(0.05, abs=4 * np.std(rates) / 8**0.5)


def test_known_people_of_a_held_out_part_are_right_or_unknown():
    blocks, y = people(n=12, each=8, spread=0.3)
    names = [f"p{i:03}" for i in range(12)]
    held = np.arange(len(y)) % 2 == 1
    model = fit_recogniser({"a": blocks["a"][~held]}, y[~held], names, alone(y[~held]), PARTS, 0)
    found = judge_given(model, {"a": blocks["a"][held]}, [names[i] for i in y[held]], alone(y[held])).score
    assert found.value("identification_rate") > 0.8
    assert 0 < found.value("open_set_rate") <= found.value("identification_rate")
    assert found.tables["false_accept_rate"]["value"] is None
