"""status: how far the declared study is, from its records and locks alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lorascope.config import Config, Search, one_form
from lorascope.errors import RecordError
from lorascope.files.layout import Layout
from lorascope.files.locks import locked_folders
from lorascope.records import EvaluationRecord, Status, TrialRecord
from lorascope.records.made_of import made_of
from lorascope.study.adoption import Predecessor, predecessors
from lorascope.study.collect import (
    merge_record,
    one_question,
    served_record,
)
from lorascope.study.declared import (
    DeclaredTrial,
    base_name,
    declared_points,
    read_trial,
    scores_name,
    unservable,
)
from lorascope.study.found import current_scores
from lorascope.study.intact import Unprepared, unprepared
from lorascope.study.needed import read_settled

T = TypeVar("T")


@dataclass
class ModeStatus:
    """The declared trials of one mode, sorted by what there is of them."""

    quant: str
    declared: int = 0
    nameable: bool = False
    """Whether base, data and mode are prepared, without which trials have no names."""
    trials: list[TrialRecord] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Names of trials without a record."""
    damaged: list[str] = field(default_factory=list)
    """Which records cannot be read, and why."""
    scores: dict[str, EvaluationRecord] = field(default_factory=dict)
    """Name of scores -> scores of a trial in a form, where they are there and made as declared."""
    to_score: int = 0
    """Scores that completed trials have, or will have."""
    base_scores: list[EvaluationRecord] = field(default_factory=list)
    """Those of the bare base, where they are there and made as declared."""
    training: list[str] = field(default_factory=list)
    """Names of trials that some process trains now."""
    former: list[Predecessor] = field(default_factory=list)
    """What was trained in place of missing trials, under another identity."""

    @property
    def base_scored(self) -> bool:
        return bool(self.base_scores)

    @property
    def completed(self) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.status is Status.completed]

    @property
    def failed(self) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.status is not Status.completed]


@dataclass(frozen=True)
class SweepStatus:
    """The declared study."""

    model: str
    data: str
    overrides: list[str]
    """From which it was composed."""
    given: list[str]
    """Those of them that the command line gave beside params.yaml."""
    unprepared: list[Unprepared]
    modes: list[ModeStatus]
    running: list[Path]
    """Folders, of this study or another, that some process trains or scores into now."""
    settled: dict[str, Any] | None = None
    """With search=settle, what experiments/settled.json says; empty where there is none."""
    reported: bool = False
    """Whether reports/ was made of the very records that are there now."""
    left_jobs: list[str] = field(default_factory=list)
    """What is known of jobs of a cluster that no command waits for any more."""


def sweep_status(
    configs: list[Config], layout: Layout, overrides: list[str], given: list[str]
) -> SweepStatus:
    """What there is of the trials that `configs`, composed from `overrides`, declare.

    Raises:
        ConfigError: the grid spans several models or datasets, or targets match nothing.
    """
    first = one_question(configs)
    running = locked_folders(layout)
    modes: dict[str, list[Config]] = {}
    for config in configs:
        modes.setdefault(config.quant.name, []).append(config)
    found = [_mode_status(quant, ones, layout, running) for quant, ones in modes.items()]
    settled = read_settled(layout) if first.search is Search.settle else None
    return SweepStatus(
        first.model.name,
        first.data.name,
        overrides,
        given,
        unprepared(configs, layout, overrides),
        found,
        sorted(folder.relative_to(layout.root) for folder in running),
        settled,
        _is_reported(first, layout, found, settled),
    )


def _is_reported(
    first: Config, layout: Layout, modes: list[ModeStatus], settled: dict[str, Any] | None
) -> bool:
    """Whether the last report says that it was made of what is there now."""
    try:
        told = json.loads(layout.decision.read_text()).get("made_of_sha256")
    except (OSError, ValueError):
        return False
    trials = [trial for mode in modes for trial in mode.trials]
    if settled is not None:
        needed = set(settled.get("needed", ()))
        trials = [trial for trial in trials if trial.trial in needed]
    identities = {trial.identity for trial in trials}
    scores = [e for mode in modes for e in (*mode.base_scores, *mode.scores.values())]
    scores = [e for e in scores if e.trial_identity is None or e.trial_identity in identities]
    try:
        merge = merge_record(first, layout, {trial.trial for trial in trials})
        served = served_record(first, layout, {one.identity for one in scores})
    except RecordError:
        # Whoever makes the report is told what is damaged.
        return False
    return bool(told == made_of(first.decide, trials, scores, merge, served))


def _mode_status(
    quant: str, configs: list[Config], layout: Layout, running: set[Path]
) -> ModeStatus:
    if unprepared(configs, layout, []):
        return ModeStatus(quant, len(one_form(configs)))
    # Two points of a grid may be one trial, such as those of lora.rank=8,8.
    declared = declared_points(configs, layout)
    trials = [forms[0] for forms in declared]
    mode = ModeStatus(quant, len(declared), nameable=True)
    mode.training = [trial.name for trial in trials if trial.folder in running]
    mode.former = predecessors(trials)
    first = configs[0]
    name = base_name(first, layout)
    mode.base_scores = _read(lambda: current_scores(first, layout, name, None), mode) or []
    for forms in declared:
        _add_trial(mode, forms, layout)
    return mode


def _add_trial(mode: ModeStatus, forms: list[DeclaredTrial], layout: Layout) -> None:
    """One trial, with the forms that it is served in."""
    declared = forms[0]
    if not declared.is_recorded:
        mode.missing.append(declared.name)
        return
    trial = _read(lambda: read_trial(declared, declared.folder), mode)
    if trial is None:
        return
    mode.trials.append(trial)
    if trial.status is not Status.completed:
        return
    for config in (one.config for one in forms):
        name = scores_name(config, trial.trial)
        found = _read(partial(current_scores, config, layout, name, trial), mode)
        if unservable(config) is None:
            mode.to_score += 1
        for scores in found or []:
            mode.scores[name] = scores


def _read(read: Callable[[], T], mode: ModeStatus) -> T | None:
    """What `read` gives; a damaged record is named, and the others count all the same."""
    try:
        return read()
    except RecordError as error:
        mode.damaged.append(str(error))
        return None
