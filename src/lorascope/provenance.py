"""What a result was made with: versions, device, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from lorascope.layout import Layout
from lorascope.records import Provenance
from lorascope.store import sha256_of_file

BUILT_ON = (
    "lorascope",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "dvc",
    "hydra-core",
    "lm-eval",
    "mlflow",
    "numpy",
    "omegaconf",
    "peft",
    "safetensors",
    "torch",
    "transformers",
)
"""Distributions whose version can change a result or how it was run."""

REWRITTEN_BY_STAGES = ("dvc.lock", "reports")
"""Tracked files that a reproduction itself rewrites: they must not make its own results dirty."""

GIT_SECONDS = 30


def capture(layout: Layout, device_name: str, threads: int) -> Provenance:
    """What a result made now is made with. Unknown facts are None, never guessed.

    Versions are read from package metadata, so that nothing heavy is imported for them.
    """
    lock = layout.root / "dvc.lock"
    return Provenance(
        git_commit=_git(layout, "rev-parse", "--verify", "HEAD"),
        git_dirty=_git_dirty(layout),
        dvc_lock_sha256=sha256_of_file(lock) if lock.is_file() else None,
        versions=_versions(),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        device=device_name,
        threads=threads,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _versions() -> dict[str, str]:
    """Distribution -> version; what is not installed is left out."""
    found = {}
    for name in BUILT_ON:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git_dirty(layout: Layout) -> bool | None:
    """Whether a tracked file differs from the commit, files that stages rewrite apart."""
    excluded = [f":(exclude){path}" for path in REWRITTEN_BY_STAGES]
    changes = _git(
        layout, "status", "--porcelain", "--untracked-files=no", "--", ".", *excluded
    )  # fmt: skip
    return None if changes is None else bool(changes)


def _git(layout: Layout, *arguments: str) -> str | None:
    """What git prints, or None where there is no git, no repository or no commit."""
    # Without optional locks, parallel stages that ask for a status do not fight over the index.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        answer = subprocess.run(
            ["git", "-C", str(layout.root), *arguments],
            capture_output=True, text=True, check=True, timeout=GIT_SECONDS, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
