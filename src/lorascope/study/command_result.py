"""What a command says to the program that called it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class CommandResult:
    """An exit code, and what `--json` prints."""

    exit_code: int = 0
    content: Mapping[str, object] = field(default_factory=dict)
    """Values as JSON has them, finite numbers only."""
