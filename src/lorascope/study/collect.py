"""Gathers the records that a declared grid names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lorascope.comparing.cells import Compared, gather, study_measure
from lorascope.comparing.course import settle
from lorascope.comparing.settling import Settling
from lorascope.config import Config, Search
from lorascope.errors import ConfigError
from lorascope.files.kept import map_kept
from lorascope.files.layout import RECORD, Layout
from lorascope.files.store import read_record
from lorascope.machine.progress import StepProgress
from lorascope.records import (
    Example,
    MergeRecord,
    ServedRecord,
    Study,
)
from lorascope.study.declared import (
    DeclaredTrial,
    declared_points,
)
from lorascope.study.found import Found, found_of_base, found_of_trial, merged
from lorascope.study.intact import (
    read_base,
    read_data,
    read_forgetting,
    read_mode,
    reading_once,
)
from lorascope.study.leading import leading


def collect(
    configs: list[Config],
    layout: Layout,
    *,
    distributions: bool = True,
    points: list[list[DeclaredTrial]] | None = None,
) -> Study:
    """The records of exactly the trials that `configs` declare; what is not there is named.

    With search=settle, of those that the answer needs.

    Args:
        distributions: whether next-token distributions, the largest files of all, are looked at.
        points: `declared_points` of these, where they are known.

    Raises:
        ConfigError: the grid spans several models or datasets.
        RecordError: base, data or a mode was never prepared, or a record is damaged.
    """
    study = collect_all(configs, layout, distributions=distributions, points=points)
    return needed_part(study, settle_study(study)) if study.search is Search.settle else study


def collect_all(
    configs: list[Config],
    layout: Layout,
    *,
    distributions: bool = True,
    points: list[list[DeclaredTrial]] | None = None,
) -> Study:
    """The same of all declared trials, whatever the search."""
    with reading_once():
        return _collected(configs, layout, distributions, points)


def _collected(
    configs: list[Config],
    layout: Layout,
    distributions: bool,
    points: list[list[DeclaredTrial]] | None,
) -> Study:
    first, modes = one_question(configs), _one_a_mode(configs)
    # Two points of a grid may be one trial, such as those of lora.rank=8,8: it is no second seed.
    points = points or declared_points(configs, layout)
    named = {declared[0].name: declared[0] for declared in points}
    bases = [found_of_base(config, layout, distributions) for config in modes]
    show = StepProgress("reading records", unit="trials")
    trained = map_kept(
        lambda declared: found_of_trial(declared, layout, distributions), points, show
    )
    found = [*bases, *trained]
    trials = [one.trial for one in trained if one.trial]
    missing = [own for own, one in zip(named.values(), trained, strict=True) if not one.trial]
    evaluations = [record for one in found for _, record in one.scored]
    return Study(
        data=read_data(first, layout),
        base=read_base(first, layout),
        footprints=[read_mode(config, layout) for config in modes],
        trials=trials,
        evaluations=evaluations,
        merge=merge_record(first, layout, {trial.trial for trial in trials}),
        missing={declared.name: declared.key for declared in missing},
        missing_settings={declared.name: declared.settings for declared in missing},
        items=merged(one.items for one in found),
        examples=_of_leading(found, first.evaluate.example_trials),
        forgetting=read_forgetting(first, layout),
        served=served_record(first, layout, {record.identity for record in evaluations}),
        decide=first.decide,
        forms={declared[0].name: [one.config.form for one in declared] for declared in points},
        search=first.search,
        adapter_parameters={name: one.saved_parameters for name, one in named.items()},
        distributions=merged(one.distributions for one in found),
    )


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


def _one_a_mode(configs: list[Config]) -> list[Config]:
    return list({config.quant.name: config for config in configs}.values())


def _of_leading(found: Sequence[Found], count: int) -> dict[str, list[Example]]:
    """Those of bare bases, then of the leading trials of each mode, the best first: others answered
    too, where they led once, among fewer."""
    bases = [identity for one in found if not one.trial for identity in one.examples]
    trained = [
        (config, record)
        for one in found
        for config, record in one.scored
        if one.trial and record.identity in one.examples
    ]
    modes = dict.fromkeys(config.quant.name for config, _ in trained)
    best = [leading([o for o in trained if o[0].quant.name == mode], count) for mode in modes]
    examples = merged(one.examples for one in found)
    shown = [*bases, *(record.identity for chosen in best for _, record in chosen)]
    return {identity: examples[identity] for identity in shown}


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
