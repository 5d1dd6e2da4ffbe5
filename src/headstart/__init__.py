"""headstart: a folder of labelled images in; an honest, deployable classifier out.

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
    from headstart.classifier import TransferClassifier
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
    "__version__",
    "open_backbone",
]


def __getattr__(name: str) -> Any:
    if name == "TransferClassifier":
        from headstart.classifier import TransferClassifier

        return TransferClassifier
    if name == "open_backbone":
        from headstart.trunk.backbone import open_backbone

        return open_backbone
    raise AttributeError(f"module 'headstart' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
