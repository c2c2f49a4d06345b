"""What runs inside a pack's child process: choose the device, train, and say how it ended."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorascope.config import Config
from lorascope.files.store import read_record
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.records import DataCard, MemoryPlan, Status, TrainingResult

if TYPE_CHECKING:
    # They import torch, which only the child needs.
    from lorascope.machine.devices import Device
    from lorascope.meters.batches import BatchMemory
    from lorascope.planning.fits import Refusal
    from lorascope.planning.subject import PlanSubject
    from lorascope.training.trial_plan import PackPlan


@dataclass(frozen=True)
class Task:
    """A pack, as values that travel between processes."""

    base: Path
    base_name: str
    data: Path
    checkpoints: Path
    configs: Sequence[Config]
    """Of its trials, which share all that `stages.packs` says."""
    adapters: Sequence[Path]
    """Folders to write the trials' adapters to."""
    threads: int
    """Of the CPU; 0 leaves torch's choice."""
    memory_bytes: int | None
    """At most, where others are trained at the same time; None takes what there is."""

    @property
    def config(self) -> Config:
        """What is the same for all trials is the first one's."""
        return self.configs[0]


@dataclass(frozen=True)
class Done:
    """How a trial ended that ended by itself."""

    status: Status
    reason: str | None
    result: TrainingResult | None = None
    device: str = "unknown"
    threads: int = 0
    plan: MemoryPlan | None = None
    pack_plan: MemoryPlan | None = None
    kept: bool = True
    """False where the disk had no room for the adapter: there is nothing to record."""


@dataclass(frozen=True)
class Split:
    """A pack that cannot be trained as it is; smaller ones may."""

    reason: str
    into_singles: bool = False
    """Whether no two trials can be trained at once."""
    for_memory: bool = False


def train_in_child(task: Task, report: Callable[[Any], bool]) -> list[Done] | Split:
    """Train the pack; running out of memory, divergence and having no room, in memory or for one
    adapter on the disk, are results, everything else is raised.

    Raises:
        ConfigError: the adapters cannot be trained on this mode here.
        Stopped: `report` asked for it, and the pack is saved.
    """
    # There already where children are forked; elsewhere before all that it brings.
    import lorascope.execution.local.preloaded  # noqa: F401, I001
    import torch

    from lorascope.training.validation import Unsaved
    from lorascope.meters.batches import BatchMemory
    from lorascope.machine.devices import choose_device, use_threads
    from lorascope.machine.ram import keep_freed_memory
    from lorascope.training.linear import Unpackable
    from lorascope.training.run import train_pack
    from lorascope.training.log import Diverged

    config = task.config
    device = choose_device(config.runtime.device)
    threads = use_threads(task.threads)
    keep_freed_memory()
    alone = len(task.configs) == 1

    def ended(status: Status, reason: str, plan: MemoryPlan | None = None) -> list[Done] | Split:
        done = Done(status, reason, None, device.name, threads, plan)
        return [done] if alone else Split(reason, for_memory=True)

    QUANTIZERS[config.quant.storage].require_trainable(config.lora, device.kind)
    refused = _refusal(task, device)
    if refused is not None:
        return ended(Status.refused, refused.reason, refused.plan)
    memory = BatchMemory(device)
    try:
        outcomes = train_pack(_pack_plan(task), device, report, memory)
    except Unpackable as error:
        return Split(str(error), into_singles=True)
    except (MemoryError, torch.OutOfMemoryError) as error:
        return ended(Status.out_of_memory, _first_line(error))
    except RuntimeError as error:
        # torch's allocator on a CPU has no exception type of its own.
        if "can't allocate memory" not in str(error):
            raise
        return ended(Status.out_of_memory, _first_line(error))
    plans, pack_plan = _predicted(task, device, memory)
    return [
        Done(Status.diverged, str(outcome), None, device.name, threads)
        if isinstance(outcome, Diverged)
        else Done(Status.failed, str(outcome), kept=False)
        if isinstance(outcome, Unsaved)
        else Done(Status.completed, None, outcome, device.name, threads, plan, pack_plan)
        for outcome, plan in zip(outcomes, plans, strict=True)
    ]


def _pack_plan(task: Task) -> PackPlan:
    from lorascope.training.trial_plan import PackPlan, TrialPlan

    config = task.config
    return PackPlan(
        base=task.base,
        base_name=task.base_name,
        data=task.data,
        checkpoints=task.checkpoints,
        quant=config.quant,
        attention=config.model.attention,
        evaluate_batch_size=config.evaluate.batch_size,
        train_on_prompt=config.data.train_on_prompt,
        trials=[
            TrialPlan(own.lora, own.train, own.seed, adapter)
            for own, adapter in zip(task.configs, task.adapters, strict=True)
        ],
    )


def _refusal(task: Task, device: Device) -> Refusal | None:
    """Why the pack cannot fit; None where it can, and where that cannot be known beforehand."""
    from lorascope.planning.fits import refusal
    from lorascope.planning.limit import MemoryLimit, memory_limit

    with _unpredicted_told():
        if task.memory_bytes is None:
            limit = memory_limit(device, task.config.runtime.memory_limit_gb)
        else:
            limit = MemoryLimit(task.memory_bytes, "its share beside other packs")
        return refusal(_subject(task, device), limit)
    return None


def _predicted(
    task: Task, device: Device, memory: BatchMemory
) -> tuple[list[MemoryPlan | None], MemoryPlan | None]:
    """What the batches that were trained should have needed: each trial alone, and all at once
    where there are several. None where that is not known."""
    from lorascope.planning.plan import plan_pack, predict_ranks

    unknown: list[MemoryPlan | None] = [None] * len(task.configs)
    if memory.largest is None:
        return unknown, None
    with _unpredicted_told():
        subject = _subject(task, device)
        evaluation = tuple(memory.evaluation) or subject.evaluation
        subject = replace(subject, train=memory.largest, evaluation=evaluation)
        ranks = [config.lora.rank for config in task.configs]
        alone = predict_ranks(subject, sorted(set(ranks)))
        together = plan_pack(subject, alone) if len(ranks) > 1 else None
        return [alone[rank].plan for rank in ranks], together
    return unknown, None


def _subject(task: Task, device: Device) -> PlanSubject:
    from lorascope.planning.subject import sample_lengths, subject_of

    lengths = sample_lengths(read_record(task.data, DataCard))
    subject = subject_of(task.config, _model_config(task.base), device.kind, lengths)
    beside = tuple(config.lora for config in task.configs[1:])
    return replace(subject, spec=replace(subject.spec, beside=beside))


@contextmanager
def _unpredicted_told() -> Iterator[None]:
    """A prediction decides nothing about a trial that can be trained, or was: whatever fails in it
    is told and passed over."""
    try:
        yield
    except Exception as error:
        reason = str(error) or type(error).__name__
        print(f"the memory of this pack is not predicted: {reason}", flush=True)


def _model_config(base: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return values


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
