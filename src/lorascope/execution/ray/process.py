"""A task of Ray, as whoever waits for its pack sees it."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from lorascope.execution.engine import OUTCOME, Failure, Outcome, read_job
from lorascope.execution.events import STOP
from lorascope.execution.ray.node import AT_WORK
from lorascope.execution.shared_folder import LATE_SECONDS, RUNNING, LockWatch, is_locked
from lorascope.training.checkpoint import last_checkpoint, step_of

HEAD = "head.lock"
"""File of a job's folder that is locked for as long as somebody waits for its outcome."""
LOOK_SECONDS = 0.05
WAIT_SECONDS = 60
"""For a task to wait, before it is asked whether it can start at all."""


class RayProcess:
    """See `engine.Process`.

    Args:
        start: submits the task, and says Ray's reference to it; None where there is none, as its
            outcome is known.
        retries: how often it is submitted again after it was lost with its node or its worker.
        can_start: whether a node that lives has what it asks for.
    """

    def __init__(
        self,
        folder: Path,
        start: Callable[[], Any] | None,
        retries: int,
        can_start: Callable[[], bool] = lambda: True,
    ) -> None:
        self._folder, self._start, self._left = folder, start, retries
        self._retries, self._cancelled, self._locks = retries, False, LockWatch(folder)
        self._done: float | None = None
        self._error: Exception | None = None
        # It goes with this object, and with this computer.
        self._head = FileLock(folder / HEAD)
        self._head.acquire()
        self._task = start() if start else None
        self._can_start, self._look_at = can_start, time.monotonic() + WAIT_SECONDS

    def ended(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not self._has_ended():
            left = until - time.monotonic()
            if left <= 0:
                return False
            self._pause(left)
        return True

    def _pause(self, seconds: float) -> None:
        """Until the task has ended, so many seconds at most."""
        import ray

        if self._cancelled or self._done is not None:
            time.sleep(min(seconds, LOOK_SECONDS))
        else:
            ray.wait([self._task], timeout=seconds)

    def _has_ended(self) -> bool:
        if self._task is None or self._error is not None:
            return True
        if self._cancelled:
            return not self._is_at_work()
        if (self._folder / STOP).exists() and not (self._folder / RUNNING).exists():
            # Whoever asked to stop does not wait until it has waited for a place.
            self.kill()
            return True
        self._locks.require("ray", "its task")
        if time.monotonic() >= self._look_at and not self.runs():
            self._tell_if_in_vain()
        return self._has_come_back()

    def _tell_if_in_vain(self) -> None:
        """Nodes may have been lost since it was submitted, and others may join."""
        self._look_at = time.monotonic() + WAIT_SECONDS
        if not self._can_start():
            told = "no node of Ray's cluster has what a task asks for; it waits until one joins"
            print(f"lorascope: {told}", file=sys.stderr, flush=True)

    def _has_come_back(self) -> bool:
        import ray
        from ray import exceptions

        ready, _ = ray.wait([self._task], timeout=0)
        if not ready:
            return False
        try:
            ray.get(self._task)
        except (exceptions.RayError, OSError) as error:
            if (self._folder / OUTCOME).is_file():
                return True
            return not self._begins_again(error)
        # It wrote an outcome, which may be seen late.
        self._done = self._done or time.monotonic()
        late = time.monotonic() - self._done >= LATE_SECONDS
        return late or (self._folder / OUTCOME).is_file()

    def _begins_again(self, error: Exception) -> bool:
        """Whether what was lost without a fault of its own is submitted once more."""
        if not _is_lost(error) or self._left == 0 or self._start is None:
            self._error = error
            return False
        self._left -= 1
        (self._folder / RUNNING).unlink(missing_ok=True)
        if (self._folder / STOP).exists():
            self._error = error
            return False
        self._task = self._start()
        told = f"a task of Ray was lost ({type(error).__name__}), and is begun again"
        print(f"lorascope: {told}: try {self._retries - self._left + 1}", file=sys.stderr)
        return True

    def _is_at_work(self) -> bool:
        with suppress(OSError):
            return is_locked(self._folder / AT_WORK)
        return False

    def runs(self) -> bool:
        return (self._folder / RUNNING).exists()

    def kill(self) -> None:
        import ray

        self._cancelled = True
        if self._task is not None:
            # It may have ended, or its node be gone.
            with suppress(Exception):
                ray.cancel(self._task, force=True)

    def bring(self) -> None:
        """It was made there."""

    def lost(self) -> Outcome:
        from ray import exceptions

        error = self._error
        if self._cancelled or (self._folder / STOP).exists():
            return Outcome(saved_at=self._saved_at())
        if isinstance(error, (exceptions.OutOfMemoryError, exceptions.WorkerCrashedError)):
            return Outcome(exit_signal=signal.SIGKILL)
        if error is None:
            told = f"it ended, and {self._folder} holds no outcome"
        elif _is_lost(error):
            told = f"lost {self._retries + 1} times with its node; the same command trains its pack"
        else:
            told = str(error).strip().splitlines()[-1]
        return Outcome(failure=Failure(f"a task of Ray: {told}", is_input=True))

    def _saved_at(self) -> tuple[int, int]:
        """The step at which the pack was saved last, and all its steps."""
        job = read_job(self._folder)
        saved = last_checkpoint(job.checkpoints)
        return step_of(saved) if saved else 0, job.config.train.steps or 0


def _is_lost(error: Exception) -> bool:
    """Whether a task ended with its worker or its node, and not for what it did."""
    from ray import exceptions

    gone = (
        exceptions.WorkerCrashedError,
        exceptions.NodeDiedError,
        exceptions.LocalRayletDiedError,
    )
    return isinstance(error, gone) and not isinstance(error, exceptions.OutOfMemoryError)
