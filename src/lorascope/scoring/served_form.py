"""A trial as it would be served: merged in float32, and stored in a mode of conf/quant. Whoever
scores it loads it again from disk."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import safe_open

from lorascope.bases.folder import copy_files, read_json, write_json
from lorascope.config import OBSERVED, QuantConfig, Rounding
from lorascope.data.calibration import CalibrationRows, calibration_rows
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.files.calibration import R, read_beside_model
from lorascope.files.store import sha256_of_files
from lorascope.machine.devices import Device
from lorascope.quantizers.footprint import measure_footprint, require_values_in_range
from lorascope.quantizers.kinds import mode_settings
from lorascope.quantizers.loading import (
    base_dtype,
    load_stored,
    quantize_base,
    unquantized_dtype,
)
from lorascope.records import CalibrationRecord, RoundingRecord, ServedForm
from lorascope.scoring.merged_folder import CONFIG, DTYPE_KEYS, end_of_text_id, write_merged
from lorascope.scoring.merging import merge


def store_served(
    stored: Path,
    quant: QuantConfig,
    base: Path,
    adapter: Path,
    mode: QuantConfig,
    device: Device,
    target: Path,
    train: Path,
) -> ServedForm:
    """Merge `adapter` into its dequantized base, and store the result in `mode` in `target`.

    Args:
        stored: the base that the adapter was trained on, of the mode `quant`.
        base: the full-precision base, as prepared.
        train: the prepared rows of train, on which a mode is calibrated that needs it: never those
            of validation or test.

    Raises:
        ModelError: PEFT cannot merge the adapter, the mode stores no layer of the model, or a value
            overflows it.
    """
    target.mkdir(exist_ok=True)
    # Inside, so that whoever sweeps up after a kill takes the merged model too.
    with TemporaryDirectory(dir=target) as scratch:
        merged = Path(scratch)
        plain = merge(load_stored(stored, quant), adapter, torch.float32)
        write_merged(plain, base, end_of_text_id(stored), merged)
        del plain
        _name_types_of(base, merged)
        quantize_base(merged, mode, device, target, _calibration(mode, train, merged))
        copy_files(merged, target)
    return weigh_served(target, mode, unquantized_dtype(mode, base_dtype(base)))


def _calibration(mode: QuantConfig, train: Path, model: Path) -> CalibrationRows | None:
    """The rows that a mode is calibrated on; None for one that reads none."""
    if not mode.reads_rows:
        return None
    return calibration_rows(read_rows(train), load_tokenizer(model), mode.calibration_rows)


def _name_types_of(base: Path, merged: Path) -> None:
    """Have the merged model's config.json name the base's type: what a mode does not quantize is
    then stored in 16 bits of the same kind as in the base, bfloat16 for a base of bfloat16."""
    values = read_json(merged / CONFIG)
    dtype = str(base_dtype(base)).removeprefix("torch.")
    changed = {key: dtype for key in DTYPE_KEYS if key in values}
    write_json(merged / CONFIG, {**values, **changed})


def weigh_served(folder: Path, mode: QuantConfig, types: torch.dtype) -> ServedForm:
    """What a merged model that is stored in `mode` weighs, read from its files.

    Args:
        types: of what is not quantized.

    Raises:
        ModelError: a value overflows the mode.
    """
    model = load_stored(folder, mode)
    require_values_in_range(model, mode.name, types)
    footprint = measure_footprint(model)
    return ServedForm(
        name=mode.name,
        settings=mode_settings(mode),
        total_bytes=footprint.total_bytes,
        file_bytes=sum(_tensor_bytes(file) for file in folder.glob("*.safetensors")),
        bits_per_quantized_parameter=footprint.bits_per_quantized_parameter,
        content_sha256=sha256_of_files(folder),
        calibration=_record(folder, CalibrationRecord, mode.storage in OBSERVED),
        rounding=_record(folder, RoundingRecord, mode.rounding is not Rounding.nearest),
    )


def _record(folder: Path, kind: type[R], is_there: bool) -> R | None:
    return read_beside_model(folder, kind) if is_there else None


def _tensor_bytes(file: Path) -> int:
    with safe_open(file, framework="pt") as tensors:
        names = list(tensors.keys())
        return sum(tensors.get_tensor(name).nbytes for name in names)
