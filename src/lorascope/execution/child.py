"""What runs inside a pack's child process: choose the device, train, and say how it ended."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lorascope.adapters.kinds import rank_of
from lorascope.errors import LorascopeError
from lorascope.execution.engine import (
    OUTPUT,
    Failure,
    Job,
    Outcome,
    TrialOutcome,
    read_job,
    without_room,
    write_outcome,
)
from lorascope.execution.events import EventWriter
from lorascope.execution.shards import train_divided
from lorascope.files.disk_faults import disk_fault, is_full_disk
from lorascope.files.store import read_record
from lorascope.machine.environment import (
    may_use_cuda,
    prepare_environment,
    use_determinism,
)
from lorascope.machine.memory import is_out_of_memory
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.records import DataCard, MemoryPlan, Status
from lorascope.training.progress import Progress, StepReport, Stopped, ValidationReport

if TYPE_CHECKING:
    # They import torch, which only the child needs.
    from lorascope.machine.devices import Device
    from lorascope.machine.ranks import Ranks
    from lorascope.meters.batches import BatchMemory
    from lorascope.planning.fits import Refusal
    from lorascope.planning.subject import PlanSubject
    from lorascope.records import TrainingResult
    from lorascope.training.log import Diverged
    from lorascope.training.trial_plan import PackPlan
    from lorascope.training.validation import Unsaved


def train_job(folder: Path) -> None:
    """The body of a process that trains the job in `folder`."""
    answer(folder, partial(train_followed, folder))


def train_followed(folder: Path, progress: Progress) -> Outcome:
    """Train the job in `folder`, here or in processes that divide its base; raises what
    `train_in_child` does."""
    job = read_job(folder)
    if job.config.runtime.shard == 1:
        return train_in_child(job, progress)
    prepare_environment(job.config.runtime)
    if not may_use_cuda(job.config.runtime.device):
        # Imported once, before processes are forked. Where there may be GPUs each imports it by
        # itself: bitsandbytes begins CUDA, which a fork could then not use.
        import lorascope.execution.local.preloaded  # noqa: F401

    outcome = train_divided(folder, job, progress, train_in_child, answer)
    if outcome.saved_at is not None:
        raise Stopped(*outcome.saved_at)
    return outcome


def answer(folder: Path, work: Callable[[Progress], Outcome]) -> None:
    """Do `work` and write how it ended into `folder`; what it prints goes there too."""
    # Whatever started this process may have written to it.
    output = os.open(folder / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        outcome = work(EventWriter(folder))
    except Stopped as stopped:
        outcome = Outcome(saved_at=(stopped.step, stopped.steps))
    except Exception as error:
        traceback.print_exc()
        outcome = Outcome(failure=_failure(error))
    write_outcome(folder, outcome)


def _failure(error: Exception) -> Failure:
    if is_full_disk(error):
        return Failure(str(error), is_full_disk=True, place=getattr(error, "filename", None))
    if isinstance(error, (LorascopeError, OSError)):
        return Failure(disk_fault(error) or str(error) or type(error).__name__, is_input=True)
    return Failure(f"{type(error).__name__}: {error}")


def train_in_child(job: Job, progress: Progress, ranks: Ranks | None = None) -> Outcome:
    """Train the pack; running out of memory, divergence and having no room, in memory or for one
    adapter on the disk, are results, everything else is raised.

    Args:
        ranks: the processes that divide its base, of which this is one; None where it is alone.

    Raises:
        ConfigError: the adapters cannot be trained on this mode here.
        Stopped: `progress` asked for it, and the pack is saved.
    """
    config = job.config
    prepare_environment(config.runtime)
    # There already where children are forked; elsewhere before all that it brings.
    import lorascope.execution.local.preloaded  # noqa: F401, I001

    from lorascope.meters.batches import BatchMemory
    from lorascope.machine.devices import choose_device, use_threads
    from lorascope.machine.memory import keep_freed_memory
    from lorascope.machine.ranks import ALONE
    from lorascope.training.packed_linear import Unpackable
    from lorascope.training.run import train_pack

    device = choose_device(config.runtime.device, config.runtime.place)
    use_determinism(config.runtime.deterministic)
    ranks = ranks or ALONE
    threads = use_threads(job.slot.threads, ranks.count)
    keep_freed_memory()
    ended = partial(
        TrialOutcome, device=device.name, threads=threads, shards=ranks.count, placed=device.count
    )

    def no_room(status: Status, reason: str, plan: MemoryPlan | None = None) -> Outcome:
        return without_room(job, ended(status, reason, plan=plan))

    QUANTIZERS[config.quant.storage].require_trainable(config.adapter, device.kind)
    refused = _refusal(job, device)
    if refused is not None:
        return no_room(Status.refused, refused.reason, refused.plan)
    memory = BatchMemory(device, divided=ranks.count > 1)
    told = progress if config.runtime.is_live else _without_points(progress)
    try:
        outcomes = train_pack(_pack_plan(job), device, told, memory, ranks)
    except Unpackable:
        return Outcome(split="singles")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return no_room(Status.out_of_memory, (str(error).splitlines() or [type(error).__name__])[0])
    predicted = _predicted(job, device, memory, ranks)
    return Outcome(_ended_trials(outcomes, predicted, ended))


def _ended_trials(
    outcomes: Sequence[TrainingResult | Diverged | Unsaved],
    predicted: tuple[list[MemoryPlan | None], MemoryPlan | None],
    ended: Callable[..., TrialOutcome],
) -> list[TrialOutcome]:
    """`predicted` is what `_predicted` says, `ended` makes an outcome of a trial that was
    trained."""
    from lorascope.training.log import Diverged
    from lorascope.training.validation import Unsaved

    plans, pack_plan = predicted
    return [
        ended(Status.diverged, str(outcome))
        if isinstance(outcome, Diverged)
        else TrialOutcome(Status.failed, str(outcome), kept=False)
        if isinstance(outcome, Unsaved)
        else ended(Status.completed, None, outcome, plan=plan, pack_plan=pack_plan)
        for outcome, plan in zip(outcomes, plans, strict=True)
    ]


def _without_points(progress: Progress) -> Progress:
    """The same where nobody hears of each point: the result has them all."""

    def report(event: StepReport | ValidationReport) -> bool:
        if isinstance(event, StepReport):
            event = replace(event, points=[], validations=[])
        return progress(event)

    return report


def _pack_plan(job: Job) -> PackPlan:
    from lorascope.training.trial_plan import PackPlan, TrialPlan

    config = job.config
    return PackPlan(
        base=job.base,
        base_name=job.base_name,
        data=job.data,
        checkpoints=job.checkpoints,
        quant=config.quant,
        attention=config.model.attention,
        evaluate_batch_size=config.evaluate.batch_size,
        train_on_prompt=config.data.train_on_prompt,
        full_base=job.full_base,
        trials=[
            TrialPlan.of(own, adapter)
            for own, adapter in zip(job.configs, job.adapters, strict=True)
        ],
    )


def _refusal(job: Job, device: Device) -> Refusal | None:
    """Why the pack cannot fit; None where it can, and where that cannot be known beforehand."""
    from lorascope.machine.memory import MemoryLimit
    from lorascope.planning.fits import (
        failed_prediction_passed_over,
        limit_of_one,
        memory_limit,
        refusal,
    )

    with failed_prediction_passed_over("this pack"):
        if job.slot.memory_bytes is None:
            limit = memory_limit(device, job.config.runtime.memory_limit_gb)
        else:
            limit = MemoryLimit(job.slot.memory_bytes, "its share beside other packs")
        limit = limit_of_one(limit, job.config.runtime.shard, device.kind)
        return refusal(job_subject(job, device.kind), limit)
    return None


def _predicted(
    job: Job, device: Device, memory: BatchMemory, ranks: Ranks
) -> tuple[list[MemoryPlan | None], MemoryPlan | None]:
    """What the batches that were trained should have needed: each trial alone, and all at once
    where there are several. None where that is not known, or left to the first of several
    processes."""
    from lorascope.planning.fits import failed_prediction_passed_over
    from lorascope.planning.plan import plan_pack, predict_ranks

    unknown: list[MemoryPlan | None] = [None] * len(job.configs)
    if memory.largest is None or ranks.rank > 0:
        return unknown, None
    with failed_prediction_passed_over("this pack"):
        subject = job_subject(job, device.kind)
        evaluation = tuple(memory.evaluation) or subject.evaluation
        subject = replace(subject, train=memory.largest, evaluation=evaluation)
        of_trials = [rank_of(config.adapter) for config in job.configs]
        alone = predict_ranks(subject, sorted(set(of_trials)))
        together = plan_pack(subject, alone) if len(of_trials) > 1 else None
        return [alone[rank].plan for rank in of_trials], together
    return unknown, None


def job_subject(job: Job, kind: str) -> PlanSubject:
    """What a memory plan takes of the pack on a device of this kind, cpu or cuda."""
    from lorascope.planning.subject import sample_lengths, subject_of

    lengths = sample_lengths(read_record(job.data, DataCard))
    values = json.loads((job.base / "config.json").read_bytes())
    subject = subject_of(job.config, values, kind, lengths)
    beside = tuple(config.adapter for config in job.configs[1:])
    return replace(subject, spec=replace(subject.spec, beside=beside))
