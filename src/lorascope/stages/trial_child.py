"""What runs inside a trial's child process: choose the device, train, and say how it ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorascope.config import Config
from lorascope.records import Status, TrainingResult


@dataclass(frozen=True)
class Task:
    """A trial, as values that travel between processes."""

    base: Path
    base_name: str
    data: Path
    adapter: Path
    checkpoints: Path | None
    config: Config


@dataclass(frozen=True)
class Done:
    """How a trial ended that ended by itself."""

    status: Status
    reason: str | None
    result: TrainingResult | None
    device: str
    threads: int


def train_in_child(task: Task, report: Callable[[Any], None]) -> Done:
    """Train `task`; running out of memory and divergence are results, everything else is raised."""
    import torch

    from lorascope.devices import choose_device, use_threads
    from lorascope.training import TrainingPlan, train_trial
    from lorascope.training_steps import Diverged

    config = task.config
    device = choose_device(config.runtime.device)
    threads = use_threads(config.runtime.threads)
    plan = TrainingPlan(
        base=task.base,
        base_name=task.base_name,
        data=task.data,
        adapter=task.adapter,
        checkpoints=task.checkpoints,
        quant=config.quant,
        lora=config.lora,
        train=config.train,
        seed=config.seed,
        attention=config.model.attention,
        evaluate_batch_size=config.evaluate.batch_size,
        train_on_prompt=config.data.train_on_prompt,
    )
    try:
        result = train_trial(plan, device, lambda *step: report(step))
    except Diverged as error:
        return Done(Status.diverged, str(error), None, device.name, threads)
    except (MemoryError, torch.OutOfMemoryError) as error:
        return Done(Status.out_of_memory, _first_line(error), None, device.name, threads)
    except RuntimeError as error:
        # torch's allocator on a CPU has no exception type of its own.
        if "can't allocate memory" not in str(error):
            raise
        return Done(Status.out_of_memory, _first_line(error), None, device.name, threads)
    return Done(Status.completed, None, result, device.name, threads)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
