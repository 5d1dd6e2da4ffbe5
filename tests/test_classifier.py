"""`TransferClassifier` keeps scikit-learn's contract, on images."""

from __future__ import annotations

import json
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import StackingClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, cross_validate
from sklearn.utils import get_tags

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


def faint(n: int, seed: int) -> Pictures:
    """Pictures as in `images`, whose colours are so weak that a model errs on a part of them."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.repeat([3, 7, 11], n // 3))
    return np.stack([picture(int(k) // 4, rng, strength=5) for k in y]), y


@pytest.fixture(scope="module")
def fitted(images: Pictures) -> TransferClassifier:
    return TransferClassifier(**SMALL).fit(*images)


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
    assert np.array_equal(model.classes_, np.unique(given))
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


def test_loaded_predicts_as_saved(tmp_path: Path) -> None:
    """Of pictures that it has not seen, and some of which it gets wrong; from a network of another seed than that from
    which loading makes one before it is filled."""
    fitted, (X, y) = TransferClassifier(**SMALL | {"seed": 4}).fit(*faint(30, 1)), faint(48, 2)
    metrics = fitted.save(tmp_path / "model")
    assert metrics["cross_validation"]["n"] == 30
    loaded = TransferClassifier.load(tmp_path / "model")
    p, said = fitted.predict_proba(X), fitted.predict(X)
    assert np.abs(loaded.predict_proba(X) - p).max() <= 1e-6
    assert loaded.predict(X).tolist() == said.tolist()
    assert loaded.classes_.tolist() == fitted.classes_.tolist() == [3, 7, 11]
    assert 0.4 < (said == y).mean() < 0.95
    for model in (fitted, loaded):
        found = model.evaluate(X, y)
        assert found["accuracy"]["value"] == (said == y).mean()
        assert found["confusion"] == [[int(((y == a) & (said == b)).sum()) for b in (3, 7, 11)] for a in (3, 7, 11)]
        assert found["log_loss"]["value"] == pytest.approx(log_loss(y, p / p.sum(1, keepdims=True)), abs=1e-5)
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


def test_columns_stand_in_the_labels_own_order_also_when_saved(tmp_path: Path, run: Any) -> None:
    """Twelve classes, 0 to 11, of three pictures in one strong colour each."""
    rng = np.random.default_rng(3)
    y = rng.permutation(np.repeat(np.arange(12), 3))
    colours = np.stack(np.meshgrid([20, 220], [20, 120, 220], [20, 220]), -1).reshape(12, 3)
    X = (colours[y][:, None, None, :] + rng.integers(-15, 15, (len(y), 40, 40, 3))).astype(np.uint8)
    model = TransferClassifier(**SMALL).fit(X, y)
    p = model.predict_proba(X)
    assert np.array_equal(model.classes_, np.arange(12))
    assert model.score(X, y) > 0.9
    assert log_loss(y, p) < 0.5
    assert roc_auc_score(y, p / p.sum(1, keepdims=True, dtype=np.float64), multi_class="ovr") > 0.99
    assert roc_auc_score(y == 10, p[:, 10]) > 0.99
    model.save(tmp_path / "model")
    loaded = TransferClassifier.load(tmp_path / "model")
    assert np.array_equal(loaded.classes_, model.classes_)
    assert loaded.classes_.dtype == model.classes_.dtype
    assert np.abs(loaded.predict_proba(X) - p).max() <= 1e-6
    assert loaded.evaluate(X, y)["accuracy"]["value"] == model.score(X, y)
    assert model.evaluate(X, [str(k) for k in y])["accuracy"]["value"] == model.score(X, y)
    write_png(X[0], tmp_path / "one.png")
    answer = json.loads(run("predict", tmp_path / "model", tmp_path / "one.png", "--json").out)
    assert answer[0]["label"] == str(model.predict(X[:1])[0])


def test_scikit_learns_tools_take_the_columns_for_what_they_are(images: Pictures) -> None:
    """Two classes whose texts stand the other way round, in every tool that reads `classes_` or several models."""
    X = images[0][images[1] != 11]
    y = np.where(images[1][images[1] != 11] == 3, 9, 10)
    one = TransferClassifier(**SMALL)
    with joblib.parallel_config(backend="multiprocessing"):  # forks, and sends fitted estimators back
        found = cross_validate(
            one, X, y, cv=2, n_jobs=2, return_estimator=True, scoring=["roc_auc", "neg_log_loss", "accuracy"]
        )
    assert found["test_roc_auc"].min() > 0.9
    assert found["test_neg_log_loss"].min() > -0.6
    assert [model.predict(X).shape for model in found["estimator"]] == [(20,), (20,)]
    for tool in (
        VotingClassifier([("a", one), ("b", clone(one).set_params(taps="last"))], voting="soft"),
        CalibratedClassifierCV(one, cv=2),
        StackingClassifier([("a", one)], cv=2),
    ):
        assert tool.fit(X, y).score(X, y) > 0.9
        assert np.array_equal(tool.classes_, [9, 10])
        assert roc_auc_score(y, tool.predict_proba(X)[:, 1]) > 0.9


def test_frames_and_columns_are_taken_as_scikit_learn_slices_them(images: Pictures, tmp_path: Path) -> None:
    X, y = images
    paths = [str(tmp_path / f"{k}.png") for k in range(len(X))]
    for pixels, path in zip(X, paths, strict=True):
        write_png(pixels, Path(path))
    frame = pd.DataFrame({"path": paths, "colour": pd.Series([*y[:-1], None], dtype="Int64")})
    model = TransferClassifier(**SMALL).fit(frame[["path"]], frame["colour"])
    assert np.array_equal(model.classes_, [3, 7, 11])
    assert model.classes_.dtype.kind == "i"
    assert model.set_aside_ == ((paths[-1], "no label"),)
    expected = model.predict_proba(X)
    for same in (frame[["path"]], frame["path"], np.array(paths)[:, None], frame[["path"]].to_numpy(), iter(paths)):
        assert np.array_equal(model.predict_proba(same), expected)
    assert cross_val_score(TransferClassifier(**SMALL), np.array(paths)[:, None], y[:, None], cv=2).mean() > 0.85
    with pytest.raises(DataError, match="2 columns"):
        model.predict(frame)


def test_one_picture_is_one_picture(fitted: TransferClassifier, images: Pictures) -> None:
    expected = fitted.predict_proba(images[0][:1])
    for one in (images[0][0], images[0][:1], Image.fromarray(images[0][0]), [Image.fromarray(images[0][0])]):
        assert np.array_equal(fitted.predict_proba(one), expected)


def test_labels_that_are_read_otherwise_or_look_alike_are_said(images: Pictures) -> None:
    X, y = images
    names = np.where(y == 3, "Moss", np.where(y == 7, "moss ", "sea"))
    with pytest.warns(UserWarning, match="'Moss' and 'moss ' look the same|'moss ' and 'Moss' look the same"):
        model = TransferClassifier(**SMALL).fit(X, names)
    assert model.classes_.tolist() == ["Moss", "moss ", "sea"]
    with pytest.warns(UserWarning, match="10 labels are the text 'nan'.*missing"):
        model = TransferClassifier(**SMALL).fit(X, np.where(y == 3, "nan", names))
    assert model.classes_.tolist() == ["moss ", "sea"]
    assert len(model.set_aside_) == 10
    with pytest.raises(DataError, match="measured value"):
        TransferClassifier(**SMALL).fit(X, np.arange(len(X)))


def test_the_tags_say_what_it_takes(fitted: TransferClassifier) -> None:
    tags = get_tags(fitted)
    assert tags.estimator_type == "classifier"
    assert not tags.input_tags.two_d_array
    assert tags.input_tags.string
    assert not tags.target_tags.required


def test_two_threads_predict_with_one_model(fitted: TransferClassifier, images: Pictures) -> None:
    X = images[0]
    unpickled = pickle.loads(pickle.dumps(fitted))  # compiles at the first use: of both threads
    parts = [X[:7], X[7:20]]
    expected = [fitted.predict_proba(part) for part in parts]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda k: unpickled.predict_proba(parts[k % 2]), range(8)))
    assert all(np.array_equal(rows, expected[k % 2]) for k, rows in enumerate(found))
