"""Which head goes on a tuned network, by the training images that it has not seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from headstart.data.targets import Targets
from headstart.finetune.job import Ints, Solve
from headstart.finetune.objective import Objective
from headstart.heads.material import Material
from headstart.heads.probe import Candidate, Probe
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import TapSet

Layers = tuple[tuple[TapSet, ...], ...]  # what each closed form may read
LINEAR, CLOSED, MEAN = "linear", "closed form, several layers", "mean of the linear top and the closed form"
BELOW = "mean of the linear top and a closed form on the layers that stayed as they were"
TUNED = "tuned"  # stands for the layers in a candidate's record
# Head -> the share of the linear top, of a closed form on all layers, of one on the layers below the cut. What has
# learned fits its own images too well, and a closed form that reads it there overrates it; the layers below the cut
# know nothing of the labels (docs/measurements.md, tuned-heads).
SHARES = {LINEAR: (1.0, 0.0, 0.0), CLOSED: (0.0, 1.0, 0.0), MEAN: (1 / 2, 1 / 2, 0.0), BELOW: (1 / 3, 0.0, 2 / 3)}


@dataclass(frozen=True)
class Choice:
    """The head that answers best for the held-out images: which, and what it said of them (image, output). `scales` of
    the scores of the linear top, the closed form on all layers, and that on those below the cut, of what there is;
    `whole`: of the mean of these; `tried`: what each head is worth there, best first; `layers`: for the closed forms.
    """

    name: str
    scales: tuple[float, ...]
    whole: float
    scores: Doubles
    tried: tuple[Candidate, ...]
    layers: Layers


def layer_sets(sets: tuple[TapSet, ...], below: tuple[str, ...]) -> Layers:
    """Any of the sets for one closed form; for another what of the last set lies below the cut (blocks)."""
    kept = TapSet("below", tuple(part for part in sets[-1].parts if part.block in below))
    return (sets, (kept,)) if kept.parts else (sets,)


def choose(top: Probe, material: Material, held: Ints, layers: Layers, solve: Solve, objective: Objective) -> Choice:
    """The best head by the held-out loss: the linear top itself, a closed-form head on several layers of the tuned
    network, or a mean (SHARES). `material`: what the tuned network says of all images that may teach.

    None of them has learned from the held-out images. The closed-form heads' own leave-one-out predictions would
    flatter them, since the network has seen those images: their scales are set on the held-out ones.
    """
    kept, targets = material.at(held), material.targets.take(held)
    rest = np.setdiff1d(np.arange(len(material)), held)
    members = (top, *(solve(material, rest, some) for some in layers))
    scales = tuple(objective.best_scale(targets, probe.outputs(kept))[0] for probe in members)
    able = [name for name, shares in SHARES.items() if not any(shares[len(members) :])]
    scores = {name: _head(name, members, scales).outputs(kept) for name in able}
    name = _least(scores, targets, objective)
    found = (_tried(one, said, targets, objective, one == name) for one, said in scores.items())
    tried = tuple(sorted(found, key=lambda candidate: candidate.log_loss))
    whole = objective.best_scale(targets, scores[name])[0]
    return Choice(name, scales, whole, objective.linked(whole * scores[name]), tried, layers)


def build(choice: Choice, top: Probe, seen: Callable[[], Material], solve: Solve) -> tuple[Probe, Probe]:
    """(the chosen head, the linear top), the closed form fitted to all images that may teach. `seen`: gives what the
    network says of them, asked only where a closed form was chosen: it may take a pass of the network."""
    linear = replace(_head(LINEAR, (top,), choice.scales), candidates=choice.tried)
    if choice.name == LINEAR:
        return linear, linear
    material, shares = seen(), SHARES[choice.name][1:]
    rows = np.arange(len(material))
    pairs = zip(choice.layers, shares, strict=False)
    closed = (solve(material, rows, some) if share else None for some, share in pairs)
    scales = tuple(choice.whole * scale for scale in choice.scales)
    return replace(_head(choice.name, (top, *closed), scales), candidates=choice.tried), linear


def _least(scores: dict[str, Doubles], targets: Targets, objective: Objective) -> str:
    """The name of the scores with the least loss, each at its best scale."""
    return min(scores, key=lambda name: objective.best_scale(targets, scores[name])[1])


def _tried(name: str, scores: Doubles, targets: Targets, objective: Objective, chosen: bool) -> Candidate:
    """What a head is worth on the held-out images."""
    loss = objective.best_scale(targets, scores)[1]
    return Candidate(TUNED, name, 0.0, loss, objective.accuracy(targets, scores, loss), float(chosen))


def _head(name: str, members: tuple[Probe | None, ...], scales: tuple[float, ...]) -> Probe:
    """The mean of the scores of some heads, each at its scale: one linear head on the parts of all of them."""
    some = [(p, k * share) for p, k, share in zip(members, scales, SHARES[name], strict=False) if p and share]
    coef = np.concatenate([k * probe.coef for probe, k in some], axis=1)
    parts = tuple(part for probe, _ in some for part in probe.parts)
    return replace(some[-1][0], parts=parts, coef=coef, intercept=np.asarray(sum(k * p.intercept for p, k in some)))
