"""Which head goes on a tuned network, by the training images that it has not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from headstart.learn.calibrate import best_scale
from headstart.learn.material import Material
from headstart.learn.probe import Probe, fit_closed
from headstart.learn.spectrum import Doubles
from headstart.learn.taps import TapSet

Ints = npt.NDArray[np.int64]
LINEAR, CLOSED, MEAN = "linear", "closed form, several layers", "mean of the linear top and the closed form"


@dataclass(frozen=True)
class Choice:
    """The head that answers best for the held-out images: which, at what scales, and what it said (image, class)."""

    name: str
    linear: float  # scale of the linear top's scores
    closed: float  # of those of the closed form on several layers
    scores: Doubles


def choose(top: Probe, material: Material, held: Ints, sets: tuple[TapSet, ...]) -> Choice:
    """The best head by the held-out log-loss: the linear top itself, a closed-form head on several layers of the tuned
    network, or the mean of both. `material`: what the tuned network says of all images that may teach.

    None of them has learned from the held-out images. The closed-form head's own leave-one-out predictions would
    flatter it, since the network has seen those images: its scale is set on the held-out ones.
    """
    kept, y = material.at(held), material.y[held]
    closed = fit_closed(material, np.setdiff1d(np.arange(len(material.y)), held), sets)
    one, other = (best_scale(probe.log_probabilities(kept), y)[0] for probe in (top, closed))
    scores = {name: head.log_probabilities(kept) for name, head in _heads(top, closed, one, other).items()}
    name = _least(scores, y)
    return Choice(name, one, other, scores[name])


def build(choice: Choice, top: Probe, seen: Callable[[], Material], sets: tuple[TapSet, ...]) -> tuple[Probe, Probe]:
    """(the chosen head, the linear top), the closed form fitted to all images that may teach. `seen`: gives what the
    network says of them, asked only where a closed form was chosen: it may take a pass of the network."""
    if choice.name == LINEAR:
        scaled = _times(top, choice.linear)
        return scaled, scaled
    material = seen()
    closed = fit_closed(material, np.arange(len(material.y)), sets)
    heads = _heads(top, closed, choice.linear, choice.closed)
    return heads[choice.name], heads[LINEAR]


def _heads(top: Probe, closed: Probe, linear_scale: float, closed_scale: float) -> dict[str, Probe]:
    one, other = _times(top, linear_scale), _times(closed, closed_scale)
    return {LINEAR: one, CLOSED: other, MEAN: _mean(one, other)}


def _least(scores: dict[str, Doubles], y: Ints) -> str:
    """The name of the scores with the least log-loss, each at its best scale."""
    return min(scores, key=lambda name: best_scale(scores[name], y)[1])


def _times(probe: Probe, scale: float) -> Probe:
    return replace(probe, coef=scale * probe.coef, intercept=scale * probe.intercept)


def _mean(one: Probe, other: Probe) -> Probe:
    """The mean of the scores of two heads: one linear head on the parts of both."""
    coef = np.concatenate([one.coef / 2, other.coef / 2], axis=1)
    return replace(other, parts=one.parts + other.parts, coef=coef, intercept=(one.intercept + other.intercept) / 2)
