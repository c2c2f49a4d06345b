"""Jobs to Slurm, by submitit: what is submitted at the same moment becomes one array for each
amount of memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from lorascope.config import EngineConfig
from lorascope.errors import ConfigError, LorascopeError
from lorascope.execution.slurm.memory import MEBIBYTE, predicted_bytes
from lorascope.execution.slurm.node import PackJob
from lorascope.planning.arithmetic import GIGABYTE

GATHER_SECONDS = 0.5
"""For what is submitted at the same moment. Slots begin together."""
COMMANDS = ("sbatch", "srun", "squeue", "scancel")
ENDLESS = 10**6
"""Times that submitit lets a job come back: `PackJob` counts those that bring nothing."""
NAME = "lorascope"


def require_slurm() -> None:
    """Raise ConfigError where a package or a command that submits jobs is missing here."""
    if find_spec("submitit") is None:
        raise ConfigError(
            "engine", "slurm", "submitit, which submits its jobs, is not installed",
            "Run `pip install 'lorascope[slurm]'`, or leave engine=slurm out.",
        )  # fmt: skip
    if missing := [name for name in COMMANDS if which(name) is None]:
        raise ConfigError(
            "engine", "slurm", f"there is no {', '.join(missing)} here",
            "Start this on a computer that submits jobs, such as the cluster's login node, with "
            "Slurm's commands on the PATH; or leave engine=slurm out.",
        )  # fmt: skip


class Submitter:
    """Hands jobs to Slurm; for several threads.

    Args:
        folder: for the files that submitit and Slurm write, which nodes see too.
    """

    def __init__(self, engine: EngineConfig, folder: Path) -> None:
        self._engine, self._folder = engine, folder
        self._lock, self._submitting = threading.Lock(), threading.Lock()
        self._waiting: list[tuple[Path, Future[str]]] = []

    def submit(self, folder: Path) -> str:
        """Have the job in `folder` done; Slurm's id of it.

        Raises:
            LorascopeError: Slurm does not take it.
        """
        own: Future[str] = Future()
        with self._lock:
            self._waiting.append((folder, own))
            gathers = len(self._waiting) == 1
        if gathers:
            time.sleep(GATHER_SECONDS)
            with self._lock:
                gathered, self._waiting = self._waiting, []
            with self._submitting:
                self._submit_all(gathered)
        return own.result()

    def _submit_all(self, gathered: Sequence[tuple[Path, Future[str]]]) -> None:
        try:
            arrays: dict[int | None, list[tuple[Path, Future[str]]]] = {}
            needs = self._needs([folder for folder, _ in gathered])
            for one, memory_bytes in zip(gathered, needs, strict=True):
                arrays.setdefault(memory_bytes, []).append(one)
            for memory_bytes, array in arrays.items():
                ids = self._submit_array([folder for folder, _ in array], memory_bytes)
                for (_, own), job in zip(array, ids, strict=True):
                    own.set_result(job)
        except BaseException as error:
            for _, own in gathered:
                if not own.done():
                    own.set_exception(error)

    def _needs(self, folders: Sequence[Path]) -> Sequence[int | None]:
        """Bytes of memory to ask for; None leaves it to the cluster."""
        if self._engine.memory_gb is not None:
            return [int(self._engine.memory_gb * GIGABYTE)] * len(folders)
        return predicted_bytes(folders)

    def _submit_array(self, folders: Sequence[Path], memory_bytes: int | None) -> list[str]:
        from submitit.core.utils import FailedJobError, FailedSubmissionError
        from submitit.slurm.slurm import SlurmExecutor

        engine = self._engine
        executor = SlurmExecutor(self._folder, max_num_timeout=ENDLESS)
        asked = {
            "mem": memory_bytes and f"{-(-memory_bytes // MEBIBYTE)}M",
            "gpus_per_node": engine.gpus or None,
            "partition": engine.partition,
        }
        executor.update_parameters(
            job_name=NAME,
            time=engine.minutes,
            cpus_per_task=engine.cpus,
            # Since 22.05 srun does not take that over.
            srun_args=[f"--cpus-per-task={engine.cpus}"],
            stderr_to_stdout=True,
            additional_parameters={"requeue": True, **_options(engine.options)},
            **{name: value for name, value in asked.items() if value is not None},
        )
        try:
            jobs = executor.submit_array([PackJob(folder, engine.minutes) for folder in folders])
        except (FailedJobError, FailedSubmissionError) as error:
            raise LorascopeError(
                f"Slurm does not take the job: {error}. It was asked for by engine.* (memory: "
                f"{asked['mem'] or 'the default'}); `sinfo -o '%P %l %c %m %G'` shows what there "
                "is."
            ) from error
        return [str(job.job_id) for job in jobs]


def _options(options: Sequence[str]) -> dict[str, str | bool]:
    """Options of sbatch as submitit takes them: one without a value is True."""
    split = (option.partition("=") for option in options)
    return {name: value if equals else True for name, equals, value in split}
