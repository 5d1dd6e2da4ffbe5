"""`AnomalyDetector` keeps the contract of scikit-learn's outlier detectors, on images."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from headstart import AnomalyDetector, BundleError, DataError, OptionError, TransferClassifier
from headstart.data.images import write_png
from headstart.ship.predict import records

SMALL: dict[str, Any] = {"backbone": "test_efficientnet", "weights": "none", "size": 64, "precision": "f32"}
Pictures = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    """(24 good pictures (image, 64, 64, 3) of stripes, 6 with a bright square)."""
    rng = np.random.default_rng(3)
    good = rng.integers(90, 130, (30, 64, 64, 3)) + 40 * (np.arange(64)[:, None] // 8 % 2)[:, :, None]
    odd = good[24:].copy()
    odd[:, 20:44, 20:44] = 255 * rng.integers(0, 2, (6, 24, 24, 1))
    return good[:24].astype(np.uint8), odd.astype(np.uint8)


@pytest.fixture(scope="module")
def detector(pictures: Pictures) -> AnomalyDetector:
    return AnomalyDetector(**SMALL, false_alarms=0.1).fit(pictures[0])


def test_odd_is_minus_one_and_lies_below_the_offset(detector: AnomalyDetector, pictures: Pictures) -> None:
    X, truth = np.concatenate(pictures), np.repeat([1, -1], (24, 6))
    verdict, decision = detector.predict(X), detector.decision_function(X)
    assert is_outlier_detector(detector)
    assert set(verdict.tolist()) == {1, -1}
    np.testing.assert_array_equal(verdict == -1, decision <= 0)
    np.testing.assert_array_equal(decision, detector.score_samples(X) - detector.offset_)
    assert roc_auc_score(truth, decision) > 0.9
    said = records(detector._fit.model, detector._fit.predict(X), 1)
    assert [one["verdict"] == "odd" for one in said] == (verdict == -1).tolist()
    assert [-np.log(one["score"]) for one in said] == pytest.approx(decision.tolist())


def test_fit_predict_is_fit_then_predict(detector: AnomalyDetector, pictures: Pictures) -> None:
    twin = clone(detector)
    with pytest.raises(NotFittedError):
        twin.predict(pictures[0])
    np.testing.assert_array_equal(twin.fit_predict(pictures[0]), detector.predict(pictures[0]))


def test_heat_lies_where_the_square_is(detector: AnomalyDetector, pictures: Pictures) -> None:
    good, odd = pictures
    heat = detector.heat_maps(odd)
    assert len(heat) == len(odd)
    side = heat.shape[1]
    inside = slice(side // 4, -(side // 4))
    assert heat[:, inside, inside].mean() > 2 * heat[:, 0, :].mean()
    np.testing.assert_allclose(detector.heat_maps(odd[2:3]), heat[2:3], rtol=1e-3, atol=1e-4)
    assert detector.heat_maps(good).mean() < heat.mean()


def test_odd_pictures_with_labels_never_teach(detector: AnomalyDetector, pictures: Pictures) -> None:
    X = np.concatenate(pictures)
    for good, names in ((None, (1, -1)), (None, ("ok", "scratch")), ("a", ("a", "b"))):
        model = clone(detector).set_params(good=good).fit(X, [names[0]] * 24 + [names[1]] * 6)
        np.testing.assert_allclose(model.score_samples(X), detector.score_samples(X), rtol=1e-5, atol=1e-5)
        assert model.evaluate(X, [names[0]] * 24 + [names[1]] * 6)["auroc"]["value"] > 0.9


@pytest.mark.parametrize(
    ("settings", "labels", "kind", "said"),
    [
        ({}, ["a"] * 24, DataError, "nothing says which pictures are good"),
        ({"good": "c"}, ["a"] * 24, OptionError, "'c' is no label"),
        ({"good": "c"}, None, OptionError, "come without"),
        ({}, [1] * 5 + [-1] * 19, DataError, "5 good pictures to learn from"),
        ({}, [1] * 3, DataError, "24 images but 3 labels"),
        ({"tune": "all"}, None, OptionError, "trains step by step"),
        ({"false_alarms": 0.9}, None, OptionError, "false-alarms 0.9 is not allowed"),
    ],
)
def test_what_cannot_be_learned_is_one_line(
    pictures: Pictures, settings: dict[str, Any], labels: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as error:
        AnomalyDetector(**SMALL, **settings).fit(pictures[0], labels)
    assert "\n" not in str(error.value)


def test_saved_loaded_and_pickled_say_the_same(detector: AnomalyDetector, pictures: Pictures, tmp_path: Path) -> None:
    X = np.concatenate(pictures)
    metrics = detector.save(tmp_path / "model")
    assert list(metrics["cross_validation"])[:2] == ["n", "false_alarms"]
    for twin in (AnomalyDetector.load(tmp_path / "model"), pickle.loads(pickle.dumps(detector))):
        np.testing.assert_allclose(twin.score_samples(X), detector.score_samples(X), rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(twin.predict(X), detector.predict(X))
    with pytest.raises(BundleError, match=r"load it by AnomalyDetector\.load"):
        TransferClassifier.load(tmp_path / "model")


def test_a_folder_is_read_as_by_the_command(pictures: Pictures, tmp_path: Path) -> None:
    for name, some in zip(("fine", "bent"), pictures, strict=True):
        (tmp_path / name).mkdir()
        for k, pixels in enumerate(some):
            write_png(pixels, tmp_path / name / f"{k}.png")
    model = AnomalyDetector(**SMALL, taps="last").fit(tmp_path)
    assert model.predict(tmp_path / "bent").shape == (6,)
    assert model.evaluate(tmp_path)["odd"] == 6
    with pytest.raises(OptionError, match="knows none"):
        model.heat_maps(pictures[1])
    (tmp_path / "bent" / "broken.png").write_bytes(b"none")
    with pytest.raises(DataError, match=r"1 of 7 images cannot be read; the first, .*broken\.png"):
        model.predict(tmp_path / "bent")
