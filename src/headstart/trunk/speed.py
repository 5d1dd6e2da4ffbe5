"""How many images a second a compiled network takes on this machine, measured once and kept on the shelf.

Blank pictures are as slow as any: the work of a frozen network does not depend on what it sees. Reading and decoding
pictures is not in it, and is the same for every network of one input size.
"""

from __future__ import annotations

import time

import numpy as np

from headstart.trunk.engine import Engine, graph_key, this_machine
from headstart.trunk.network import Backbone

LEAST_SECONDS = 0.4  # of measuring: the pace of a small network varies by a tenth within it, other programs aside
WARM_UP = 4  # batches before: the first ones fill caches and start threads


def images_per_second(backbone: Backbone, engine: Engine) -> float:
    """As this machine was found to run it the first time that it was asked, so that a choice made by it stays."""
    shelf, machine = backbone.network.shelf, this_machine()
    about = {
        "pace of": graph_key(backbone, engine.batch),
        "in": [engine.name, engine.precision],
        "on": [machine.processor, machine.cores, machine.accelerator],
    }
    known = shelf.fact(about) if shelf else None
    if isinstance(known, float) and known > 0:
        return known
    found = _measured(engine, backbone.preprocess.size)
    if shelf:
        shelf.note(about, found)
    return found


def _measured(engine: Engine, size: tuple[int, int]) -> float:
    blank = np.zeros((engine.batch, *size, 3), np.uint8)
    batches, seconds = WARM_UP, 0.0
    while seconds < LEAST_SECONDS:
        begun = time.perf_counter()
        engine.run(((None, blank) for _ in range(batches)), lambda tag, rows: None)
        seconds = time.perf_counter() - begun
        n, batches = batches, batches * 4
    return n * engine.batch / seconds
