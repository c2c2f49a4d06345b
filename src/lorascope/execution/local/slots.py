"""This computer as an engine: packs side by side on a CPU.

Products of small models gain little from a second thread, and a second pack gains all of it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lorascope.config import DeviceKind, RuntimeConfig
from lorascope.execution.child import train_job
from lorascope.execution.engine import FollowedJob, Job, Slot, write_job
from lorascope.execution.local.process import Child, await_imports, end_fork_server, start_imports
from lorascope.machine.environment import may_use_cuda
from lorascope.machine.ram import available_ram_bytes
from lorascope.planning.arithmetic import GIGABYTE

PRELOADED = "lorascope.execution.local.preloaded"
"""What the children that train need, imported once."""


class LocalEngine:
    """Children of this process; see `engine.Engine`."""

    def __init__(self, runtime: RuntimeConfig) -> None:
        self._runtime = runtime
        self._cuda = may_use_cuda(runtime.device)

    def prepare(self) -> None:
        # With CUDA each child loads it itself.
        if not self._cuda:
            start_imports(PRELOADED)

    def await_ready(self) -> None:
        if not self._cuda:
            await_imports(PRELOADED)

    def slots(self, packs: int) -> list[Slot]:
        # Asked before the first pack starts, which takes memory itself.
        threads = _threads(self._runtime)
        most = min(threads, self._runtime.packs_at_once or threads)
        count = 1 if self._cuda else max(1, min(most, packs))
        if count == 1:
            return [Slot(self._runtime.threads, None)]
        limit_gb = self._runtime.memory_limit_gb
        whole = available_ram_bytes() if limit_gb is None else limit_gb * GIGABYTE
        return [Slot(max(1, threads // count), int(whole / count))] * count

    def submit(self, job: Job) -> FollowedJob:
        # Not in the project, whose disk may be full: then its process could not say so.
        folder = Path(tempfile.mkdtemp(prefix="lorascope-"))
        write_job(folder, job)
        return FollowedJob(folder, Child(train_job, folder, PRELOADED, fresh=self._cuda))


@contextmanager
def training_imports() -> Iterator[None]:
    """Begin to import what the children that train need, where they are forked: with CUDA each
    imports it itself. The fork server ends with the block."""
    try:
        if not may_use_cuda(DeviceKind.auto):
            start_imports(PRELOADED)
        yield
    finally:
        end_fork_server()


def _threads(runtime: RuntimeConfig) -> int:
    """About those that torch would take, without importing it."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if runtime.threads:
        return runtime.threads
    if told.isdigit() and int(told):
        return int(told)
    # What this process may use; not every system can say it.
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1
