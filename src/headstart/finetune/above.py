"""One training of the part above a cut: it starts from the closed-form head, at the pace and rate of this machine."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from headstart import recipe
from headstart.finetune import arithmetic, pace
from headstart.finetune.checkpoint import Checkpoint
from headstart.finetune.design import Design
from headstart.finetune.finder import Steps, find_rate
from headstart.finetune.job import Job, part_of
from headstart.finetune.loop import Groups
from headstart.finetune.objective import Objective
from headstart.finetune.trained_head import TrainedHead
from headstart.finetune.training import Examples, train_head
from headstart.finetune.tunable import Tail, Tunable
from headstart.heads.probe import Probe
from headstart.heads.taps import plain
from headstart.recipe import Training
from headstart.trunk.network import Backbone
from headstart.trunk.weights import fingerprint

CHUNK = 4096  # truths encoded at a time for a checkpoint's key


@dataclass(frozen=True)
class Attempt:
    """A part of a network after its training. `head`: its module is the network; `rates_tried`: of a range test;
    `pace`: images a second that this machine learns from."""

    what: Tunable
    examples: Examples
    head: TrainedHead
    rates_tried: Steps | None = None
    pace: float = math.inf

    def network(self, backbone: Backbone) -> tuple[Backbone, Probe]:
        """(the network with what was learned, its linear top)."""
        tail = self.head.module
        assert isinstance(tail, Tail)
        return tail.tuned(backbone, self.what.cut), _linear_top(tail, self.head)


def _linear_top(tail: Tail, head: TrainedHead) -> Probe:
    """The linear top of a tuned network, as any other model's on its last layer."""
    weight, bias = (p.detach().double().numpy() for p in (tail.linear.weight, tail.linear.bias))
    return Probe(plain().parts, weight, bias, head.candidates, head.left_out, head.link)


def train_above(job: Job, what: Tunable) -> Attempt:
    """The part above a cut, stopped by the held-out images."""
    design, tried, found = _designed(job, what)
    examples = _examples(job, what, job.rows)
    head = _trained(job, design, examples, what, found)
    return Attempt(what, examples, head, tried, found)


def learn_held_out(job: Job, attempt: Attempt) -> tuple[Attempt, int]:
    """(the network after some more epochs on all images, the held-out ones too; how many)."""
    first, tail = attempt.head.design, attempt.head.module
    how = recipe.finish(first.training, len(attempt.examples.rows))
    if not how.epochs:
        return attempt, 0
    before = tail.state_dict()

    def start(rows: npt.NDArray[np.integer]) -> Tail:
        copy = Tail(job.tuning.backbone, attempt.what, len(job.material.targets.names))
        copy.load_state_dict(before)
        return copy

    design = replace(first, training=how, start=start)
    examples = replace(attempt.examples, views_seen=len(attempt.head.epochs))
    more = {"from": fingerprint(before), "kept": "last"}
    head = _trained(job, design, examples, attempt.what, attempt.pace, more)
    return replace(attempt, head=replace(attempt.head, module=head.module)), how.epochs


def _trained(
    job: Job, design: Design, examples: Examples, what: Tunable, rate: float, more: Mapping[str, str] | None = None
) -> TrainedHead:
    """By this process, or where it would take long at so many images a second by the cluster that it has. `more`: of a
    training that begins where another ended, what tells it from others; its last epoch is kept."""
    session, elsewhere = job.session, None
    if session.elsewhere is not None and design.training.epochs * len(examples.rows) >= recipe.SHORT * rate:
        cluster, backbone = session.elsewhere, job.tuning.backbone
        elsewhere = partial(cluster.learn, backbone=backbone, what=what, device=session.device, say=session.say)
    told = dict(more or {}) | ({"by": "a cluster"} if elsewhere else {})
    return train_head(
        design,
        examples,
        job.tuning.objective,
        seed=job.material.seed,
        device=session.device,
        progress=job.progress,
        checkpoint=_checkpoint(job, design, examples, told),
        keep_last=more is not None,
        bar=session.bar,
        elsewhere=elsewhere,
    )


