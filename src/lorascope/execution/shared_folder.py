"""Folders of jobs that this computer and others see: whether locks reach from one to the other,
what a pack's folder is called, and whether a job in it is still at work."""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lorascope.errors import ConfigError
from lorascope.execution.engine import JOB, OUTCOME, Job, plain_job
from lorascope.execution.events import EVENTS, Event
from lorascope.execution.local.slots import PARENT
from lorascope.files.revisions import canonical_sha256
from lorascope.training.progress import StepReport

RUNNING = "running"
"""File of a job's folder: whether it is at work on a node. It is touched as a sign of life."""
BEAT_SECONDS = 2.0
"""Between two signs of life."""
LATE_SECONDS = 60
"""For a file that a node wrote to be seen here: the longest that NFS keeps what it knows."""
UNLOCKED_SECONDS = 20
"""For which a lock that a job holds may look free, as when it ends."""
NAME_LETTERS = 24
PROBE = "probe"


def job_name(job: Job, trials: list[str]) -> str:
    """Of the folder of a pack that is trained so: equal ones are one job."""
    values = {**plain_job(replace(job, adapters=[])), "trials": trials}
    for config in values["configs"]:
        # Where it is trained changes nothing.
        del config["engine"], config["runtime"]
    return canonical_sha256(values)[:NAME_LETTERS]


def is_wanted(folder: Path) -> bool:
    """Whether somebody waits for the job: another one may have done the same meanwhile."""
    return (folder / JOB).is_file() and not (folder / OUTCOME).is_file()


def beat(folder: Path) -> None:
    """Say that the job is at work; its folder goes as soon as somebody has read the outcome."""
    with suppress(OSError):
        os.utime(folder / RUNNING)


def last_step(folder: Path) -> int:
    """The last one that a former run told of; 0 without any."""
    last = 0
    if (folder / EVENTS).is_file():
        for line in (folder / EVENTS).read_bytes().splitlines():
            # The last line of a run that was killed may be cut off.
            if line.startswith(b"{") and line.endswith(b"}"):
                last = max(last, json.loads(line).get("step", 0))
    return last


def told_once(event: Event, told: int) -> Event:
    """The event without what a former run, which told of `told` steps, has said: it may have done
    more than it could save."""
    if isinstance(event, StepReport) and event.step <= told:
        return replace(event, points=[], validations=[])
    return event


def require_locks(folder: Path, kind: str) -> None:
    """Raise ConfigError where files of `folder` cannot be locked: nothing else keeps two sweeps
    from one trial. Whether nodes see such locks is looked at when the first job runs."""
    folder.mkdir(parents=True, exist_ok=True)
    probe = os.open(folder / PROBE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # Another sweep looks too.
        pass
    except OSError as error:
        raise no_locks(kind, folder, f"cannot be locked here ({error.strerror})") from error
    finally:
        os.close(probe)


def no_locks(kind: str, folder: Path, problem: str) -> ConfigError:
    """What to raise where nothing would keep two sweeps from one trial."""
    return ConfigError(
        "engine", kind, f"files of {folder} {problem}",
        "Put the study into a folder that is shared with locks: NFS 4, or Lustre mounted with "
        "-o flock.",
    )  # fmt: skip


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock on a file."""
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class LockWatch:
    """Whether the lock that a running job holds is seen here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = False
        self._unlocked: tuple[float, float] | None = None

    def require(self, kind: str, holder: str) -> None:
        """Look at the lock; it may look free for some seconds, as when its job ends.

        Raises:
            ConfigError: it has looked free for longer, in which the job went on saying that it
                runs.
        """
        if self._seen:
            return
        try:
            beat = (self._folder / RUNNING).stat().st_mtime
            self._seen = is_locked(self._folder / PARENT)
        except FileNotFoundError:
            return
        since, first = self._unlocked = self._unlocked or (time.monotonic(), beat)
        late = time.monotonic() - since >= UNLOCKED_SECONDS
        if not self._seen and late and beat - first >= UNLOCKED_SECONDS / 2:
            told = f"are locked by {holder}, and that is not seen here"
            raise no_locks(kind, self._folder.parent, told)
