"""What runs inside a trial's child process: choose the device, train, and say how it ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorascope.config import Config, Storage
from lorascope.errors import ConfigError
from lorascope.records import DataCard, MemoryPlan, Status, TrainingResult
from lorascope.store import read_record

if TYPE_CHECKING:
    # They import torch, which only the child needs.
    from lorascope.batch_memory import BatchMemory
    from lorascope.devices import Device
    from lorascope.memory_refusal import Refusal
    from lorascope.training import TrainingPlan


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
    plan: MemoryPlan | None = None


def train_in_child(task: Task, report: Callable[[Any], None]) -> Done:
    """Train `task`; running out of memory, divergence and having no room are results, everything
    else is raised.

    Raises:
        ConfigError: the adapter cannot be trained on this mode here.
    """
    import torch

    from lorascope.batch_memory import BatchMemory
    from lorascope.devices import choose_device, use_threads
    from lorascope.training import train_trial
    from lorascope.training_steps import Diverged

    config = task.config
    device = choose_device(config.runtime.device)
    threads = use_threads(config.runtime.threads)
    _refuse_untrainable(config, device)
    refused = _refusal(task, device)
    if refused is not None:
        return Done(Status.refused, refused.reason, None, device.name, threads, refused.plan)
    memory = BatchMemory(device)
    try:
        result = train_trial(_training_plan(task), device, lambda *step: report(step), memory)
    except Diverged as error:
        return Done(Status.diverged, str(error), None, device.name, threads)
    except (MemoryError, torch.OutOfMemoryError) as error:
        return Done(Status.out_of_memory, _first_line(error), None, device.name, threads)
    except RuntimeError as error:
        # torch's allocator on a CPU has no exception type of its own.
        if "can't allocate memory" not in str(error):
            raise
        return Done(Status.out_of_memory, _first_line(error), None, device.name, threads)
    plan = _predicted(task, device, memory)
    return Done(Status.completed, None, result, device.name, threads, plan)


def _refuse_untrainable(config: Config, device: Device) -> None:
    """DoRA takes an INT8 weight apart for its norm; on a CPU bitsandbytes (0.50.2) then finds the
    weight's scales gone in the first backward pass."""
    if config.lora.dora and config.quant.storage is Storage.int8 and device.kind == "cpu":
        raise ConfigError(
            "lora.dora", "true", "DoRA cannot be trained on an INT8 base on a CPU",
            "Set lora.dora=false, take another mode (quant=nf4, fp16), or train on CUDA.",
        )  # fmt: skip


def _training_plan(task: Task) -> TrainingPlan:
    from lorascope.training import TrainingPlan

    config = task.config
    return TrainingPlan(
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


def _refusal(task: Task, device: Device) -> Refusal | None:
    """Why the trial cannot fit; None where it can, and where that cannot be known beforehand."""
    from lorascope.memory_limit import memory_limit
    from lorascope.memory_refusal import refusal
    from lorascope.plan_subject import subject_of

    with _unpredicted_told():
        limit = memory_limit(device, task.config.runtime.memory_limit_gb)
        tokens = longest_sample(task.data)
        subject = subject_of(task.config, _model_config(task.base), device.kind, tokens)
        return refusal(subject, limit)
    return None


def _predicted(task: Task, device: Device, memory: BatchMemory) -> MemoryPlan | None:
    """What the batches that were trained should have needed; None where that is not known."""
    from lorascope.memory_plan import plan_memory
    from lorascope.plan_subject import subject_of

    if memory.largest is None:
        return None
    with _unpredicted_told():
        tokens = longest_sample(task.data)
        subject = subject_of(task.config, _model_config(task.base), device.kind, tokens)
        trained = replace(subject, train=memory.largest, evaluation=tuple(memory.evaluation))
        return plan_memory(trained)
    return None


@contextmanager
def _unpredicted_told() -> Iterator[None]:
    """A prediction decides nothing about a trial that can be trained, or was: whatever fails in it
    is told and passed over."""
    try:
        yield
    except Exception as error:
        reason = str(error) or type(error).__name__
        print(f"the memory of this trial is not predicted: {reason}", flush=True)


def longest_sample(data: Path) -> int:
    """Tokens of the longest sample that is trained or validated."""
    splits = read_record(data, DataCard).splits
    return max(splits[name].length_percentiles_tokens["p100"] for name in ("train", "validation"))


def _model_config(base: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return values


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
