"""Errors that are the disk's: full, not ours to write, misplaced or broken, and what to do."""

from __future__ import annotations

import errno
import os
import re

FULL = (errno.ENOSPC, errno.EDQUOT)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
MISPLACED = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
BROKEN = (errno.EIO, errno.ESTALE)


def is_full_disk(error: BaseException) -> bool:
    """Whether the disk, or this user's share of it, is full."""
    return _system_error(error) in FULL or "No space left on device" in str(error)


def disk_fault(error: BaseException) -> str | None:
    """What the disk refused and what to do about it, in a sentence for people; None for an error
    that is not the disk's."""
    number = _system_error(error)
    place = getattr(error, "filename", None)
    where = f"{place}: " if place else ""
    kept = "Nothing was left half-written; run it again then: what is finished is kept."
    if is_full_disk(error):
        return f"{where}no space left on the disk. Make room (`dvc gc -w` drops old cache). {kept}"
    if number in FORBIDDEN:
        return (
            f"{where}{os.strerror(number)}. Mount the disk for writing, or give this user the "
            f"right to read and write there. {kept}"
        )
    if number in MISPLACED:
        return (
            f"{where}{os.strerror(number)}. A file stands where a folder belongs, or a folder "
            f"where a file does: move it away. {kept}"
        )
    if number in BROKEN:
        return (
            f"{where}{os.strerror(number)}. The disk or network drive itself fails: check it "
            f"(`dmesg`), or move the project to another one. {kept}"
        )
    return None


def _system_error(error: BaseException) -> int:
    """The system's error number, 0 where there is none; safetensors gives it in words only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told.group(1)) if told else 0