def _designed(job: Job, what: Tunable) -> tuple[Design, Steps | None, float]:
    """(how it is trained and how it starts, what a range test tried, images a second): arithmetic, epochs and rate of
    this machine."""
    tuning, session = job.tuning, job.session
    how = tuning.training
    activations = tuning.reader.at_cut(what, job.rows, how.epochs, session)
    x = torch.from_numpy(activations.still(job.rows[: how.batch_size]))
    found = _pace(job, what, x)
    seconds = part_of(tuning.seconds, 1 / (1 + recipe.finish_share(how)))
    epochs = recipe.epochs_within(seconds, how.epochs, len(job.rows), found.images_per_second)
    how = replace(how, epochs=epochs)
    session.say(_pace_line(how, found, len(job.rows)))
    design = _starting_from_the_head(job, what, activations.shape, how, found.arithmetic)
    if not tuning.find:
        return design, None, found.images_per_second
    examples = _examples(job, what, job.teaching)
    rate, tried = find_rate(design, examples, tuning.objective, job.material.seed, session.device)
    session.say(f"learning rate {rate:.1e}, found in {len(tried)} steps")
    return replace(design, training=replace(how, rate=rate)), tried, found.images_per_second


def _pace(job: Job, what: Tunable, x: torch.Tensor) -> pace.Pace:
    """The pace on the activations x of a batch."""
    tuning, n_outputs = job.tuning, len(job.material.targets.names)
    kind = {"network": tuning.backbone.name, "cut": what.cut, "modules": len(what.modules)}

    def make() -> Tail:
        return Tail(tuning.backbone, what, n_outputs)

    return pace.measured(tuning.store, kind, make, x, precision=tuning.precision, device=job.session.device)


def _pace_line(how: Training, found: pace.Pace, n: int) -> str:
    an_epoch = n * (1 - how.held_out) / found.images_per_second
    took = f"{max(1, an_epoch):.0f} s" if an_epoch < 100 else f"{an_epoch / 60:.0f} min"
    rate = f"{found.images_per_second:.0f} images/s learned in {found.arithmetic.name}"
    return f"{rate} when it was measured here: about {took} an epoch"


def _starting_from_the_head(
    job: Job, what: Tunable, shape: tuple[int, ...], how: Training, way: arithmetic.Arithmetic
) -> Design:
    """LP-FT: the linear top begins as the closed-form head of the rows that teach (Kumar et al. 2022)."""
    tuning, material = job.tuning, job.material

    def start(some: npt.NDArray[np.integer]) -> Tail:
        probe = tuning.solve(material, some.astype(np.int64), (plain(),))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(material.seed)
            tail = Tail(tuning.backbone, what, len(material.targets.names))
        with torch.no_grad():
            tail.linear.weight.copy_(torch.from_numpy(probe.coef))
            tail.linear.bias.copy_(torch.from_numpy(probe.intercept))
        return tail

    def groups(module: nn.Module) -> Groups:
        assert isinstance(module, Tail)
        return module.groups(how.stage_decay)

    return Design(
        words=f"tuned above {what.cut}",
        layers=(),
        block=what.cut,
        shape=shape,
        training=how,
        start=start,
        groups=groups,
        arithmetic=way,
    )


def _examples(job: Job, what: Tunable, rows: npt.NDArray[np.int64]) -> Examples:
    m = job.material
    activations = job.tuning.reader.at_cut(what, rows, job.tuning.training.epochs, job.session)
    return Examples(activations, rows, m.targets.take(rows), m.groups[rows], [m.keys[row] for row in rows])


def _checkpoint(job: Job, design: Design, examples: Examples, more: Mapping[str, str]) -> Checkpoint | None:
    """Its key holds all that the result depends on."""
    tuning, seed = job.tuning, job.material.seed
    if tuning.store is None:
        return None
    truths = _digest(tuning.objective, examples)
    made_by = {
        "network": (tuning.backbone.name, tuning.backbone.weights_hash, design.words, design.arithmetic.name),
        "training": asdict(design.training),
        "data": (tuning.data, list(examples.keys), truths, examples.groups.tolist()),
        "activations": (type(examples.activations).__name__, tuning.precision, repr(tuning.sets), seed),
        "machine": (arithmetic.VERSION, torch.__version__, job.session.device, torch.get_num_threads()),
    }
    return Checkpoint(tuning.store, made_by | dict(more))


def _digest(objective: Objective, examples: Examples) -> str:
    """Of the truths, in their order."""
    state = hashlib.blake2b(digest_size=16)
    for at in range(0, len(examples.rows), CHUNK):
        some = np.arange(at, min(at + CHUNK, len(examples.rows)))
        state.update(objective.encode(examples.targets.take(some)).tobytes())
    return state.hexdigest()
