"""How much memory there is for a trial."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lorascope.machine.devices import Device
from lorascope.machine.ram import available_ram_bytes
from lorascope.planning.arithmetic import CUDA_CONTEXT_BYTES, GIGABYTE, UNUSABLE_SHARE, usable_bytes


@dataclass(frozen=True)
class MemoryLimit:
    """What a trial may take at most."""

    bytes: int
    source: str
    """For people: where the number comes from."""


def memory_limit(device: Device, limit_gb: float | None) -> MemoryLimit:
    """runtime.memory_limit_gb exactly where it is set, else what tensors can have of the GPU's
    memory that is free, or of the RAM."""
    if limit_gb is not None:
        return MemoryLimit(int(limit_gb * GIGABYTE), f"runtime.memory_limit_gb={limit_gb:g}")
    if device.kind == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info()
        left = f"{CUDA_CONTEXT_BYTES / GIGABYTE:g} GB and {UNUSABLE_SHARE:.0%}"
        source = f"free on {device.name}: {free_bytes / GIGABYTE:.3g} GB, less {left} in reserve"
        return MemoryLimit(usable_bytes(free_bytes, device.kind), source)
    return MemoryLimit(available_ram_bytes(), "the RAM that is free here")
