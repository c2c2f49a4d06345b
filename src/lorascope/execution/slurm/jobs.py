"""A cluster under Slurm as an engine: packs are jobs whose folders this computer and the nodes see.

A pack's folder is called by its content. So a sweep that is started again finds what a killed one
left in the queue, at work or done, and goes on with it. Adapters are written there too, and put in
place by whoever waits.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from lorascope.config import Config
from lorascope.execution.cluster import ClusterEngine, Work
from lorascope.execution.engine import (
    JOB,
    OUTCOME,
    OUTPUT,
    FollowedJob,
    Job,
    TrialOutcome,
    read_outcome,
    without_room,
    write_job,
    write_outcome,
)
from lorascope.execution.events import EVENTS, STOP
from lorascope.execution.job_memory import pack_bytes
from lorascope.execution.packs import TRIALS
from lorascope.execution.shared_folder import NAME_LETTERS, RUNNING, job_name, require_locks
from lorascope.execution.slurm.node import PAUSE, PAUSED, NodeJob, train_or_pause
from lorascope.execution.slurm.nodes import require_slurm_node
from lorascope.execution.slurm.process import ID, QUEUED, SlurmProcess
from lorascope.execution.slurm.queue import ENDED, Queue, cancel
from lorascope.execution.slurm.submission import Submission, Submitter, TooLarge, require_slurm
from lorascope.files.layout import Layout
from lorascope.files.replacing import write_atomically
from lorascope.records import LASTING, Status


class SlurmEngine(ClusterEngine):
    """Jobs of a cluster; see `engine.Engine`.

    Raises:
        ConfigError: submitit or a command of Slurm is missing, or folders here have no locks.
    """

    def __init__(self, config: Config, layout: Layout) -> None:
        require_slurm()
        require_slurm_node(config.engine)
        require_locks(layout.jobs, "slurm")
        super().__init__(config)
        self._jobs, self._queue, self._begun = layout.jobs, Queue(), time.monotonic()
        self._submitter = Submitter(config.engine, layout.jobs / QUEUED)

    def underway(self) -> list[list[str]]:
        self._tidy()
        return [_trials(folder) for folder in self._folders() if self._can_follow(folder)]

    def submit(self, job: Job) -> FollowedJob:
        trials = json.loads((job.checkpoints / TRIALS).read_bytes())
        folder = self._jobs / job_name(job, trials)
        self._end_others(trials, folder)
        if not self._can_follow(folder):
            self._begin(folder, job, trials)
        process = SlurmProcess(folder, job.adapters, self._engine.minutes, self._queue)
        return FollowedJob(folder, process)

    def _begin(self, folder: Path, job: Job, trials: list[str]) -> None:
        _clear(folder)
        own = [folder / "adapters" / str(index) for index in range(len(job.adapters))]
        (folder / "adapters").mkdir(parents=True)
        write_job(folder, replace(job, adapters=own))
        write_atomically(folder / TRIALS, json.dumps(trials).encode())
        node = NodeJob(folder, self._engine.minutes, train_or_pause)
        try:
            self._queue_up(folder, Submission(node, partial(pack_bytes, folder)))
        except TooLarge as error:
            write_atomically(folder / ID, b"none")
            refused = TrialOutcome(Status.refused, str(error))
            write_outcome(folder, without_room(job, refused))

    def submit_work(self, work: Work) -> FollowedJob:
        # It begins anew where its job is preempted, too.
        folder = self._jobs / secrets.token_hex(NAME_LETTERS // 2)
        folder.mkdir(parents=True)
        (folder / JOB).touch()
        node = NodeJob(folder, self._engine.minutes, work.body, save_seconds=0.0)
        self._queue_up(folder, Submission(node, work.predicted))
        return FollowedJob(folder, SlurmProcess(folder, [], self._engine.minutes, self._queue))

    def _queue_up(self, folder: Path, work: Submission) -> None:
        try:
            write_atomically(folder / ID, self._submitter.submit(work).encode())
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _tidy(self) -> None:
        """Take away what submitit and Slurm wrote about jobs that have ended."""
        living = self._queue.living(self._begun)
        for path in (self._jobs / QUEUED).glob("[0-9]*_*"):
            if living is not None and path.name.partition("_")[0] not in living:
                path.unlink(missing_ok=True)
        for link in (self._jobs / QUEUED).glob(".submission_file_*"):
            # submitit links each job's script from here, and leaves the link behind.
            if link.is_symlink() and not link.exists():
                link.unlink(missing_ok=True)

    def _folders(self) -> list[Path]:
        return [path.parent for path in sorted(self._jobs.glob(f"*/{TRIALS}"))]

    def _can_follow(self, folder: Path) -> bool:
        """Whether a job of an earlier sweep trains the pack of `folder`, or has trained it. What
        that sweep asked to stop, or what failed, is begun anew."""
        if not (folder / ID).is_file() or (folder / STOP).exists():
            return False
        if (folder / OUTCOME).is_file():
            trials = read_outcome(folder).trials
            return bool(trials) and all(trial.status in LASTING for trial in trials)
        return self._queue.state((folder / ID).read_text(), self._begun) not in ENDED

    def _end_others(self, trials: Collection[str], folder: Path) -> None:
        """End jobs that train some of `trials` in other packs: whose sweep lives holds the locks of
        its trials, which the caller has."""
        for other in self._folders():
            if other != folder and set(trials) & set(_trials(other)):
                if (other / ID).is_file():
                    cancel([(other / ID).read_text()])
                shutil.rmtree(other, ignore_errors=True)


def _trials(folder: Path) -> list[str]:
    """Identities of the trials of a job; empty where somebody takes its folder away."""
    with suppress(OSError, ValueError):
        return [str(one) for one in json.loads((folder / TRIALS).read_bytes())]
    return []


def _clear(folder: Path) -> None:
    """Make room for a new job of the same pack. The lock stays: a former one may still end."""
    if (folder / ID).is_file():
        cancel([(folder / ID).read_text()])
    for name in (JOB, OUTCOME, STOP, EVENTS, OUTPUT, PAUSE, PAUSED, RUNNING, ID, TRIALS):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "adapters", ignore_errors=True)
