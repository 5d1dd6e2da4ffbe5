"""headstart: images with their truth in; an honest, deployable model out, of classes, values, oddities, masks, boxes.

>>> from headstart import TransferClassifier
>>> model = TransferClassifier().fit("photos/")  # doctest: +SKIP
>>> model.predict(["a.jpg", "b.jpg"])  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from headstart.errors import (
    BackboneError,
    BundleError,
    DataError,
    HeadstartError,
    ImageError,
    OptionError,
    OutputError,
)

if TYPE_CHECKING:
    from headstart.estimators.box_detector import TransferDetector
    from headstart.estimators.classifier import TransferClassifier
    from headstart.estimators.detector import AnomalyDetector
    from headstart.estimators.recogniser import TransferRecogniser
    from headstart.estimators.regressor import TransferRegressor
    from headstart.estimators.segmenter import TransferSegmenter
    from headstart.estimators.tagger import TransferTagger
    from headstart.trunk.backbone import open_backbone

__version__ = "0.2.0"
ESTIMATORS = {  # -> the file of `estimators/` that has it
    "AnomalyDetector": "detector",
    "TransferClassifier": "classifier",
    "TransferDetector": "box_detector",
    "TransferRecogniser": "recogniser",
    "TransferRegressor": "regressor",
    "TransferSegmenter": "segmenter",
    "TransferTagger": "tagger",
}
__all__ = [
    "AnomalyDetector",
    "BackboneError",
    "BundleError",
    "DataError",
    "HeadstartError",
    "ImageError",
    "OptionError",
    "OutputError",
    "TransferClassifier",
    "TransferDetector",
    "TransferRecogniser",
    "TransferRegressor",
    "TransferSegmenter",
    "TransferTagger",
    "__version__",
    "open_backbone",
]


def __getattr__(name: str) -> Any:
    if name in ESTIMATORS:
        return getattr(import_module(f"headstart.estimators.{ESTIMATORS[name]}"), name)
    if name == "open_backbone":
        from headstart.trunk.backbone import open_backbone

        return open_backbone
    raise AttributeError(f"module 'headstart' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
