"""The class of each pixel, as a scikit-learn estimator."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator

from headstart.data.given_masks import masks_given
from headstart.data.mask_text import drawn_in
from headstart.data.table import Table, read_table, table_of
from headstart.errors import DataError
from headstart.estimators.fitted import Given, Images, fit_of, loaded, takes_images
from headstart.estimators.placed import PlacedFit, PlacedSettings, enough, fitted, sizes_of, with_truth
from headstart.tasks.segmentation import SEGMENTATION


@dataclass(eq=False, repr=False)
class TransferSegmenter(PlacedSettings, BaseEstimator):  # type: ignore[misc]
    """Which class each pixel is of, learned from pictures with masks.

    backbone, weights, size (px, of the longer side of what the network sees), precision, bands, cache and seed are as
    for `TransferClassifier`. budget: the time that the decoder, and then the tuning, may take, "3m"; epochs: the same
    in passes over the images. tune: "none", "auto", "last", "all" or a stage. augment: "photo" lets pictures mirrored
    left to right teach too, "aerial" and "medical" also those upside down, "document" and "none" neither. classes: what
    the values 0, 1, ... in masks are called, as names, as one text with commas between them, or as the path of a file
    of classes; None: by the file that lies beside the masks, else by their numbers.

    Images are given as a data set that `headstart fit --task segment` reads (a path), or as for `TransferClassifier`
    with one mask each: an array (height, width) of class numbers, a Pillow image, or a path. 255 is void, and such
    pixels neither teach nor judge; None is no mask. In masks of 0 and 255 alone, 255 is the class `foreground`.

    After `fit`: `classes_` (class,), and `set_aside_`, (name, reason) of what was not learned from. The numbers in
    answers are places in `classes_`: `classes_[mask]` has names, or the values of the masks that were given without
    names. A pickle holds what predicts alone, and copies share what was learned.
    """

    classes: str | Sequence[str] | None = None

    def fit(self, X: Images, y: Given | None = None) -> Self:
        """Learn from X (and y, a mask each, unless X is a data set). Raises HeadstartError.

        With y every image is learned from, and `save` judges by cross-validation; a data set is split as `headstart
        fit` does.
        """
        table = self._read(X, 2) if y is None else enough(self._given(X, y, self.classes))
        self._fit = fitted(SEGMENTATION, table, self, hold_out=y is None)
        self.classes_ = self._fit.classes
        self.set_aside_ = self._fit.set_aside
        places = np.arange(len(self.classes_))
        if table.kind == "int" and not np.array_equal(self.classes_, places):
            warnings.warn(
                f"the masks hold {', '.join(map(str, self.classes_))}, and answers the places of these, 0 to "
                f"{places[-1]}: classes_[mask] has the values back, and classes=[...] names all of them",
                stacklevel=2,
            )
        return self

    def predict(self, X: Images) -> list[npt.NDArray[np.uint8]]:
        """A mask of each image, (height, width) of the upright picture: places in `classes_`. Raises DataError naming
        the first image that cannot be read."""
        return [said.answer for said in fit_of(self, PlacedFit).predict(X) if said.answer is not None]

    def score(self, X: Images, y: Given | None = None) -> float:
        """The mean intersection over union of the classes, 0 to 1; NaN where the images do not determine it."""
        return fit_of(self, PlacedFit).headline_of(self._judging(X, y), self.seed)

    def evaluate(self, X: Images, y: Given | None = None) -> dict[str, Any]:
        """Scores with 95 % intervals (see metrics.json) on images with masks; classes are matched by name, and where
        they have names and `classes` does not say it, the numbers in y are places in `classes_`.

        Of a data set with a test part (else a validation part) that part alone is scored.
        """
        return fit_of(self, PlacedFit).score_of(self._judging(X, y), self.seed)

    def save(self, folder: str | Path, force: bool = False) -> dict[str, Any]:
        """Judge the model as `headstart fit` does and write it; returns the content of metrics.json.

        Where all images taught, five models of four fifths each are judged, each on the rest, within one `budget`. A
        model of other data is replaced only with `force`.
        """
        return fit_of(self, PlacedFit).save(folder, force, f"TransferSegmenter(seed={self.seed})")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A saved model, ready to predict. Raises BundleError."""
        found: Self = loaded(cls, folder, SEGMENTATION.name, PlacedFit)
        found.classes_ = found._fit.classes
        return found

    def _judging(self, X: Images, y: Given | None) -> Table:
        names = fit_of(self, PlacedFit).model.names
        if y is None:
            return self._read(X, 1)
        numbers = all(map(str.isdecimal, names))
        return self._given(X, y, names if self.classes is None and not numbers else self.classes)

    def _read(self, X: Images, least: int) -> Table:
        if not isinstance(X, str | Path):
            raise DataError("images without masks: give fit(images, masks), or the path of a data set")
        return read_table(X, least, task=SEGMENTATION.name, classes=self.classes)

    def _given(self, X: Images, y: Given, classes: str | Sequence[str] | None) -> Table:
        """Raises DataError for a mask of another size than its picture."""
        table = with_truth(table_of(X), masks_given(y, classes))
        for row, size in enumerate(sizes_of(table)):
            own = drawn_in(table.labels[row]).upright if table.labels[row] else size
            if size is not None and own is not None and own != size:
                raise DataError(
                    f"the mask of {table.names[row]} is {own[1]} x {own[0]} px and the picture, as it is displayed, "
                    f"{size[1]} x {size[0]}: give masks in the pixels of their pictures"
                )
        return table

    def __sklearn_tags__(self) -> Any:
        return takes_images(super().__sklearn_tags__())
