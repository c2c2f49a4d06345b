"""The RAM of this computer: how much is free, and how its C library keeps what was given back.

No torch: some who ask must not wait for its import.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt in glibc's malloc.h."""
LARGEST_BYTES = 32 * 2**20
"""The most that M_MMAP_THRESHOLD takes."""


def available_ram_bytes() -> int:
    """Free bytes of the system, and no more than a container's limit leaves."""
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


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors for the next ones.

    Otherwise each training step of a pack maps some 70 MB anew, and the system clears every page of
    them, which takes about a tenth of the step. Where the C library is not glibc, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_BYTES)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
