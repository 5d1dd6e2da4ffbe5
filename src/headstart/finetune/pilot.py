"""How deep `--tune auto` goes: a short training of a part of the images at each depth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from headstart import recipe
from headstart.data.splits import nested_order
from headstart.finetune.above import train_above
from headstart.finetune.job import Job, part_of, silent
from headstart.finetune.record import DepthTried
from headstart.finetune.tunable import depths, tunable
from headstart.heads.taps import plain
from headstart.judge.intervals import paired_losses


@dataclass(frozen=True)
class Pilot:
    """`why`: not to tune at all; None: to tune at `depth`."""

    depth: str
    why: str | None
    tried: tuple[DepthTried, ...] = ()


def pilot(job: Job) -> Pilot:
    """Not at all only where each depth is worse than the start beyond doubt, by the paired loss; of the depths the
    lowest cut that is not worse than the best.

    What is held out here is few images, and a short training of a part tells less of what a long one gains the more of
    the network learns: the final comparison decides.
    """
    choice = depths(job.tuning.backbone)
    short = _short(job, len(choice))
    objective, targets = job.tuning.objective, short.held_targets
    start = short.tuning.solve(short.material, short.teaching, (plain(),))
    outputs, epochs = {"none": start.outputs(short.material.at(short.rows[short.held]))}, {"none": 0}
    for depth in choice:
        head = train_above(short, tunable(job.tuning.backbone, depth)).head
        outputs[depth], epochs[depth] = head.left_out[short.held], len(head.epochs)
    means = {depth: objective.best_scale(targets, found)[1] for depth, found in outputs.items()}
    losses = {depth: objective.losses(targets, objective.scaled(targets, found)) for depth, found in outputs.items()}

    def worse(one: str, other: str) -> bool:
        return (paired_losses(losses[one], losses[other], short.held_groups)["low"] or 0.0) > 0

    best = min(choice, key=means.__getitem__)
    depth = [one for one in choice if not worse(one, best)][-1]
    why = "a short trial at each depth was worse than the start, beyond doubt" if worse(best, "none") else None
    return Pilot(depth, why, tuple(DepthTried(depth, loss, epochs[depth]) for depth, loss in means.items()))


def _short(job: Job, n_depths: int) -> Job:
    """The same of a part of the images and in few epochs; each of its trainings gets its part of the time."""
    m, rows, tuning = job.material, job.rows, job.tuning
    n = recipe.pilot_images(len(rows), tuning.seconds is not None)
    some = rows[np.sort(nested_order(m.targets.strata[rows], m.seed, [m.keys[row] for row in rows])[:n])]
    bar = job.session.bar
    return Job(
        tuning=replace(
            tuning,
            training=recipe.pilot(tuning.training, len(some)),
            find=False,
            seconds=part_of(tuning.seconds, recipe.PILOT_SHARE / n_depths),
        ),
        material=m,
        rows=some,
        session=replace(job.session, say=silent, bar=lambda stage, total: bar(f"trial, {stage}", total)),
    )
