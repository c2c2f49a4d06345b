"""A trial that is named, whatever grid declared it, with the configuration to load and ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from lorascope.config import Config
from lorascope.errors import ConfigError, RecordError, first_names
from lorascope.files.layout import RECORD, Layout
from lorascope.files.store import read_record
from lorascope.records import FORM_MARK, MergeRecord, Status, TrialRecord
from lorascope.study.grid import expand, with_overrides
from lorascope.study.intact import read_data, read_mode, require_adapter, require_stored
from lorascope.study.params import declared_overrides

BASE = "base"
"""In place of a trial's name: the bare base."""
SHOWN = 3
"""Names that may have been meant."""


@dataclass(frozen=True)
class Named:
    """What is asked."""

    name: str
    config: Config
    """Of its base, mode and data; its adapter's and its training's settings are not in it."""
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
    trial = _find(name or _shipped(overrides, layout), layout)
    config = expand(layout, [*_overrides_of(trial), *overrides])[0]
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


def _overrides_of(trial: TrialRecord) -> list[str]:
    """Of its model, data and mode, and how the base computed while it was trained."""
    quant = trial.settings.get("quant")
    compute = quant.get("compute") if isinstance(quant, dict) else None
    told = {"quant.compute": compute, "model.attention": trial.settings.get("attention")}
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


def _find(name: str, layout: Layout) -> TrialRecord:
    if FORM_MARK in name:
        raise ConfigError(
            "trial", name, "a served form is merged to be scored, and not kept",
            f"Leave out what follows {FORM_MARK}: the adapter answers on its base.",
        )  # fmt: skip
    folders = {p.parent.name: p.parent for p in layout.trials("any").parent.glob(f"*/*/{RECORD}")}
    folders = {one: folder for one, folder in folders.items() if not one.startswith(".")}
    matching = [name] if name in folders else [one for one in folders if one.startswith(name)]
    if len(matching) != 1:
        raise _unclear(name, sorted(matching), sorted(folders))
    trial = read_record(folders[matching[0]], TrialRecord)
    if trial.status is not Status.completed:
        reason = f" ({trial.reason})" if trial.reason else ""
        raise ConfigError(
            "trial", name, f"it has no adapter to ask: {trial.status.value}{reason}",
            "`lorascope status` says how to train it again.",
        )  # fmt: skip
    return trial


def _unclear(name: str, matching: list[str], known: list[str]) -> ConfigError:
    if matching:
        listed = first_names(matching)
        return ConfigError("trial", name, f"several are called so: {listed}", "Name one in full.")
    near = get_close_matches(name, known, SHOWN, cutoff=0.3)
    remedy = f"Did you mean {' or '.join(near)}?" if near else "`lorascope status` lists them."
    if not known:
        remedy = "None is trained yet: run `lorascope train-lora`, or ask trial=base."
    return ConfigError("trial", name, "no trial is called so", remedy)
