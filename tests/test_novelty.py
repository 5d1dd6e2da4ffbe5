"""Images unlike all that taught are known by it, those of known classes are accused as seldom as is stated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headstart.cli.answers import record_line
from headstart.files import forms
from headstart.heads import novelty as module
from headstart.heads.novelty import MEANS, METHODS, RATE, Novelty, novelty_of, part_of
from headstart.heads.taps import LAST, Part

PART = Part("x", root=False, unit=True)
D = 24


def images(n: int, classes: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """(features (image, feature), which of `classes` (image,)): a blob a class, wide in two directions."""
    centres = np.random.default_rng(7).normal(0, 1, (8, D))
    y = rng.integers(len(classes), size=n)
    x = centres[np.asarray(classes)[y]] + rng.normal(0, 0.4, (n, D))
    x[:, :2] += rng.normal(0, 2, (n, 2))
    return x.astype(np.float32), y


def answers(x: Any, rng: np.random.Generator, n_classes: int = 4) -> Any:
    """Log-probabilities that say nothing of novelty."""
    scores = rng.normal(0, 1, (len(x), n_classes))
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def found(n: int, rng: np.random.Generator, groups: Any = None, **changed: Any) -> Novelty | None:
    x, y = images(n, range(4), rng)
    groups = np.arange(n) if groups is None else groups
    logs = changed.get("left_out", answers(x, rng))
    return novelty_of(x, PART, np.arange(n), y, groups, logs, 0)


@pytest.mark.parametrize("n", [40, 160])
def test_known_classes_are_accused_as_seldom_as_stated_and_others_are_found(n: int) -> None:
    accused, caught = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        kept = found(n, rng)
        assert kept is not None
        for classes, shares in ((range(4), accused), (range(4, 8), caught)):
            x, _ = images(100, classes, rng)
            shares.append((kept.scores(PART.of(x), np.exp(answers(x, rng))) > 1).mean())
    error = np.std(accused) / np.sqrt(len(accused))
    assert np.mean(accused) <= RATE + 3 * error
    assert np.mean(caught) >= 0.5 > 10 * RATE - 1e-9


def test_copies_do_not_lower_the_limit() -> None:
    """Where each image is there three times, an image's copies would be its nearest neighbours."""
    rng = np.random.default_rng(0)
    x, y = images(60, range(4), rng)
    three, logs = np.repeat(np.arange(60), 3), answers(x, rng)
    kept = novelty_of(x[three], PART, np.arange(180), y[three], three, logs[three], 0)
    assert kept is not None
    assert kept.n == 60
    fresh, _ = images(2000, range(4), rng)
    assert (kept.scores(PART.of(fresh), np.exp(answers(fresh, rng))) > 1).mean() <= 0.12


def test_too_few_images_say_nothing() -> None:
    rng = np.random.default_rng(0)
    assert found(18, rng) is None
    assert found(200, rng, groups=np.arange(200) % 18) is None
    assert found(60, rng, left_out=np.full((60, 4), np.nan)) is None


@pytest.mark.parametrize("method", list(METHODS))
def test_what_is_read_is_what_was_saved(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_told_apart", lambda *_: {m: float(m == method) for m in METHODS})
    rng = np.random.default_rng(1)
    kept = found(120, rng)
    assert kept is not None
    assert kept.method == method
    told, tensors = kept.to_json(), kept.tensors()
    assert not forms.NOVELTY(told, "novelty")
    again = Novelty.read(told, tensors, D, 4)
    x, _ = images(50, range(8), rng)
    p = np.exp(answers(x, rng))
    assert np.allclose(kept.scores(PART.of(x), p), again.scores(PART.of(x), p), atol=1e-5)
    for width, n_classes in ((D + 1, 4), (D, 5), (D, 3)):
        with pytest.raises(ValueError, match="novelty"):
            Novelty.read(told, tensors, width, n_classes)
    assert forms.NOVELTY(told | {"limit": "1"}, "novelty")


def test_one_image_is_scored_as_among_others() -> None:
    rng = np.random.default_rng(2)
    kept = found(100, rng)
    assert kept is not None
    x, _ = images(8, range(8), rng)
    p = np.exp(answers(x, rng))
    alone = [kept.scores(PART.of(x[k : k + 1]), p[k : k + 1])[0] for k in range(8)]
    assert np.allclose(kept.scores(PART.of(x), p), alone, atol=1e-4)


def test_the_distance_to_a_mean_forgives_what_differs_within_classes() -> None:
    rng = np.random.default_rng(3)
    x, y = images(400, range(4), rng)
    distance = METHODS[MEANS](x, y, np.arange(400))
    mean = distance.rows[:1]
    step = np.eye(D, dtype=np.float32)
    along, across = distance.of(mean + step[:1]), distance.of(mean + step[5:6])
    assert across > 1.5 * along


def test_the_last_layer_is_looked_at_where_the_head_reads_it() -> None:
    low, last = Part("low", False, True), Part(LAST, False, False)
    assert part_of((low, last)) == Part(LAST, root=True, unit=True)
    assert part_of((low, Part("map", True, False))) == Part("map", root=False, unit=True)


def test_a_terminal_says_what_is_unlike() -> None:
    top = [{"label": "ant", "probability": 0.9}]
    record = {"path": "a.png", **top[0], "set": ["ant"], "top": top, "error": None}
    assert "unlike" not in record_line(record | {"known": True})
    assert "unlike" not in record_line(record | {"known": None})
    assert record_line(record | {"known": False}) == "a.png: unlike anything that the model was taught: ant 90.0%"
