"""How much RAM is free here, for whoever must not wait for torch."""

from __future__ import annotations

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


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
