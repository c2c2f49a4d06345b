"""export: the shipped trial, or another, in a folder of the user's choice: files that others load,
checked, with a model card; on request on the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorascope.comparing.shipping import NothingShips, choose, choose_form
from lorascope.config import APART, Config
from lorascope.errors import ConfigError
from lorascope.files.exported import is_there
from lorascope.files.hub import planned_push, send
from lorascope.files.layout import Layout
from lorascope.files.trials import find_trial
from lorascope.machine.environment import prepare_environment
from lorascope.records import FORM_MARK, Study, TrialRecord
from lorascope.reporting import units
from lorascope.stages.export_forms import ExportJob
from lorascope.stages.generate import read_words
from lorascope.study.asked_export import OWN, TYPES, Asked, read_asked
from lorascope.study.collect import collect, collect_all
from lorascope.study.declared import declare_trial
from lorascope.study.named_trial import Named, find_named, named_as
from lorascope.study.params import declared_overrides, group_of

OF_THE_RUN = ("runtime", "engine", "merge", "evaluate")
"""First parts of keys that change how something is exported, and not what."""
OF_ITS_MAKING = ("model.", "data.", "quant.")
"""Begin keys of what base, data and mode of a trial are made with. Which these are, it says."""


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], words: Sequence[str]
) -> int:
    """Write the export that `words` ask for, or leave it where it is there already; say what serves
    it, and what a push would send, or send it.

    Raises:
        ConfigError: a word cannot be used, or the trial has no such form.
        VerificationError: what was written is not what the trial is.
    """
    given = read_words("export", words, OWN)
    asked = read_asked(given.values)
    if asked.push is not None:
        # Before anything expensive: a name that the hub does not take.
        planned_push(asked.to, asked.push, asked.private)
    # It imports Hydra.
    from lorascope.study.request import grid_points

    points, _, overrides = grid_points("export", given.overrides, {}, True, layout)
    prepare_environment(points[0].runtime)
    trial, study = _chosen(given.values.get("trial"), points, layout)
    named = named_in(trial, points, overrides, layout)
    job = ExportJob(asked, trial, study, named, layout)
    job.require_form()
    if is_there(asked.to, job.what, asked.overwrite):
        print(
            f"{asked.to}: holds this export already, unchanged, with the card of that time: "
            "overwrite=true makes it anew"
        )
    else:
        job.write()
    _push(asked, trial, job.is_on_hub)
    return 0


def named_in(
    trial: TrialRecord, points: Sequence[Config], overrides: Sequence[str], layout: Layout
) -> Named:
    """The trial with its point of the grid; where it is none of these, with what `overrides` and
    params.yaml say of how its data and mode were made, and of the run."""
    # They import Hydra.
    from lorascope.study.grid import with_overrides
    from lorascope.study.overrides import read_overrides

    for config in points:
        if declare_trial(config, layout).identity == trial.identity:
            return named_as(trial, config, layout)
    every = with_overrides(declared_overrides(layout), overrides)
    read = zip(every, read_overrides(every, layout), strict=True)
    settings = [
        text
        for text, override in read
        if not override.is_sweep_override()
        and (group_of(text) in OF_THE_RUN or text.startswith(OF_ITS_MAKING))
    ]
    return find_named(trial.trial, settings, layout)


def _chosen(
    name: str | None, points: Sequence[Config], layout: Layout
) -> tuple[TrialRecord, Study]:
    """The named trial, or what `ship` means, and the study beside it.

    Raises:
        ConfigError: nothing ships, or it ships in a form of few bits.
    """
    ship = name or points[0].ship
    if name is not None and FORM_MARK not in name:
        trial = find_trial(name, layout)
        _require_study_of(trial, points[0])
        return trial, collect_all(list(points), layout)
    study = (collect if ship == "auto" else collect_all)(list(points), layout)
    try:
        trial, _, _ = choose(ship, study)
    except NothingShips as found:
        raise ConfigError(
            "ship", ship, "no adapter that the rule lets pass is shown to beat the bare base",
            "Export one all the same: trial=NAME; `lorascope status` lists them.",
        ) from found  # fmt: skip
    form = choose_form(ship, trial, study)
    if form != APART:
        raise _ships_merged(trial, form, points)
    return trial, study


def _ships_merged(trial: TrialRecord, form: str, points: Sequence[Config]) -> ConfigError:
    """The refusal of what ships in a form of its own: in few bits, or in a type, which is to be
    asked for by its name."""
    modes = {config.serve.name: config.serve.storage.value for config in points if config.serve}
    stored = modes.get(form, form)
    if stored in TYPES:
        remedy = f"These weights are what trial={trial.trial} form=merged precision={stored} writes"
    else:
        remedy = (
            "`lorascope quantize-merged` writes that very model to "
            f"models/{trial.key.model}/served; or export other bits: trial={trial.trial}"
        )
    return ConfigError(
        "trial", f"{trial.trial}{FORM_MARK}{form}", f"it ships merged and stored as {form}, and an "
        "export has the adapter, or the merged model in a type that is named", f"{remedy}.",
    )  # fmt: skip


def _require_study_of(trial: TrialRecord, config: Config) -> None:
    """Raise ConfigError where the card would tell of another model or other data."""
    own, asked = (trial.key.model, trial.key.data), (config.model.name, config.data.name)
    if own != asked:
        raise ConfigError(
            "trial", trial.trial, f"it is of {' on '.join(own)}, and the study of "
            f"{' on '.join(asked)}", f"Add model={own[0]} data={own[1]}.",
        )  # fmt: skip


def _push(asked: Asked, trial: TrialRecord, base_is_on_hub: bool) -> None:
    """Say what would be sent, or send it."""
    if asked.push is None:
        return
    push = planned_push(asked.to, asked.push, asked.private)
    seen = "private" if push.private else "public: anyone can read it"
    sent = "would send" if asked.dry_run else "sending"
    total = units.size(sum(push.files.values()))
    print(f"{sent} to {push.repository} on the hub, a new repository, {seen}: {total}")
    for name, size in push.files.items():
        print(f"  {units.size(size):>9}  {name}")
    if not base_is_on_hub:
        print(
            "its card names the base as the study does: base=owner/name says where the hub has it"
        )
    if asked.dry_run:
        print("nothing was sent: this is a dry run, and dry_run=false sends it")
        return
    print(f"sent: {send(push, f'Export of {trial.trial} by lorascope')}")
