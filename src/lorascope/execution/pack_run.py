"""A pack in a child process of its own, its results put in place all at once."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from lorascope.config import ModelKind
from lorascope.errors import LorascopeError
from lorascope.execution.clock import RunningPack
from lorascope.execution.engine import Engine, Event, Job, Outcome, Slot, TrialOutcome
from lorascope.execution.packs import Pack, checkpoint_folder
from lorascope.execution.progress import SweepProgress
from lorascope.execution.stop import StopRequest
from lorascope.files.confidential import without_secrets
from lorascope.files.disk_faults import is_full_disk
from lorascope.files.layout import Layout
from lorascope.files.provenance import capture
from lorascope.files.replacing import replaced_folders
from lorascope.files.store import write_record
from lorascope.records import LASTING, Provenance, Status, TrialRecord
from lorascope.tracking import LivePack, LiveTracking, StartedTrial
from lorascope.training.checkpoint import checkpoints as checkpoints_in
from lorascope.training.checkpoint import is_whole
from lorascope.training.progress import StepReport, Stopped


@dataclass(frozen=True)
class SweepPlace:
    """Where a sweep runs, and who watches."""

    layout: Layout
    engine: Engine
    show: SweepProgress
    stop: StopRequest
    live: LiveTracking | None = None
    """Who hears of steps while packs train; None where nobody does."""


@dataclass
class PackEnd:
    """What became of a pack."""

    records: list[TrialRecord] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)
    postponed: list[str] = field(default_factory=list)
    """Names of trials that there was no room for beside other packs."""
    unsaved: list[str] = field(default_factory=list)
    """Names of trials that the disk had no room for; others of their pack may have fitted."""
    taken: list[Pack] = field(default_factory=list)
    """Packs of which another sweep trains a trial."""

    def add(self, other: PackEnd) -> None:
        """Take over all that is in `other`."""
        self.records += other.records
        self.errors += other.errors
        self.postponed += other.postponed
        self.unsaved += other.unsaved
        self.taken += other.taken


@dataclass(eq=False)
class NotTrained(Exception):
    """A pack without results: it is tried in parts of `size` trials, later by itself, or its error
    is reported."""

    size: int = 0
    later: bool = False
    error: Exception | None = None


def train_and_keep(pack: Pack, place: SweepPlace, slot: Slot) -> PackEnd:
    """Train `pack` in `slot` and write each trial's folder. Where a pack cannot be trained, or
    fails, its halves are tried: one trial's failure is that trial's alone."""
    place.stop.end_if_asked()
    running = place.show.start_pack(len(pack))
    try:
        records = _train_pack(pack, place, slot, running)
    except NotTrained as error:
        tried_again = error.size or error.later
        place.show.end_pack(running, [], lost=0 if tried_again else len(pack))
        return _without_results(pack, place, slot, error)
    except Stopped as stopped:
        place.show.note(f"{_title(pack)}: {stopped}; the same command goes on from there")
        place.stop.end_if_asked()
        raise
    finally:
        place.stop.worth_saving.discard(_title(pack))
    names = {record.trial for record in records}
    unsaved = [trial.name for trial in pack if trial.name not in names]
    place.show.end_pack(running, records, lost=len(unsaved))
    # A trial that failed has its record; the sweep must say so too.
    failures: list[Exception] = [
        LorascopeError(f"{record.trial} failed: {record.reason}. Its record has the last lines.")
        for record in records
        if record.status is Status.failed
    ]
    return PackEnd(records, failures, unsaved=unsaved)


def _without_results(pack: Pack, place: SweepPlace, slot: Slot, reason: NotTrained) -> PackEnd:
    if reason.later:
        place.show.note(f"{_title(pack)}: no room beside other packs; trained after them")
        return PackEnd(postponed=[trial.name for trial in pack])
    end = PackEnd(errors=[reason.error] if reason.error else [])
    if reason.size:
        for start in range(0, len(pack), reason.size):
            end.add(train_and_keep(pack[start : start + reason.size], place, slot))
    return end


def _train_pack(
    pack: Pack, place: SweepPlace, slot: Slot, running: RunningPack
) -> list[TrialRecord]:
    """Train `pack` at once and put its trials' folders in place, but for those of trials that the
    disk has no room for; OSError where it has room for none. Raises what `concluded` does."""
    # Captured before the trials: they started with these versions, at this time.
    provenance = capture(place.layout, "unknown", 0, pack[0].config.runtime.deterministic)
    identities = [trial.identity for trial in pack]
    with checkpoint_folder(identities, place.layout) as checkpoints:
        # Told here and not in the child, whose output nobody sees.
        for damaged in (one for one in checkpoints_in(checkpoints) if not is_whole(one)):
            place.show.note(
                f"warning: {damaged} is damaged and passed over: training goes on from the "
                "checkpoint before it, or from the start."
            )
        with replaced_folders([trial.folder for trial in pack]) as folders:
            job = _job(pack, place, slot, folders, checkpoints)
            with _followed(pack, provenance, place.live) as live:
                outcome = _train(job, pack, place, running, live)
            ended = concluded(pack, slot, outcome, provenance)
            records = [
                record
                for folder, record in zip(folders, ended, strict=True)
                if _fits(folder, record) and record
            ]
            if not records:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(pack[0].folder.parent))
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


def _title(pack: Pack) -> str:
    first = pack[0].name
    return first if len(pack) == 1 else f"{first} and {len(pack) - 1} more"


def _job(
    pack: Pack, place: SweepPlace, slot: Slot, folders: Sequence[Path], checkpoints: Path
) -> Job:
    config, model, layout = pack[0].config, pack[0].config.model, place.layout
    return Job(
        base=layout.quantized(model.name, config.quant.name),
        # What an adapter's files call its base: its id, where the hub has it.
        base_name=str(model.repository) if model.kind is ModelKind.hub else model.name,
        data=layout.data(model.name, config.data.name),
        checkpoints=checkpoints,
        configs=[trial.config for trial in pack],
        adapters=[folder / "adapter" for folder in folders],
        slot=slot,
        full_base=layout.base(model.name),
    )


@contextmanager
def _followed(
    pack: Pack, provenance: Provenance, live: LiveTracking | None
) -> Iterator[LivePack | None]:
    """Have `live` follow the pack, where there is such a one."""
    if live is None:
        yield None
        return
    started = [StartedTrial(t.name, t.identity, t.key, t.settings, provenance) for t in pack]
    followed = live.start(started)
    try:
        yield followed
    finally:
        live.end(followed)


def _train(
    job: Job, pack: Pack, place: SweepPlace, running: RunningPack, live: LivePack | None
) -> Outcome:
    limit = job.config.runtime.trial_timeout_seconds
    stop, show = place.stop, place.show

    def on_event(event: Event) -> None:
        stop.worth_saving.add(_title(pack))
        show.report(running, event)
        if live is not None and isinstance(event, StepReport):
            live.report(event.points, event.validations)

    handle = place.engine.submit(job)
    with stop.running(handle):
        return handle.wait(on_event, None if limit is None else limit * len(pack))


def concluded(
    pack: Pack, slot: Slot, outcome: Outcome, provenance: Provenance
) -> list[TrialRecord | None]:
    """The records of a pack that has ended; None for a trial that the disk had no room for, and
    OSError where it has none. Raises NotTrained, or Stopped for a pack that is saved."""
    no_room = (Status.refused, Status.out_of_memory)
    lacks_memory = any(trial.status in no_room for trial in outcome.trials)
    if slot.memory_bytes is not None and (lacks_memory or outcome.split == "halves"):
        # Of a share of the memory only.
        raise NotTrained(later=True)
    ends = _trial_outcomes(pack, outcome)
    return [
        None
        if not end.kept
        else TrialRecord(
            trial=trial.name,
            identity=trial.identity,
            key=trial.key,
            settings=trial.settings,
            status=end.status,
            reason=without_secrets(end.reason) if end.reason else None,
            last_lines=[]
            if end.status is Status.completed
            else [without_secrets(line) for line in outcome.last_lines],
            result=end.result,
            tracking="off",
            provenance=replace(
                provenance,
                device=end.device,
                threads=end.threads,
                shards=end.shards,
                placed=end.placed,
            ),
            plan=end.plan,
            pack_plan=end.pack_plan,
        )
        for trial, end in zip(pack, ends, strict=True)
    ]


def _trial_outcomes(pack: Pack, outcome: Outcome) -> list[TrialOutcome]:
    """How each trial ended; bad input is no trial's result."""
    if outcome.saved_at is not None:
        raise Stopped(*outcome.saved_at)
    failure = outcome.failure
    if failure is not None and failure.is_full_disk:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), failure.place)
    if failure is not None and failure.is_input:
        raise NotTrained(error=LorascopeError(failure.reason))
    if outcome.split == "singles":
        raise NotTrained(size=1)
    failed = failure is not None or outcome.exit_signal is not None
    if outcome.split == "halves" or (failed and len(pack) > 1):
        raise NotTrained(size=-(-len(pack) // 2))
    if failure is not None:
        return [TrialOutcome(Status.failed, failure.reason)]
    if outcome.timed_out:
        limit = pack[0].config.runtime.trial_timeout_seconds
        told = outcome.limit or f"runtime.trial_timeout_seconds={limit:g}"
        reason = f"no result within {told}"
        together = f" for each of {len(pack)} trials" if len(pack) > 1 else ""
        return [TrialOutcome(Status.timeout, reason + together)] * len(pack)
    if outcome.exit_signal is not None:
        name = signal.Signals(outcome.exit_signal).name
        hint = " (often the system ran out of memory)" if name == "SIGKILL" else ""
        return [TrialOutcome(Status.killed, f"ended by {name}{hint}")]
    if not any(trial.kept for trial in outcome.trials):
        raise OSError(errno.ENOSPC, outcome.trials[0].reason)
    return outcome.trials
