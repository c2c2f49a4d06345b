"""Revisions of the numbers, raised where the same settings and inputs give other values, and the
digest of settings.

They are part of what makes two trials the same; the text of the code is not.
tests/files/test_revisions.py fails where code that decides values is not the code that was recorded
last, and says what to do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from lorascope.config import Precision
from lorascope.records import TrialRecord

SHORT_HASH_LENGTH = 10
MADE_BY = ("code", "revisions")
"""Settings that say which code trained a trial; `code` in records from before revisions."""
DIGESTS = ("base", "data")
"""Settings that are digests of content."""
SHOWN_LETTERS = 10
"""Of a digest."""

RAISED: Mapping[str, tuple[str, ...]] = {
    "adapters": (),
    "bases": (),
    "data": (),
    "objectives": (),
    "quantizers": (),
    "scoring": (),
    "training": (),
}
"""Room -> why its revision was raised, once for each time: what gave other values, and in which
case. The first revision is 1."""

RAISED_IN_16_BITS: Mapping[str, tuple[str, ...]] = {
    "objectives": (
        "with quant.compute=bfloat16 or float16, validation and scoring compute adapters in that "
        "type, as training does, and no more in float32",
    ),
}
"""The same, where only a base that is told to compute in 16 bits gives other values, in training
or in an evaluation. `auto` computes in 16 bits on a GPU only, and nothing had run there."""

RAISED_FOR_LONG_SAMPLES: Mapping[str, tuple[str, ...]] = {
    "training": (
        "on a CPU batches of long samples of unequal length are computed without padding: the same "
        "but for rounding, 1e-6 of a loss, and for what dropout of the base itself and of methods "
        "other than LoRA draws",
        "the same in validation, from 256 tokens on average wherever a position is padding",
    ),
}
"""The same, where samples may be longer than SHORT_TOKENS."""
SHORT_TOKENS = 64
"""`data.max_tokens` up to which no batch is computed without padding: its samples would have to
have as many on average, and be no longer."""

TRAINING = ("adapters", "bases", "data", "objectives", "quantizers", "training")
"""Rooms whose code decides an adapter's values. Prepared rows and stored bases count by content."""
SCORING = ("adapters", "bases", "data", "objectives", "quantizers", "scoring")
"""Rooms whose code decides scores."""

FORMER_TRAINING_CODE = {
    "3fbf8ffcb3050b8241130ed7f0d256d0c4d0ff9bd1ef8eb9d88603e3caf111ab": "e819478",
    "cf431e33b9d93fec2e2358e2786933f1bcb0ff570989cef7540ea1746bf47b4d": "f955575",
}
"""Digest of the code that trained, once part of the identity -> its commit. Whatever these trained
has the values of revision 1 everywhere: docs/log.md, 2026-11-27."""
FORMER_SCORING_CODE = {
    "e819478": (
        "c49aca19c368d0c345d1ac239a432e3314c180ea9d984645d037f4abd5e823fd",
        "d7ad02642aba4fac39a02d42a76b45378df87572ddb1287e9def45d38c15afd7",
        "e97c5bda373bbc3380ae2b5c800741f25972c17d351f7ab386a98bbf23707534",
        "9954aa0a51891f1da112118a8dfe5d732d45bd8960a963ba22eeda22916c8995",
    ),
    "f955575": (
        "551d64a1f1621fa82cf9a959da6e3055ab6be159c6af36bc8d00e353025a7c19",
        "d68cc608f447355e8832195ff5d4f269fd8dc15d2507a1fa46414079f91259c3",
        "5091be734a2df2858f85b6aa1eb7d4d64be4cee0f1f7b4bf8c866aeb5f11d2fb",
        "a2e38ae8d94a18765f4a56dc6908b47e81b4c7f925d6f19e6c617a86d9d58ec6",
    ),
}
"""Commit -> digests of the code that scored, in the order in which identities had them."""


def canonical_sha256(value: object) -> str:
    """Digest of plain data, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def revisions(rooms: Iterable[str], compute: str, max_tokens: int = 0) -> dict[str, int]:
    """The present revision of each room for a base with this `quant.compute`, and for samples of at
    most so many tokens where they are trained on."""
    return {room: 1 + len(reasons(room, compute, max_tokens)) for room in rooms}


def reasons(room: str, compute: str, max_tokens: int = 0) -> tuple[str, ...]:
    """Why a room's revision was raised, as far as it matters here."""
    sixteen_bits = compute in (Precision.bfloat16, Precision.float16)
    return (
        (RAISED_IN_16_BITS.get(room, ()) if sixteen_bits else ())
        + (RAISED_FOR_LONG_SAMPLES.get(room, ()) if max_tokens > SHORT_TOKENS else ())
        + RAISED[room]
    )


def raised(revisions_of: Mapping[str, int]) -> dict[str, int]:
    """The revisions that are not the first."""
    return {room: revision for room, revision in revisions_of.items() if revision > 1}


def known_revisions(settings: Mapping[str, Any]) -> Mapping[str, int] | None:
    """Raised revisions of the code that trained a trial of these settings; None for code of which
    nobody has shown whose values it gives."""
    if "code" in settings:
        return {} if settings["code"] in FORMER_TRAINING_CODE else None
    return raised(settings["revisions"]) if "revisions" in settings else None


def trained_by(trial: TrialRecord) -> str:
    """The code whose values a trial has, for people."""
    if trial.taken_over and trial.taken_over.assumed:
        return trial.taken_over.trained_by
    return code_name(trial.settings)


def code_name(settings: Mapping[str, Any]) -> str:
    """The code that trained a trial of these settings, for people."""
    if "code" in settings:
        code = str(settings["code"])
        commit = FORMER_TRAINING_CODE.get(code)
        return f"code {code[:SHOWN_LETTERS]}" + (f" (lorascope at {commit})" if commit else "")
    if "revisions" not in settings:
        return "unknown code"
    later = raised(settings["revisions"])
    return ", ".join(f"{room} revision {n}" for room, n in sorted(later.items())) or "revision 1"
