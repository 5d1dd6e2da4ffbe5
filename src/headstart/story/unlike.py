"""What is kept with a classifier to know images that are unlike all that taught it: see `heads/novelty.py`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headstart.data.targets import class_numbers
from headstart.errors import DataError
from headstart.heads.material import Ints, Material
from headstart.heads.novelty import Novelty, novelty_of, part_of
from headstart.ship.predict import Predictions
from headstart.tasks.task import Head, Task


def unlike(task: Task, material: Material, train: Ints, head: Head, tuned: bool) -> Novelty | None:
    """Of the images that taught, `train` (row,) of the material. None for another task; for a tuned network, which has
    learned these images' features, so that new images always lie further away; and where there are too few."""
    if task.name != "classify" or tuned:
        return None
    part = part_of(head.parts)
    y, groups = class_numbers(material.targets)[train], material.groups[train]
    return novelty_of(material.blocks[part.block], part, train, y, groups, head.left_out, material.seed)


def novelty_in(found: Predictions) -> npt.NDArray[np.float32]:
    """(image,). Raises DataError for the answers of a model that cannot say it."""
    if found.novelty is None:
        raise DataError(
            "the model does not know what is unlike its images: it was saved before that was kept, its network was "
            "tuned, or fewer than 19 images taught it; fit again, with more images or without tune"
        )
    return found.novelty
