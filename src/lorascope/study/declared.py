"""What a declared trial and its scores are called before they are there."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorascope.adapters.kinds import (
    DEFAULT_KIND,
    dials_of,
    kind_of,
    method_of,
    require_roundable,
    unmerged,
)
from lorascope.adapters.targets import select
from lorascope.config import EXAMPLE_FIELDS, Config, EvaluateConfig, QuantConfig, Scoring
from lorascope.config.rules import require_one_task
from lorascope.counting.scored_batches import LOGITS, SCORED_SPLITS, TOKENS, BatchRule, Sample
from lorascope.errors import RecordError
from lorascope.files.layout import FORGETTING, RECORD, Layout
from lorascope.files.revisions import (
    SCORING,
    SHORT_HASH_LENGTH,
    canonical_sha256,
    raised,
    revisions,
)
from lorascope.files.store import read_record
from lorascope.quantizers.kinds import require_readable
from lorascope.records import FORM_MARK, TrialKey, TrialRecord
from lorascope.study.identity import differing_settings, trial_identity, trial_settings
from lorascope.study.intact import read_base, read_data, read_forgetting, read_mode

BASE_NAME = "base"


@dataclass(frozen=True)
class DeclaredTrial:
    """A trial as it will be known, trained or not."""

    config: Config
    folder: Path
    """Of its record and its adapter."""
    identity: str
    key: TrialKey
    settings: dict[str, Any]
    """All that decides its result, in full; the identity is made of what differs from defaults."""
    trainable_parameters: int
    """Parameters of its adapter, counted from the base's shapes."""
    saved_parameters: int
    """The same of its file, where parameters may stand beside the trained ones."""

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def is_recorded(self) -> bool:
        return (self.folder / RECORD).is_file()


def declare_trial(config: Config, layout: Layout) -> DeclaredTrial:
    """Name the trial that `config` describes.

    Raises:
        LorascopeError: the base or the data is not prepared, or made with other settings, the
            targets match nothing, or this adapter cannot begin on this base.
    """
    require_one_task(config)
    parts = read_base(config, layout).parts
    adapted = select(parts, config.adapter)
    require_readable(config.adapter, config.quant)
    require_roundable(config.adapter, config.train)
    config.adapter.require_layers(adapted)
    kind, saved = kind_of(config.adapter), config.adapter.saved()
    stored, data = read_mode(config, layout), read_data(config, layout)
    settings = trial_settings(config, stored.content_sha256, data.content_sha256)
    identity = trial_identity(settings)
    key = trial_key(config)
    folder = layout.trials(config.quant.name) / trial_name(key, identity)
    return DeclaredTrial(
        config, folder, identity, key, settings,
        trainable_parameters=kind.parameters(config.adapter, adapted) + parts.class_head,
        saved_parameters=kind.parameters(saved, adapted) + parts.class_head,
    )  # fmt: skip


def declared_points(configs: list[Config], layout: Layout) -> list[list[DeclaredTrial]]:
    """Each trial of a grid once, as often as it has forms that it is served in, in the grid's
    order."""
    found: dict[str, dict[str, DeclaredTrial]] = {}
    for one in (declare_trial(config, layout) for config in configs):
        found.setdefault(one.name, {})[one.config.form] = one
    return [list(forms.values()) for forms in found.values()]


def trial_key(config: Config) -> TrialKey:
    """What a trial is, for people."""
    adapter = config.adapter
    modules = "+".join(sorted(adapter.modules))
    return TrialKey(
        model=config.model.name,
        data=config.data.name,
        quant=config.quant.name,
        method=adapter.kind,
        targets=modules or adapter.targets.value,
        dials=dict(dials_of(adapter)),
        seed=config.seed,
    )


def trial_name(key: TrialKey, identity: str) -> str:
    """Readable folder name plus short hash, e.g. nf4-r0016-a0032-s0-1f3c9a2b7d; other methods than
    the default one stand in it."""
    method = method_of(key.method)
    dials = [(method.dial(name), value) for name, value in key.dials.items()]
    codes = [dial.code(value) for dial, value in dials if dial.letter]
    method_name = [] if codes and key.method == DEFAULT_KIND else [key.method]
    parts = [key.quant, *method_name, *codes, f"s{key.seed}", identity[:SHORT_HASH_LENGTH]]
    return "-".join(parts)


def read_trial(declared: DeclaredTrial, folder: Path) -> TrialRecord:
    """The record of a declared trial in `folder`; RecordError where it is missing, damaged or
    edited, lacks its files, or is another trial's."""
    trial = read_record(folder, TrialRecord)
    # Defaults that are another version's would pass for the same identity.
    differences = differing_settings(trial.settings, declared.settings)
    if trial.identity != declared.identity or differences:
        found = f" ({', '.join(differences)})" if differences else ""
        raise RecordError(
            f"{folder}: holds {trial.trial}, made with other settings, base, data or code{found}. "
            f"Delete {folder} and run `lorascope train-lora` with the same settings again."
        )
    return trial


