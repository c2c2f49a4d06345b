"""train-lora: one trial, in a child process of its own, kept by its content."""

from __future__ import annotations

import shutil
import signal
from dataclasses import replace
from pathlib import Path

from lorascope.config import Config, DeviceKind
from lorascope.isolation import Outcome, run_isolated
from lorascope.layout import RECORD, Layout
from lorascope.progress import StepProgress
from lorascope.provenance import capture
from lorascope.records import Provenance, Status, TrialRecord
from lorascope.stages.declared import DeclaredTrial, declare_trial
from lorascope.stages.trial_child import Done, Task, train_in_child
from lorascope.store import read_record, replaced_folder, write_record

LASTING = (Status.completed, Status.diverged)
"""Statuses that a second run would only repeat; the others are tried again."""


def run(config: Config, layout: Layout) -> TrialRecord:
    """Train the trial that `config` describes, unless it is there already."""
    trial = declare_trial(config, layout)
    folder = layout.trials(config.quant.name) / trial.name
    if (folder / RECORD).is_file():
        known = read_record(folder, TrialRecord)
        if known.status in LASTING:
            print(f"{known.trial}: {known.status} already")
            return known
    # Captured before the trial: it started with these versions, at this time.
    provenance = capture(layout, "unknown", 0)
    with replaced_folder(folder) as scratch:
        task = _task(config, layout, scratch, trial)
        record = _concluded(trial, _train(task, trial.name), task, provenance)
        if record.status is not Status.completed:
            # What there is of an adapter may be half-written.
            shutil.rmtree(task.adapter, ignore_errors=True)
        write_record(scratch, record)
    # The trial is safe before anyone talks to a tracking store.
    record = _tracked(record, config, layout)
    write_record(folder, record)
    if record.status is Status.completed and task.checkpoints:
        shutil.rmtree(task.checkpoints, ignore_errors=True)
    print(_sentence(record), flush=True)
    return record


def _train(task: Task, title: str) -> Outcome:
    runtime = task.config.runtime
    show = StepProgress(title)
    return run_isolated(
        train_in_child,
        task,
        on_report=lambda step: show(*step),
        preload="lorascope.training",
        fresh=runtime.device is DeviceKind.cuda or _may_use_cuda(runtime.device),
        timeout_seconds=runtime.trial_timeout_seconds,
    )


def _task(config: Config, layout: Layout, scratch: Path, trial: DeclaredTrial) -> Task:
    from_checkpoints = config.train.checkpoint_every_steps > 0
    checkpoints = layout.private / "checkpoints" / trial.identity if from_checkpoints else None
    return Task(
        base=layout.quantized(config.model.name, config.quant.name),
        base_name=config.model.repository or config.model.name,
        data=layout.data(config.model.name, config.data.name),
        adapter=scratch / "adapter",
        checkpoints=checkpoints,
        config=config,
    )


def _may_use_cuda(wanted: DeviceKind) -> bool:
    """Whether torch would find CUDA, without importing torch: its driver's device files say so."""
    return wanted is DeviceKind.auto and any(Path("/dev").glob("nvidia[0-9]*"))


def _concluded(
    trial: DeclaredTrial, outcome: Outcome, task: Task, provenance: Provenance
) -> TrialRecord:
    """The record of a trial that has ended. A bug or bad input is raised, not recorded."""
    if outcome.error is not None:
        raise outcome.error
    done = outcome.value if outcome.value is not None else _ended(outcome, task)
    return TrialRecord(
        trial=trial.name,
        identity=trial.identity,
        key=trial.key,
        settings=trial.settings,
        status=done.status,
        reason=done.reason,
        last_lines=[] if done.status is Status.completed else outcome.last_lines,
        result=done.result,
        tracking="off",
        provenance=replace(provenance, device=done.device, threads=done.threads),
        plan=done.plan,
    )


def _ended(outcome: Outcome, task: Task) -> Done:
    """How a child ended that could not say so itself."""
    if outcome.timed_out:
        limit = task.config.runtime.trial_timeout_seconds
        reason = f"no result within runtime.trial_timeout_seconds={limit:g}"
        return Done(Status.timeout, reason, None, "unknown", 0)
    assert outcome.exit_signal is not None
    name = signal.Signals(outcome.exit_signal).name
    hint = " (often the system ran out of memory)" if name == "SIGKILL" else ""
    return Done(Status.killed, f"ended by {name}{hint}", None, "unknown", 0)


def _tracked(record: TrialRecord, config: Config, layout: Layout) -> TrialRecord:
    """The record with what became of publishing it."""
    if not config.runtime.tracking:
        return record
    from lorascope.tracking import try_publish

    attempt = try_publish([replace(record, tracking="published")], [], layout)
    run = attempt.runs.get(record.identity)
    return replace(record, tracking=attempt.state, tracking_run=run)


def _sentence(record: TrialRecord) -> str:
    if record.result is None:
        return f"{record.trial}: {record.status}, {record.reason}"
    result = record.result
    return (
        f"{record.trial}: validation loss {result.validation_loss_nats:.4f} nats, "
        f"{result.trainable_parameters:,} trainable, {result.train_seconds:.1f} s"
    )
