"""The version of the records' format, and what a record says of code, versions and device."""

from __future__ import annotations

from dataclasses import dataclass

RECORD_FORMAT = 2
"""Version of the records on disk: 2 since the key of a trial names its method and dials."""


@dataclass(frozen=True)
class Provenance:
    """Code, versions and device that a result was made with."""

    git_commit: str | None
    git_dirty: bool | None
    dvc_lock_sha256: str | None
    versions: dict[str, str]
    python: str
    platform: str
    device: str
    """Readable device name, e.g. 'cpu: Intel Xeon' or 'cuda: NVIDIA H200'."""
    threads: int
    created_utc: str
    deterministic: bool = False
    """Whether torch was held to algorithms that give the same bits each time."""
