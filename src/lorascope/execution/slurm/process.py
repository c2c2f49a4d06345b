"""A job of Slurm, as whoever waits for its pack sees it."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lorascope.execution.engine import OUTCOME, Failure, Outcome, last_lines, read_job
from lorascope.execution.events import STOP
from lorascope.execution.shared_folder import LATE_SECONDS, RUNNING, LockWatch
from lorascope.execution.slurm import queue
from lorascope.execution.slurm.node import paused_at
from lorascope.execution.slurm.queue import Queue

ID = "slurm_id"
"""File of a job's folder: Slurm's id of it."""
QUEUED = "queue"
"""Among the folders of jobs, that of files which submitit and Slurm write."""


class SlurmProcess:
    """See `engine.Process`.

    Args:
        adapters: where the pack's adapters are to be.
        minutes: how long Slurm lets it run at a time.
    """

    def __init__(self, folder: Path, adapters: Sequence[Path], minutes: int, jobs: Queue) -> None:
        self._folder, self._adapters, self._minutes, self._queue = folder, adapters, minutes, jobs
        self._id = (folder / ID).read_text()
        self._since = time.monotonic()
        self._completed: float | None = None
        self._locks, self._cancelled = LockWatch(folder), False

    def ended(self, seconds: float) -> bool:
        if self._has_ended():
            return True
        time.sleep(seconds)
        return self._has_ended()

    def _has_ended(self) -> bool:
        if self._cancelled or (self._folder / OUTCOME).is_file():
            return True
        state = self._state()
        if state == queue.PENDING and (self._folder / STOP).exists():
            # Whoever asked to stop does not wait until it has waited.
            self.kill()
            return True
        if state == queue.RUNNING:
            self._locks.require("slurm", f"job {self._id}")
        if state != queue.COMPLETED:
            return state in queue.ENDED
        # It wrote an outcome.
        self._completed = self._completed or time.monotonic()
        return time.monotonic() - self._completed >= LATE_SECONDS

    def _state(self) -> str:
        return self._queue.state(self._id, self._since)

    def runs(self) -> bool:
        return (self._folder / RUNNING).exists() and self._state() == queue.RUNNING

    def kill(self) -> None:
        self._cancelled = True
        queue.cancel([self._id])

    def bring(self) -> None:
        for index, place in enumerate(self._adapters):
            made = self._folder / "adapters" / str(index)
            if made.is_dir():
                made.rename(place)
        self._tidy()

    def lost(self) -> Outcome:
        if self._cancelled:
            steps = read_job(self._folder).config.train.steps or 0
            return Outcome(saved_at=(paused_at(self._folder), steps))
        state = self._state()
        if state == "OUT_OF_MEMORY":
            return Outcome(exit_signal=signal.SIGKILL)
        if state == "TIMEOUT":
            return Outcome(timed_out=True, limit=f"engine.minutes={self._minutes}")
        told = f"job {self._id} of Slurm ended as {state} and left no result"
        if state == "CANCELLED":
            again = "the same command trains its pack"
            return Outcome(failure=Failure(f"{told}: {again}", is_input=True))
        words = "\n".join(last_lines(self._folder) or self._printed())
        return Outcome(failure=Failure(f"{told}:\n{words}"))

    def _printed(self) -> list[str]:
        """What it printed before it began with the pack: such as that it misses a folder."""
        for log in self._files("log.out"):
            return log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
        return [f"It may not see {self._folder}, or not this Python environment."]

    def _files(self, ending: str = "") -> list[Path]:
        """Those that submitit and Slurm wrote about this job."""
        return sorted((self._folder.parent / QUEUED).glob(f"{self._id}_*{ending}"))

    def _tidy(self) -> None:
        for path in self._files():
            with suppress(OSError):
                path.unlink()
