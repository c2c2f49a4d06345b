"""What Slurm runs on some node: a small process that watches over the one that trains, or scores.

Slurm signals all processes of a job. The one that trains does not hear it; this one asks it to save
at its next step. So a job that is preempted, or near the end of its time, goes on at that step when
it has waited in the queue again.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from lorascope.execution.child import answer, train_followed
from lorascope.execution.engine import OUTCOME, Outcome, write_outcome
from lorascope.execution.events import STOP, Event
from lorascope.execution.local.slots import PRELOADED, Child
from lorascope.execution.shared_folder import BEAT_SECONDS, beat, is_wanted, last_step, told_once
from lorascope.execution.shared_folder import RUNNING as RUNNING
from lorascope.training.progress import Progress, Stopped

PAUSE, PAUSED = "pause", "paused"
"""Files of a job's folder: whether the pack should be saved for later, and the step at which it
was."""
SAVE_SECONDS = 75
"""For saving; Slurm gives 90 before it ends a job."""
MOST_RUNS_IN_VAIN = 3
"""Runs to the end of their time, in a row, that may bring a pack no step further."""


class NodeJob:
    """Does the work of one folder, or goes on with it; submitit calls and requeues it.

    Args:
        minutes: how long Slurm lets it run at a time.
        body: what does the work, in a process of its own.
        save_seconds: how long that may take to save; 0 for what has nothing to save.
        step: at which its pack was saved last.
        in_vain: runs to the end of their time since that step.
    """

    def __init__(
        self,
        folder: Path,
        minutes: int,
        body: Callable[[Path], None],
        save_seconds: float = SAVE_SECONDS,
        step: int = 0,
        in_vain: int = 0,
    ) -> None:
        self._folder, self._minutes, self._body = folder, minutes, body
        self._save_seconds, self._step, self._in_vain = save_seconds, step, in_vain

    def __call__(self) -> None:
        folder, self._started, self._requeued = self._folder, time.monotonic(), False
        if not is_wanted(folder):
            return
        (folder / PAUSE).unlink(missing_ok=True)
        signal.signal(signal.SIGTERM, self._leave)
        # Slurm's signal to save would end the child. What is blocked here stays blocked there.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        self._child = Child(self._body, folder, PRELOADED, fresh=True)
        (folder / RUNNING).touch()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        while not self._child.ended(BEAT_SECONDS):
            beat(folder)
        self._conclude()

    def checkpoint(self) -> Any:
        """Save the work; what submitit shall run when the job comes back. It is called by the
        handler of a signal, and ends the process where there is nothing to come back for."""
        from submitit.helpers import DelayedSubmission

        self._pause()
        self._conclude()
        step = paused_at(self._folder)
        over = time.monotonic() - self._started > 60 * self._minutes / 2
        in_vain = self._in_vain + 1 if over and step <= self._step else 0
        if in_vain >= MOST_RUNS_IN_VAIN:
            told = f"engine.minutes={self._minutes}: {in_vain} times no step was done in them"
            write_outcome(self._folder, Outcome(timed_out=True, limit=told))
            sys.exit(0)
        self._requeued = True
        again = (self._folder, self._minutes, self._body, self._save_seconds, step, in_vain)
        return DelayedSubmission(NodeJob(*again))

    def _leave(self, number: int, frame: FrameType | None) -> None:
        """Slurm ends the job, and decides itself whether it comes back: it does where it was
        preempted, but not once it has ended by itself."""
        self._pause()
        self._conclude()
        while not self._requeued and self._folder.is_dir() and not (self._folder / STOP).exists():
            time.sleep(BEAT_SECONDS / 4)
        sys.exit(128 + number)

    def _pause(self) -> None:
        """Have the pack saved, and its process end; killed where it takes too long."""
        (self._folder / PAUSE).touch()
        if not self._child.ended(self._save_seconds):
            self._child.kill()
            self._child.ended(SAVE_SECONDS)
        (self._folder / RUNNING).unlink(missing_ok=True)

    def _conclude(self) -> None:
        """End the process where the pack's training has ended, with an outcome in any case; come
        back where it waits for its next run."""
        folder = self._folder
        if not folder.is_dir():
            sys.exit(0)
        if not (folder / OUTCOME).is_file():
            if (folder / PAUSE).exists():
                return
            write_outcome(folder, self._child.lost())
        sys.exit(0)


def train_or_pause(folder: Path) -> None:
    """The body of the process that trains. One that is saved for later writes no outcome."""
    if is_wanted(folder):
        answer(folder, partial(_train, folder))


def _train(folder: Path, progress: Progress) -> Outcome:
    told = last_step(folder)

    def report(event: Event) -> bool:
        return progress(told_once(event, told)) or (folder / PAUSE).exists()

    try:
        return train_followed(folder, report)
    except Stopped as stopped:
        if (folder / STOP).exists():
            raise
        (folder / PAUSED).write_text(str(stopped.step))
        sys.exit(0)


def paused_at(folder: Path) -> int:
    """The step at which the pack of `folder` waits for its next run; 0 where it waits for none."""
    path = folder / PAUSED
    return int(path.read_text()) if path.is_file() else 0
