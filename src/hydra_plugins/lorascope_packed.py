"""The launcher `hydra/launcher=packed`: a multirun's jobs are handed over all at once; and the
sweeper `hydra/sweeper=judged`, which does not compose each of them once more before.

Hydra finds plugins in the package `hydra_plugins` alone. What is done with the jobs is the task
function's own: its attribute `run_jobs` takes each job's overrides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

# No dataclass: Hydra runs this file without making it a module first.
ConfigStore.instance().store(
    group="hydra/launcher",
    name="packed",
    node={"_target_": "hydra_plugins.lorascope_packed.PackedLauncher"},
    provider="lorascope",
)
ConfigStore.instance().store(
    group="hydra/sweeper",
    name="judged",
    node={
        "_target_": "hydra_plugins.lorascope_packed.JudgedSweeper",
        "max_batch_size": None,
        "params": None,
    },
    provider="lorascope",
)


class JudgedSweeper(BasicSweeper):
    """Hydra's own, for jobs that the command line has composed and judged already: composing each
    once more takes a tenth of a second, of 200 trials twenty."""

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """They are."""


class PackedLauncher(Launcher):
    """Calls the task once for all jobs, in this process."""

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep the task."""
        self._task: Any = task_function

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run all jobs; their return values come in the same order."""
        setup_globals()
        if not hasattr(self._task, "run_jobs"):
            raise TypeError("hydra/launcher=packed: this task takes no jobs at once. Use basic.")
        values = self._task.run_jobs(job_overrides)
        return [_returned(*pair) for pair in zip(job_overrides, values, strict=True)]


def _returned(overrides: Sequence[str], value: Any) -> JobReturn:
    done = JobReturn(overrides=overrides)
    done.return_value = value
    done.status = JobStatus.COMPLETED
    return done
