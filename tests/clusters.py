"""A cluster on this machine for the tests, and what they need to be said of Ray."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from headstart.trunk import scale, surroundings

WITH_RAY = [
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray: pip install 'headstart[ray]'"),
    # Ray 2.60 of its own settings and of releases to come
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a cluster of two nodes with a processor each, and of the tests' own modules; this process has
    joined it."""
    with surroundings.settings(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))))
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
        try:
            cluster.add_node(**node)
            with scale.joined(cluster.address):
                yield cluster.address
        finally:
            cluster.shutdown()
