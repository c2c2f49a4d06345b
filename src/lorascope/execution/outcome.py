"""How a pack's child ended: records of its trials, or what is to be tried instead."""

from __future__ import annotations

import errno
import signal
from collections.abc import Sequence
from dataclasses import replace

from lorascope.config import Config
from lorascope.errors import LorascopeError
from lorascope.execution.child import Done, Split
from lorascope.execution.local.process import Outcome
from lorascope.execution.local.slots import Lane
from lorascope.files.confidential import without_secrets
from lorascope.files.disk_faults import disk_fault, is_full_disk
from lorascope.records import Provenance, Status, TrialRecord
from lorascope.study.declared import DeclaredTrial
from lorascope.training.progress import Stopped

NO_ROOM = (Status.refused, Status.out_of_memory)

Pack = Sequence[tuple[Config, DeclaredTrial]]


class Unkept(Exception):
    """A pack without results to keep: it is tried in parts of `size` trials, later by itself, or
    its error told."""

    def __init__(self, size: int = 0, later: bool = False, error: Exception | None = None) -> None:
        super().__init__()
        self.size = size
        self.later = later
        self.error = error


def concluded(
    pack: Pack, lane: Lane, outcome: Outcome, provenance: Provenance
) -> list[TrialRecord | None]:
    """The records of a pack that has ended; None for a trial that the disk had no room for.

    Raises:
        Unkept: there is nothing to record.
        Stopped: the pack is saved.
    """
    if lane.memory_bytes is not None and _lacks_memory(outcome):
        raise Unkept(later=True)
    ended = _ended(pack, outcome)
    return [
        None
        if not done.kept
        else TrialRecord(
            trial=declared.name,
            identity=declared.identity,
            key=declared.key,
            settings=declared.settings,
            status=done.status,
            reason=without_secrets(done.reason) if done.reason else None,
            last_lines=[]
            if done.status is Status.completed
            else [without_secrets(line) for line in outcome.last_lines],
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
        raise Unkept(error=LorascopeError(fault) if fault else outcome.error)
    if isinstance(outcome.value, Split) and outcome.value.into_singles:
        raise Unkept(size=1)
    if isinstance(outcome.value, Split) or (len(pack) > 1 and _failed(outcome)):
        raise Unkept(size=-(-len(pack) // 2))
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
    if not any(one.kept for one in done):
        raise OSError(errno.ENOSPC, done[0].reason)
    return done


def _lacks_memory(outcome: Outcome) -> bool:
    """Of a pack that had only a share of it."""
    if isinstance(outcome.value, Split):
        return outcome.value.for_memory
    return outcome.value is not None and any(d.status in NO_ROOM for d in outcome.value)


def _failed(outcome: Outcome) -> bool:
    return outcome.error is not None or outcome.exit_signal is not None
