"""A whole check: base after base within the time, and its two files."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import torch

from benchmarks.gpu_check.base_check import Asked, check_base
from benchmarks.gpu_check.findings import findings
from benchmarks.gpu_check.page import as_markdown
from benchmarks.gpu_check.records import LORA, BaseRow, Effort, GpuCheck, LayerRow, StepRow
from benchmarks.origin import commit, versions
from lorascope.config import QuantConfig
from lorascope.files.store import write_atomically
from lorascope.machine.devices import Device

OnRow = Callable[[BaseRow | StepRow | LayerRow], None]


def growing_checks(
    configs: Mapping[str, Mapping[str, object]],
    quants: Sequence[QuantConfig],
    device: Device,
    effort: Effort,
    on_row: OnRow,
) -> Iterator[GpuCheck]:
    """What is known after each base. Each gets an equal share of the time that is left then, so
    that what one does not need is the next one's.

    Args:
        configs: shape -> its config.json.
        on_row: called with each row as soon as it is there.
    """
    started = time.monotonic()
    bases: list[BaseRow] = []
    steps: list[StepRow] = []
    layers: list[LayerRow] = []
    pairs = list(product(configs.items(), quants))
    for index, ((shape, config), quant) in enumerate(pairs):
        left = started + effort.deadline_seconds - time.monotonic()
        until = time.monotonic() + left / (len(pairs) - index)
        for row in check_base(Asked(shape, config, quant, device, effort, until)):
            on_row(row)
            if isinstance(row, BaseRow):
                bases.append(row)
            elif isinstance(row, StepRow):
                steps.append(row)
            else:
                layers.append(row)
        yield GpuCheck(
            device_name=device.name, device_bytes=_device_bytes(device),
            cuda_version=str(torch.version.cuda), git_commit=commit()[0], versions=versions(),
            lora=LORA, effort=effort, seconds=time.monotonic() - started,
            bases=bases, steps=steps, layers=layers, findings=findings(bases, steps, layers),
        )  # fmt: skip


def write_check(folder: Path, check: GpuCheck) -> Path:
    """Write the record as JSON and the page beside it, named by device and commit; the page's
    path."""
    words = f"{check.device_name.removeprefix('cuda: ')} {check.git_commit[:12]}"
    page = folder / f"{re.sub(r'[^a-z0-9]+', '-', words.lower()).strip('-')}.md"
    record = json.dumps(asdict(check), indent=2, allow_nan=False) + "\n"
    write_atomically(page.with_suffix(".json"), record.encode())
    write_atomically(page, as_markdown(check).encode())
    return page


def _device_bytes(device: Device) -> int:
    """Of a CUDA device; 0 for others, whose memory is not theirs alone."""
    if device.kind != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(0).total_memory)
