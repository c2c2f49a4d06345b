"""The rows of a long table that a reader looks for: what ships, what it is held against, what is
open, and what validates best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from lorascope.comparing.results import CellKey
from lorascope.comparing.ruling import Findings


def leading_first(rows: Sequence[Any], findings: Findings) -> tuple[int, ...]:
    """Places of all `rows`, those that matter most first; empty where none names a configuration,
    as of layers, so that nothing tells which matter."""
    cells = [cells_of_row(row) for row in rows]
    if not any(cells):
        return ()
    ranks = _ranks(findings)
    return tuple(sorted(range(len(rows)), key=lambda place: _rank(cells[place], ranks)))


def _ranks(findings: Findings) -> dict[CellKey, int]:
    decision, sign = findings.decision, findings.measure.sign
    still_open = sorted(
        decision.open,
        key=lambda row: (
            row.beyond_margin,
            -sign * row.difference.value if row.difference else math.inf,
        ),
    )
    validated = sorted(
        findings.cells,
        key=lambda s: -math.inf if s.validation is None else sign * s.validation.value,
        reverse=True,
    )
    first = [decision.recommended, decision.reference]
    rest = [*(row.cell for row in still_open), *(score.cell for score in validated)]
    cells = dict.fromkeys(cell for cell in [*first, *rest] if cell is not None)
    return {cell: place for place, cell in enumerate(cells)}


def cells_of_row(row: Any) -> list[CellKey]:
    """The configurations that a row is about."""
    found = (getattr(row, name, None) for name in ("cell", "subject", "reference"))
    return [cell for cell in found if isinstance(cell, CellKey)]


def _rank(cells: Sequence[CellKey], ranks: Mapping[CellKey, int]) -> float:
    """A pair stands where the one of both stands that matters less."""
    return max((ranks.get(cell, math.inf) for cell in cells), default=0)
