"""Jobs to Slurm, by submitit: what is submitted at the same moment becomes one array for each
amount of memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from lorascope.config import EngineConfig
from lorascope.errors import ConfigError, LorascopeError
from lorascope.execution.job_memory import MEBIBYTE, Predicted, predicted_bytes
from lorascope.execution.slurm.node import NodeJob
from lorascope.planning.arithmetic import GIGABYTE

GATHER_SECONDS = 0.5
"""For what is submitted at the same moment. Slots begin together."""
COMMANDS = ("sbatch", "srun", "squeue", "scancel")
ENDLESS = 10**6
"""Times that submitit lets a job come back: `NodeJob` counts those that bring nothing."""
NAME = "lorascope"
NO_SUCH_NODE = ("Memory specification", "Requested node configuration is not available")
"""Of sbatch's answer, where no node has so much."""


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


@dataclass(frozen=True)
class Submission:
    """What becomes a job."""

    job: NodeJob
    predicted: Predicted
    """What it takes of memory, where engine.memory_gb does not say it."""


Waiting = tuple[Submission, "Future[str]"]


class TooLarge(LorascopeError):
    """No node has the memory that a job is predicted to need."""


class Submitter:
    """Hands work to Slurm; for several threads.

    Args:
        folder: for the files that submitit and Slurm write, which nodes see too.
    """

    def __init__(self, engine: EngineConfig, folder: Path) -> None:
        self._engine, self._folder = engine, folder
        self._lock, self._submitting = threading.Lock(), threading.Lock()
        self._waiting: list[Waiting] = []

    def submit(self, work: Submission) -> str:
        """Have it done; Slurm's id of it.

        Raises:
            TooLarge: no node has the memory that it is predicted to need.
            LorascopeError: Slurm does not take it for another reason.
        """
        own: Future[str] = Future()
        with self._lock:
            self._waiting.append((work, own))
            gathers = len(self._waiting) == 1
        if gathers:
            time.sleep(GATHER_SECONDS)
            with self._lock:
                gathered, self._waiting = self._waiting, []
            with self._submitting:
                self._submit_all(gathered)
        return own.result()

    def _submit_all(self, gathered: Sequence[Waiting]) -> None:
        try:
            arrays: dict[int | None, list[Waiting]] = {}
            needs = self._needs([work for work, _ in gathered])
            for one, memory_bytes in zip(gathered, needs, strict=True):
                arrays.setdefault(memory_bytes, []).append(one)
            for memory_bytes, array in arrays.items():
                ids = self._submit_array([work.job for work, _ in array], memory_bytes)
                for (_, own), job in zip(array, ids, strict=True):
                    own.set_result(job)
        except BaseException as error:
            for _, own in gathered:
                if not own.done():
                    own.set_exception(error)

    def _needs(self, works: Sequence[Submission]) -> Sequence[int | None]:
        """Bytes of memory to ask for; None leaves it to the cluster."""
        if self._engine.memory_gb is not None:
            return [int(self._engine.memory_gb * GIGABYTE)] * len(works)
        return predicted_bytes([work.predicted for work in works])

    def _submit_array(self, work: Sequence[NodeJob], memory_bytes: int | None) -> list[str]:
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
            jobs = executor.submit_array(list(work))
        except (FailedJobError, FailedSubmissionError) as error:
            told = f"Slurm does not take the job: {error}"
            if engine.memory_gb is None and any(words in told for words in NO_SUCH_NODE):
                raise TooLarge(f"{told} (memory: {asked['mem']})") from error
            raise LorascopeError(
                f"{told}. Settings of engine ask for it (memory: {asked['mem'] or 'the default'}); "
                "`sinfo -o '%P %l %c %m %G'` shows what there is."
            ) from error
        return [str(job.job_id) for job in jobs]


def _options(options: Sequence[str]) -> dict[str, str | bool]:
    """Options of sbatch as submitit takes them: one without a value is True."""
    split = (option.partition("=") for option in options)
    return {name: value if equals else True for name, equals, value in split}
