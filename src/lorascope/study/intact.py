"""Whether the files that a stage reads are still those that their records describe.

A cut-off file may load, and another base behind the same name does: what comes out of either would
stand in the tables as this base's, this data's or this trial's. `read_record` itself holds records
against their own digest, and files against their sizes; here are their bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lorascope.config import Config
from lorascope.errors import RecordError
from lorascope.files.layout import ADAPTER_FILES, FORGETTING, RECORD, Layout
from lorascope.files.made_with import (
    Settings,
    base_settings,
    data_settings,
    differing,
    require_made_with,
)
from lorascope.files.store import read_record, require_content
from lorascope.quantizers.kinds import mode_settings
from lorascope.records import BaseRecord, DataCard, FootprintRecord, TrialRecord
from lorascope.study.params import READS, stage_command

R = TypeVar("R", BaseRecord, FootprintRecord, DataCard)
G = TypeVar("G")


_Records = dict[tuple[Path, type[object]], object]
_read: ContextVar[_Records | None] = ContextVar("_read", default=None)
_held: ContextVar[dict[tuple[Path, int], object] | None] = ContextVar("_held", default=None)


@contextmanager
def reading_once() -> Iterator[None]:
    """Inside the block a record of base, mode or data is read once, however many trials ask for it:
    what another process writes meanwhile is not seen."""
    if _read.get() is not None:
        yield
        return
    token, held = _read.set({}), _held.set({})
    try:
        yield
    finally:
        _read.reset(token)
        _held.reset(held)


def _record(folder: Path, record_type: type[R]) -> R:
    known = _read.get()
    if known is None:
        return read_record(folder, record_type)
    place = folder, record_type
    if place not in known:
        known[place] = read_record(folder, record_type)
    found = known[place]
    assert isinstance(found, record_type)
    return found


def read_base(config: Config, layout: Layout) -> BaseRecord:
    """The record of the full-precision base that `config` asks for.

    Raises:
        RecordError: it is missing, damaged, or made with other settings than are asked for.
    """
    folder = layout.base(config.model.name)
    return _prepared(folder, BaseRecord, config.model, base_settings, _base_again(config))


def read_mode(config: Config, layout: Layout) -> FootprintRecord:
    """The record of the base in the mode that `config` asks for.

    Raises:
        RecordError: as `read_base`; or it is that of another base, once behind the same name.
    """
    name, again = config.model.name, _mode_again(config)
    base, folder = read_base(config, layout), layout.quantized(name, config.quant.name)
    stored = _prepared(folder, FootprintRecord, config.quant, mode_settings, again)
    if stored.base_sha256 != base.content_sha256:
        raise RecordError(
            f"{folder}: made from another base than {layout.base(name)} now holds. "
            f"Run `{again}` again."
        )
    return stored


def read_data(config: Config, layout: Layout) -> DataCard:
    """The card of the prepared rows that `config` asks for; raises as `read_base`."""
    folder = layout.data(config.model.name, config.data.name)
    return _prepared(folder, DataCard, config.data, data_settings, _data_again(config))


def read_forgetting(config: Config, layout: Layout) -> DataCard | None:
    """The card of the rows that may be forgotten; None where none are asked for. It raises as
    `read_base`."""
    if config.forgetting is None:
        return None
    folder = layout.data(config.model.name, config.data.name) / FORGETTING
    again = _data_again(config)
    if not (folder / RECORD).is_file():
        raise RecordError(
            f"{folder / RECORD}: no record here. Run `{again}` first, or `dvc repro` "
            "for all that is missing."
        )
    card = _record(folder, DataCard)
    if changed := differing(data_settings(config.forgetting), card.settings):
        keys = ", ".join(key.partition(".")[2] for key in changed)
        raise RecordError(
            f"{folder}: conf/data/{config.forgetting.name}.yaml has another {keys} now than when "
            f"it was prepared. Run `{again}` again."
        )
    return card


def _prepared(
    folder: Path,
    record_type: type[R],
    group: G,
    settings_of: Callable[[G], Settings],
    command: str,
) -> R:
    """The record in `folder`, made as the settings `group` ask for; points of a grid share theirs,
    and are held against it once where records are read once."""
    known, place = _held.get(), (folder, id(group))
    if known is not None and place in known:
        return _record(folder, record_type)
    if not (folder / RECORD).is_file():
        raise RecordError(
            f"{folder / RECORD}: no record here. Run `{command}` first, or `dvc "
            "repro` for all that is missing."
        )
    record = _record(folder, record_type)
    made = record.settings
    if isinstance(record, FootprintRecord) and not made:
        # As far as it is known of records that kept no settings.
        told = {"storage": record.storage, "double_quantization": record.double_quantization}
        made = {f"quant.{key}": value for key, value in told.items() if value is not None}
    require_made_with(settings_of(group), made, folder, command)
    if known is not None:
        # Kept, so that no other group gets its id.
        known[place] = group
    return record


def require_base(config: Config, layout: Layout) -> None:
    """Raise RecordError unless the full-precision base is as it was prepared."""
    made = read_base(config, layout).content_sha256
    require_content(layout.base(config.model.name), made, f"Run `{_base_again(config)}` again.")


def require_stored(config: Config, layout: Layout) -> None:
    """Raise RecordError unless the base in its mode is as it was stored."""
    folder = layout.quantized(config.model.name, config.quant.name)
    made = read_mode(config, layout).content_sha256
    require_content(folder, made, f"Run `{_mode_again(config)}` again.")


def require_data(config: Config, layout: Layout) -> None:
    """Raise RecordError unless the prepared rows are as they were written."""
    folder = layout.data(config.model.name, config.data.name)
    cards = {folder: read_data(config, layout)}
    if (forgetting := read_forgetting(config, layout)) is not None:
        cards[folder / FORGETTING] = forgetting
    for place, card in cards.items():
        for split, own in card.splits.items():
            again = f"Run `{_data_again(config)}` again."
            require_content(place / f"{split}.jsonl", own.sha256, again)


def _read_rows(config: Config, layout: Layout) -> None:
    """Both cards."""
    read_data(config, layout)
    read_forgetting(config, layout)


def _base_again(config: Config) -> str:
    return f"lorascope prepare-base model={config.model.name}"


def _mode_again(config: Config) -> str:
    return f"lorascope quantize-base model={config.model.name} quant={config.quant.name}"


def _data_again(config: Config) -> str:
    named = "" if config.forgetting is None else f" evaluate.forgetting={config.forgetting.name}"
    return f"lorascope prepare-data model={config.model.name} data={config.data.name}{named}"


def require_adapter(trial: TrialRecord, folder: Path) -> None:
    """Raise RecordError unless `folder`, the trial's, holds the adapter that was trained."""
    made = trial.result.adapter_sha256 if trial.result else ""
    again = f"Delete {folder} and run `lorascope train-lora` with the same settings again."
    require_content(folder / "adapter", made, again, ADAPTER_FILES)


