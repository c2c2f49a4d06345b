"""The answer as lines of a terminal: what to ship, how sure that is, and what would settle it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from lorascope.comparing.ruling import Findings
from lorascope.reporting.pages.document import Line
from lorascope.reporting.pages.recommendation import answer

WIDTH = 100
"""Columns of a terminal that lines should fit into."""


def answer_text(findings: Findings) -> str:
    """The headline, then the terms of the page's top, each a line or more."""
    found = answer(findings)
    lines = [f"{found.headline}: {found.state}."]
    return folded([*lines, *(f"{term}: {_words(line)}" for term, line in found.in_short)])


def numbers_text(findings: Findings) -> str:
    """Numbers that the answer does not say, and the trial that ships; where none does, why."""
    found = answer(findings)
    facts = [fact for fact in found.facts if not (found.in_short and fact.in_short)]
    notes = found.notes[-1:] if found.in_short else found.notes
    return folded([f"{f.label}: {f.value} ({f.note})" for f in facts] + [*map(_words, notes)])


def folded(lines: Iterable[str]) -> str:
    """Lines of a terminal's width; what does not fit goes on in the next, indented."""
    return "".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") + "\n" for line in lines)


def _words(line: Line) -> str:
    return "".join(part if isinstance(part, str) else part.text for part in line)
