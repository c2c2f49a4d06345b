"""What a measurement was made with: commit, processor, versions."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lorascope.files.layout import Layout
from lorascope.files.provenance import git_state

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


def commit() -> str:
    """Hash of the checkout, and whether it has changes, reports and dvc.lock apart."""
    named, dirty = git_state(Layout(REPOSITORY))
    if named is None:
        return "unknown"
    return f"{named} with changes" if dirty else named


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
