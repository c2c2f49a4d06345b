"""Finding the answer in a text: the same way in the data and in what a model writes."""

from __future__ import annotations

import re


def find_answer(pattern: str, text: str) -> str | None:
    """What the pattern's group holds at its first match in `text`, without outer blanks."""
    match = re.search(pattern, text)
    return match.group(1).strip() if match and match.group(1) is not None else None
