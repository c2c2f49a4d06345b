"""A trial that is named, whatever grid declared it, with the configuration to load and ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope.config import Config
from lorascope.errors import RecordError
from lorascope.files.layout import RECORD, Layout
from lorascope.files.store import read_record
from lorascope.files.trials import find_trial
from lorascope.records import MergeRecord, TrialRecord
from lorascope.study.grid import expand, with_overrides
from lorascope.study.intact import read_data, read_mode, require_adapter, require_stored
from lorascope.study.params import declared_overrides

BASE = "base"
"""In place of a trial's name: the bare base."""


@dataclass(frozen=True)
class Named:
    """What is asked."""

    name: str
    config: Config
    """Of its base, mode and data; its adapter's and its training's settings need not be in it."""
    trial: TrialRecord | None
    """None for the bare base."""
    adapter: Path | None
    data_changed: bool
    """Whether its data were prepared with other rows or settings since it was trained."""


def find_named(name: str | None, overrides: Sequence[str], layout: Layout) -> Named:
    """The trial called `name`, whose hash may be left out; the bare base for `base`, and what is
    shipped for None.

    Args:
        overrides: for the base, which one; for a trial, settings that its data or mode were made
            with beside those of conf/.

    Raises:
        ConfigError: no trial is called so, several are, or it did not complete.
        RecordError: nothing is shipped, or the trial's base is not here, or another one.
    """
    if name == BASE:
        config = expand(layout, with_overrides(declared_overrides(layout), overrides))[0]
        read_data(config, layout)
        require_stored(config, layout)
        return Named(f"{config.model.name} as {config.quant.name}", config, None, None, False)
    trial = find_trial(name or _shipped(overrides, layout), layout, also=(BASE,))
    return named_as(trial, trained_with(trial, layout, overrides), layout)


def named_as(trial: TrialRecord, config: Config, layout: Layout) -> Named:
    """`trial` with a configuration of its model, data and mode, which must be what it was trained
    beside.

    Raises:
        RecordError: the trial's base is not here, or another one.
    """
    folder = layout.trials(trial.key.quant) / trial.trial
    if read_mode(config, layout).content_sha256 != trial.settings.get("base"):
        place = layout.quantized(config.model.name, trial.key.quant).relative_to(layout.root)
        raise RecordError(
            f"{trial.trial}: trained on another base than {place} now holds. Train it again, or "
            "bring that base back."
        )
    require_stored(config, layout)
    require_adapter(trial, folder)
    changed = read_data(config, layout).content_sha256 != trial.settings.get("data")
    return Named(trial.trial, config, trial, folder / "adapter", changed)


def trained_with(trial: TrialRecord, layout: Layout, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a trial's base, mode, data and objective, as conf/ has them now."""
    return expand(layout, [*_overrides_of(trial), *overrides])[0]


def _overrides_of(trial: TrialRecord) -> list[str]:
    """Of its model, data and mode, what it was trained for, and how the base computed then."""
    quant = trial.settings.get("quant")
    compute = quant.get("compute") if isinstance(quant, dict) else None
    told = {"quant.compute": compute, "model.attention": trial.settings.get("attention")}
    train = trial.settings.get("train")
    if isinstance(train, dict):
        told["train.objective"] = train.get("objective")
    key = trial.key
    chosen = [f"model={key.model}", f"data={key.data}", f"quant={key.quant}"]
    return chosen + [f"{name}={value}" for name, value in told.items() if value is not None]


def _shipped(overrides: Sequence[str], layout: Layout) -> str:
    """The trial of the merged model."""
    config = expand(layout, with_overrides(declared_overrides(layout), overrides))[0]
    folder = layout.merged(config.model.name)
    if not (folder / RECORD).is_file():
        raise RecordError(
            f"{folder.relative_to(layout.root)}: nothing is shipped here. Name a trial, such as "
            "trial=nf4-r0008, or trial=base for the bare base; `lorascope merge` ships one."
        )
    return read_record(folder, MergeRecord).trial
