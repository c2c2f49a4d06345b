"""train-lora: one trial, in a child process of its own, kept by its content."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

from lorascope.config import Config, DeviceKind
from lorascope.isolation import Outcome, run_isolated
from lorascope.layout import RECORD, Layout
from lorascope.progress import StepProgress
from lorascope.records import Status, TrialRecord
from lorascope.stages.declared import describe_trial
from lorascope.stages.trial_child import Done, Task, train_in_child
from lorascope.store import read_record, replaced_folder, write_record

LASTING = (Status.completed, Status.diverged)
"""Statuses that a second run would only repeat; the others are tried again."""


def run(config: Config, layout: Layout) -> TrialRecord:
    """Train the trial that `config` describes, unless it is there already."""
    record = describe_trial(config, layout)
    folder = layout.trials(config.quant.name) / record.trial
    if (folder / RECORD).is_file():
        known = read_record(folder, TrialRecord)
        if known.status in LASTING:
            print(f"{known.trial}: {known.status} already")
            return known
    show = StepProgress(record.trial)
    with replaced_folder(folder) as scratch:
        outcome = run_isolated(
            train_in_child,
            _task(config, layout, scratch, record),
            on_report=lambda step: show(*step),
            preload="lorascope.training",
            fresh=config.runtime.device is DeviceKind.cuda or _may_use_cuda(config),
            timeout_seconds=config.runtime.trial_timeout_seconds,
        )
        record = _concluded(record, outcome, config)
        record = replace(record, tracking=_track(record, config, layout))
        write_record(scratch, record)
    print(_sentence(record), flush=True)
    return record


def _task(config: Config, layout: Layout, scratch: Path, record: TrialRecord) -> Task:
    from_checkpoints = config.train.checkpoint_every_steps > 0
    checkpoints = layout.private / "checkpoints" / record.identity if from_checkpoints else None
    return Task(
        base=layout.quantized(config.model.name, config.quant.name),
        base_name=config.model.repository or config.model.name,
        data=layout.data(config.model.name, config.data.name),
        adapter=scratch / "adapter",
        checkpoints=checkpoints,
        config=config,
    )


def _may_use_cuda(config: Config) -> bool:
    """Whether torch would find CUDA, without importing torch: its driver's device files say so."""
    return config.runtime.device is DeviceKind.auto and any(Path("/dev").glob("nvidia[0-9]*"))


def _concluded(record: TrialRecord, outcome: Outcome, config: Config) -> TrialRecord:
    """The record of a trial that has ended. A bug or bad input is raised, not recorded."""
    if outcome.timed_out:
        limit = config.runtime.trial_timeout_seconds
        reason = f"no result within runtime.trial_timeout_seconds={limit:g}"
        return replace(record, status=Status.timeout, reason=reason, last_lines=outcome.last_lines)
    if outcome.exit_signal is not None:
        name = signal.Signals(outcome.exit_signal).name
        hint = " (often the system ran out of memory)" if name == "SIGKILL" else ""
        reason = f"ended by {name}{hint}"
        return replace(record, status=Status.killed, reason=reason, last_lines=outcome.last_lines)
    if outcome.error is not None:
        raise outcome.error
    done: Done = outcome.value
    provenance = replace(record.provenance, device=done.device, threads=done.threads)
    return replace(
        record,
        status=done.status,
        reason=done.reason,
        result=done.result,
        last_lines=[] if done.status is Status.completed else outcome.last_lines,
        provenance=provenance,
    )


def _track(record: TrialRecord, config: Config, layout: Layout) -> str:
    if not config.runtime.tracking:
        return "off"
    from lorascope.tracking import try_publish

    return try_publish([replace(record, tracking="published")], [], layout)


def _sentence(record: TrialRecord) -> str:
    if record.result is None:
        return f"{record.trial}: {record.status}, {record.reason}"
    result = record.result
    return (
        f"{record.trial}: validation loss {result.validation_loss_nats:.4f} nats, "
        f"{result.trainable_parameters:,} trainable, {result.train_seconds:.1f} s"
    )
