"""What is recorded of one subject of a grid: a trial in each form that it is served in, or a bare
base.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from lorascope.config import Config
from lorascope.files.layout import RECORD, Layout
from lorascope.files.store import read_record
from lorascope.records import EvaluationRecord, Example, ItemResult, TrialRecord
from lorascope.study.declared import (
    DeclaredTrial,
    base_name,
    evaluation_identity,
    examples_identity,
    read_trial,
    scores_name,
)
from lorascope.study.identity import in_full
from lorascope.study.intact_scores import current_examples, distributions_of, scored_items
from lorascope.study.leading import Scored

Kept = TypeVar("Kept")


@dataclass
class Found:
    """What is recorded of one subject."""

    trial: TrialRecord | None
    """None for a bare base, and where nothing is recorded."""
    scored: list[Scored] = field(default_factory=list)
    """Its scores in each form that it is served in."""
    items: dict[str, dict[str, Sequence[ItemResult]]] = field(default_factory=dict)
    """Identity of scores -> split -> items."""
    distributions: dict[str, Path] = field(default_factory=dict)
    """Identity of scores -> their file of next-token distributions, where they have one."""
    examples: dict[str, list[Example]] = field(default_factory=dict)
    """Identity of scores -> the answers that are kept."""

    def add(self, config: Config, layout: Layout, name: str, distributions: bool) -> None:
        """Its scores in one form, which have the folder `name`, where they are up to date."""
        for record in current_scores(config, layout, name, self.trial):
            folder = _folder(record, layout)
            self.scored.append((config, record))
            self.items[record.identity] = scored_items(record, folder)
            if distributions and (path := distributions_of(record, folder)):
                self.distributions[record.identity] = path
            if examples := _examples(config, layout, record, self.trial):
                self.examples[record.identity] = examples


def found_of_base(config: Config, layout: Layout, distributions: bool) -> Found:
    found = Found(None)
    found.add(config, layout, base_name(config, layout), distributions)
    return found


def found_of_trial(declared: Sequence[DeclaredTrial], layout: Layout, distributions: bool) -> Found:
    """`declared` is one trial in each form that it is served in."""
    if not declared[0].is_recorded:
        return Found(None)
    trial = read_trial(declared[0], declared[0].folder)
    found = Found(replace(trial, settings=in_full(trial.settings)))
    for one in declared:
        found.add(one.config, layout, scores_name(one.config, one.name), distributions)
    return found


def merged(own: Iterable[Mapping[str, Kept]]) -> dict[str, Kept]:
    """What is kept of several subjects, by the identity of scores."""
    return {identity: kept for one in own for identity, kept in one.items()}


def current_scores(
    config: Config, layout: Layout, name: str, trial: TrialRecord | None
) -> list[EvaluationRecord]:
    """The scores of one subject, as a list of one; empty where they are absent or out of date."""
    folder = layout.evaluations(config.quant.name) / name
    if not (folder / RECORD).is_file():
        return []
    record = read_record(folder, EvaluationRecord)
    return [record] if record.identity == evaluation_identity(config, layout, trial) else []


def _examples(
    config: Config, layout: Layout, scores: EvaluationRecord, trial: TrialRecord | None
) -> list[Example]:
    """The answers that are kept of one subject: of none that is merged."""
    if trial and config.serve:
        return []
    folder = layout.examples(config.quant.name) / scores.name
    return current_examples(folder, examples_identity(config, layout, trial)) or []


def _folder(record: EvaluationRecord, layout: Layout) -> Path:
    return layout.evaluations(record.quant) / record.name
