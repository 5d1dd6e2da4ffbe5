"""`TransferRecogniser`: known and unknown identities, embeddings and pairs, by scikit-learn's words."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from headstart import BundleError, DataError, TransferClassifier, TransferRecogniser
from headstart.ship.predict import records

SMALL: dict[str, Any] = {"backbone": "test_efficientnet", "weights": "none", "size": 64, "precision": "f32"}
Faces = tuple[np.ndarray[Any, Any], list[str]]
N = 6  # images of each


def faces(identities: range) -> Faces:
    """Six images (image, 48, 48, 3) of each identity, a colour and a rhythm of stripes of its own."""
    images, names = [], []
    for who in identities:
        drawn = np.random.default_rng([9, who])
        colour, every = drawn.integers(0, 110, 3), 3 + who % 7
        stripes = 70 * (np.arange(48)[:, None, None] // every % 2)
        rng = np.random.default_rng([1, who])
        images += [np.clip(colour + stripes + rng.integers(0, 40, (48, 48, 3)), 0, 255) for _ in range(N)]
        names += [f"p{who:02}"] * N
    return np.array(images, np.uint8), names


@pytest.fixture(scope="module")
def people() -> Faces:
    return faces(range(12))


@pytest.fixture(scope="module")
def recogniser(people: Faces) -> TransferRecogniser:
    return TransferRecogniser(**SMALL).fit(*people)


def test_the_known_are_named_and_answers_are_those_of_predict(recogniser: TransferRecogniser, people: Faces) -> None:
    X, names = people
    said = recogniser.predict(X)
    assert list(recogniser.classes_) == sorted(set(names))
    assert recogniser.score(X, names) == np.mean(said == np.array(names, dtype=object)) > 0.8
    told = records(recogniser._fit.model, recogniser._fit.predict(X), 1)
    assert [one["identity"] for one in told] == said.tolist()
    assert recogniser.decision_function(X).shape == (len(X), 12)


def test_strangers_are_unknown_where_nobody_is_like_them(recogniser: TransferRecogniser) -> None:
    blank = np.zeros((2, 48, 48, 3), np.uint8)
    blank[1] = 255
    assert recogniser.predict(blank).tolist() == [None, None]
    assert recogniser.score(blank, ["x", "y"]) == 1
    assert recogniser.score(blank, ["p00", "x"]) == 0.5


def test_embeddings_are_of_unit_length_and_pairs_are_compared_by_them(
    recogniser: TransferRecogniser, people: Faces
) -> None:
    X, _ = people
    found = recogniser.transform(X)
    np.testing.assert_allclose((found**2).sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(recogniser.transform(X[7:8]), found[7:8], atol=1e-5)
    same = recogniser.verify(X[::N], X[1::N])
    other = recogniser.verify(X[::N], np.roll(X[1::N], 1, axis=0))
    assert same.mean() > 0.6
    assert other.mean() < same.mean() / 2
    with pytest.raises(DataError, match="2 and 1 images"):
        recogniser.verify(X[:2], X[:1])


def test_what_is_not_fitted_or_too_little_says_so(recogniser: TransferRecogniser, people: Faces) -> None:
    twin = clone(recogniser)
    with pytest.raises(NotFittedError):
        twin.predict(people[0])
    with pytest.raises(DataError, match="images without labels"):
        twin.fit(people[0])
    few = twin.fit(people[0][: 2 * N], people[1][: 2 * N])
    with pytest.raises(DataError, match="so few identities"):
        few.verify(people[0][:1], people[0][1:2])


def test_saved_loaded_and_pickled_say_the_same(recogniser: TransferRecogniser, people: Faces, tmp_path: Path) -> None:
    X, names = people
    recogniser.save(tmp_path / "people")
    for twin in (TransferRecogniser.load(tmp_path / "people"), pickle.loads(pickle.dumps(recogniser))):
        np.testing.assert_allclose(twin.decision_function(X), recogniser.decision_function(X), atol=1e-4)
    assert recogniser.evaluate(X, names)["identification_rate"]["value"] > 0.8
    with pytest.raises(BundleError, match=r"load it by TransferRecogniser\.load"):
        TransferClassifier.load(tmp_path / "people")