@dataclass(frozen=True)
class Unprepared:
    """Something that trials are trained from, and that is missing or damaged."""

    problem: str
    command: str
    """That makes it."""


def unprepared(
    configs: Sequence[Config], layout: Layout, overrides: Sequence[str]
) -> list[Unprepared]:
    """What `configs`, composed from `overrides`, need and do not find, in the order of stages."""
    found: dict[str, list[Unprepared]] = {stage: [] for stage in READS}
    seen: set[Path] = set()
    for config in configs:
        model, data, quant = config.model.name, config.data.name, config.quant.name
        for stage, folder, read in (
            ("prepare-base", layout.base(model), read_base),
            ("prepare-data", layout.data(model, data), _read_rows),
            ("quantize-base", layout.quantized(model, quant), read_mode),
        ):
            if folder in seen:
                continue
            seen.add(folder)
            try:
                if stage == "quantize-base" and found["prepare-base"]:
                    # Its base is told already: the same would be said of each mode.
                    read_record(folder, FootprintRecord)
                else:
                    read(config, layout)
            except RecordError as error:
                # One point of the grid: these stages run a single configuration.
                point = {"model": model, "data": data, "quant": quant}
                rest = [text for text in overrides if text.partition("=")[0] not in point]
                chosen = [f"{key}={value}" for key, value in point.items()]
                command = stage_command(stage, [*chosen, *rest])
                found[stage].append(Unprepared(str(error), command))
    return [missing for stage in READS for missing in found[stage]]
