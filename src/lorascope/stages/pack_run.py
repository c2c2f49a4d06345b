"""A pack in a child process of its own, its results put in place all at once."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from lorascope.checkpoint_files import checkpoints as checkpoints_in
from lorascope.checkpoint_files import is_whole
from lorascope.config import Config, DeviceKind
from lorascope.disk_faults import disk_fault, is_full_disk
from lorascope.errors import LorascopeError
from lorascope.identity import canonical_sha256
from lorascope.isolation import Outcome, run_isolated
from lorascope.layout import Layout
from lorascope.pack_progress import StepReport, Stopped, ValidationReport
from lorascope.provenance import capture
from lorascope.records import LASTING, Provenance, Status, TrialRecord
from lorascope.stages.declared import DeclaredTrial
from lorascope.stages.pack_child import Done, Split, Task, train_in_child
from lorascope.stages.sweep_progress import SweepProgress
from lorascope.stop_request import StopRequest
from lorascope.store import replaced_folders, write_record

Pack = Sequence[tuple[Config, DeclaredTrial]]


class _Unkept(Exception):
    """A pack without results to keep: it is tried in parts of `size` trials, or its error told."""

    def __init__(self, size: int = 0, error: Exception | None = None) -> None:
        super().__init__()
        self.size = size
        self.error = error


def train_and_keep(
    pack: Pack, layout: Layout, parent: Path, show: SweepProgress, stop: StopRequest
) -> tuple[list[TrialRecord], list[Exception]]:
    """Train `pack` and write each trial's folder in `parent`; what was written, and errors.

    Where a pack cannot be trained, or fails, its halves are tried: one trial's failure is that
    trial's alone.
    """
    stop.end_if_asked()
    try:
        records = _train_pack(pack, layout, parent, show, stop)
    except _Unkept as unkept:
        show.end_pack([], lost=0 if unkept.size else len(pack))
        if unkept.size == 0:
            return [], [unkept.error] if unkept.error else []
        parts = [pack[start : start + unkept.size] for start in range(0, len(pack), unkept.size)]
        ended = [train_and_keep(part, layout, parent, show, stop) for part in parts]
        return [r for records, _ in ended for r in records], [
            e for _, errors in ended for e in errors
        ]
    except Stopped as stopped:
        show.clear()
        print(f"{_title(pack)}: {stopped}; the same command goes on from there", file=sys.stderr)
        stop.end_if_asked()
        raise
    finally:
        stop.worth_saving = False
    show.end_pack(records)
    return records, _failures(records)


def _train_pack(
    pack: Pack, layout: Layout, parent: Path, show: SweepProgress, stop: StopRequest
) -> list[TrialRecord]:
    """Train `pack` at once and put its trials' folders into `parent`.

    Raises:
        _Unkept: there is nothing to keep.
        Stopped: somebody asked for it; the pack is saved.
    """
    # Captured before the trials: they started with these versions, at this time.
    provenance = capture(layout, "unknown", 0)
    checkpoints = _checkpoints(pack, layout)
    _tell_damaged(checkpoints)
    targets = [parent / declared.name for _, declared in pack]
    try:
        with replaced_folders(targets) as folders:
            task = _task(pack, layout, folders, checkpoints)
            records = _concluded(pack, _train(task, show, stop), provenance)
            for folder, record in zip(folders, records, strict=True):
                if record.status is not Status.completed:
                    # What there is of an adapter may be half-written.
                    shutil.rmtree(folder / "adapter", ignore_errors=True)
                write_record(folder, record)
        if all(record.status in LASTING for record in records):
            shutil.rmtree(checkpoints, ignore_errors=True)
        return records
    finally:
        # Empty, unless something is to be resumed, by this pack or a former, larger one.
        for folder in (checkpoints, checkpoints.parent):
            with suppress(OSError):
                folder.rmdir()


def _failures(records: Sequence[TrialRecord]) -> list[Exception]:
    """A trial that failed has its record; the sweep must say so too."""
    return [
        LorascopeError(f"{record.trial} failed: {record.reason}. Its record has the last lines.")
        for record in records
        if record.status is Status.failed
    ]


def _title(pack: Pack) -> str:
    first = pack[0][1].name
    return first if len(pack) == 1 else f"{first} and {len(pack) - 1} more"


def _checkpoints(pack: Pack, layout: Layout) -> Path:
    """Called by the first trial, and by all of them: another pack must not resume from here."""
    together = canonical_sha256([declared.identity for _, declared in pack])
    return layout.checkpoints / pack[0][1].identity / together


def _tell_damaged(checkpoints: Path) -> None:
    """Here and not in the child, whose output nobody sees."""
    for one in checkpoints_in(checkpoints):
        if not is_whole(one):
            print(
                f"warning: {one} is damaged and passed over: training goes on from the checkpoint "
                "before it, or from the start.",
                file=sys.stderr,
            )


def _task(pack: Pack, layout: Layout, folders: Sequence[Path], checkpoints: Path) -> Task:
    config = pack[0][0]
    return Task(
        base=layout.quantized(config.model.name, config.quant.name),
        base_name=config.model.repository or config.model.name,
        data=layout.data(config.model.name, config.data.name),
        checkpoints=checkpoints,
        configs=[own for own, _ in pack],
        adapters=[folder / "adapter" for folder in folders],
    )


def _train(task: Task, show: SweepProgress, stop: StopRequest) -> Outcome:
    runtime = task.config.runtime
    limit = runtime.trial_timeout_seconds

    def on_report(phase: StepReport | ValidationReport) -> None:
        stop.worth_saving = True
        show.report(phase)

    show.start_pack(len(task.configs))
    return run_isolated(
        train_in_child,
        task,
        on_report=on_report,
        preload="lorascope.training",
        fresh=runtime.device is DeviceKind.cuda or _may_use_cuda(runtime.device),
        timeout_seconds=None if limit is None else limit * len(task.configs),
        stop=stop.connection,
    )


def _may_use_cuda(wanted: DeviceKind) -> bool:
    """Whether torch would find CUDA, without importing torch: its driver's device files say so."""
    return wanted is DeviceKind.auto and any(Path("/dev").glob("nvidia[0-9]*"))


