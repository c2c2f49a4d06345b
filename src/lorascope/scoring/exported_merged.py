"""The merged model of an export, in the type that is asked for, and what its rounding cost."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lorascope.config import Config, Precision
from lorascope.errors import VerificationError
from lorascope.files.layout import Layout
from lorascope.records import GgufCheck, MergeRecord, TrialRecord
from lorascope.scoring.gguf_file import OUTTYPES, check_gguf, write_gguf
from lorascope.scoring.shipped_model import merge_verified

CHOSEN_BY = "export"
FOLDER = "merged"
"""What the converter reads lies in: what it calls a model by its folder must not vary."""


def export_merged(
    folder: Path, config: Config, layout: Layout, trial: TrialRecord, precision: Precision
) -> MergeRecord:
    """Merge `trial` into `folder` in `precision`, load it again with plain transformers, and
    compare it with adapter on base, both in float32: what differs is the weights' rounding.

    Raises:
        VerificationError: some logit is not finite: a weight overflows the type.
    """
    asked = replace(config, merge=replace(config.merge, precision=precision))
    record = merge_verified(folder, asked, layout, trial, CHOSEN_BY, None)
    if not math.isfinite(record.largest_logit_difference + record.merged_loss_nats):
        raise VerificationError(
            f"precision={precision.value}: the merged model gives numbers that are not finite: a "
            "weight is too large for it. Use precision=bfloat16 or float32."
        )
    return record


def export_gguf(
    folder: Path,
    config: Config,
    layout: Layout,
    trial: TrialRecord,
    precision: Precision,
    converter: Path,
) -> tuple[MergeRecord, GgufCheck]:
    """Merge `trial`, and have llama.cpp's converter make one file of it in `folder`.

    Raises:
        ConfigError: the converter fails.
        VerificationError: as `export_merged`, or the file has other bits.
    """
    outtype = OUTTYPES[precision.value]
    with TemporaryDirectory(dir=folder) as scratch:
        merged = Path(scratch) / FOLDER
        merged.mkdir()
        record = export_merged(merged, config, layout, trial, precision)
        file = folder / f"{trial.trial}.{outtype}.gguf"
        print(f"converting with {converter.name}", flush=True)
        write_gguf(converter, merged, trial.trial, outtype, file)
        return record, check_gguf(file, merged, record.stop_token_ids)
