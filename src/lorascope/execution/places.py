"""What the nodes of a cluster have, held against what a job asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lorascope.config import EngineConfig
from lorascope.errors import ConfigError
from lorascope.planning.arithmetic import GIGABYTE


@dataclass(frozen=True)
class Node:
    """What a node gives to jobs in all, be it free or not."""

    cpus: float
    gpus: float
    memory_bytes: float

    def holds(self, engine: EngineConfig, memory_bytes: float) -> bool:
        """Whether a job of this engine with so much RAM fits, where the node has nothing else."""
        room = self.cpus >= engine.cpus and self.gpus >= engine.gpus
        return room and self.memory_bytes >= memory_bytes


def most_bytes(engine: EngineConfig, nodes: Sequence[Node]) -> float:
    """RAM of the largest node that has the processors and GPUs of a job; 0 without any."""
    return max((node.memory_bytes for node in nodes if node.holds(engine, 0)), default=0)


def require_node(engine: EngineConfig, nodes: Sequence[Node], where: str) -> None:
    """Raise ConfigError where no node can ever hold a job: it would wait without an end.

    Args:
        nodes: those that there are; none where that is not known.
        where: which nodes they are, in words.
    """
    memory_bytes = (engine.memory_gb or 0.0) * GIGABYTE
    if not nodes or any(node.holds(engine, memory_bytes) for node in nodes):
        return
    asked = {
        "cpus": (engine.cpus, max(node.cpus for node in nodes)),
        "gpus": (engine.gpus, max(node.gpus for node in nodes)),
        "memory_gb": (engine.memory_gb or 0.0, most_bytes(engine, nodes) / GIGABYTE),
    }
    above = [name for name, (wanted, most) in asked.items() if wanted > most]
    key = above[0] if above else "cpus"
    wanted, most = asked[key]
    told = f"none has so much ({most:g} at most)"
    remedy = f"Ask for less, engine.{key}={_below(most):g}; or have a larger node join first."
    if not above or (key == "memory_gb" and most == 0):
        key, wanted = "cpus", engine.cpus
        told = f"none has that with engine.gpus={engine.gpus} and its memory"
        remedy = "Ask for what one node has together; or have a larger one join first."
    elif most == 0:
        told, remedy = "none has any", "Have a node with some join first."
    problem = f"a job would wait for ever on {where}: {told}"
    raise ConfigError(f"engine.{key}", f"{wanted:g}", problem, remedy)


def _below(most: float) -> float:
    """Of tenths, the last one that is not above."""
    return int(most * 10) / 10
