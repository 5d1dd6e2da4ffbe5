"""The tasks that come with headstart, by the names that `--task`, tables and saved models give them."""

from __future__ import annotations

from headstart.tasks.classification import CLASSIFICATION
from headstart.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION,)}
