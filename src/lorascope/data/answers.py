"""Finding the answer in a text: the same way in the data and in what a model writes."""

from __future__ import annotations

import re


def find_answer(pattern: str, text: str) -> str | None:
    """What the pattern's group holds at its first match in `text`, without outer blanks."""
    match = re.search(pattern, text)
    return match.group(1).strip() if match and match.group(1) is not None else None


def is_right(generation: str, answer: str, pattern: str | None) -> bool:
    """Whether a generation gives the answer.

    Without a pattern: equal but for surrounding whitespace. With one: its group is taken from the
    *first* match in the generation, because a model that goes on after its answer makes up further
    questions; no match is wrong. The answer itself may be the group alone or a text that holds it.
    Commas and trailing dots are dropped on both sides: "1,234." is 1234.
    """
    if pattern is None:
        return generation.strip() == answer.strip()
    found, wanted = find_answer(pattern, generation), find_answer(pattern, answer)
    return found is not None and _bare(found) == _bare(answer if wanted is None else wanted)


def _bare(text: str) -> str:
    return text.strip().replace(",", "").rstrip(".").strip()