def _concluded(pack: Pack, outcome: Outcome, provenance: Provenance) -> list[TrialRecord]:
    """The records of a pack that has ended.

    Raises:
        _Unkept: there is nothing to record.
        Stopped: the pack is saved.
    """
    ended = _ended(pack, outcome)
    return [
        TrialRecord(
            trial=declared.name,
            identity=declared.identity,
            key=declared.key,
            settings=declared.settings,
            status=done.status,
            reason=done.reason,
            last_lines=[] if done.status is Status.completed else outcome.last_lines,
            result=done.result,
            tracking="off",
            provenance=replace(provenance, device=done.device, threads=done.threads),
            plan=done.plan,
            pack_plan=done.pack_plan,
        )
        for (_, declared), done in zip(pack, ended, strict=True)
    ]


def _ended(pack: Pack, outcome: Outcome) -> list[Done]:
    """How each trial ended; bad input is no trial's result."""
    if isinstance(outcome.error, Stopped):
        raise outcome.error
    if outcome.error is not None and is_full_disk(outcome.error):
        raise outcome.error
    if isinstance(outcome.error, (LorascopeError, OSError)):
        # Not the trials': their settings, or a folder.
        fault = disk_fault(outcome.error)
        raise _Unkept(error=LorascopeError(fault) if fault else outcome.error)
    if isinstance(outcome.value, Split) and outcome.value.into_singles:
        raise _Unkept(size=1)
    if isinstance(outcome.value, Split) or (len(pack) > 1 and _failed(outcome)):
        raise _Unkept(size=-(-len(pack) // 2))
    if outcome.error is not None:
        return [Done(Status.failed, f"{type(outcome.error).__name__}: {outcome.error}")]
    if outcome.timed_out:
        limit = pack[0][0].runtime.trial_timeout_seconds
        reason = f"no result within runtime.trial_timeout_seconds={limit:g}"
        together = f" for each of {len(pack)} trials" if len(pack) > 1 else ""
        return [Done(Status.timeout, reason + together)] * len(pack)
    if outcome.exit_signal is not None:
        name = signal.Signals(outcome.exit_signal).name
        hint = " (often the system ran out of memory)" if name == "SIGKILL" else ""
        return [Done(Status.killed, f"ended by {name}{hint}")]
    done: list[Done] = outcome.value
    return done


def _failed(outcome: Outcome) -> bool:
    return outcome.error is not None or outcome.exit_signal is not None
