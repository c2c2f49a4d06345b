"""A cluster of Ray as an engine: packs are tasks whose folders this computer and the nodes see.

Ray ends a driver's tasks with their driver. So nothing outlives a sweep that is killed, and the
next one goes on from checkpoints, as on one computer. A pack's folder is called by its content: a
task waits there until the process of a former one, which was lost, has ended.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lorascope.config import Config
from lorascope.execution.cluster import ClusterEngine, Work
from lorascope.execution.engine import (
    JOB,
    OUTCOME,
    OUTPUT,
    FollowedJob,
    Job,
    TrialOutcome,
    without_room,
    write_job,
    write_outcome,
)
from lorascope.execution.events import EVENTS, STOP
from lorascope.execution.job_memory import on_gpu, pack_bytes, predicted_bytes
from lorascope.execution.packs import TRIALS
from lorascope.execution.places import most_bytes
from lorascope.execution.ray.connection import connect, nodes
from lorascope.execution.ray.node import AT_WORK, do_job, train
from lorascope.execution.ray.process import HEAD, RayProcess
from lorascope.execution.shared_folder import (
    NAME_LETTERS,
    RUNNING,
    is_locked,
    job_name,
    require_locks,
)
from lorascope.files.layout import Layout
from lorascope.planning.arithmetic import GIGABYTE
from lorascope.records import Status

FOLDER = "ray"
"""Among the folders of jobs, that of tasks."""
TASK = "lorascope"
PASSED_ON = ("CUBLAS_", "HF_DATASETS_", "HF_HUB_", "MKL_", "PYTORCH_", "TORCH", "TRANSFORMERS_")
"""Variables that nodes get as they are here begin so: Ray's processes have the environment of
whoever started Ray there. No token is among them."""


class RayEngine(ClusterEngine):
    """Tasks of a cluster; see `engine.Engine`.

    Raises:
        ConfigError: ray is missing, its cluster does not answer or has no node for a task, or
            folders here have no locks.
    """

    def __init__(self, config: Config, layout: Layout) -> None:
        self._jobs = layout.jobs / FOLDER
        connect(config.engine)
        require_locks(self._jobs, "ray")
        super().__init__(config)
        self._config = config
        self._predicting = threading.Lock()
        _tidy(self._jobs)

    def underway(self) -> list[list[str]]:
        # Tasks end with their driver.
        return []

    def submit(self, job: Job) -> FollowedJob:
        folder = self._jobs / job_name(job, json.loads((job.checkpoints / TRIALS).read_bytes()))
        _clear(folder)
        write_job(folder, job)
        memory_bytes = self._memory(partial(pack_bytes, folder))
        most = most_bytes(self._engine, nodes())
        # Where no node has the processors it may be that some are lost for a while.
        if memory_bytes and 0 < most < memory_bytes:
            refused = TrialOutcome(Status.refused, _no_room(memory_bytes, most))
            write_outcome(folder, without_room(job, refused))
            return FollowedJob(folder, RayProcess(folder, None, 0))
        return self._followed(folder, train, memory_bytes)

    def submit_work(self, work: Work) -> FollowedJob:
        folder = self._jobs / secrets.token_hex(NAME_LETTERS // 2)
        folder.mkdir()
        (folder / JOB).touch()
        return self._followed(folder, work.body, self._memory(work.predicted))

    def _memory(self, predicted: Callable[[], int]) -> int | None:
        """Bytes that a task asks for; None where they cannot be predicted."""
        if self._engine.memory_gb is not None:
            return int(self._engine.memory_gb * GIGABYTE)
        with self._predicting:
            return predicted_bytes([predicted])[0]

    def _followed(
        self, folder: Path, body: Callable[[Path], None], memory_bytes: int | None
    ) -> FollowedJob:
        import ray

        asked: dict[str, Any] = {
            "num_cpus": self._engine.cpus,
            "num_gpus": self._engine.gpus,
            # Those that are lost are begun again here: Ray's own retries of what lacks memory have
            # no end.
            "max_retries": 0,
            "scheduling_strategy": "SPREAD",
            "name": TASK,
        }
        if memory_bytes is not None:
            asked["memory"] = memory_bytes
        task = ray.remote(**asked)(do_job)
        fresh = on_gpu(self._config)
        start = partial(task.remote, folder, body, fresh, _variables(os.environ))

        def can_start() -> bool:
            return any(node.holds(self._engine, memory_bytes or 0) for node in nodes())

        return FollowedJob(folder, RayProcess(folder, start, self._engine.retries, can_start))


def _variables(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(PASSED_ON) and "TOKEN" not in name
    }


def _no_room(memory_bytes: float, most: float) -> str:
    return (
        f"no node of Ray's cluster has the {memory_bytes / GIGABYTE:.1f} GB that it is predicted "
        f"to need ({most / GIGABYTE:.1f} GB at most)"
    )


def _clear(folder: Path) -> None:
    """Make room for a new task of the same pack. Locks stay: a former one may still end."""
    folder.mkdir(exist_ok=True)
    for name in (JOB, OUTCOME, STOP, EVENTS, OUTPUT, RUNNING):
        (folder / name).unlink(missing_ok=True)


def _tidy(jobs: Path) -> None:
    """Take away what sweeps that were killed left."""
    for folder in [path.parent for path in jobs.glob(f"*/{HEAD}")]:
        if (folder / AT_WORK).is_file() and is_locked(folder / AT_WORK):
            continue
        head = FileLock(folder / HEAD)
        try:
            with head.acquire(timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except (Timeout, OSError):
            # Somebody waits for it.
            continue