def base_name(config: Config, layout: Layout) -> str:
    """Folder name of the bare base's scores: they depend on base and data, not on a trial."""
    return f"{BASE_NAME}-{canonical_sha256(scored_inputs(config, layout))[:10]}"


def scores_name(config: Config, trial: str) -> str:
    """Folder name of a trial's scores: those of other forms than apart name theirs."""
    return trial if config.serve is None else f"{trial}{FORM_MARK}{config.form}"


def unservable(config: Config) -> str | None:
    """Why a trial has no form but apart; None where it is asked for in no other, or has it."""
    return None if config.serve is None else unmerged(config.adapter.kind)


def trial_of_scores(name: str) -> str:
    """The trial, or the bare base, whose scores have this folder name."""
    return name.partition(FORM_MARK)[0]


def scored_inputs(config: Config, layout: Layout) -> list[str]:
    """What the scores of a bare base depend on beside how they are made."""
    stored, data = read_mode(config, layout), read_data(config, layout)
    # How the stored base computes is part of what is scored.
    computing = [config.quant.compute.value, config.model.attention]
    return [stored.content_sha256, data.content_sha256, *computing]


def evaluation_identity(config: Config, layout: Layout, trial: TrialRecord | None) -> str:
    """The digest of `score_settings`."""
    return canonical_sha256(score_settings(config, layout, trial))


def score_settings(config: Config, layout: Layout, trial: TrialRecord | None) -> dict[str, object]:
    """Everything that decides the scores and differs from the defaults."""
    asked = unlike_default_scoring(config.evaluate)
    # By its rows, not by its name.
    asked.pop("forgetting", None)
    forgetting = read_forgetting(config, layout)
    return {
        **_smaller_batches(config, layout),
        **({FORGETTING: forgetting.content_sha256} if forgetting else {}),
        **_subject(config, layout, trial),
        "evaluate": asked,
        **(_form(config.serve) if trial and config.serve else {}),
    }


def examples_identity(config: Config, layout: Layout, trial: TrialRecord | None) -> str:
    """The digest of everything that decides what `trial`, or the bare base, is kept to say."""
    asked = asdict(config.evaluate)
    # How many trials are asked says nothing of what one of them answers.
    examples = {name: asked[name] for name in EXAMPLE_FIELDS if name != "example_trials"}
    return canonical_sha256({**_subject(config, layout, trial), **examples})


def unlike_default_scoring(asked: EvaluateConfig) -> dict[str, object]:
    """The settings of scores that differ from the defaults."""
    default = asdict(EvaluateConfig())
    return {
        name: value
        for name, value in asdict(asked).items()
        if name not in EXAMPLE_FIELDS and value != default[name]
    }


def _subject(config: Config, layout: Layout, trial: TrialRecord | None) -> dict[str, object]:
    """What is scored, and the revisions of what scores it."""
    return {
        "inputs": scored_inputs(config, layout),
        "trial": trial.identity if trial else None,
        # Trained again elsewhere, the same trial has other weights, if only by rounding.
        "adapter": trial.result.adapter_sha256 if trial and trial.result else None,
        "revisions": raised(revisions(SCORING, config.quant.compute)),
    }


def _form(mode: QuantConfig) -> dict[str, object]:
    """What of the mode that a trial is served in differs from the defaults, its name apart. The
    revisions are those of a base that computes so."""
    asked, default = asdict(mode), asdict(QuantConfig())
    del asked["name"]
    served = {name: value for name, value in asked.items() if value != default[name]}
    later = raised(revisions(SCORING, mode.compute))
    return {"served": {**served, **({"revisions": later} if later else {})}}


def _smaller_batches(config: Config, layout: Layout) -> dict[str, object]:
    """What makes batches smaller than `evaluate.batch_size`, where something does: long samples or
    a large vocabulary. Scores from before there was such a rule are then others in their last
    digits."""
    splits, asked = read_data(config, layout).splits, config.evaluate
    scored, forgetting = [splits[name] for name in SCORED_SPLITS], read_forgetting(config, layout)
    if forgetting is not None and config.forgetting is not None:
        scored += [forgetting.splits[name] for name in config.forgetting.kept_splits]
    longest = max(split.length_percentiles_tokens["p100"] for split in scored)
    rule = BatchRule(asked.batch_size, read_base(config, layout).vocabulary)
    tokens = longest + asked.max_new_tokens * (config.data.scoring is Scoring.answer)
    if not asked.lm_eval_tasks and not rule.limits(Sample(tokens, positions=longest)):
        return {}
    return {"batches": {"tokens": TOKENS, "logits": LOGITS}}
