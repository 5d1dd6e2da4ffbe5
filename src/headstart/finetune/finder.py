"""The learning-rate range test (Smith 2017, section 3.3): the rate grows from batch to batch, and the loss tells."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from headstart.finetune.design import Design
from headstart.finetune.loop import Ints, Loop, batches
from headstart.finetune.objective import Objective
from headstart.finetune.training import Examples, begin

LOWEST, HIGHEST = 1e-6, 1.0
STEPS = 100
SMOOTH = 0.9  # of the running mean of the losses
TOO_MUCH = 2.0  # times the least loss: the test ends
BELOW = 10.0  # times under the rate of the least loss: the usual choice


Steps = list[tuple[float, float]]


def find_rate(design: Design, examples: Examples, objective: Objective, seed: int, device: str) -> tuple[float, Steps]:
    """(learning rate, (rate, smoothed loss) of each step). A copy learns; nothing of it is kept.

    Where no rate makes the loss smaller the recipe's is given: the start was good already.
    """
    assert design.start is not None
    how = replace(design.training, warm_up=0.0, rate=1.0)
    begun = begin(design, examples, objective, np.arange(len(examples.rows)), seed, device)
    groups, arithmetic = design.groups(begun.module) if design.groups else None, design.arithmetic
    loop = Loop(begun.module, how, 1, objective, seed=seed, device=device, arithmetic=arithmetic, groups=groups)
    shares = [group["peak"] for group in loop.optimizer.param_groups]
    order = np.random.default_rng(seed)
    drawn: list[Ints] = []
    while len(drawn) < STEPS:
        drawn += list(batches(order.permutation(len(examples.rows)), how.batch_size))
    tried: Steps = []
    mean = 0.0
    for step, some in enumerate(drawn[:STEPS]):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
        loop.step = 0  # one step of a schedule of one: its peak
        for group, share in zip(loop.optimizer.param_groups, shares, strict=True):
            group["peak"] = rate * share
        (loss,) = (total / len(some) for total in loop.batches(some, examples.fetch(0, begun, objective)))
        mean = SMOOTH * mean + (1 - SMOOTH) * loss
        tried.append((rate, mean / (1 - SMOOTH ** (step + 1))))
        if not math.isfinite(loss) or tried[-1][1] > TOO_MUCH * min(loss for _, loss in tried):
            break
    best = min(tried, key=lambda one: one[1] if math.isfinite(one[1]) else math.inf)
    rate = design.training.rate if best is tried[0] else best[0] / BELOW
    return rate, [one for one in tried if math.isfinite(one[1])]
