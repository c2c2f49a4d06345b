"""Whether the files that a stage reads are still those that their records describe.

A cut-off file may load, and another base behind the same name does: what comes out of either would
stand in the tables as this base's, this data's or this trial's. `read_record` itself holds records
against their own digest, and files against their sizes; here are their bytes.
"""

from __future__ import annotations

from pathlib import Path

from lorascope.config import Config
from lorascope.layout import ADAPTER_FILES, Layout
from lorascope.records import BaseRecord, DataCard, FootprintRecord, TrialRecord
from lorascope.store import read_record, require_content


def require_base(config: Config, layout: Layout) -> None:
    """Raise RecordError unless the full-precision base is as it was prepared."""
    name = config.model.name
    folder = layout.base(name)
    made = read_record(folder, BaseRecord).content_sha256
    require_content(folder, made, f"Run `lorascope prepare-base model={name}` again.")


def require_stored(config: Config, layout: Layout) -> None:
    """Raise RecordError unless the base in its mode is as it was stored."""
    name, quant = config.model.name, config.quant.name
    folder = layout.quantized(name, quant)
    made = read_record(folder, FootprintRecord).content_sha256
    again = f"Run `lorascope quantize-base model={name} quant={quant}` again."
    require_content(folder, made, again)


def require_data(config: Config, layout: Layout) -> None:
    """Raise RecordError unless the prepared rows are as they were written."""
    name, data = config.model.name, config.data.name
    folder = layout.data(name, data)
    again = f"Run `lorascope prepare-data model={name} data={data}` again."
    for split, card in read_record(folder, DataCard).splits.items():
        require_content(folder / f"{split}.jsonl", card.sha256, again)


def require_adapter(trial: TrialRecord, folder: Path) -> None:
    """Raise RecordError unless `folder`, the trial's, holds the adapter that was trained."""
    made = trial.result.adapter_sha256 if trial.result else ""
    again = f"Delete {folder} and run `lorascope train-lora` with the same settings again."
    require_content(folder / "adapter", made, again, ADAPTER_FILES)
