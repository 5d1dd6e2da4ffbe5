"""`TransferTagger`, `TransferRegressor` and `AnomalyDetector` keep scikit-learn's contract, on images."""

from __future__ import annotations

import inspect
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.utils import estimator_checks, get_tags

from headstart import (
    AnomalyDetector,
    BundleError,
    DataError,
    TransferClassifier,
    TransferRecogniser,
    TransferRegressor,
    TransferTagger,
)
from headstart.data.images import write_png
from headstart.story.options import Options

SMALL: dict[str, Any] = {"backbone": "test_efficientnet", "weights": "none", "size": 64, "precision": "f32"}
NAMES = ("red", "green", "blue")
ALL = (TransferClassifier, TransferTagger, TransferRegressor, AnomalyDetector, TransferRecogniser)


@pytest.fixture(scope="module")
def images() -> tuple[Any, Any]:
    """Forty pictures (image, 40, 40, 3), and which of the colours each has (image, colour), any or none of three."""
    rng = np.random.default_rng(5)
    has = np.array([[k >> c & 1 for c in range(3)] for k in rng.permutation(np.arange(40) % 8)])
    X = rng.integers(0, 90, (40, 40, 40, 3)) + 150 * has[:, None, None, :]
    return X.astype(np.uint8), has


@pytest.fixture(scope="module")
def tagger(images: tuple[Any, Any]) -> TransferTagger:
    return TransferTagger(**SMALL).fit(*images)


@pytest.fixture(scope="module")
def measured(images: tuple[Any, Any]) -> tuple[Any, Any]:
    """The same pictures with two values, of the brightness of red and green."""
    X = images[0]
    return X, X.astype(np.float64).mean(axis=(1, 2))[:, :2] / 10


@pytest.fixture(scope="module")
def regressor(measured: tuple[Any, Any]) -> TransferRegressor:
    return TransferRegressor(**SMALL).fit(*measured)


def test_settings_are_the_options_of_a_fit() -> None:
    """Written twice, since scikit-learn reads them from the signature: same names, types, defaults and order."""
    options = {field.name: (field.type, field.default) for field in fields(Options)}
    of_lists = {"threshold", "min_images", "coverage", "sets", "max_error", "aim", "cost", "positive", "target"}
    of_lists |= {"false_alarms"}
    of_one = (
        ["coverage", "sets", "max_error", "aim", "cost", "positive", "target"],
        ["threshold"],
        [],
        ["false_alarms"],
        [],
    )
    for kind, more in zip(ALL, of_one, strict=True):
        given = [p for p in inspect.signature(kind).parameters.values() if p.name != "good"]  # as `read_table` has it
        assert [p.name for p in given] == [name for name in options if name not in of_lists] + more
        assert all((p.annotation, p.default) == options[p.name] for p in given)


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
@pytest.mark.parametrize("kind", ALL)
def test_scikit_learns_own_checks_pass(check: Any, kind: Any) -> None:
    check(kind.__name__, kind(**SMALL))


def test_the_tags_say_what_is_answered() -> None:
    tagger, regressor = get_tags(TransferTagger()), get_tags(TransferRegressor())
    assert (tagger.estimator_type, regressor.estimator_type) == ("classifier", "regressor")
    assert tagger.classifier_tags.multi_label
    assert tagger.target_tags.multi_output
    assert regressor.target_tags.multi_output
    assert regressor.target_tags.single_output
    assert not tagger.input_tags.two_d_array


def test_what_is_not_fitted_says_so_and_a_clone_is_not(tagger: TransferTagger, regressor: TransferRegressor) -> None:
    for model in (tagger, regressor):
        twin = clone(model)
        assert twin.get_params() == model.get_params()
        for call in (twin.predict, twin.evaluate, twin.save):
            with pytest.raises(NotFittedError):
                call(["a.png"])


def test_labels_in_every_form_are_learned_the_same(tagger: TransferTagger, images: tuple[Any, Any]) -> None:
    X, has = images
    p = tagger.predict_proba(X)
    assert p.shape == has.shape
    assert tagger.score(X, has) == accuracy_score(has, tagger.predict(X)) > 0.8
    frame = pd.DataFrame(has, columns=list(NAMES))
    by_name = clone(tagger).fit(X, frame)
    assert by_name.classes_.tolist() == list(NAMES)  # in the order of the columns, which is not that of the alphabet
    assert np.array_equal(by_name.predict_proba(X), p)
    assert by_name.score(X, frame) == tagger.score(X, has)
    sets = [{NAMES[c] for c in np.flatnonzero(row)} for row in has]
    of_sets = clone(tagger).fit(X, sets)
    assert of_sets.classes_.tolist() == sorted(NAMES)
    assert of_sets.predict_proba(X) == pytest.approx(p[:, [2, 1, 0]], abs=1e-5)
    assert of_sets.score(X, sets) == tagger.score(X, has)


def test_the_answer_has_every_column_that_was_given(tagger: TransferTagger, images: tuple[Any, Any]) -> None:
    """Also one without a 1, as a fold of a cross-validation may hold; unknown cells teach and count nowhere."""
    X, has = images
    wide = np.column_stack([np.zeros(len(X)), has]).astype(float)
    wide[::5, 2] = np.nan
    model = clone(tagger).fit(X, wide)
    assert model.predict(X).shape == wide.shape
    assert not model.predict(X)[:, 0].any()
    wrong = wide.copy()
    wrong[::5, 2] = -1
    assert model.score(X, wide) == model.score(X, wrong)
    strange = [{NAMES[c] for c in np.flatnonzero(row)} | {"mauve"} for row in has]
    assert clone(tagger).fit(X, [s - {"mauve"} for s in strange]).score(X, strange) == 0


