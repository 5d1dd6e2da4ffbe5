"""Frozen or tuned: whether tuning could show a gain at all, and on held-out images whether it does."""

from __future__ import annotations

import numpy as np

from headstart import recipe
from headstart.data.targets import counts
from headstart.finetune.job import Job
from headstart.finetune.record import Compared
from headstart.heads.probe import Probe
from headstart.heads.spectrum import Doubles
from headstart.judge.crossing import Measure
from headstart.judge.intervals import paired_losses


def no_need(job: Job, frozen: Probe) -> str | None:
    """Why tuning cannot be shown to pay, before anything is trained; None where it might."""
    targets, objective, n_held = job.material.targets.take(job.rows), job.tuning.objective, len(job.held)
    found = [n for n in counts(targets).values() if n]
    usual = float(np.median(found)) if found else np.inf
    if usual < recipe.TUNABLE_IMAGES:
        of = "class" if targets.strata.ndim == 1 else "label"
        return f"{usual:g} training images a {of} (the median), and tuning needs {recipe.TUNABLE_IMAGES}"
    if objective.right is None:
        return None if n_held else f"{len(job.rows)} training images: too few to hold some out and compare"
    wrong = float((objective.right(targets, frozen.left_out) < 1).mean())
    if wrong * n_held < recipe.DISCORDANT:
        return f"the frozen model is wrong on {wrong:.1%} of the training images, left out: too few to show a gain by"
    return None


def compare(job: Job, tuned: Doubles) -> Compared:
    """Frozen and tuned (its outputs for the held-out images), both made without these images, on them; each at the
    scale that answers best there."""
    tuning, targets, groups = job.tuning, job.held_targets, job.held_groups
    measure, objective = tuning.measure, tuning.objective
    at = job.rows[job.held]
    frozen = tuning.solve(job.material, job.teaching, tuning.sets).outputs(job.material.at(at))
    both = [objective.scaled(targets, outputs) for outputs in (tuned, frozen)]
    marks = [tuning.mark(targets, outputs, groups) for outputs in both]
    losses = [objective.losses(targets, outputs) for outputs in both]
    return Compared(
        n=len(at),
        measure=measure.name,
        percent=measure.percent,
        tuned=measure.of(marks[0], groups),
        frozen=measure.of(marks[1], groups),
        difference=measure.gain(marks[0], marks[1], groups)["difference"],
        loss_difference=paired_losses(losses[0], losses[1], groups),
    )


def wins(compared: Compared, measure: Measure) -> bool:
    """Better on the held-out images, and the paired 95 % interval of that, or of the loss, beyond 0: the accuracy alone
    would ask for much (docs/measurements.md, accuracy-or-log-loss)."""
    gain, loss = compared.difference, compared.loss_difference
    value, least = gain["value"] or 0.0, gain["low"] or 0.0
    if not measure.higher_is_better:
        value, least = -value, -(gain["high"] or 0.0)
    return value > 0 and (least > 0 or (loss["high"] or 0.0) < 0)
