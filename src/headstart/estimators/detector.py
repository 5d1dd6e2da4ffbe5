"""Is anything odd about it, as a scikit-learn outlier detector."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, OutlierMixin

from headstart.data.given import labels_of
from headstart.data.good import GOOD, good_given
from headstart.data.table import Table, read_table, table_of
from headstart.errors import OptionError
from headstart.estimators.fitted import Fit, Given, Images, Settings, fit_of, learned, loaded, takes_images
from headstart.heads.oddity import Floats, Oddity
from headstart.ship.heat import knows_patches
from headstart.story.options import Options
from headstart.tasks.oddities import ODDITIES


@dataclass(eq=False, repr=False)
class AnomalyDetector(OutlierMixin, Settings, BaseEstimator):  # type: ignore[misc]
    """Learns from good pictures alone; of a new one it says how unlike them it is, and where.

    The settings are those of `TransferClassifier`, and two: false_alarms: the share of new good pictures that may be
    called odd, None = 0.05. good: which labels are good, with commas between; None: those whose names say so (good, ok,
    no_crack, 0), or 1 where labels are 1 and -1, as scikit-learn's outlier detectors write them.

    Images are given as a folder or list, read as `headstart fit --task anomaly` does, or as a sequence of paths, Pillow
    images or arrays, which are good where no labels come with them. Odd ones never teach; they judge in `save`.
    `offset_` is 0: the threshold lies in the scores. `set_aside_`: (name, reason) of what was not learned from.
    """

    false_alarms: float | None = Options.false_alarms
    good: str | None = None

    def fit(self, X: Images, y: Given | None = None) -> Self:
        """Learn from the good ones of X. Raises HeadstartError."""
        options = {name: value for name, value in self.get_params().items() if name != "good"}
        by_itself = y is None and isinstance(X, str | Path)
        table = self._table(X, y, 2)
        self._fit = learned(ODDITIES, table, Options(**options), by_itself)
        self.offset_ = 0.0
        bare = [(str(name), "no label") for name in table.names[table.labels == ""]]
        self.set_aside_ = self._fit.set_aside = (*self._fit.set_aside, *bare)
        return self

    def score_samples(self, X: Images) -> npt.NDArray[np.float64]:
        """How much like good ones the images are (image,): the larger the more, below 0 odd; minus the logarithm of the
        score that `headstart predict` writes. Raises DataError naming the first image that cannot be read."""
        return -np.log(self._scores(X))

    def decision_function(self, X: Images) -> npt.NDArray[np.float64]:
        """`score_samples` less `offset_`: of good ones the share `false_alarms` lies below 0."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Images) -> npt.NDArray[np.int64]:
        """1 of a picture like the good ones, -1 of an odd one (image,)."""
        return np.where(self._scores(X) >= 1, -1, 1)

    def heat_maps(self, X: Images) -> Floats:
        """Where the pictures are odd (image, height, width), of the places that the network sees: 0 is usual, 1 as odd
        as the oddest place of a good picture at the threshold. Raises OptionError for a model that knows no patches."""
        fit, found = fit_of(self, Fit), dict[int, Floats]()
        knows_patches(fit.model)
        head = fit.model.head
        assert isinstance(head, Oddity)

        def taken(rows: Any, blocks: Any) -> None:
            heat = head.heat(blocks)
            assert heat is not None
            found.update(zip(map(int, rows), heat, strict=True))

        fit.predict(X, taken)
        return np.stack([found[row] for row in sorted(found)])

    def evaluate(self, X: Images, y: Given | None = None) -> dict[str, Any]:
        """Scores with 95 % intervals (see metrics.json) on good and odd pictures; labels as for `fit`.

        Of a folder or list with a test part (else a validation part) that part alone is scored.
        """
        return fit_of(self, Fit).score_of(self._table(X, y, 1), self.seed)

    def save(self, folder: str | Path, force: bool = False) -> dict[str, Any]:
        """As `TransferClassifier.save`."""
        return fit_of(self, Fit).save(folder, force, f"AnomalyDetector(seed={self.seed})")

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """A saved model, ready to predict. Raises BundleError."""
        found: Self = loaded(cls, folder, ODDITIES.name, Fit)
        found.offset_ = 0.0
        return found

    def _scores(self, X: Images) -> npt.NDArray[np.float64]:
        """(image,): 1 is the threshold."""
        fit = fit_of(self, Fit)
        return fit.predict(X).answers[:, 0].astype(np.float64)

    def _table(self, X: Images, y: Given | None, least: int) -> Table:
        if y is None and isinstance(X, str | Path):
            return read_table(X, least, task=ODDITIES.name, good=self.good)
        if y is not None:
            return table_of(X, good_given(labels_of(y), self.good))
        if self.good is not None:
            raise OptionError(f"good {self.good!r} is of labels, and these images come without: leave it out")
        bare = table_of(X)
        return replace(bare, labels=np.full(len(bare), GOOD, dtype=object), task=ODDITIES.name)

    def __sklearn_tags__(self) -> Any:
        return takes_images(super().__sklearn_tags__())
