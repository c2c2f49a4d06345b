"""The rows of a table on the page: those that are there from the start, and the others as text, of
which a browser makes rows when they are asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lorascope.comparing.results import CellKey
from lorascope.reporting.leading_rows import cells_of_row
from lorascope.reporting.pages.document import TableBlock
from lorascope.reporting.tables.table import Column, PageCell, Table

FILTERED_FROM = 8
"""Rows from which on a table gets a field to filter by."""
WIDE_FROM = 15
"""Columns from which on a table leaves out those that say the same in all rows."""
FOLDED_FROM, FIRST_ROWS = 31, 20
"""Rows from which on a table shows so many first, and the others when they are asked for."""


@dataclass(frozen=True)
class PageRows:
    """The rows of a table on the page."""

    columns: list[Column]
    same: str
    """Columns that a wide table leaves out, as all its rows have the same there."""
    count: int
    first: list[tuple[list[PageCell], str]]
    """Those that are there from the start: their cells, and their configurations' numbers."""
    rest: Markup | None
    """The others, as a browser reads them when they are asked for; None where there are none."""


def page_rows(block: TableBlock, places: Mapping[CellKey, int]) -> PageRows:
    """Of a block. `places`: configuration -> its number on the page."""
    columns, cells, same = _narrowed(block.table)
    count = len(block.table.rows)
    numbers = [_numbers(row, places) for row in block.table.rows]
    rows = list(zip(cells, numbers, strict=True))
    if count < FOLDED_FROM:
        return PageRows(columns, same, count, rows, None)
    order = block.leading_first or tuple(range(count))
    first = sorted(order[:FIRST_ROWS])
    shown = set(first)
    rest = [row for place, row in enumerate(rows) if place not in shown]
    kept = [rows[place] for place in first]
    return PageRows(columns, same, count, kept, _rest_as_json(rest, order))


def _narrowed(table: Table[Any]) -> tuple[list[Column], list[list[PageCell]], str]:
    """Columns and cells that fit on a page, and in words what all rows of a wide table have in
    common."""
    columns, rows = table.shown(), table.page_rows()
    if len(columns) < WIDE_FROM or len(rows) < 2:
        return columns, rows, ""
    alike = [
        bool(cells[0].text) and len({cell.text for cell in cells}) == 1
        for cells in zip(*rows, strict=True)
    ]
    said = [f"{c.header} {rows[0][n].text}" for n, c in enumerate(columns) if alike[n]]
    kept = [place for place, same in enumerate(alike) if not same]
    return (
        [columns[place] for place in kept],
        [[row[place] for place in kept] for row in rows],
        f"In all rows: {', '.join(said)}." if said else "",
    )


def _numbers(row: object, places: Mapping[CellKey, int]) -> str:
    """Of the configurations that a row is about."""
    numbers = (places.get(cell) for cell in cells_of_row(row))
    return " ".join(str(number) for number in numbers if number is not None)


def _rest_as_json(rows: Sequence[tuple[list[PageCell], str]], order: Sequence[int]) -> Markup:
    """Rows without the first ones, each its configurations' numbers and its cells; a cell is its
    text, or a list of text, what it sorts by and what it links to. `order`: places of all rows,
    those first that matter most."""
    cells = [
        [
            numbers,
            *(
                cell.text if cell.order is cell.href is None else [cell.text, cell.order, cell.href]
                for cell in row
            ),
        ]
        for row, numbers in rows
    ]
    text = json.dumps({"order": order, "rows": cells}, ensure_ascii=False, separators=(",", ":"))
    # Nothing in it may end the element, or begin a comment.
    return Markup(text.replace("<", "\\u003c"))
