"""What Slurm says of jobs: `squeue`, asked for all of them at once and seldom. How a pack ended it
does not say: that is read from the pack's own files."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Sequence

QUEUE_SECONDS = 5.0
"""Between two questions. Outcomes are seen in files, long before."""
ANSWER_SECONDS = 60
STATES = ("squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T|%r")
PENDING, RUNNING, COMPLETED = "PENDING", "RUNNING", "COMPLETED"
UNKNOWN = "UNKNOWN"
"""Of a job that Slurm has forgotten, which it does some minutes after its end."""
ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", COMPLETED, "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
     "TIMEOUT", UNKNOWN}
)  # fmt: skip
"""States of a job that does not come back: one that is preempted waits again, as does one whose
node died."""


USUAL = ("None", "Priority", "Resources", "BeginTime", "JobArrayTaskLimit", "Dependency")
"""Why jobs wait that are to run soon."""


class Queue:
    """The states of this user's jobs; for several threads. It says once why any of them waits that
    may wait for long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: set[str] = set()
        self._states: dict[str, str] = {}
        self._tried = self._answered = float("-inf")

    def state(self, job: str, since: float) -> str:
        """Of a job that was there at `since`, on the monotonic clock: it waits until Slurm has been
        asked after that."""
        with self._lock:
            if time.monotonic() - self._tried >= QUEUE_SECONDS:
                self._ask()
            return self._states.get(job, UNKNOWN) if self._answered >= since else PENDING

    def _ask(self) -> None:
        """A controller that does not answer, such as one that is started anew, changes nothing."""
        self._tried = time.monotonic()
        try:
            told = subprocess.run(
                STATES, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS
            ).stdout
        except (subprocess.SubprocessError, OSError):
            return
        self._answered = self._tried
        self._states = {}
        for line in told.splitlines():
            job, state, reason = line.split("|", 2)
            self._states[job] = state
            if state == PENDING and reason not in (*USUAL, *self._told):
                self._told.add(reason)
                words = f"job {job} of Slurm waits: {reason}; `scontrol show job {job}` says more"
                print(words, file=sys.stderr, flush=True)

    def living(self, since: float) -> set[str] | None:
        """Ids of jobs that wait or run, those of arrays without their number; None where Slurm has
        not answered since then."""
        self.state("", since)
        if self._answered < since:
            return None
        return {job.partition("_")[0] for job, state in self._states.items() if state not in ENDED}


def cancel(jobs: Sequence[str]) -> None:
    """End jobs, or take them out of the queue; those that have ended are passed over."""
    if jobs:
        subprocess.run(["scancel", "--quiet", *jobs], capture_output=True, check=False)
