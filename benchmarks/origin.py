"""What a measurement was made with: commit, processor, versions."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
CPU_DESCRIPTION = Path("/proc/cpuinfo")
BUILT_ON = (
    "lorascope",
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "lm-eval",
    "mlflow",
    "dvc",
)
REWRITTEN = ":(exclude)reports"
"""A benchmark writes there itself."""


def commit() -> tuple[str, bool]:
    """(hash of the checkout, whether its tracked files are as committed, reports apart)."""
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", REWRITTEN)
    named = _git("rev-parse", "HEAD")
    if not named:
        return "unknown", False
    return (named, True) if changes == "" else (f"{named} with changes", False)


def processor() -> str:
    """The processor's own name where the system tells it, and how many of its cores there are."""
    described = CPU_DESCRIPTION.read_text().splitlines() if CPU_DESCRIPTION.is_file() else []
    names = [line.partition(":")[2].strip() for line in described if line.startswith("model name")]
    if names:
        return f"{names[0]}, {len(names)} cores"
    return platform.processor() or platform.machine()


def versions() -> str:
    """Python's and those of all that takes part."""
    found = [f"Python {platform.python_version()}"]
    for name in BUILT_ON:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
