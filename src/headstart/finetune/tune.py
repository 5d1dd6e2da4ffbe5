"""Fine-tuning from a cut point: what is frozen is read from stored activations, the part above the cut learns on.

It starts from the fitted closed-form head (LP-FT: Kumar et al. 2022) and is stopped by a held-out part of the training
images. On those it is also mixed with its start (WiSE-FT: Wortsman et al. 2022), and a closed-form head on several
layers of the tuned network tried; and there it is compared with the frozen model, on the same images, paired. What is
kept learns from them too, at last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart import recipe
from headstart.data.splits import hold_out, nested_order
from headstart.data.targets import class_numbers
from headstart.finetune import arithmetic, pace
from headstart.finetune.activations import Activations
from headstart.finetune.checkpoint import Checkpoint
from headstart.finetune.choice import LINEAR, Choice, Solve, build, choose, layer_sets
from headstart.finetune.finder import find_rate
from headstart.finetune.learner import Groups
from headstart.finetune.trained import Bar, Design, Epoch, Examples, SpecHead, no_bar, train_head
from headstart.finetune.tunable import Tail, Tunable, depths, tunable
from headstart.heads.calibrate import best_scale, log_softmax
from headstart.heads.material import Material
from headstart.heads.probe import Probe
from headstart.heads.spectrum import Doubles
from headstart.heads.taps import TapSet, plain
from headstart.judge.class_marks import class_marks
from headstart.judge.intervals import accuracy_interval, paired_gain, paired_losses
from headstart.recipe import Training
from headstart.trunk.network import Backbone
from headstart.trunk.weights import fingerprint

Ints = npt.NDArray[np.int64]
Blocks = dict[str, npt.NDArray[np.floating]]
ALPHAS = (1.0, 0.75, 0.5, 0.25, 0.0)  # shares of the tuned weights; the first wins where they are alike


@dataclass(frozen=True)
class Tuning:
    """What learns, and how; `tune` as the user said it ("auto", "last", "all", N, a stage)."""

    backbone: Backbone  # frozen, with the taps that heads read
    tune: str
    training: Training
    sets: tuple[TapSet, ...]  # of the frozen model, and of a closed-form head on the tuned network
    activations: Callable[[Tunable, Ints, int], Activations]  # at its cut, of these rows, for so many epochs
    features: Callable[[Backbone, Ints], Blocks]  # what a network says of some images, as they are
    solve: Solve  # the closed-form model of some rows
    precision: str = "auto"
    find: bool = False  # the learning rate, by a range test
    seconds: float | None = None  # that one training may take
    store: Path | None = None  # where the state of a training is kept
    data: str = ""  # what makes the activations: a part of the checkpoints' key
    say: Callable[[str], None] = lambda text: None  # of a whole training, not of a trial or a fold
    bar: Bar = no_bar


@dataclass(frozen=True)
class Tuned:
    """The outcome. `backbone`: the tuned network, None where the frozen one was kept; `head`: on it; `top`: the linear
    top inside it; `record`: what was done, and how it compares."""

    backbone: Backbone | None
    head: Probe
    top: Probe
    record: dict[str, Any]
    epochs: tuple[Epoch, ...] = ()


@dataclass(frozen=True)
class _Learned:
    """A network that has learned without the held-out images, and what they showed (`choice` None: there are none).
    `head`: its module is the network."""

    head: SpecHead
    what: Tunable
    examples: Examples
    choice: Choice | None
    record: dict[str, Any]


def tune(
    tuning: Tuning,
    material: Material,
    rows: Ints,
    device: str = "cpu",
    progress: Callable[[Epoch], None] = lambda e: None,
) -> Tuned:
    """Learn from these rows. The frozen model of all of them is given where the held-out images are answered best by
    its weights, and with "auto" where tuning does not win.

    Deterministic: the same rows, seed and pace give the same, interrupted or not.
    """
    held = _held_out(tuning.training, material, rows)
    if tuning.tune != "auto":
        found = _learned(tuning, tunable(tuning.backbone, tuning.tune), material, rows, held, device, progress)
        if found.record["alpha"]:
            return _handed_over(tuning, found, material, rows, held, device, progress)
        frozen = tuning.solve(material, rows, tuning.sets)
        return _frozen(frozen, found, "its weights answer best for held-out images")
    frozen = tuning.solve(material, rows, tuning.sets)
    why = _no_need(class_numbers(material.targets)[rows], frozen, len(held))
    if why is None:
        depth, why, tried = _pilot(tuning, material, rows, device)
    else:
        depth, tried = "last", []
    if why is not None:
        return Tuned(None, frozen, frozen, {"kept": False, "why": why, "compared": None, "pilot": tried, "epochs": []})
    rest = replace(tuning, seconds=_part_of(tuning.seconds, 1 - recipe.PILOT_SHARE))
    found = _learned(rest, tunable(tuning.backbone, depth), material, rows, held, device, progress)
    found = replace(found, record=found.record | {"pilot": tried, "depth": depth})
    if found.record["compared"] and _wins(found.record["compared"]):
        return _handed_over(rest, found, material, rows, held, device, progress)
    return _frozen(frozen, found, "on held-out images tuning was not better beyond doubt")


def _wins(compared: dict[str, Any]) -> bool:
    """More of the held-out images right, and the paired 95 % interval of that, or of the log-loss, beyond 0.

    The accuracy alone would ask for much: of 450 images of EuroSAT one model gets some 20 right that the other does
    not, and a gain of 1.3 points (95.3 to 96.7 %) stays in doubt, while the log-loss tells of each image.
    """
    gain, loss = compared["difference"], compared["loss_difference"]
    return gain["value"] > 0 and ((gain["low"] or 0.0) > 0 or (loss["high"] or 0.0) < 0)


def _frozen(frozen: Probe, found: _Learned, why: str) -> Tuned:
    return Tuned(None, frozen, frozen, found.record | {"kept": False, "why": why}, found.head.epochs)


def answers(tuning: Tuning, tuned: Tuned, material: Material, rows: Ints) -> tuple[Doubles, Doubles]:
    """Log-probabilities (row, class) of these images by the model, and by its linear top alone."""
    blocks = material.at(rows) if tuned.backbone is None else tuning.features(tuned.backbone, rows)
    head = tuned.head.outputs(blocks)
    return head, head if tuned.top is tuned.head else tuned.top.outputs(blocks)


def _learned(
    tuning: Tuning,
    what: Tunable,
    material: Material,
    rows: Ints,
    held: Ints,
    device: str,
    progress: Callable[[Epoch], None],
) -> _Learned:
    """Train, mix with the start, choose the head, compare."""
    head, start, examples, record = _trained(tuning, what, material, rows, device, progress)
    record |= {"cut": what.cut, "modules": len(what.modules), "parameters": what.n_parameters, "kept": True}
    record |= {"epochs": [asdict(epoch) for epoch in head.epochs], "alpha": 1.0, "head": LINEAR, "compared": None}
    if not len(held):
        return _Learned(head, what, examples, None, record)
    if not tuning.backbone.random:
        head, record["alpha"] = _mixed(head, start(np.delete(rows, held)), examples, held)
    backbone, top = _network(tuning, what, head)
    layers = layer_sets(tuning.sets, what.below)
    choice = choose(top, _seen_by(tuning, backbone, material, rows), held, layers, tuning.solve)
    record["head"] = choice.name
    record["compared"] = _compare(tuning, material, rows, held, choice.scores)
    return _Learned(head, what, examples, choice, record)


def _handed_over(
    tuning: Tuning,
    found: _Learned,
    material: Material,
    rows: Ints,
    held: Ints,
    device: str,
    progress: Callable[[Epoch], None],
) -> Tuned:
    """The model: the held-out images have done their work and teach it too, its network and the head that was chosen.

    Of 5,000 images of CIFAR-10 a network that has not seen the held-out ones is right on 87.1 % with its linear top
    and on 87.3 % with a closed-form head, 87.7 % where that alone is fitted again with them.
    """
    head, more = _with_held_out(tuning, found, material, device, progress)
    backbone, top = _network(tuning, found.what, head)
    record = found.record | {"more_epochs": more}
    if found.choice is None:
        return Tuned(backbone, top, top, record, head.epochs)
    best, top = build(found.choice, top, lambda: _seen_by(tuning, backbone, material, rows), tuning.solve)
    left_out = np.full((len(rows), len(material.targets.names)), np.nan)
    left_out[held] = found.choice.scores
    best = replace(best, left_out=left_out)
    return Tuned(backbone, best, best if found.choice.name == LINEAR else top, record, head.epochs)


def _seen_by(tuning: Tuning, backbone: Backbone, material: Material, rows: Ints) -> Material:
    """What a network says of these rows, with their labels."""
    return replace(replace(material, blocks={}).part(rows), blocks=tuning.features(backbone, rows))


def _with_held_out(
    tuning: Tuning, found: _Learned, material: Material, device: str, progress: Callable[[Epoch], None]
) -> tuple[SpecHead, int]:
    """(the network after some more epochs on all images, how many)."""
    tail, first = found.head.module, found.head.design
    how = recipe.finish(first.training, len(found.examples.rows))
    if found.choice is None or not how.epochs:
        return found.head, 0
    before = tail.state_dict()

    def start(rows: npt.NDArray[np.integer]) -> Tail:
        copy = Tail(tuning.backbone, found.what, len(material.targets.names))
        copy.load_state_dict(before)
        return copy

    design = replace(first, training=how, start=start)
    examples = replace(found.examples, views_seen=len(found.head.epochs))
    key = {"from": fingerprint(before), "kept": "last"}
    checkpoint = _checkpoint(tuning, design, examples, material.seed, device, key)
    head = train_head(design, examples, material.seed, device, progress, checkpoint, keep_last=True, bar=tuning.bar)
    return replace(found.head, module=head.module), how.epochs


def _network(tuning: Tuning, what: Tunable, head: SpecHead) -> tuple[Backbone, Probe]:
    """(the network with what was learned, its linear top)."""
    tail = head.module
    assert isinstance(tail, Tail)
    return tail.tuned(tuning.backbone, what.cut), _linear_top(tail, head)


def _trained(
    tuning: Tuning, what: Tunable, material: Material, rows: Ints, device: str, progress: Callable[[Epoch], None]
) -> tuple[SpecHead, Callable[[npt.NDArray[np.integer]], Tail], Examples, dict[str, Any]]:
    """(the trained part, how it starts, what it learned from, what is said of it)."""
    design, start, record = _design(tuning, what, material, rows, device)
    examples = _examples(tuning, what, material, rows)
    checkpoint = _checkpoint(tuning, design, examples, material.seed, device)
    head = train_head(design, examples, material.seed, device, progress, checkpoint, bar=tuning.bar)
    return head, start, examples, record


def _design(
    tuning: Tuning, what: Tunable, material: Material, rows: Ints, device: str
) -> tuple[Design, Callable[[npt.NDArray[np.integer]], Tail], dict[str, Any]]:
    """(how it is trained, how it starts, what is said of it): arithmetic, epochs and learning rate of this machine."""
    how, n_classes = tuning.training, len(material.targets.names)

    def start(some: npt.NDArray[np.integer]) -> Tail:
        probe = tuning.solve(material, some.astype(np.int64), (plain(),))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(material.seed)
            tail = Tail(tuning.backbone, what, n_classes)
        with torch.no_grad():
            tail.linear.weight.copy_(torch.from_numpy(probe.coef))
            tail.linear.bias.copy_(torch.from_numpy(probe.intercept))
        return tail

    def groups(module: nn.Module) -> Groups:
        assert isinstance(module, Tail)
        return module.groups(how.stage_decay)

    activations = tuning.activations(what, rows, how.epochs)
    x = torch.from_numpy(activations.still(rows[: how.batch_size]))
    kind = {"network": tuning.backbone.name, "cut": what.cut, "modules": len(what.modules)}
    found = pace.measured(
        tuning.store, kind, lambda: Tail(tuning.backbone, what, n_classes), x, tuning.precision, device
    )
    seconds = _part_of(tuning.seconds, 1 / (1 + recipe.finish_share(how)))
    epochs = recipe.epochs_within(seconds, how.epochs, len(rows), found.images_per_second)
    how = replace(how, epochs=epochs)
    an_epoch = len(rows) * (1 - how.held_out) / found.images_per_second
    took = f"{max(1, an_epoch):.0f} s" if an_epoch < 100 else f"{an_epoch / 60:.0f} min"
    rate_said = f"{found.images_per_second:.0f} images/s learned in {found.arithmetic.name}"
    tuning.say(f"{rate_said} when it was measured here: about {took} an epoch")
    design = Design(f"tuned above {what.cut}", (), what.cut, activations.shape, how, start, groups, found.arithmetic)
    record: dict[str, Any] = {"arithmetic": found.arithmetic.name}
    if tuning.find:
        teach = np.delete(rows, _held_out(how, material, rows))
        rate, tried = find_rate(design, _examples(tuning, what, material, teach), material.seed, device)
        design = replace(design, training=replace(how, rate=rate))
        record["rates_tried"] = tried
        tuning.say(f"learning rate {rate:.1e}, found in {len(tried)} steps")
    record["rate"] = design.training.rate
    return design, start, record


def _examples(tuning: Tuning, what: Tunable, material: Material, rows: Ints) -> Examples:
    keys = [material.keys[row] for row in rows]
    activations = tuning.activations(what, rows, tuning.training.epochs)
    return Examples(
        activations,
        rows,
        class_numbers(material.targets)[rows],
        material.groups[rows],
        keys,
        len(material.targets.names),
    )


def _checkpoint(
    tuning: Tuning, design: Design, examples: Examples, seed: int, device: str, more: dict[str, str] | None = None
) -> Checkpoint | None:
    if tuning.store is None:
        return None
    made_by = {
        "network": (tuning.backbone.name, tuning.backbone.weights_hash, design.words, design.arithmetic.name),
        "training": asdict(design.training),
        "data": (tuning.data, list(examples.keys), examples.y.tolist(), examples.groups.tolist()),
        "activations": (type(examples.activations).__name__, tuning.precision, repr(tuning.sets), seed),
        "machine": (arithmetic.VERSION, torch.__version__, device, torch.get_num_threads()),
    }
    return Checkpoint(tuning.store, made_by | (more or {}))


def _held_out(how: Training, material: Material, rows: Ints) -> Ints:
    """The places among `rows` that stop the training: those that `train_head` holds out."""
    if not how.held_out:
        return np.empty(0, np.int64)
    keys = [material.keys[row] for row in rows]
    return np.flatnonzero(
        hold_out(material.targets.strata[rows], material.groups[rows], how.held_out, material.seed, keys)
    )


def _mixed(head: SpecHead, start: Tail, examples: Examples, held: Ints) -> tuple[SpecHead, float]:
    """The weights on the line from the start to the tuned ones that answer best for the held-out images.

    alpha 1 is the tuned network, 0 the frozen one with its linear head.
    """
    tuned = {name: value.clone() for name, value in head.module.state_dict().items()}
    first = head.design.arithmetic.prepare(start).state_dict()
    losses, found = {}, {}

    def between(alpha: float) -> dict[str, torch.Tensor]:
        return {n: t if alpha == 1 or not t.is_floating_point() else first[n].lerp(t, alpha) for n, t in tuned.items()}

    for alpha in ALPHAS:
        head.module.load_state_dict(between(alpha))
        found[alpha] = head.answer(examples, held)
        losses[alpha] = best_scale(found[alpha], examples.y[held])[1]
    best = min(ALPHAS, key=losses.__getitem__)
    head.module.load_state_dict(between(best))
    left_out = head.left_out.copy()
    left_out[held] = found[best]
    return replace(head, left_out=left_out), best


def _linear_top(tail: Tail, head: SpecHead) -> Probe:
    """The linear top of a tuned network, as any other model's on its last layer."""
    weight, bias = (p.detach().double().numpy() for p in (tail.linear.weight, tail.linear.bias))
    return Probe(plain().parts, weight, bias, head.candidates, head.left_out)


