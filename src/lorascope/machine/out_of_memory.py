"""Errors of memory that ran out. They have more names than one; no torch: messages tell them."""

from __future__ import annotations

MESSAGES = (
    "out of memory",  # torch.OutOfMemoryError, and torch.AcceleratorError from a kernel's launch
    "can't allocate memory",  # torch's allocator on a CPU
    "CUBLAS_STATUS_ALLOC_FAILED",  # a product's handle or workspace
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Parts of a RuntimeError's text, in whatever case, that say so. Of those for CUDA none was seen on
a GPU; they stand in torch's source."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that the memory of a device or of the computer ran out."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part.lower() in text for part in MESSAGES)
