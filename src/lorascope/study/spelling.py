"""What somebody may have meant who wrote a key that is not there."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


def closest(word: str, known: Sequence[str]) -> str:
    """A sentence that names what may have been meant; empty where nothing is near."""
    last_parts = {key.rpartition(".")[2]: key for key in reversed(known)}
    same = last_parts.get(word) or next((one for one in known if one.startswith(f"{word}_")), None)
    if same:
        return f" Did you mean {same}?"
    near = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    if not near:
        ends = get_close_matches(word.rpartition(".")[2], list(last_parts), n=1, cutoff=0.6)
        near = [last_parts[end] for end in ends]
    return f" Did you mean {near[0]}?" if near else ""