def test_a_threshold_decides_what_is_given(tagger: TransferTagger, images: tuple[Any, Any]) -> None:
    X, has = images
    p = tagger.predict_proba(X)
    for least in (0.1, 0.9):
        given = clone(tagger).set_params(threshold=least).fit(X, has).predict(X)
        assert np.array_equal(given, p >= np.float32(least))


def test_values_come_back_in_the_shape_they_had(regressor: TransferRegressor, measured: tuple[Any, Any]) -> None:
    X, values = measured
    assert regressor.predict(X).shape == values.shape
    assert regressor.score(X, values) == r2_score(values, regressor.predict(X)) > 0.9
    for one in (values[:, 0], values[:, :1], pd.Series(values[:, 0], name="red"), pd.DataFrame({"red": values[:, 0]})):
        model = clone(regressor).fit(X, one)
        assert model.predict(X).shape == np.shape(one)
        assert model.predict(X).ravel() == pytest.approx(regressor.predict(X)[:, 0], abs=1e-4)
    assert model.columns_.tolist() == ["red"]


def test_intervals_lie_around_the_answer(regressor: TransferRegressor, measured: tuple[Any, Any]) -> None:
    X, values = measured
    low, high = regressor.predict_interval(X)
    assert (low + high) / 2 == pytest.approx(regressor.predict(X), abs=1e-4)
    assert ((low <= values) & (values <= high)).mean() > 0.85


def test_too_few_images_say_a_value_and_no_interval(regressor: TransferRegressor, measured: tuple[Any, Any]) -> None:
    model = clone(regressor).fit(measured[0][:6], measured[1][:6, 0])
    low, high = model.predict_interval(measured[0][:2])
    assert np.isinf(low).all()
    assert np.isinf(high).all()
    assert np.isfinite(model.predict(measured[0][:2])).all()


def test_images_without_a_value_are_set_aside(regressor: TransferRegressor, measured: tuple[Any, Any]) -> None:
    X, values = measured
    some = values[:, 0].copy()
    some[:3] = np.nan
    model = clone(regressor).fit(X, some)
    assert [name for name, reason in model.set_aside_ if reason == "no label"] == ["image 0", "image 1", "image 2"]


def test_scikit_learns_tools_run(images: tuple[Any, Any], measured: tuple[Any, Any]) -> None:
    X, has = images
    sets = [{NAMES[c] for c in np.flatnonzero(row)} for row in has]
    tagger, regressor = TransferTagger(**SMALL, taps="last"), TransferRegressor(**SMALL, taps="last")
    assert cross_val_score(tagger, X, has, cv=2, scoring="f1_macro").mean() > 0.8
    assert cross_val_score(tagger, X, sets, cv=KFold(2)).mean() > 0.5
    assert cross_val_score(regressor, *measured, cv=2).mean() > 0.5
    search = GridSearchCV(regressor, {"taps": ["last", "all"]}, cv=2).fit(X, measured[1][:, 0])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_a_pickle_answers_the_same_on_several_threads(tagger: TransferTagger, images: tuple[Any, Any]) -> None:
    model, X = tagger, images[0]
    twin = pickle.loads(pickle.dumps(model))
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda k: twin.predict(X[k : k + 20]), (0, 20)))
    assert np.array_equal(np.concatenate(found), model.predict(X))
    with pytest.raises(DataError, match="pickled"):
        twin.save("anywhere")


@pytest.mark.parametrize("which", ["tagger", "regressor"])
def test_loaded_predicts_as_saved_and_only_as_its_own_task(
    which: str,
    images: tuple[Any, Any],
    measured: tuple[Any, Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    model, (X, truth) = request.getfixturevalue(which), images if which == "tagger" else measured
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model")
    assert loaded.predict(X) == pytest.approx(model.predict(X), abs=1e-4)
    name = {"tagger": "log_loss", "regressor": "r2"}[which]
    assert loaded.evaluate(X, truth)[name]["value"] == pytest.approx(model.evaluate(X, truth)[name]["value"], abs=1e-5)
    with pytest.raises(BundleError, match=rf"load it by {type(model).__name__}\.load"):
        TransferClassifier.load(tmp_path / "model")


def test_a_list_of_files_is_learned_by_its_class(
    images: tuple[Any, Any], measured: tuple[Any, Any], tmp_path: Path
) -> None:
    X, has = images
    for k, pixels in enumerate(X):
        write_png(pixels, tmp_path / f"{k}.png")
    lines = [f"{k}.png,{'|'.join(NAMES[c] for c in np.flatnonzero(row)) or '|'}" for k, row in enumerate(has)]
    (tmp_path / "labels.csv").write_text("path,labels\n" + "\n".join(lines) + "\n")
    tagger = TransferTagger(**SMALL).fit(str(tmp_path / "labels.csv"))
    assert tagger.classes_.tolist() == sorted(NAMES)
    lines = [f"{k}.png,{value:.3f}" for k, value in enumerate(measured[1][:, 0])]
    (tmp_path / "values.csv").write_text("path,red\n" + "\n".join(lines) + "\n")
    regressor = TransferRegressor(**SMALL).fit(tmp_path / "values.csv")
    assert regressor.predict([tmp_path / "0.png"]).shape == (1,)
    assert regressor.columns_.tolist() == ["red"]
    with pytest.raises(DataError, match="images without labels"):
        tagger.fit(X)