def _compare(tuning: Tuning, material: Material, rows: Ints, held: Ints, tuned: Doubles) -> dict[str, Any]:
    """Frozen and tuned, both made without the held-out images, on them; each at the scale that answers best there."""
    at = rows[held]
    y, groups = class_numbers(material.targets)[at], material.groups[at]
    frozen = tuning.solve(material, np.delete(rows, held), tuning.sets).outputs(material.at(at))
    right = [scores.argmax(axis=1) == y for scores in (tuned, frozen)]
    found = {name: accuracy_interval(hit, groups) for name, hit in zip(("tuned", "frozen"), right, strict=True)}
    return {
        "n": len(at),
        **found,
        "difference": paired_gain(right[0], right[1], groups)["difference"],
        "loss_difference": paired_losses(_losses(tuned, y), _losses(frozen, y), groups),
    }


def _losses(scores: Doubles, y: Ints) -> Doubles:
    """The log-loss of each image (image,), at the scale that answers best for these images."""
    return class_marks(y, np.exp(log_softmax(best_scale(scores, y)[0] * scores)))["loss"]


def _no_need(y: Ints, frozen: Probe, n_held: int) -> str | None:
    """Why tuning cannot be shown to pay, before anything is trained; None where it might."""
    usual = float(np.median(np.bincount(y)[np.unique(y)]))
    if usual < recipe.TUNABLE_IMAGES:
        return f"{usual:g} training images a class (the median), and tuning needs {recipe.TUNABLE_IMAGES}"
    wrong = float((frozen.left_out.argmax(axis=1) != y).mean())
    if wrong * n_held < recipe.DISCORDANT:
        return f"the frozen model is wrong on {wrong:.1%} of the training images, left out: too few to show a gain by"
    return None


