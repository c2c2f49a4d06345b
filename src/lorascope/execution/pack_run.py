"""A pack in a child process of its own, its results put in place all at once."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from lorascope.config import ModelConfig, ModelKind
from lorascope.errors import LorascopeError
from lorascope.execution.child import Task, train_in_child
from lorascope.execution.local.process import Outcome, run_isolated
from lorascope.execution.local.slots import PRELOADED, Lane, may_use_cuda
from lorascope.execution.outcome import Pack, Unkept, concluded
from lorascope.execution.progress import PackAtHand, SweepProgress
from lorascope.execution.saved import checkpoint_folder
from lorascope.execution.stop import StopRequest
from lorascope.files.disk_faults import is_full_disk
from lorascope.files.layout import Layout
from lorascope.files.provenance import capture
from lorascope.files.store import replaced_folders, write_record
from lorascope.records import LASTING, Status, TrialRecord
from lorascope.training.checkpoint import checkpoints as checkpoints_in
from lorascope.training.checkpoint import is_whole
from lorascope.training.progress import StepReport, Stopped, ValidationReport


@dataclass(frozen=True)
class PackPlace:
    """Where a pack is trained, and who watches."""

    layout: Layout
    folder: Path
    """Where its trials' folders go."""
    lane: Lane
    show: SweepProgress
    stop: StopRequest
    end_now: Connection
    """Where something is to be read as soon as the pack should end without saving."""


@dataclass
class PackEnd:
    """What became of a pack."""

    records: list[TrialRecord] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    postponed: list[str] = field(default_factory=list)
    """Names of trials that there was no room for beside other packs."""
    unsaved: list[str] = field(default_factory=list)
    """Names of trials that the disk had no room for; others of their pack may have fitted."""

    def add(self, other: PackEnd) -> None:
        """Take over all that is in `other`."""
        self.records += other.records
        self.errors += other.errors
        self.postponed += other.postponed
        self.unsaved += other.unsaved


def train_and_keep(pack: Pack, place: PackPlace) -> PackEnd:
    """Train `pack` and write each trial's folder.

    Where a pack cannot be trained, or fails, its halves are tried: one trial's failure is that
    trial's alone.
    """
    place.stop.end_if_asked()
    at_hand = place.show.start_pack(len(pack))
    try:
        records = _train_pack(pack, place, at_hand)
    except Unkept as unkept:
        tried_again = unkept.size or unkept.later
        place.show.end_pack(at_hand, [], lost=0 if tried_again else len(pack))
        return _without_results(pack, place, unkept)
    except Stopped as stopped:
        place.show.clear()
        print(f"{_title(pack)}: {stopped}; the same command goes on from there", file=sys.stderr)
        place.stop.end_if_asked()
        raise
    finally:
        place.stop.worth_saving.discard(_title(pack))
    names = {record.trial for record in records}
    unsaved = [declared.name for _, declared in pack if declared.name not in names]
    place.show.end_pack(at_hand, records, lost=len(unsaved))
    return PackEnd(records, _failures(records), unsaved=unsaved)


def _without_results(pack: Pack, place: PackPlace, unkept: Unkept) -> PackEnd:
    if unkept.later:
        print(f"{_title(pack)}: no room beside other packs; trained after them", file=sys.stderr)
        return PackEnd(postponed=[declared.name for _, declared in pack])
    end = PackEnd(errors=[unkept.error] if unkept.error else [])
    if unkept.size:
        for start in range(0, len(pack), unkept.size):
            end.add(train_and_keep(pack[start : start + unkept.size], place))
    return end


def _train_pack(pack: Pack, place: PackPlace, at_hand: PackAtHand) -> list[TrialRecord]:
    """Train `pack` at once and put its trials' folders in place, but for those of trials that the
    disk has no room for.

    Raises:
        OSError: the disk has room for none of them.
        Unkept: there is nothing to keep.
        Stopped: somebody asked for it; the pack is saved.
    """
    # Captured before the trials: they started with these versions, at this time.
    provenance = capture(place.layout, "unknown", 0)
    identities = [declared.identity for _, declared in pack]
    targets = [place.folder / declared.name for _, declared in pack]
    with checkpoint_folder(identities, place.layout) as checkpoints:
        _tell_damaged(checkpoints)
        with replaced_folders(targets) as folders:
            outcome = _train(_task(pack, place, folders, checkpoints), pack, place, at_hand)
            ended = concluded(pack, place.lane, outcome, provenance)
            records = [
                record
                for folder, record in zip(folders, ended, strict=True)
                if _fits(folder, record) and record
            ]
            if not records:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place.folder))
        if all(record.status in LASTING for record in records):
            shutil.rmtree(checkpoints, ignore_errors=True)
        return records


def _fits(folder: Path, record: TrialRecord | None) -> bool:
    """Write a trial's record into its folder; where the disk has no room for it, or had none for
    its adapter, the folder goes, and its room is that of the next one."""
    if record is None:
        shutil.rmtree(folder)
        return False
    if record.status is not Status.completed:
        # What there is of an adapter may be half-written.
        shutil.rmtree(folder / "adapter", ignore_errors=True)
    try:
        write_record(folder, record)
    except OSError as error:
        if not is_full_disk(error):
            raise
        shutil.rmtree(folder)
        return False
    return True


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


def _tell_damaged(checkpoints: Path) -> None:
    """Here and not in the child, whose output nobody sees."""
    for one in checkpoints_in(checkpoints):
        if not is_whole(one):
            print(
                f"warning: {one} is damaged and passed over: training goes on from the checkpoint "
                "before it, or from the start.",
                file=sys.stderr,
            )


def _task(pack: Pack, place: PackPlace, folders: Sequence[Path], checkpoints: Path) -> Task:
    config, layout = pack[0][0], place.layout
    return Task(
        base=layout.quantized(config.model.name, config.quant.name),
        base_name=_public_name(config.model),
        data=layout.data(config.model.name, config.data.name),
        checkpoints=checkpoints,
        configs=[own for own, _ in pack],
        adapters=[folder / "adapter" for folder in folders],
        threads=place.lane.threads,
        memory_bytes=place.lane.memory_bytes,
    )


def _public_name(model: ModelConfig) -> str:
    """What an adapter's files call its base: its id, where the hub has it."""
    return str(model.repository) if model.kind is ModelKind.hub else model.name


def _train(task: Task, pack: Pack, place: PackPlace, at_hand: PackAtHand) -> Outcome:
    runtime = task.config.runtime
    limit = runtime.trial_timeout_seconds

    def on_report(phase: StepReport | ValidationReport) -> None:
        place.stop.worth_saving.add(_title(pack))
        place.show.report(at_hand, phase)

    return run_isolated(
        train_in_child,
        task,
        on_report=on_report,
        preload=PRELOADED,
        fresh=may_use_cuda(runtime.device),
        timeout_seconds=None if limit is None else limit * len(task.configs),
        stop=place.stop.connection,
        end_now=place.end_now,
    )
