"""Gathers the records that a declared grid names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lorascope.comparing.cells import Compared, gather, study_measure
from lorascope.comparing.course import settle
from lorascope.comparing.settling import Settling
from lorascope.config import Config, Search
from lorascope.errors import ConfigError
from lorascope.files.layout import RECORD, Layout
from lorascope.files.store import read_record
from lorascope.machine.progress import StepProgress
from lorascope.records import (
    EvaluationRecord,
    Example,
    MergeRecord,
    ServedRecord,
    Study,
    TrialRecord,
)
from lorascope.study.declared import (
    DeclaredTrial,
    base_name,
    declare_trial,
    evaluation_identity,
    examples_identity,
    read_trial,
    scores_name,
)
from lorascope.study.identity import in_full
from lorascope.study.intact import (
    read_base,
    read_data,
    read_forgetting,
    read_mode,
    reading_once,
)
from lorascope.study.intact_scores import current_examples, distributions_of, scored_items
from lorascope.study.leading import Scored, leading


def collect(configs: list[Config], layout: Layout, *, distributions: bool = True) -> Study:
    """The records of exactly the trials that `configs` declare; what is not there is named.

    With search=settle, of those that the answer needs.

    Args:
        distributions: whether next-token distributions, the largest files of all, are looked at.

    Raises:
        ConfigError: the grid spans several models or datasets.
        RecordError: base, data or a mode was never prepared, or a record is damaged.
    """
    study = collect_all(configs, layout, distributions=distributions)
    return needed_part(study, settle_study(study)) if study.search is Search.settle else study


def collect_all(configs: list[Config], layout: Layout, *, distributions: bool = True) -> Study:
    """The same of all declared trials, whatever the search."""
    with reading_once():
        study = _collected(configs, layout)
        if not distributions:
            return study
        return replace(study, distributions=_distributions(study.evaluations, layout))


def _collected(configs: list[Config], layout: Layout) -> Study:
    first = one_question(configs)
    trials, evaluations = [], []
    missing: dict[str, DeclaredTrial] = {}
    parameters: dict[str, int] = {}
    scored: list[Scored] = []
    examples: dict[str, list[Example]] = {}
    for config in _one_a_mode(configs):
        scores = current_scores(config, layout, base_name(config, layout), None)
        examples |= _examples(config, layout, scores, None)
        evaluations += scores
    # Two points of a grid may be one trial, such as those of lora.rank=8,8: it is no second seed.
    points = declared_points(configs, layout)
    show = StepProgress("reading records", unit="trials")
    for number, declared in enumerate(points, start=1):
        show(number, len(points))
        name = declared[0].name
        parameters[name] = declared[0].saved_parameters
        if not declared[0].is_recorded:
            missing[name] = declared[0]
            continue
        trial = read_trial(declared[0], declared[0].folder)
        trials.append(replace(trial, settings=in_full(trial.settings)))
        for config in (one.config for one in declared):
            scores = current_scores(config, layout, scores_name(config, name), trial)
            if found := _examples(config, layout, scores, trial):
                examples |= found
                scored += [(config, record) for record in scores]
            evaluations += scores
    return Study(
        data=read_data(first, layout),
        base=read_base(first, layout),
        footprints=[read_mode(config, layout) for config in _one_a_mode(configs)],
        trials=trials,
        evaluations=evaluations,
        merge=merge_record(first, layout, {trial.trial for trial in trials}),
        missing={name: declared.key for name, declared in missing.items()},
        missing_settings={name: declared.settings for name, declared in missing.items()},
        items={
            record.identity: scored_items(record, _folder(record, layout)) for record in evaluations
        },
        examples=_of_leading(examples, scored, first.evaluate.example_trials),
        forgetting=read_forgetting(first, layout),
        served=served_record(first, layout, {record.identity for record in evaluations}),
        decide=first.decide,
        forms={declared[0].name: [one.config.form for one in declared] for declared in points},
        search=first.search,
        adapter_parameters=parameters,
    )


def _distributions(records: list[EvaluationRecord], layout: Layout) -> dict[str, Path]:
    """Identity of scores -> their file of next-token distributions, where they have one."""
    found = {one.identity: distributions_of(one, _folder(one, layout)) for one in records}
    return {identity: path for identity, path in found.items() if path}


def declared_points(configs: list[Config], layout: Layout) -> list[list[DeclaredTrial]]:
    """Each trial of a grid once, as often as it has forms that it is served in, in the grid's
    order."""
    found: dict[str, dict[str, DeclaredTrial]] = {}
    for one in (declare_trial(config, layout) for config in configs):
        found.setdefault(one.name, {})[one.config.form] = one
    return [list(forms.values()) for forms in found.values()]


def settle_study(study: Study) -> Settling:
    """How far the answer stands, by what is there of `study`."""
    measure = study_measure(study)
    return settle(Compared(study, measure, gather(study, measure), {}))


def needed_part(study: Study, settling: Settling) -> Study:
    """`study` with the trials that the answer did not ask for among the unneeded."""
    spare = [trial for trial in study.trials if trial.trial not in settling.used]
    identities = {trial.identity for trial in spare}
    unneeded = {name: k for name, k in study.missing.items() if name not in settling.used}
    return replace(
        study,
        trials=[trial for trial in study.trials if trial.trial in settling.used],
        evaluations=[e for e in study.evaluations if e.trial_identity not in identities],
        missing={name: key for name, key in study.missing.items() if name in settling.used},
        unneeded=unneeded | {trial.trial: trial.key for trial in spare},
        missing_settings=study.missing_settings | {t.trial: t.settings for t in spare},
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


def _examples(
    config: Config, layout: Layout, scores: list[EvaluationRecord], trial: TrialRecord | None
) -> dict[str, list[Example]]:
    """The answers that are kept of one subject, by the identity of its scores: of none that is
    merged, or not scored."""
    if not scores or (trial and config.serve):
        return {}
    name, identity = scores[0].name, examples_identity(config, layout, trial)
    found = current_examples(layout.examples(config.quant.name) / name, identity)
    return {scores[0].identity: found} if found else {}


def _of_leading(
    examples: dict[str, list[Example]], scored: list[Scored], count: int
) -> dict[str, list[Example]]:
    """Those of bare bases, then of the leading trials of each mode, the best first: others answered
    too, where they led once, among fewer."""
    modes = dict.fromkeys(config.quant.name for config, _ in scored)
    best = [leading([o for o in scored if o[0].quant.name == mode], count) for mode in modes]
    trials = {record.identity for _, record in scored}
    bases = {identity: found for identity, found in examples.items() if identity not in trials}
    return bases | {r.identity: examples[r.identity] for chosen in best for _, r in chosen}


def merge_record(config: Config, layout: Layout, trials: set[str]) -> MergeRecord | None:
    """The merge, where it is of a trial of this study."""
    folder = layout.merged(config.model.name)
    if not (folder / RECORD).is_file():
        return None
    record = read_record(folder, MergeRecord)
    return record if record.trial in trials else None


def served_record(config: Config, layout: Layout, evaluations: set[str]) -> ServedRecord | None:
    """The served form of what is shipped, where the scores that it was held against are among this
    study's."""
    folder = layout.served(config.model.name)
    if not (folder / RECORD).is_file():
        return None
    record = read_record(folder, ServedRecord)
    return record if record.evaluation in evaluations else None
