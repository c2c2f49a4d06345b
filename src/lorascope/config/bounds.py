"""Bounds of one setting: the values that it takes, and what an error says of any other.

A bound stands at its field in the schema. Rules across fields stand in `config.rules`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

BOUND = "bound"
"""Key of a field's metadata."""
INFINITE = float("inf")
MAX_RANK = 512
MAX_SEED = 2**32 - 1
"""Largest seed of numpy's and torch's generators, which transformers seeds together."""
NAMED_GROUPS = ("model", "data", "quant", "train", "decide")
"""Groups of conf/ whose files have a `name`."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MAX_NAME_LENGTH = 64
"""A trial's folder carries its mode's name and more, and file systems end at 255 bytes."""
FOLDERS_OF_STAGES = ("base", "merged", "raw", "served")
"""models/<model>/base, merged and served lie beside models/<model>/<quant>; models/raw and
data/raw beside models/<model> and data/<data>."""
NOT_CHOSEN = "???"
"""Name in a group that no file was chosen of: Hydra refuses it, tests leave it so."""
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Bound:
    """The values that a setting takes. An empty setting (None) is never judged."""

    holds: Callable[[Any], bool]
    problem: str
    remedy: str = ""


def bounded(default: Any, bound: Bound, remedy: str = "") -> Any:
    """A field of the schema with its default, its bound and the remedy for values outside it."""
    held = Bound(bound.holds, bound.problem, remedy or bound.remedy)
    return field(default=default, metadata={BOUND: held})


def is_name(text: str) -> bool:
    """Whether a setting may be named so, and a folder of this name be made and replaced."""
    return (
        NAME.fullmatch(text) is not None
        and len(text) <= MAX_NAME_LENGTH
        # Some file systems do not tell upper from lower case.
        and text.lower() not in FOLDERS_OF_STAGES
    )


def is_commit(text: str | None) -> bool:
    """Whether a text is a whole commit hash."""
    return text is not None and COMMIT.fullmatch(text) is not None


def is_encodable(text: str) -> bool:
    """Whether a text can be written as UTF-8; half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def one_of(noun: str, words: Sequence[str]) -> Bound:
    """One of a few words that a library takes."""
    return Bound(
        lambda word: word in words, f"no such {noun}", f"Choose one of {', '.join(words)}."
    )


def named(group: str) -> Any:
    """The field that names a file of conf/ and the folders that stages make for it."""
    return bounded(
        NOT_CHOSEN,
        Bound(
            lambda name: name == NOT_CHOSEN or is_name(name),
            f"names a folder, so that it takes 1 to {MAX_NAME_LENGTH} letters, digits, dots, "
            "dashes and underscores, a letter or digit first, and is none of "
            f"{', '.join(FOLDERS_OF_STAGES)}, which stages make themselves",
            f"Give the file in conf/{group}, and `name` in it, another name.",
        ),
    )


ONE_OR_MORE = Bound(lambda value: value >= 1, "must be 1 or more")
ZERO_OR_MORE = Bound(lambda value: value >= 0, "must be 0 or more")
FINITE = Bound(lambda value: 0 <= value < INFINITE, "must be 0 or more, and finite")
ABOVE_ZERO = Bound(lambda value: 0 < value < INFINITE, "must be greater than 0 and finite")
BELOW_ONE = Bound(lambda value: 0 <= value < 1, "must lie in [0, 1)")
UP_TO_ONE = Bound(lambda value: 0 < value <= 1, "must lie in (0, 1]")
SPLIT_SHARE = Bound(lambda value: 0 < value < 0.5, "a split's share must lie between 0 and 0.5")
DAY = Bound(_is_day, "is not a date", "Write it as 2024-07-26.")
SEED = Bound(
    lambda seed: 0 <= seed <= MAX_SEED,
    f"a seed must be a whole number from 0 to {MAX_SEED}",
    "0 is usual.",
)


def between(low: float, high: float, problem: str = "must lie between {} and {}") -> Bound:
    """From `low` to `high`, both included."""
    return Bound(lambda value: low <= value <= high, problem.format(low, high))
