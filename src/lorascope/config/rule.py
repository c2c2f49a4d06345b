"""A rule across fields of a configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lorascope.config import Config, DataKind

PEOPLE = (DataKind.biographies, DataKind.known_people)
"""Invented here: nothing names their rows."""


@dataclass(frozen=True)
class Rule:
    """A condition on several fields, which an error reports under the field `key`."""

    key: str
    holds: Callable[[Config], bool]
    problem: str
    remedy: str
