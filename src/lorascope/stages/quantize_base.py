"""quantize-base: the base in one mode, and what it weighs."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorascope.bases.folder import copy_tokenizer, runs_own_code
from lorascope.comparing.coverage import partial_modes
from lorascope.config import Config, QuantConfig
from lorascope.files.layout import Layout
from lorascope.files.provenance import capture
from lorascope.files.store import replaced_folder, sha256_of_files, write_record
from lorascope.machine.libraries import import_uncollected
from lorascope.quantizers.kinds import QUANTIZERS, mode_settings
from lorascope.records import BaseRecord, FootprintRecord, LayerError
from lorascope.study.intact import read_base, require_base


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], overrides: Sequence[str]
) -> None:
    """Store the base in the mode of the only configuration."""
    run(configs[0], layout)


def run(config: Config, layout: Layout) -> FootprintRecord:
    """Store the base of config.model in the mode config.quant."""
    import_uncollected("lorascope.quantizers.loading", "lorascope.quantizers.footprint")
    from lorascope.machine.devices import choose_device, use_threads
    from lorascope.quantizers.footprint import measure_footprint
    from lorascope.quantizers.loading import quantize_base

    require_base(config, layout)
    base = read_base(config, layout)
    device = choose_device(config.runtime.device)
    threads = use_threads(config.runtime.threads)
    started = time.perf_counter()
    print(f"storing {base.model} as {config.quant.name}", flush=True)
    source = layout.base(base.model)
    with replaced_folder(layout.quantized(base.model, config.quant.name)) as folder:
        quantize_base(source, config.quant, device, folder)
        copy_tokenizer(source, folder)
        stored, layers = _compare(source, folder, base, config.quant)
        footprint = measure_footprint(stored)
        record = FootprintRecord(
            model=base.model,
            quant=config.quant.name,
            storage=config.quant.storage.value,
            double_quantization=config.quant.double_quantization,
            settings=mode_settings(config.quant),
            base_sha256=base.content_sha256,
            content_sha256=sha256_of_files(folder),
            quantized_parameters=footprint.quantized_parameters,
            quantized_weight_bytes=footprint.quantized_weight_bytes,
            quantization_constant_bytes=footprint.quantization_constant_bytes,
            unquantized_bytes=footprint.unquantized_bytes,
            total_bytes=footprint.total_bytes,
            bits_per_quantized_parameter=footprint.bits_per_quantized_parameter,
            layers=layers,
            matrix_parameters=base.matrix_parameters,
            seconds=time.perf_counter() - started,
            provenance=capture(layout, device.name, threads),
        )
        write_record(folder, record)
    for sentence in partial_modes([record]):
        print(f"warning: {sentence}", file=sys.stderr)
    print(f"{base.model} as {record.quant}: {record.total_bytes:,} bytes")
    return record


def _compare(
    source: Path, folder: Path, base: BaseRecord, quant: QuantConfig
) -> tuple[Any, list[LayerError]]:
    """The stored model as it is on disk, and its layers' errors against the exact base."""
    import torch
    from transformers import AutoModelForCausalLM

    from lorascope.quantizers.footprint import layer_errors, require_values_in_range
    from lorascope.quantizers.loading import base_dtype, unquantized_dtype

    own_code = runs_own_code(source)
    exact = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, use_safetensors=True, trust_remote_code=own_code
    )
    stored = AutoModelForCausalLM.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=own_code
    )
    unquantized = unquantized_dtype(quant, base_dtype(source))
    QUANTIZERS[quant.storage].prepare(stored, unquantized)
    require_values_in_range(stored, quant.name, unquantized)
    return stored, layer_errors(exact, stored, [shape.name for shape in base.linear_shapes])
