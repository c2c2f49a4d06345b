"""One rule on a configuration, and what several rules say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lorascope.config import Config

MAX_RANK = 512
INFINITE = float("inf")
ONE_OR_MORE = "must be 1 or more"
ABOVE_ZERO = "must be greater than 0 and finite"


@dataclass(frozen=True)
class Rule:
    """`holds` says whether the value under `key` can be used; if not, the rest says why."""

    key: str
    holds: Callable[[Config], bool]
    problem: str
    remedy: str


def is_encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8; half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
