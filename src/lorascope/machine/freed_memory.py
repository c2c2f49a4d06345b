"""What glibc does with memory that tensors gave back."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
LARGEST_BYTES = 32 * 2**20
"""The most that M_MMAP_THRESHOLD takes."""


def keep_freed_memory() -> None:
    """Keep it for the next tensors of this process. Else each training step of a pack maps some
    70 MB anew, and the system clears every page of them, for about a tenth of its
    time. Where the C library is not glibc, nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_BYTES)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
