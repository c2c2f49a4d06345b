"""This computer as an engine: packs side by side on a CPU, each in a child process, which has its
memory for itself, and whose death is a fact.

Products of small models gain little from a second thread, and a second pack gains all of it.

On a CPU children are forked from a server that has imported the heavy libraries once: a child
starts in a fraction of a second instead of ten. CUDA cannot be used in a forked child of a process
that has touched it, so there children start afresh.

Ctrl-C in a terminal reaches a whole group of processes. Children and fork server never hear it, nor
SIGTERM: what happens then is the parent's decision.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from lorascope.config import DeviceKind, RuntimeConfig
from lorascope.execution.child import train_job
from lorascope.execution.engine import (
    Failure,
    FollowedJob,
    Job,
    Outcome,
    Slot,
    last_lines,
    write_job,
)
from lorascope.machine.environment import may_use_cuda
from lorascope.machine.memory import available_ram_bytes
from lorascope.planning.arithmetic import GIGABYTE

UNHEARD = {signal.SIGINT, signal.SIGTERM}
NO_GPU = "lorascope.execution.local.no_gpu"
PARENT = "parent.lock"
"""File of a job's folder that is locked for as long as the parent lives."""
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
        places = max(1, threads // self._runtime.shard)
        most = min(places, self._runtime.packs_at_once or places)
        count = 1 if self._cuda else max(1, min(most, packs))
        if count == 1:
            return [Slot(self._runtime.threads, None)]
        limit_gb = self._runtime.memory_limit_gb
        whole = available_ram_bytes() if limit_gb is None else limit_gb * GIGABYTE
        return [Slot(max(1, threads // count), int(whole / count))] * count

    def underway(self) -> list[list[str]]:
        # Children end with their parent.
        return []

    def submit(self, job: Job) -> FollowedJob:
        # Not in the project, whose disk may be full: then its process could not say so.
        folder = Path(tempfile.mkdtemp(prefix="lorascope-"))
        write_job(folder, job)
        return FollowedJob(folder, Child(train_job, folder, PRELOADED, fresh=self._cuda))


@contextmanager
def training_imports(begins: bool = True) -> Iterator[None]:
    """Begin to import what the children that train need, where they are forked: with CUDA each
    imports it itself. Where packs are trained elsewhere, nothing `begins` here. A fork server that
    was not there before ends with the block."""
    before = has_fork_server()
    try:
        if begins and not may_use_cuda(DeviceKind.auto):
            start_imports(PRELOADED)
        yield
    finally:
        if not before:
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


class Child:
    """A process that does the job of one folder; see `engine.Process`."""

    def __init__(
        self, body: Callable[[Path], None], folder: Path, preload: str, fresh: bool
    ) -> None:
        """Start `body(folder)`, forked from a server that has imported the module `preload`, or
        `fresh` in a new interpreter (needed for CUDA)."""
        self._folder = folder
        self._lock = os.open(folder / PARENT, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._process: BaseProcess = _context(preload, fresh).Process(
            target=_run, args=(body, folder)
        )
        _start(self._process, fresh)

    def ended(self, seconds: float) -> bool:
        if not wait([self._process.sentinel], seconds):
            return False
        self._process.join()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        return True

    def runs(self) -> bool:
        return True

    def kill(self) -> None:
        self._process.kill()

    def bring(self) -> None:
        """It was made there."""

    def lost(self) -> Outcome:
        code = self._process.exitcode
        if code is not None and code < 0:
            return Outcome(exit_signal=-code)
        words = "\n".join(last_lines(self._folder))
        return Outcome(failure=Failure(f"the child process ended with exit code {code}:\n{words}"))


def _run(body: Callable[[Path], None], folder: Path) -> None:
    """What the child does."""
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    body(folder)


def _end_with_parent(folder: Path) -> None:
    """Kill this process once the system has dropped the parent's lock: it would write to the same
    places as the next sweep's child. The fork server is no sign: it lives as long as its
    children."""
    lock = os.open(folder / PARENT, os.O_WRONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.kill(os.getpid(), signal.SIGKILL)


def _context(preload: str, fresh: bool) -> Any:
    method = "spawn" if fresh else "forkserver"
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        # joblib's workers have a method of their own, which a child of theirs would not know.
        multiprocessing.set_start_method(method, force=True)
    multiprocessing.set_forkserver_preload([NO_GPU, preload])
    return multiprocessing.get_context(method)


def start_imports(preload: str) -> None:
    """Let the fork server import `preload` while this process does something else."""
    _context(preload, fresh=False)
    _start(None, fresh=False)


def await_imports(preload: str) -> None:
    """Return once the fork server can start children at once: starting them waits for it, deaf to
    all but signals."""
    child = _context(preload, fresh=False).Process()
    _start(child, fresh=False)
    child.join()


def has_fork_server() -> bool:
    """Whether this process has started one."""
    server: Any = forkserver._forkserver
    return server._forkserver_pid is not None


def end_fork_server() -> None:
    """Kill it, if there is one: left to itself it would first import to the end, and then take its
    libraries apart for seconds, beside whatever comes next. No child may be left."""
    if not has_fork_server():
        return
    server: Any = forkserver._forkserver
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(server._forkserver_pid, signal.SIGKILL)
        # Reaps it, so that another one may be started.
        server._stop()


def _start(child: BaseProcess | None, fresh: bool) -> None:
    """Start `child`, or the fork server alone, deaf to `UNHEARD`: blocked signals stay blocked in
    what a process starts."""
    # It unblocks them itself where it has to start its tracker.
    resource_tracker.ensure_running()
    former = signal.pthread_sigmask(signal.SIG_BLOCK, UNHEARD)
    try:
        if not fresh:
            forkserver.ensure_running()
        elif child is not None:
            child.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
    if not fresh and child is not None:
        # The fork server may be importing for seconds, in which the parent hears.
        child.start()
