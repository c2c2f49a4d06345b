"""How much memory there is for a trial."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from lorascope.devices import Device
from lorascope.maths.memory import CUDA_CONTEXT_BYTES, GIGABYTE, UNUSABLE_SHARE, usable_bytes

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class MemoryLimit:
    """What a trial may take at most."""

    bytes: int
    source: str
    """For people: where the number comes from."""


def memory_limit(device: Device, limit_gb: float | None, share: float = 1.0) -> MemoryLimit:
    """What a pack may have that shares the memory with others: of runtime.memory_limit_gb where it
    is set, else of what tensors can have of the GPU's memory that is free, or of the RAM."""
    whole = _whole_limit(device, limit_gb)
    return whole if share == 1 else replace(whole, bytes=int(whole.bytes * share))


def _whole_limit(device: Device, limit_gb: float | None) -> MemoryLimit:
    if limit_gb is not None:
        return MemoryLimit(int(limit_gb * GIGABYTE), f"runtime.memory_limit_gb={limit_gb:g}")
    if device.kind == "cuda":
        free_bytes, _ = torch.cuda.mem_get_info()
        left = f"{CUDA_CONTEXT_BYTES / GIGABYTE:g} GB and {UNUSABLE_SHARE:.0%}"
        source = f"free on {device.name}: {free_bytes / GIGABYTE:.3g} GB, less {left} in reserve"
        return MemoryLimit(usable_bytes(free_bytes, device.kind), source)
    return MemoryLimit(available_ram_bytes(), "the RAM that is free here")


def available_ram_bytes() -> int:
    """What the system can give, and what a container's limit leaves."""
    available = int(psutil.virtual_memory().available)
    limit, used = (_cgroup_bytes(name) for name in ("memory.max", "memory.current"))
    return available if limit is None or used is None else min(available, max(0, limit - used))


def _cgroup_bytes(name: str) -> int | None:
    """A number of this control group (version 2); None where there is none."""
    try:
        text = (CGROUP / name).read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
