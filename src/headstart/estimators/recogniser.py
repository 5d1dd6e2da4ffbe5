"""Who or what is it, identities that may be unknown, as a scikit-learn classifier and transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin

from headstart.data.given import labels_of
from headstart.data.given_truth import truth_given
from headstart.errors import DataError
from headstart.estimators.fitted import Fit, Given, Images, Settings, fit_of, fitted, loaded, takes_images
from headstart.heads.embedding import Singles
from headstart.heads.gallery import Threshold, similarity
from headstart.heads.recognition import Recogniser
from headstart.tasks.identifier import identifier_of
from headstart.tasks.recognition import RECOGNITION


class TransferRecogniser(ClassifierMixin, TransformerMixin, Settings, BaseEstimator):  # type: ignore[misc]
    """As `TransferClassifier`, for identities: people, animals, products. Unknown is an answer, and whether two images
    are of the same identity can be asked of those that never taught.

    After `fit`: `classes_` (identity,), those enrolled, in the order of `decision_function`'s columns; `set_aside_`.
    More are enrolled in a saved model, by `headstart enrol`.
    """

    def fit(self, X: Images, y: Given | None = None) -> Self:
        """Learn from X (and y (image,), unless X is a folder or manifest). Raises HeadstartError."""
        labels = None if y is None else truth_given(y, "recognise")
        self._fit = fitted(RECOGNITION, X, labels, self)
        self.classes_ = self._fit.classes
        self.set_aside_ = self._fit.set_aside
        return self

    def transform(self, X: Images) -> Singles:
        """Embeddings (image, k) of unit length: a product of two is their similarity. Raises DataError naming the first
        image that cannot be read."""
        embedding, found = self._recogniser().embedding, dict[int, Singles]()

        def taken(rows: Any, blocks: Any) -> None:
            found.update(zip(map(int, rows), embedding.embed(blocks), strict=True))

        fit_of(self, Fit).predict(X, taken)
        return np.stack([found[row] for row in sorted(found)])

    def decision_function(self, X: Images) -> npt.NDArray[np.float32]:
        """Similarities (image, identity), -1 to 1."""
        return fit_of(self, Fit).predict(X).answers

    def predict(self, X: Images) -> npt.NDArray[np.object_]:
        """Who it is (image,); None of somebody unknown: no more than 1 % of strangers are taken for somebody."""
        alike, least = self.decision_function(X), self._recogniser().identify.value
        best = self.classes_.astype(object)[alike.argmax(axis=1)]
        best[alike.max(axis=1) < least] = None
        return np.asarray(best, dtype=object)

    def verify(self, first: Images, second: Images) -> npt.NDArray[np.bool_]:
        """Whether the images of each pair are of the same identity (pair,), known or not. Raises DataError where so few
        identities taught that nothing tells it, or for two different numbers of images."""
        threshold: Threshold = self._recogniser().verify
        if not threshold.n:
            raise DataError(
                "so few identities taught that nothing tells when two images are the same: fit with at least 4 that "
                "have several images"
            )
        one, other = self.transform(first), self.transform(second)
        if len(one) != len(other):
            raise DataError(f"{len(one)} and {len(other)} images were given to be compared: give as many of both")
        return np.asarray(similarity(one, other) >= threshold.value)

    def score(self, X: Images, y: Given, sample_weight: npt.ArrayLike | None = None) -> float:
        """The share of images that are named rightly; of identities that are not enrolled unknown is right."""
        said, known = self.predict(X), {str(name) for name in self.classes_}
        truth = [text if text in known else None for text in labels_of(y).texts]
        right = [(None if one is None else str(one)) == text for one, text in zip(said, truth, strict=True)]
        return float(np.average(right, weights=None if sample_weight is None else np.asarray(sample_weight)))

    def evaluate(self, X: Images, y: Given | None = None) -> dict[str, Any]:
        """Scores with 95 % intervals (see metrics.json) on labelled images, of those enrolled and of others."""
        return fit_of(self, Fit).evaluate(X, y, self.seed)

    def save(self, folder: str | Path, force: bool = False) -> dict[str, Any]:
        """As `TransferClassifier.save`."""
        return fit_of(self, Fit).save(folder, force, f"TransferRecogniser(seed={self.seed})")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A saved model, ready to predict. Raises BundleError."""
        found: Self = loaded(cls, folder, RECOGNITION.name, Fit)
        found.classes_ = found._fit.classes
        return found

    def _recogniser(self) -> Recogniser:
        return identifier_of(fit_of(self, Fit).model.head).recogniser

    def __sklearn_tags__(self) -> Any:
        return takes_images(super().__sklearn_tags__())
