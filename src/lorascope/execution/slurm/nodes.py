"""What Slurm's nodes have, where `sinfo` tells it."""

from __future__ import annotations

import re
import subprocess

from lorascope.config import EngineConfig
from lorascope.execution.places import Node, require_node

ASKED = ("sinfo", "--noheader", "--Node", "--format=%P|%c|%m|%G")
ANSWER_SECONDS = 30
GPUS = re.compile(r"gpu(?::[^:,()]+)?:(\d+)")
MEBIBYTE = 2**20


def require_slurm_node(engine: EngineConfig) -> None:
    """Raise ConfigError where no node of the partition has what a job asks for: some clusters keep
    such a job waiting without an end."""
    try:
        told = subprocess.run(
            ASKED, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS
        ).stdout
    except (subprocess.SubprocessError, OSError):
        return
    partition = engine.partition or "the default partition"
    require_node(engine, nodes_of(told, engine.partition), f"nodes of {partition}")


def nodes_of(told: str, partition: str | None) -> list[Node]:
    """The nodes of a partition in what sinfo said; None is the one that is marked as default."""
    nodes = []
    for line in told.splitlines():
        name, cpus, megabytes, generic = line.split("|", 3)
        if name.rstrip("*") == partition if partition else name.endswith("*"):
            gpus = sum(int(count) for count in GPUS.findall(generic))
            nodes.append(Node(int(cpus), gpus, int(megabytes) * MEBIBYTE))
    return nodes
