"""Ray on this computer: a head that runs nothing and two nodes, for tests marked ray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

MEMORY_BYTES = 6 * 10**9
STORE_BYTES = 80 * 10**6


@dataclass
class Cluster:
    """A head and its nodes."""

    made: Any
    """Ray's own."""
    nodes: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.made.address)

    def start_node(self) -> None:
        """Of one processor."""
        self.nodes.append(
            self.made.add_node(num_cpus=1, memory=MEMORY_BYTES, object_store_memory=STORE_BYTES)
        )

    def processes(self, node: Any) -> list[psutil.Process]:
        """Of a node, its raylet first."""
        (raylet,) = node.all_processes["raylet"]
        found = psutil.Process(raylet.process.pid)
        return [found, *found.children(recursive=True)]

    def kill_node(self, number: int) -> None:
        """All of its processes at once, as where its power goes."""
        node = self.nodes.pop(number)
        for process in self.processes(node):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.made.remove_node(node, allow_graceful=False)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Ray, told to nobody: its address is to be named."""
    # Ray's processes would wait for all others of this computer.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    from ray.cluster_utils import Cluster as RayCluster

    made = Cluster(
        RayCluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": STORE_BYTES},
        )
    )
    try:
        made.start_node()
        made.start_node()
        yield made
    finally:
        made.made.shutdown()
