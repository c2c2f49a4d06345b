"""What becomes of a pack that has ended: records of its trials, or what is to be tried instead."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import replace

from lorascope.errors import LorascopeError
from lorascope.execution.engine import Outcome, Slot, TrialOutcome
from lorascope.execution.packs import Pack
from lorascope.files.confidential import without_secrets
from lorascope.records import Provenance, Status, TrialRecord
from lorascope.training.progress import Stopped

NO_ROOM = (Status.refused, Status.out_of_memory)


class NotTrained(Exception):
    """A pack without results: it is tried in parts of `size` trials, later by itself, or its error
    is reported."""

    def __init__(self, size: int = 0, later: bool = False, error: Exception | None = None) -> None:
        super().__init__()
        self.size = size
        self.later = later
        self.error = error


def concluded(
    pack: Pack, slot: Slot, outcome: Outcome, provenance: Provenance
) -> list[TrialRecord | None]:
    """The records of a pack that has ended; None for a trial that the disk had no room for.

    Raises:
        NotTrained: there is nothing to record.
        Stopped: the pack is saved.
        OSError: the disk has no room.
    """
    if slot.memory_bytes is not None and _lacks_memory(outcome):
        raise NotTrained(later=True)
    ends = _trial_outcomes(pack, outcome)
    return [
        None
        if not end.kept
        else TrialRecord(
            trial=trial.declared.name,
            identity=trial.declared.identity,
            key=trial.declared.key,
            settings=trial.declared.settings,
            status=end.status,
            reason=without_secrets(end.reason) if end.reason else None,
            last_lines=[]
            if end.status is Status.completed
            else [without_secrets(line) for line in outcome.last_lines],
            result=end.result,
            tracking="off",
            provenance=replace(provenance, device=end.device, threads=end.threads),
            plan=end.plan,
            pack_plan=end.pack_plan,
        )
        for trial, end in zip(pack, ends, strict=True)
    ]


def _trial_outcomes(pack: Pack, outcome: Outcome) -> list[TrialOutcome]:
    """How each trial ended; bad input is no trial's result."""
    if outcome.saved_at is not None:
        raise Stopped(*outcome.saved_at)
    failure, split = outcome.failure, outcome.split
    if failure is not None and failure.is_full_disk:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), failure.place)
    if failure is not None and failure.is_input:
        raise NotTrained(error=LorascopeError(failure.reason))
    if split is not None and split.into_singles:
        raise NotTrained(size=1)
    failed = failure is not None or outcome.exit_signal is not None
    if split is not None or (failed and len(pack) > 1):
        raise NotTrained(size=-(-len(pack) // 2))
    if failure is not None:
        return [TrialOutcome(Status.failed, failure.reason)]
    if outcome.timed_out:
        limit = pack[0].config.runtime.trial_timeout_seconds
        reason = f"no result within runtime.trial_timeout_seconds={limit:g}"
        together = f" for each of {len(pack)} trials" if len(pack) > 1 else ""
        return [TrialOutcome(Status.timeout, reason + together)] * len(pack)
    if outcome.exit_signal is not None:
        name = signal.Signals(outcome.exit_signal).name
        hint = " (often the system ran out of memory)" if name == "SIGKILL" else ""
        return [TrialOutcome(Status.killed, f"ended by {name}{hint}")]
    if not any(trial.kept for trial in outcome.trials):
        raise OSError(errno.ENOSPC, outcome.trials[0].reason)
    return outcome.trials


def _lacks_memory(outcome: Outcome) -> bool:
    """Whether a pack that had a share of the memory only needs more."""
    if outcome.split is not None:
        return outcome.split.for_memory
    return any(trial.status in NO_ROOM for trial in outcome.trials)
