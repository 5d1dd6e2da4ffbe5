"""headstart: labelled images in; an honest, deployable model out: classes, several labels, measured values.

>>> from headstart import TransferClassifier
>>> model = TransferClassifier().fit("photos/")  # doctest: +SKIP
>>> model.predict(["a.jpg", "b.jpg"])  # doctest: +SKIP
"""

from __future__ import annotations

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
    from headstart.classifier import TransferClassifier, TransferRegressor, TransferTagger
    from headstart.trunk.backbone import open_backbone

__version__ = "0.1.0"
__all__ = [
    "BackboneError",
    "BundleError",
    "DataError",
    "HeadstartError",
    "ImageError",
    "OptionError",
    "OutputError",
    "TransferClassifier",
    "TransferRegressor",
    "TransferTagger",
    "__version__",
    "open_backbone",
]


def __getattr__(name: str) -> Any:
    if name in ("TransferClassifier", "TransferRegressor", "TransferTagger"):
        from headstart import classifier

        return getattr(classifier, name)
    if name == "open_backbone":
        from headstart.trunk.backbone import open_backbone

        return open_backbone
    raise AttributeError(f"module 'headstart' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
