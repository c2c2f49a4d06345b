"""quantize-base: the base in one mode, and what it weighs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from lorascope.bases.folder import copy_files
from lorascope.comparing.coverage import partial_modes
from lorascope.config import Config
from lorascope.files.layout import Layout
from lorascope.files.provenance import capture
from lorascope.files.replacing import replaced_folder, write_atomically
from lorascope.files.store import sha256_of_files, write_record
from lorascope.machine.libraries import import_uncollected
from lorascope.quantizers.kinds import mode_settings
from lorascope.records import FootprintRecord
from lorascope.study.intact import read_base, require_base


def command(configs: Sequence[Config], layout: Layout, *_: object) -> FootprintRecord:
    """Store the base of config.model in the mode config.quant."""
    config = configs[0]
    import_uncollected("lorascope.quantizers.loading", "lorascope.quantizers.footprint")
    from lorascope.machine.devices import choose_device, use_threads
    from lorascope.quantizers.footprint import compared, measure_footprint
    from lorascope.quantizers.loading import quantize_base

    require_base(config, layout)
    base = read_base(config, layout)
    device = choose_device(config.runtime.device, config.runtime.place)
    threads = use_threads(config.runtime.threads)
    started = time.perf_counter()
    print(f"storing {base.model} as {config.quant.name}", flush=True)
    source = layout.base(base.model)
    with replaced_folder(layout.quantized(base.model, config.quant.name)) as folder:
        quantize_base(source, config.quant, device, folder)
        copy_files(source, folder)
        names = [shape.name for shape in base.linear_shapes]
        stored, layers = compared(source, folder, config.quant, names)
        footprint = measure_footprint(stored)
        record = FootprintRecord(
            model=base.model,
            quant=config.quant.name,
            storage=config.quant.storage.value,
            double_quantization=config.quant.double_quantization,
            settings=mode_settings(config.quant),
            base_sha256=base.content_sha256,
            content_sha256=sha256_of_files(folder),
            **vars(footprint),
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
    write_atomically(
        layout.stored(record.quant), f'{{"sha256": "{record.content_sha256}"}}\n'.encode()
    )
    print(f"{base.model} as {record.quant}: {record.total_bytes:,} bytes")
    return record
