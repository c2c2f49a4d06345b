"""Memory: how much RAM is free, how the C library keeps what was given back, and errors that say
that it ran out.

No torch: some who ask must not wait for its import.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt in glibc's malloc.h."""
LARGEST_BYTES = 32 * 2**20
"""The most that M_MMAP_THRESHOLD takes."""
RAN_OUT = (
    "out of memory",  # torch.OutOfMemoryError, and torch.AcceleratorError from a kernel's launch
    "can't allocate memory",  # torch's allocator on a CPU
    "CUBLAS_STATUS_ALLOC_FAILED",  # a product's handle or workspace
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Parts of a RuntimeError's text, in whatever case, that say so. Of those for CUDA none was seen on
a GPU; they stand in torch's source."""


@dataclass(frozen=True)
class MemoryLimit:
    """Most bytes that a trial may take."""

    bytes: int
    source: str
    """Origin of the number, for people."""


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


def give_back_freed_memory() -> None:
    """Give the system the memory of freed tensors that the C library keeps; nothing happens where
    it cannot be asked to."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that the memory of a device or of the computer ran out."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part.lower() in text for part in RAN_OUT)
