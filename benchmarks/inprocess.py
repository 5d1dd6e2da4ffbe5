"""The parts of headstart that benchmarks call without the command line, in one place: network, features, head."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.data.table import Table
from headstart.learn import recipe
from headstart.learn.probe import fit_probe
from headstart.learn.taps import tap_sets
from headstart.trunk.backbone import DEFAULT, Backbone, open_backbone
from headstart.trunk.engine import Engine
from headstart.trunk.features import Features, extract, store_key
from headstart.trunk.store import Store

PHOTOGRAPH = 300  # px, stands for the short side of any photograph


def backbone_for(
    short_side: int, n_images: int, name: str = DEFAULT, weights: str = "auto", side: int | None = None
) -> Backbone:
    """The network with the preprocessing that `headstart fit` gives it; `side` px instead of the recipe's size."""
    backbone = open_backbone(name, weights)
    recipe_side, crop = recipe.input_side(short_side, backbone.native_size, n_images)
    side = side or recipe_side
    fraction = backbone.preprocess.crop_fraction if crop else 1.0
    return backbone.resized(replace(backbone.preprocess, size=(side, side), crop_fraction=fraction))


def fresh_features(table: Table, backbone: Backbone, engine: Engine, cache: Path) -> Features:
    """Every image through the engine and into the store below `cache`."""
    return extract(table, backbone, engine, Store(cache, store_key(backbone, engine)))


def fit_head(
    blocks: Mapping[str, NDArray[np.float16]], y: NDArray[np.intp], taps: str = "auto"
) -> Callable[[Mapping[str, NDArray[np.float16]]], NDArray[np.float64]]:
    """blocks (image, feature) by name, y (image,) class numbers -> predict_proba(blocks) -> (image, class)."""
    heads = recipe.heads(len(y), int(y.max()) + 1)
    probe = fit_probe(blocks, y, np.arange(len(y)), tap_sets(taps, tuple(blocks)), heads)
    return lambda new: np.exp(probe.log_probabilities(new))


def class_numbers(table: Table) -> NDArray[np.intp]:
    """(image,) positions of the labels in the sorted class names."""
    place: dict[Any, int] = {name: k for k, name in enumerate(table.classes)}
    return np.array([place[label] for label in table.labels], np.intp)
