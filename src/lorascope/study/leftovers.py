"""What lies in the folders of trials, scores and checkpoints that no declared grid names."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lorascope.config import Config
from lorascope.errors import RecordError
from lorascope.files.layout import RECORD, Layout
from lorascope.files.replacing import COMPLETE, scratch_target
from lorascope.files.revisions import SHORT_HASH_LENGTH
from lorascope.files.store import read_record
from lorascope.records import LASTING, EvaluationRecord, ExamplesRecord, TrialRecord
from lorascope.study.adoption import predecessors
from lorascope.study.declared import (
    base_name,
    declare_trial,
    scores_name,
    trial_of_scores,
)


class Kind(StrEnum):
    """What a leftover is."""

    trial = "trial"
    scores = "scores"
    examples = "examples"
    scratch = "scratch"
    checkpoints = "checkpoints"


@dataclass(frozen=True)
class Leftover:
    """A folder that nothing declared needs."""

    kind: Kind
    folder: Path
    target: Path
    """The folder whose lock a writer of this one holds."""
    status: str
    bytes: int


@dataclass(frozen=True)
class Found:
    """What is there."""

    leftovers: list[Leftover]
    named: Counter[Kind]
    """Folders that a declared grid names; they stay."""
    passed_over: list[str]
    """What is not ours to judge, and why."""


def needed(configs: Iterable[Config], layout: Layout) -> set[Path]:
    """Folders that the trials of `configs` have, or will have: of trials, scores, and checkpoints
    of those that are still to be trained, or trained again.

    Raises:
        LorascopeError: base, data or a mode is not prepared, so that trials have no names.
    """
    configs = list(configs)
    folders = started_from(configs, layout)
    trials = [declare_trial(config, layout) for config in configs]
    former = {one.declared.folder: one for one in predecessors(trials) if not one.differences}
    for trial in trials:
        scores, config = layout.evaluations(trial.config.quant.name), trial.config
        folders |= {trial.folder, scores / base_name(config, layout)}
        folders.add(scores / scores_name(config, trial.name))
        examples = layout.examples(config.quant.name)
        folders |= {examples / trial.name, examples / base_name(config, layout)}
        if one := former.get(trial.folder):
            # `adopt` may take it over, and its scores with it.
            folders |= {one.folder, scores / scores_name(config, one.folder.name)}
        if not _lasting(trial.folder):
            folders.add(layout.checkpoints / trial.identity)
    return folders


def started_from(configs: Iterable[Config], layout: Layout) -> set[Path]:
    """Folders of the trials whose merged models are bases."""
    names = {config.model.start_from for config in configs}
    return {mode / name for name in names if name for mode in layout.trials("any").parent.glob("*")}


def find_leftovers(layout: Layout, needed: set[Path]) -> Found:
    """Everything in the folders of all modes, and all checkpoints, against what is needed."""
    leftovers: list[Leftover] = []
    passed_over: list[str] = []
    named: Counter[Kind] = Counter()
    # The folders of all modes lie side by side, so one mode's parent holds them all.
    tops = ((Kind.trial, layout.trials("any")), (Kind.scores, layout.evaluations("any")))
    places = [(kind, mode) for kind, any_ in tops for mode in _folders(any_.parent, passed_over)]
    kept = {layout.examples(mode.name) for kind, mode in places if kind is Kind.scores}
    for kind, mode in [*places, *((Kind.examples, folder) for folder in sorted(kept))]:
        for folder in _folders(mode, passed_over):
            if folder in kept:
                continue
            if folder in needed:
                named[kind] += 1
            elif (folder / COMPLETE).is_file():
                passed_over.append(f"{folder}: trained, and put in place by the next train-lora")
            elif (target := scratch_target(folder)) is not None:
                leftovers.append(_leftover(Kind.scratch, folder, target, "never finished"))
            elif (folder / RECORD).is_file():
                leftovers.append(_leftover(kind, folder, folder, _status(kind, folder)))
            else:
                passed_over.append(f"{folder}: no record, so lorascope did not make it")
    for folder in _folders(layout.checkpoints, passed_over):
        if folder in needed:
            named[Kind.checkpoints] += 1
        else:
            leftovers.append(_leftover(Kind.checkpoints, folder, folder, "not needed"))
    return Found(leftovers, named, passed_over)


def is_in_use(leftover: Leftover, running: set[Path]) -> bool:
    """Whether one of the folders that are written now is made from `leftover`, or becomes it: a
    trial and its scores have one name, a form apart, which ends with the begin of the trial's
    identity."""
    names = {trial_of_scores(folder.name) for folder in running}
    if leftover.kind is Kind.checkpoints:
        short = leftover.folder.name[:SHORT_HASH_LENGTH]
        return any(name.endswith(f"-{short}") for name in names)
    return trial_of_scores(leftover.target.name) in names


def _folders(parent: Path, passed_over: list[str]) -> Iterator[Path]:
    """The folders in `parent`. A link may lead out of the project, so none is followed."""
    if parent.is_symlink() or parent.parent.is_symlink():
        passed_over.append(f"{parent}: a link, or in one; links are not followed")
        return
    if not parent.is_dir():
        return
    for folder in sorted(parent.iterdir()):
        if folder.is_symlink():
            passed_over.append(f"{folder}: a link; links are not followed")
        elif folder.is_dir():
            yield folder


def _leftover(kind: Kind, folder: Path, target: Path, status: str) -> Leftover:
    return Leftover(kind, folder, target, status, _bytes(folder))


def _bytes(folder: Path) -> int:
    """Of all files below; a link counts as itself."""
    total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            # A live writer may move its files meanwhile.
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(top, name)).st_size
    return total


def _status(kind: Kind, folder: Path) -> str:
    try:
        if kind is Kind.trial:
            return read_record(folder, TrialRecord).status
        if kind is Kind.examples:
            read_record(folder, ExamplesRecord)
            return "kept"
        read_record(folder, EvaluationRecord)
        return "scored"
    except RecordError:
        return "unreadable"


def _lasting(folder: Path) -> bool:
    """Whether the trial in `folder` will not be trained again."""
    try:
        return read_record(folder, TrialRecord).status in LASTING
    except RecordError:
        return False
