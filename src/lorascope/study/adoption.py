"""Trained trials that declared ones would repeat: which of them pass for those, and how they become
them. A trial's folder is named by its identity; where that changes, its values may not have."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorascope.errors import LorascopeError, RecordError
from lorascope.files.layout import RECORD, Layout
from lorascope.files.locks import locked_folder
from lorascope.files.revisions import (
    DIGESTS,
    FORMER_TRAINING_CODE,
    TRAINING,
    code_name,
    known_revisions,
    raised,
    reasons,
    revisions,
)
from lorascope.files.store import read_record, write_record
from lorascope.records import LASTING, Status, TakenOver, TrialRecord
from lorascope.study.declared import DeclaredTrial, read_trial
from lorascope.study.identity import differing_settings
from lorascope.study.intact import require_adapter


@dataclass(frozen=True)
class Predecessor:
    """The closest trained trial to a declared one that has no record: the same mode, rank, alpha
    and seed, and another identity."""

    declared: DeclaredTrial
    folder: Path
    record: TrialRecord
    differences: tuple[str, ...]
    """Settings and inputs in which it differs, the code apart."""
    has_known_values: bool
    """Whether the code that trained it is known to give the values of the present code."""

    @property
    def passes(self) -> bool:
        """Whether it is the declared trial, as far as anybody knows."""
        return not self.differences and self.has_known_values

    @property
    def reason(self) -> str:
        """Why it does not pass."""
        if self.differences:
            return ", ".join(self.differences)
        known = known_revisions(self.record.settings)
        if known is None:
            return f"{code_name(self.record.settings)} trained what is there"
        config = self.declared.config
        case = config.quant.compute, config.data.max_tokens
        return "; ".join(
            f"the {room} revision is {now}, and was {known.get(room, 1)}: "
            + "; ".join(reasons(room, *case)[known.get(room, 1) - 1 :])
            for room, now in revisions(TRAINING, *case).items()
            if now != known.get(room, 1)
        )


def predecessors(trials: Iterable[DeclaredTrial]) -> list[Predecessor]:
    """Those of declared trials that have no record; what cannot be read is told."""
    declared = {trial.folder: trial for trial in trials}
    missing = [trial for trial in declared.values() if not trial.is_recorded]
    there = {
        parent: sorted(set(parent.glob("*-*")) - declared.keys())
        for parent in {trial.folder.parent for trial in missing}
    }
    unreadable: dict[Path, RecordError] = {}
    found = [_predecessor(trial, there[trial.folder.parent], unreadable) for trial in missing]
    for error in unreadable.values():
        print(f"warning: not taken over: {error}", file=sys.stderr, flush=True)
    return [one for one in found if one]


def _predecessor(
    declared: DeclaredTrial, folders: Sequence[Path], unreadable: dict[Path, RecordError]
) -> Predecessor | None:
    readable, _, _ = declared.name.rpartition("-")
    akin = []
    for folder in folders:
        if folder.name.rpartition("-")[0] == readable and (folder / RECORD).is_file():
            try:
                record = read_record(folder, TrialRecord)
            except RecordError as error:
                unreadable[folder] = error
                continue
            if record.status in LASTING:
                akin.append(_compared(declared, folder, record))
    return min(
        akin,
        key=lambda one: (len(one.differences), not one.has_known_values, one.folder.name),
        default=None,
    )


def _compared(declared: DeclaredTrial, folder: Path, record: TrialRecord) -> Predecessor:
    differences = differing_settings(record.settings, declared.settings)
    theirs, ours = record.result, declared.trainable_parameters
    if theirs and theirs.trainable_parameters != ours and not differences:
        # Former code reached other layers of a mixture of experts, or of a model that sees.
        differences = [f"{theirs.trainable_parameters:,} trainable parameters, and {ours:,} now"]
    config = declared.config
    present = raised(revisions(TRAINING, config.quant.compute, config.data.max_tokens))
    known = known_revisions(record.settings) == present
    return Predecessor(declared, folder, record, tuple(differences), known)


def foreseen(found: Sequence[Predecessor]) -> list[str]:
    """What the next training does about predecessors, and why: a sentence for each reason."""
    lines = []
    passing = [one for one in found if one.passes]
    if passing:
        lines.append(
            f"Taken over, not trained again: {_trials(len(passing))} of another identity, whose "
            "values are those that the present code gives."
        )
    vouchable = Counter(one.reason for one in found if not one.differences and not one.passes)
    commits = " and ".join(FORMER_TRAINING_CODE.values())
    for reason, count in vouchable.items():
        lines.append(
            f"To be trained again: {_trials(count)}, as {reason}. The present values are known to "
            f"be those of the code of lorascope at {commits}. `lorascope adopt --assume-equal` "
            "takes over others on your word."
        )
    # Nobody asked for the difference, where the same settings find other content.
    content = {f"other {name}" for name in DIGESTS}
    others = Counter((o.reason, set(o.differences) <= content) for o in found if o.differences)
    for (reason, asked_alike), count in others.items():
        again = "again" if asked_alike else "beside those that are there"
        lines.append(f"To be trained {again}: {_trials(count)} ({reason}).")
    return lines


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"


def noted_predecessors(trials: Iterable[DeclaredTrial]) -> list[Predecessor]:
    """`predecessors`, after a note of what the next training does about them."""
    found = predecessors(trials)
    for line in foreseen(found):
        print(f"note: {line}", file=sys.stderr, flush=True)
    return found


def take_over_known(trials: Iterable[DeclaredTrial], layout: Layout) -> None:
    """Note what becomes of predecessors, and take over those that pass. What cannot be taken over
    stays as it is, and is trained again."""
    for one in noted_predecessors(trials):
        if one.passes:
            try:
                take_over(one, layout)
            except (LorascopeError, OSError) as error:
                print(f"{one.record.trial}: not taken over: {error}", file=sys.stderr, flush=True)


def take_over(found: Predecessor, layout: Layout) -> TrialRecord:
    """Give a predecessor the declared trial's identity: first its record, then its folder's name.
    A kill between the two leaves a record that the next call goes on with.

    Raises:
        RecordError: its adapter is not what was trained.
        FolderLocked: somebody trains the declared trial.
    """
    declared = found.declared
    with locked_folder(declared.folder, layout):
        if declared.is_recorded:
            # Another process was faster.
            return read_trial(declared, declared.folder)
        record = read_record(found.folder, TrialRecord)
        if record.status is Status.completed:
            require_adapter(record, found.folder)
        if record.identity != declared.identity:
            former = TakenOver(
                record.trial, record.identity, code_name(record.settings), not found.passes
            )
            record = replace(
                record, trial=declared.name, identity=declared.identity,
                settings=declared.settings, taken_over=former,
            )  # fmt: skip
            write_record(found.folder, record)
        os.rename(found.folder, declared.folder)
    return record