def _part_of(seconds: float | None, share: float) -> float | None:
    return None if seconds is None else share * seconds


def _pilot(tuning: Tuning, material: Material, rows: Ints, device: str) -> tuple[str, str | None, list[dict[str, Any]]]:
    """(depth, why not at all, what was tried): a short training of a part of the images at each depth.

    Not at all only where each is worse than the start beyond doubt, by the paired log-loss; of the depths the lowest
    cut that is not worse than the best. What is held out here is few images, and a short training of a part tells less
    of what a long one gains the more of the network learns: the final comparison decides.
    """
    keys = [material.keys[row] for row in rows]
    n = recipe.pilot_images(len(rows), tuning.seconds is not None)
    some = rows[np.sort(nested_order(material.targets.strata[rows], material.seed, keys)[:n])]
    short = recipe.pilot(tuning.training, len(some))
    choice = depths(tuning.backbone)
    pilot = replace(
        tuning,
        training=short,
        find=False,
        seconds=_part_of(tuning.seconds, recipe.PILOT_SHARE / len(choice)),
        say=lambda text: None,
        bar=lambda stage, total: tuning.bar(f"trial, {stage}", total),
    )
    held = _held_out(short, material, some)
    y = class_numbers(material.targets)[some[held]]
    start = tuning.solve(material, np.delete(some, held), (plain(),)).outputs(material.at(some[held]))
    scores, epochs = {"none": start}, {"none": 0}
    for depth in choice:
        head, *_ = _trained(pilot, tunable(tuning.backbone, depth), material, some, device, lambda epoch: None)
        scores[depth], epochs[depth] = head.left_out[held], len(head.epochs)
    losses = {depth: best_scale(found, y)[1] for depth, found in scores.items()}
    tried = [{"depth": depth, "log_loss": loss, "epochs": epochs[depth]} for depth, loss in losses.items()]

    def worse(one: str, other: str) -> bool:
        first, second = (_losses(scores[depth], y) for depth in (one, other))
        return (paired_losses(first, second, material.groups[some[held]])["low"] or 0.0) > 0

    best = min(choice, key=losses.__getitem__)
    depth = [one for one in choice if not worse(one, best)][-1]
    why = "a short trial at each depth was worse than the start, beyond doubt" if worse(best, "none") else None
    return depth, why, tried
