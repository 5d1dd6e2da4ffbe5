"""Fine-tuning from a cut point: what is frozen is read from stored activations, the part above the cut learns on.

It starts from the fitted closed-form head (LP-FT: Kumar et al. 2022) and is stopped by a held-out part of the training
images. On those it is also mixed with its start (WiSE-FT: Wortsman et al. 2022), and a closed-form head on several
layers of the tuned network tried; and there it is compared with the frozen model, on the same images, paired. What is
kept learns from them too, at last.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch

from headstart import recipe
from headstart.finetune.above import Attempt, learn_held_out, train_above
from headstart.finetune.arithmetic import prepare
from headstart.finetune.choice import LINEAR, Choice, build, choose, layer_sets
from headstart.finetune.design import Epoch
from headstart.finetune.job import Ints, Job, Reader, Session, Tuning, part_of
from headstart.finetune.pilot import Pilot, pilot
from headstart.finetune.record import Compared, TunedPart, TuningRecord
from headstart.finetune.tunable import Tunable, tunable
from headstart.finetune.versus import compare, no_need, wins
from headstart.heads.material import Material
from headstart.heads.probe import Probe
from headstart.heads.spectrum import Doubles
from headstart.trunk.network import Backbone

__all__ = ["Reader", "Session", "Tuned", "Tuning", "answers", "tune"]

ALPHAS = (1.0, 0.75, 0.5, 0.25, 0.0)  # shares of the tuned weights; the first wins where they are alike


@dataclass(frozen=True)
class Tuned:
    """The outcome. `backbone`: the tuned network, None where the frozen one was kept; `head`: on it; `top`: the linear
    top inside it; `record`: what was done, and how it compares."""

    backbone: Backbone | None
    head: Probe
    top: Probe
    record: TuningRecord

    @property
    def epochs(self) -> tuple[Epoch, ...]:
        return self.record.epochs


@dataclass(frozen=True)
class _Rival:
    """What stands against the frozen model: a network that has learned without the held-out images, mixed with its
    start (`alpha`), and what they showed (`choice`, `compared`: None where there are none)."""

    attempt: Attempt
    alpha: float = 1.0
    choice: Choice | None = None
    compared: Compared | None = None

    def record(self, kept: bool, why: str | None = None, trial: Pilot | None = None) -> TuningRecord:
        what, head = self.attempt.what, self.attempt.head
        tried = self.attempt.rates_tried
        part = TunedPart(
            cut=what.cut,
            modules=len(what.modules),
            parameters=what.n_parameters,
            arithmetic=head.design.arithmetic.name,
            rate=head.design.training.rate,
            rates_tried=None if tried is None else tuple(tried),
            epochs=head.epochs,
            alpha=self.alpha,
            head=LINEAR if self.choice is None else self.choice.name,
            workers=head.workers,
        )
        found = TuningRecord(kept=kept, why=why, part=part, compared=self.compared)
        return found if trial is None else replace(found, pilot=trial.tried, depth=trial.depth)


def tune(
    tuning: Tuning,
    material: Material,
    rows: Ints,
    session: Session,
    progress: Callable[[Epoch], None] = lambda epoch: None,
) -> Tuned:
    """Learn from these rows. The frozen model of all of them is given where the held-out images are answered best by
    its weights, and with "auto" where tuning does not win.

    Deterministic: the same rows, seed and pace give the same, interrupted or not.
    """
    with session.elsewhere or nullcontext():
        return _tune(Job(tuning, material, rows, session, progress))


def _tune(job: Job) -> Tuned:
    tuning = job.tuning
    if tuning.tune == "auto":
        return _tune_if_it_pays(job)
    rival = _rival(job, tunable(tuning.backbone, tuning.tune))
    if rival.alpha:
        return _handed_over(job, rival)
    frozen = tuning.solve(job.material, job.rows, tuning.sets)
    return Tuned(None, frozen, frozen, rival.record(False, "its weights answer best for held-out images"))


def _tune_if_it_pays(job: Job) -> Tuned:
    """ "auto": at the depth that short trials choose, and kept where it wins on the held-out images."""
    tuning = job.tuning
    frozen = tuning.solve(job.material, job.rows, tuning.sets)
    why = no_need(job, frozen)
    trial = pilot(job) if why is None else Pilot("last", why)
    if trial.why is not None:
        return Tuned(None, frozen, frozen, TuningRecord(kept=False, why=trial.why, pilot=trial.tried))
    rest = replace(job, tuning=replace(tuning, seconds=part_of(tuning.seconds, 1 - recipe.PILOT_SHARE)))
    rival = _rival(rest, tunable(tuning.backbone, trial.depth))
    if rival.compared and wins(rival.compared, tuning.measure):
        return _handed_over(rest, rival, trial)
    why = "on held-out images tuning was not better beyond doubt"
    return Tuned(None, frozen, frozen, rival.record(False, why, trial))


def answers(tuning: Tuning, tuned: Tuned, material: Material, rows: Ints, session: Session) -> tuple[Doubles, Doubles]:
    """Outputs (row, output) for these images by the model, and by its linear top alone."""
    blocks = material.at(rows) if tuned.backbone is None else tuning.reader.features(tuned.backbone, rows, session)
    head = tuned.head.outputs(blocks)
    return head, head if tuned.top is tuned.head else tuned.top.outputs(blocks)


def _rival(job: Job, what: Tunable) -> _Rival:
    """Train, mix with the start, choose the head, compare."""
    tuning, attempt, alpha = job.tuning, train_above(job, what), 1.0
    if not len(job.held):
        return _Rival(attempt)
    if not tuning.backbone.random:
        attempt, alpha = _mixed(job, attempt)
    backbone, top = attempt.network(tuning.backbone)
    layers = layer_sets(tuning.sets, what.below)
    choice = choose(top, job.seen_by(backbone), job.held, layers, tuning.solve, tuning.objective)
    return _Rival(attempt, alpha, choice, compare(job, choice.scores))


def _handed_over(job: Job, rival: _Rival, trial: Pilot | None = None) -> Tuned:
    """The model: the held-out images have done their work and teach it too, its network and the head that was chosen
    (docs/measurements.md, held-out-images-teach)."""
    choice, record = rival.choice, rival.record(True, trial=trial)
    attempt, more = (rival.attempt, 0) if choice is None else learn_held_out(job, rival.attempt)
    backbone, top = attempt.network(job.tuning.backbone)
    record = replace(record, more_epochs=more)
    if choice is None:
        return Tuned(backbone, top, top, record)
    best, top = build(choice, top, lambda: job.seen_by(backbone), job.tuning.solve)
    left_out = np.full((len(job.rows), len(job.material.targets.names)), np.nan)
    left_out[job.held] = choice.scores
    best = replace(best, left_out=left_out)
    return Tuned(backbone, best, best if choice.name == LINEAR else top, record)


def _mixed(job: Job, attempt: Attempt) -> tuple[Attempt, float]:
    """The weights on the line from the start to the tuned ones that answer best for the held-out images.

    alpha 1 is the tuned network, 0 the frozen one with its linear head.
    """
    head, held, objective = attempt.head, job.held, job.tuning.objective
    assert head.design.start is not None
    tuned = {name: value.clone() for name, value in head.module.state_dict().items()}
    first = prepare(head.design.start(job.teaching), head.design.arithmetic).state_dict()

    def between(alpha: float) -> dict[str, torch.Tensor]:
        return {n: t if alpha == 1 or not t.is_floating_point() else first[n].lerp(t, alpha) for n, t in tuned.items()}

    losses, found = {}, {}
    for alpha in ALPHAS:
        head.module.load_state_dict(between(alpha))
        found[alpha] = attempt.examples.answers_of(head.module, held, head.scale, head.link)
        losses[alpha] = objective.best_scale(job.held_targets, found[alpha])[1]
    best = min(ALPHAS, key=losses.__getitem__)
    head.module.load_state_dict(between(best))
    left_out = head.left_out.copy()
    left_out[held] = found[best]
    return replace(attempt, head=replace(head, left_out=left_out)), best
