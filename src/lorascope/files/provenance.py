"""What a result was made with: versions, device, commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tomllib
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from lorascope.files.layout import Layout
from lorascope.files.store import sha256_of_file
from lorascope.records import Provenance

CHECKOUT = Path(__file__).parents[3]
DECIDE_NOTHING = (
    "filelock", "jinja2", "matplotlib", "psutil", "pydantic", "pyyaml", "scipy", "tqdm",
)  # fmt: skip
"""Dependencies whose version changes neither a result nor how it was run."""

REWRITTEN_BY_RUNS = ("dvc.lock", "reports", "params.yaml")
"""Tracked files that a reproduction itself, or `dvc exp run -S`, rewrites: they must not make its
own results dirty. What params.yaml said, a record has among its settings."""

SOURCES = (":(glob)conf/**/*.yaml", ":(glob)src/**/*.py", "params.yaml", "dvc.yaml")
"""What decides a result wherever Git does not look, be it untracked or ignored."""
MODULES = ":(glob)**/*.py"
"""Beside src/ too: what lies in the working folder is imported before what is installed."""

GIT_SECONDS = 30
KEPT_OF_GIT = (
    "GIT_EXEC_PATH", "GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM",
    "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_COUNT",
    "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_",
)  # fmt: skip
"""Beginnings of variables that say how Git works. All others, which a hook or `git rebase --exec`
sets, say on which repository, index or paths: of another project."""


def capture(
    layout: Layout, device_name: str, threads: int, deterministic: bool = False
) -> Provenance:
    """What a result made now is made with. Unknown facts are None, never guessed.

    Versions are read from package metadata, so that nothing heavy is imported for them.
    """
    lock = layout.root / "dvc.lock"
    commit, dirty = git_state(layout)
    return Provenance(
        git_commit=commit,
        git_dirty=dirty,
        dvc_lock_sha256=sha256_of_file(lock) if lock.is_file() else None,
        versions=_versions(),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        device=device_name,
        threads=threads,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        deterministic=deterministic,
    )


def _versions() -> dict[str, str]:
    """Distribution -> version, of lorascope and what it depends on; what is not installed is left
    out."""
    found = {}
    for name in ("lorascope", *sorted(set(_dependencies()) - set(DECIDE_NOTHING))):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _dependencies() -> list[str]:
    try:
        declared = requires("lorascope") or []
    except PackageNotFoundError:
        # Run from a checkout that is not installed.
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
        declared = project["project"]["dependencies"]
    return [re.split(r"[^\w.-]", line)[0] for line in declared if "extra ==" not in line]


def git_state(layout: Layout) -> tuple[str | None, bool | None]:
    """(commit that holds the project, whether what decides results differs from it or is not in
    it). The commit is None where the project lies untracked in another repository, both are
    None without Git; files that stages rewrite count for nothing."""
    tracked = _git(layout, "ls-files", "--", ".")
    commit = _git(layout, "rev-parse", "--verify", "HEAD") if tracked else None
    excluded = [f":(exclude){path}" for path in REWRITTEN_BY_RUNS]
    changes = _git(
        layout, "status", "--porcelain", "--untracked-files=no", "--", ".", *excluded
    )  # fmt: skip
    if changes is None:
        return commit, None
    others = _git(layout, "ls-files", "--others", "--", *SOURCES)
    modules = _git(layout, "ls-files", "--others", "--exclude-standard", "--", MODULES)
    return commit, bool(changes or others or modules or not tracked or _hidden(layout))


def _hidden(layout: Layout) -> bool:
    """Whether Git was told to look away from a file (assume-unchanged, skip-worktree): it may
    differ, and `git status` would not say so."""
    marked = (line.split(" ", 1) for line in (_git(layout, "ls-files", "-v") or "").splitlines())
    return any(
        (tag == "S" or tag.islower()) and (layout.root / name).exists() for tag, name in marked
    )


def _git(layout: Layout, *arguments: str) -> str | None:
    """What git prints, or None where there is no git, no repository or no commit."""
    # Without optional locks, parallel stages that ask for a status do not fight over the index.
    ours = {
        k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k.startswith(KEPT_OF_GIT)
    }
    environment = {**ours, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        answer = subprocess.run(
            ["git", "-C", str(layout.root), *arguments], capture_output=True, text=True,
            errors="replace", check=True, timeout=GIT_SECONDS, env=environment,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
