"""`TransferClassifier` keeps scikit-learn's contract, on images."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.utils import estimator_checks

from conftest import picture
from headstart import DataError, OptionError, OutputError, TransferClassifier
from headstart.data.images import write_png

SMALL: dict[str, Any] = {"backbone": "test_efficientnet", "weights": "none", "size": 64, "precision": "f32"}
Pictures = tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[Any]]]


@pytest.fixture(scope="module")
def images() -> Pictures:
    """Thirty pictures (image, 40, 40, 3) of three colours with their numbers, mixed."""
    rng = np.random.default_rng(5)
    y = rng.permutation(np.repeat([3, 7, 11], 10))
    colour = {3: 0, 7: 1, 11: 2}
    return np.stack([picture(colour[int(k)], rng) for k in y]), y


@pytest.fixture(scope="module")
def fitted(images: Pictures) -> TransferClassifier:
    return TransferClassifier(**SMALL).fit(*images)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_parameters_default_constructible,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_set_params,
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_mixin_order,
    ],
    ids=lambda check: check.__name__,
)
def test_scikit_learns_own_checks_pass(check: Any) -> None:
    check("TransferClassifier", TransferClassifier(**SMALL))


def test_a_clone_has_the_settings_and_nothing_learned(fitted: TransferClassifier) -> None:
    twin = clone(fitted)
    assert twin.get_params() == fitted.get_params()
    assert twin.set_params(taps="last").taps == "last"
    assert fitted.taps == "auto"
    with pytest.raises(NotFittedError):
        twin.predict(["a.png"])
    for call in (twin.predict_proba, twin.evaluate, twin.save):
        with pytest.raises(NotFittedError):
            call("anything")


def test_arrays_paths_and_pillow_images_give_the_same_answer(
    fitted: TransferClassifier, images: Pictures, tmp_path: Path
) -> None:
    X = images[0][:6]
    files = [tmp_path / f"{k}.png" for k in range(len(X))]
    for pixels, file in zip(X, files, strict=True):
        write_png(pixels, file)
    expected = fitted.predict_proba(X)
    for same in (list(X), files, [str(f) for f in files], tmp_path, [Image.fromarray(x) for x in X]):
        assert np.array_equal(fitted.predict_proba(same), expected)


@pytest.mark.parametrize(
    "names", [np.array([3, 7, 11]), np.array(["ä", "b", "c"]), np.array([2, 10, 100], dtype=np.int8)], ids=str
)
def test_labels_keep_their_type_and_columns_follow_classes(names: Any, images: Pictures) -> None:
    X, y = images
    given = names[np.searchsorted([3, 7, 11], y)]
    model = TransferClassifier(**SMALL).fit(X, given)
    answer = model.predict(X)
    assert model.classes_.dtype.kind == given.dtype.kind == answer.dtype.kind
    assert set(model.classes_) == set(names)
    assert (answer == given).mean() > 0.9
    assert (model.classes_[model.predict_proba(X).argmax(axis=1)] == answer).all()
    assert model.score(X, given) == (answer == given).mean()


def test_a_second_fit_forgets_the_first(fitted: TransferClassifier, images: Pictures) -> None:
    X, y = images
    model = clone(fitted).fit(X[y != 11], y[y != 11])
    assert list(model.classes_) == [3, 7]
    model.fit(X, y)
    assert list(model.classes_) == list(fitted.classes_)
    assert np.array_equal(model.predict_proba(X), fitted.predict_proba(X))


def test_cross_validation_and_grid_search_run_over_taps(images: Pictures) -> None:
    X, y = images
    folds = StratifiedKFold(3)
    assert cross_val_score(TransferClassifier(**SMALL), X, y, cv=folds).mean() > 0.85
    search = GridSearchCV(TransferClassifier(**SMALL), {"taps": ["last", "all"]}, cv=folds).fit(X, y)
    assert search.best_params_["taps"] in ("last", "all")
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(X[:2]).shape == (2,)


def test_loaded_predicts_as_saved(fitted: TransferClassifier, images: Pictures, tmp_path: Path) -> None:
    X, y = images
    metrics = fitted.save(tmp_path / "model")
    assert metrics["cross_validation"]["n"] == len(y)
    loaded = TransferClassifier.load(tmp_path / "model")
    assert np.abs(loaded.predict_proba(X) - fitted.predict_proba(X)).max() <= 1e-6
    assert loaded.predict(X).tolist() == [str(label) for label in fitted.predict(X)]  # JSON keeps names, not types
    assert loaded.evaluate(X, y)["accuracy"] == fitted.evaluate(X, y)["accuracy"]
    with pytest.raises(DataError, match="saved already"):
        loaded.save(tmp_path / "again")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("dear diary")
    with pytest.raises(OutputError, match=r"diary\.txt"):
        fitted.save(tmp_path / "mine")


def test_what_cannot_be_used_is_said(fitted: TransferClassifier, images: Pictures, tmp_path: Path) -> None:
    X, y = images
    for wrong, text in (
        ((X,), "images without labels"),
        ((X, y[:-1]), "30 images but 29 labels"),
        ((X[:0], y[:0]), "no images were given"),
        ((X[y == 3], y[y == 3]), "at least"),
    ):
        with pytest.raises(DataError, match=text):
            TransferClassifier(**SMALL).fit(*wrong)
    with pytest.raises(OptionError, match="taps 'some'"):
        TransferClassifier(**SMALL | {"taps": "some"}).fit(X, y)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="1 of 2 images cannot be read"):
        fitted.predict([X[0], tmp_path / "broken.png"])


def test_an_unreadable_training_image_is_set_aside(images: Pictures, tmp_path: Path) -> None:
    X, y = images
    (tmp_path / "broken.png").write_bytes(b"no picture")
    model = TransferClassifier(**SMALL).fit([*X, tmp_path / "broken.png"], [*y, 3])
    assert [Path(name).name for name, _ in model.set_aside_] == ["broken.png"]
    assert model.score(X, y) > 0.9


def test_fitting_warns_of_nothing(images: Pictures) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TransferClassifier(**SMALL).fit(*images).predict(images[0][:1])
    assert [str(w.message) for w in caught] == []
