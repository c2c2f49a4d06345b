"""The answer as lines of a terminal: what to ship, how sure that is, and what would settle it."""

from __future__ import annotations

import textwrap

from lorascope.comparing.ruling import Findings
from lorascope.reporting.pages.document import Inline
from lorascope.reporting.pages.recommendation import answer

WIDTH = 100
"""Columns of a terminal that lines should fit into."""


def answer_text(findings: Findings) -> str:
    """The headline, then the terms of the page's top, each a line or more."""
    found = answer(findings)
    lines = [f"{found.headline}: {found.state}."]
    lines += [f"{term}: {''.join(map(_word, line))}" for term, line in found.in_short]
    return "".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") + "\n" for line in lines)


def _word(part: Inline) -> str:
    return part if isinstance(part, str) else part.text
