"""Errors that are the disk's: full, not ours to write, misplaced or broken, and what to do."""

from __future__ import annotations

import errno
import os
import re

FULL = (errno.ENOSPC, errno.EDQUOT)
REMEDIES = (
    (
        (errno.EROFS, errno.EACCES, errno.EPERM),
        "Mount the disk for writing, or give this user the right to read and write there.",
    ),
    (
        (errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
        "A file stands where a folder belongs, or a folder where a file does: move it away.",
    ),
    (
        (errno.EIO, errno.ESTALE),
        "The disk or network drive itself fails: check it (`dmesg`), or move the project.",
    ),
)
NO_TEMPORARY = "No usable temporary directory"
"""What tempfile says, also where the system's disk is full."""
KEPT = "Nothing was left half-written; run it again then: what is finished is kept."


def is_full_disk(error: BaseException) -> bool:
    """Whether the disk, or this user's share of it, is full."""
    return _system_error(error) in FULL or "No space left on device" in str(error)


def disk_fault(error: BaseException) -> str | None:
    """What the disk refused and what to do about it, in a sentence for people; None for an error
    that is not the disk's."""
    place = getattr(error, "filename", None)
    where = f"{place}: " if place else ""
    if NO_TEMPORARY in str(error):
        remedy = "set TMPDIR to a folder that can be written, or make room in /tmp."
        return f"{NO_TEMPORARY}: {remedy} {KEPT}"
    if is_full_disk(error):
        return f"{where}no space left on the disk. Make room (`dvc gc -w` drops old cache). {KEPT}"
    number = _system_error(error)
    for numbers, remedy in REMEDIES:
        if number in numbers:
            return f"{where}{os.strerror(number)}. {remedy} {KEPT}"
    return None


def _system_error(error: BaseException) -> int:
    """The system's error number, 0 where there is none; safetensors gives it in words only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told.group(1)) if told else 0
