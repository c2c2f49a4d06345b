"""What must be there before a grid's trials have names, and the commands that make what is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorascope.config import Config
from lorascope.errors import RecordError
from lorascope.files.layout import Layout
from lorascope.files.store import read_record
from lorascope.records import FootprintRecord
from lorascope.study.intact import read_base, read_data, read_mode
from lorascope.study.params import READS, stage_command


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
            ("prepare-data", layout.data(model, data), read_data),
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
