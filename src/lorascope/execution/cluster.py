"""What engines of a cluster have in common: jobs elsewhere, whose folders this computer sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lorascope.config import Config
from lorascope.execution.engine import FollowedJob, Job, Slot
from lorascope.execution.local.slots import PRELOADED, await_imports, start_imports


@dataclass(frozen=True)
class Work:
    """What a job does that trains no pack, such as scoring."""

    body: Callable[[Path], None]
    """Does it for a job's folder, in a process of its own, and writes its outcome there; begun anew
    where that process is lost with its computer."""
    predicted: Callable[[], int]
    """How many bytes of RAM a job for it needs, in all; asked in a process that may load torch."""


class ClusterEngine(ABC):
    """See `engine.Engine`. Here nothing is scored beside what it trains elsewhere: that is `Work`,
    where on this computer a base that is loaded stays for all that is scored on it."""

    def __init__(self, config: Config) -> None:
        self._engine, self._runtime = config.engine, config.runtime

    def prepare(self) -> None:
        """Begin to import what memory is predicted with, here."""
        if self._engine.memory_gb is None:
            start_imports(PRELOADED)

    def await_ready(self) -> None:
        """Return once that is imported."""
        if self._engine.memory_gb is None:
            await_imports(PRELOADED)

    def slots(self, packs: int) -> list[Slot]:
        """As many as the engine's settings say at most; they have no memory to divide."""
        count = max(1, min(self._engine.jobs_at_once, packs))
        return [Slot(self._runtime.threads or self._engine.cpus, None)] * count

    @abstractmethod
    def underway(self) -> list[list[str]]:
        """As `engine.Engine`."""

    @abstractmethod
    def submit(self, job: Job) -> FollowedJob:
        """As `engine.Engine`."""

    @abstractmethod
    def submit_work(self, work: Work) -> FollowedJob:
        """Start to do `work`, in a folder of its own."""
