"""Gathers the records that a declared grid names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lorascope.config import Config
from lorascope.errors import ConfigError
from lorascope.files.layout import RECORD, Layout
from lorascope.files.store import read_record
from lorascope.records import EvaluationRecord, MergeRecord, Study, TrialRecord
from lorascope.study.declared import (
    DeclaredTrial,
    base_name,
    declare_trial,
    evaluation_identity,
    read_trial,
)
from lorascope.study.identity import in_full
from lorascope.study.intact import read_base, read_data, read_mode
from lorascope.study.intact_scores import distributions_of, scored_items


def collect(configs: list[Config], layout: Layout) -> Study:
    """The records of exactly the trials that `configs` declare; what is not there is named.

    Raises:
        ConfigError: the grid spans several models or datasets.
        RecordError: base, data or a mode was never prepared, or a record is damaged.
    """
    first = one_question(configs)
    trials, evaluations = [], []
    missing: dict[str, DeclaredTrial] = {}
    for config in _one_a_mode(configs):
        name = base_name(config, layout)
        evaluations += current_scores(config, layout, name, None)
    for config in configs:
        declared = declare_trial(config, layout)
        if not declared.is_recorded:
            missing[declared.name] = declared
            continue
        trial = read_trial(declared, declared.folder)
        trials.append(replace(trial, settings=in_full(trial.settings)))
        evaluations += current_scores(config, layout, trial.trial, trial)
    return Study(
        data=read_data(first, layout),
        base=read_base(first, layout),
        footprints=[read_mode(config, layout) for config in _one_a_mode(configs)],
        trials=trials,
        evaluations=evaluations,
        merge=_merge_record(first, layout, {trial.trial for trial in trials}),
        missing={name: declared.key for name, declared in missing.items()},
        missing_settings={name: declared.settings for name, declared in missing.items()},
        items={
            record.identity: scored_items(record, _folder(record, layout)) for record in evaluations
        },
        distributions={
            record.identity: path
            for record in evaluations
            if (path := distributions_of(record, _folder(record, layout)))
        },
        decide=first.decide,
    )


def one_question(configs: list[Config]) -> Config:
    """The first of `configs`; ConfigError unless all ask about one model and one dataset."""
    for key in ("model", "data"):
        names = sorted({getattr(config, key).name for config in configs})
        if len(names) > 1:
            raise ConfigError(
                key, ",".join(names), "a study compares trials of one model on one dataset",
                f"Name one of them; run the command again for each other {key}.",
            )  # fmt: skip
    return configs[0]


def _folder(record: EvaluationRecord, layout: Layout) -> Path:
    return layout.evaluations(record.quant) / record.name


def _one_a_mode(configs: list[Config]) -> list[Config]:
    return list({config.quant.name: config for config in configs}.values())


def current_scores(
    config: Config, layout: Layout, name: str, trial: TrialRecord | None
) -> list[EvaluationRecord]:
    """The scores of one subject, as a list of one; empty where they are absent or out of date."""
    folder = layout.evaluations(config.quant.name) / name
    if not (folder / RECORD).is_file():
        return []
    record = read_record(folder, EvaluationRecord)
    return [record] if record.identity == evaluation_identity(config, layout, trial) else []


def _merge_record(config: Config, layout: Layout, trials: set[str]) -> MergeRecord | None:
    """The merge, where it is of a trial of this study."""
    folder = layout.merged(config.model.name)
    if not (folder / RECORD).is_file():
        return None
    record = read_record(folder, MergeRecord)
    return record if record.trial in trials else None
