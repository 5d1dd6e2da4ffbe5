"""Measured values, as a scikit-learn regressor."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin

from headstart.data.given_truth import truth_given
from headstart.estimators.fitted import Fit, Given, Images, Settings, fit_of, fitted, loaded, takes_images
from headstart.tasks.regression import REGRESSION


class TransferRegressor(RegressorMixin, MultiOutputMixin, Settings, BaseEstimator):  # type: ignore[misc]
    """As `TransferClassifier`, for measured values: one number an image, or several.

    Values are numbers (image,) or (image, column), or a frame; an image without one, or without one of them, is set
    aside. `score` is R2, the mean over the columns. After `fit`: `columns_`, the names of the values; `set_aside_`.
    """

    def fit(self, X: Images, y: Given | None = None) -> Self:
        """Learn from X (and y, unless X is a manifest). Raises HeadstartError."""
        labels = None if y is None else truth_given(y, "regress")
        self._fit = fitted(REGRESSION, X, labels, self)
        self._flat = len(self._fit.model.names) == 1 and (y is None or _is_flat(y))
        self.columns_ = self._fit.classes
        self.set_aside_ = self._fit.set_aside
        return self

    def predict(self, X: Images) -> npt.NDArray[np.float64]:
        """The value of each image, in the shape of y: (image,) or (image, column). Of a manifest with one column and of
        a loaded model with one value (image,). Raises DataError naming the first image that cannot be read."""
        return self._shaped(fit_of(self, Fit).predict(X).answers[:, :, 0])

    def predict_interval(self, X: Images) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """(low, high), each in the shape of `predict`: 90 % of images like those learned from lie between them; an end
        is infinite where too few images taught to say it."""
        found = fit_of(self, Fit).predict(X).answers
        value, half = found[:, :, 0], found[:, :, 1]
        return self._shaped(value - half), self._shaped(value + half)

    def evaluate(self, X: Images, y: Given | None = None) -> dict[str, Any]:
        """Scores with 95 % intervals (see metrics.json); several columns are matched by name."""
        return fit_of(self, Fit).evaluate(X, y, self.seed)

    def save(self, folder: str | Path, force: bool = False) -> dict[str, Any]:
        """As `TransferClassifier.save`."""
        return fit_of(self, Fit).save(folder, force, f"TransferRegressor(seed={self.seed})")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A saved model, ready to predict. Raises BundleError."""
        found: Self = loaded(cls, folder, REGRESSION.name, Fit)
        found.columns_ = found._fit.classes
        found._flat = len(found.columns_) == 1
        return found

    def _shaped(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        found = values.astype(np.float64)
        return found[:, 0] if self._flat else found

    def __sklearn_tags__(self) -> Any:
        return takes_images(super().__sklearn_tags__())


def _is_flat(y: Any) -> bool:
    """Whether values are (image,) and not (image, column)."""
    return len(y.shape) < 2 if hasattr(y, "shape") else np.ndim(list(y)) < 2
