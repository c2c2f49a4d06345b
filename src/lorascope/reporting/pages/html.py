"""A document as one HTML file that asks nothing of anybody: style, script and figures are in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from lorascope.comparing.results import CellKey
from lorascope.reporting.leading_rows import cells_of_row
from lorascope.reporting.pages.charts import inlined, marks_as_json, swatch, width
from lorascope.reporting.pages.document import Block, ByMedium, Document, Section, TableBlock
from lorascope.reporting.tables.table import Column, PageCell, Table

FILTERED_FROM = 8
"""Rows from which on a table gets a field to filter by."""
WIDE_FROM = 15
"""Columns from which on a table leaves out those that say the same in all rows."""
FOLDED_FROM, FIRST_ROWS = 31, 20
"""Rows from which on a table shows so many first, and the others when they are asked for."""

SCRIPTS = ("sections.js", "tables.js", "zoom.js", "charts.js", "links.js")
"""Each uses what stands in those before it."""


def html_page(document: Document) -> str:
    """The whole page; equal documents give equal bytes."""
    environment = Environment(
        loader=FunctionLoader(_packaged),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.tests["kind"] = lambda part, kind: type(part).__name__ == kind
    places = {cell: place for place, cell in enumerate(document.cells)}
    environment.filters["inlined"] = inlined
    environment.filters["swatch"] = swatch
    environment.filters["width"] = width
    environment.filters["marks"] = lambda figure: marks_as_json(figure, places)
    environment.filters["blocks"] = _blocks
    environment.filters["rows"] = lambda block: _rows(block, places)
    return environment.get_template("report.html.j2").render(
        page=document,
        style=Markup(_packaged("report.css")),
        script=Markup("".join(map(_packaged, SCRIPTS))),
        filtered_from=FILTERED_FROM,
        first_rows=FIRST_ROWS,
    )


def _packaged(name: str) -> str:
    return (files("lorascope.reporting.pages") / "templates" / name).read_text(encoding="utf-8")


def _blocks(section: Section) -> list[Block]:
    found: list[Block] = []
    for block in section.blocks:
        found += block.html if isinstance(block, ByMedium) else (block,)
    return found


@dataclass(frozen=True)
class _Rows:
    """The rows of a table on the page."""

    columns: list[Column]
    same: str
    """Columns that a wide table leaves out, as all its rows have the same there."""
    count: int
    first: list[tuple[list[PageCell], str]]
    """Those that are there from the start: their cells, and their configurations' numbers."""
    rest: Markup | None
    """The others, as a browser reads them when they are asked for; None where there are none."""


def _rows(block: TableBlock, places: Mapping[CellKey, int]) -> _Rows:
    table, same = _narrowed(block.table)
    columns, count = table.shown(), len(table.rows)
    numbers = [_numbers(row, places) for row in table.rows]
    rows = list(zip(table.page_rows(), numbers, strict=True))
    if count < FOLDED_FROM:
        return _Rows(columns, same, count, rows, None)
    order = block.leading_first or tuple(range(count))
    first = sorted(order[:FIRST_ROWS])
    shown = set(first)
    rest = [row for place, row in enumerate(rows) if place not in shown]
    kept = [rows[place] for place in first]
    return _Rows(columns, same, count, kept, _rest_as_json(rest, order))


def _narrowed(table: Table[Any]) -> tuple[Table[Any], str]:
    """A table that fits on a page, and in words what all rows of a wide one have in common."""
    columns = table.shown()
    if len(columns) < WIDE_FROM or len(table.rows) < 2:
        return table, ""
    by_column = zip(columns, zip(*table.page_rows(), strict=True), strict=True)
    said = {
        column.key: f"{column.header} {cells[0].text}"
        for column, cells in by_column
        if cells[0].text and len({cell.text for cell in cells}) == 1
    }
    return table.without(*said), f"In all rows: {', '.join(said.values())}." if said else ""


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
