"""The folder that a base is made from: a local model's, or of a trial's base."""

from __future__ import annotations

from pathlib import Path

from lorascope.config import ModelConfig, ModelKind
from lorascope.errors import ConfigError, RecordError
from lorascope.files.layout import RECORD, Layout
from lorascope.files.made_with import KNOWN_CONFIG, base_settings, differing
from lorascope.files.store import read_record
from lorascope.files.trials import find_trial
from lorascope.records import BaseRecord, TrialRecord


def source_folder(model: ModelConfig, layout: Layout) -> Path | None:
    """Where config.json and tokenizer of `model` lie before it is prepared; None where nothing on
    this disk has them. A trial's merged model has those of the base that it was trained on.

    Raises:
        ConfigError: as `starting_trial`.
        RecordError: the base of the trial that it starts from is not here.
    """
    if model.kind is ModelKind.local:
        return (layout.root / str(model.path)).resolve()
    if model.kind is not ModelKind.trial:
        return None
    own = layout.base(model.name)
    if (own / RECORD).is_file() and is_prepared(model, own):
        return own
    trial = starting_trial(model, layout)
    base = layout.base(trial.key.model)
    if not (base / RECORD).is_file():
        raise RecordError(
            f"{base.relative_to(layout.root)}: the base of {trial.trial}, from which "
            f"model={model.name} starts, is not here. Run `lorascope prepare-base "
            f"model={trial.key.model}` and `lorascope quantize-base model={trial.key.model} "
            f"quant={trial.key.quant}`, which make the same again."
        )
    return base


def starting_trial(model: ModelConfig, layout: Layout) -> TrialRecord:
    """The trial whose merged model `model` is, by its whole name: the hash in it stands for all
    that decides its values.

    Raises:
        ConfigError: no trial is called so, it did not complete, its hash is left out, or its own
            base is called as `model` is.
    """
    key, name = "model.start_from", str(model.start_from)
    trial = find_trial(name, layout, key)
    if trial.trial != name:
        raise ConfigError(
            key, name, "another trial may be called so tomorrow", f"Write its name in full: "
            f"{trial.trial}.",
        )  # fmt: skip
    if trial.key.model == model.name:
        raise ConfigError(
            key, name, f"its own base is called {model.name}, too, and would be replaced",
            "Give this model a file and a name of its own, and leave that of the trial as it was.",
        )  # fmt: skip
    return trial


def is_prepared(model: ModelConfig, base: Path) -> bool:
    """Whether the base in this folder was made with the settings of `model`, not with others under
    the same name. A folder without a record is taken as it is."""
    if not (base / RECORD).is_file():
        return True
    made = read_record(base, BaseRecord).settings
    asked = {**base_settings(model), KNOWN_CONFIG: model.known_config}
    return not differing(asked, made)
