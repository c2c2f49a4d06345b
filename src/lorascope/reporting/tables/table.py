"""One small table type: rows are dataclasses, columns say which field and how people read it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Generic, TypeVar

Row = TypeVar("Row")


class Wrap(StrEnum):
    """Where a column's text may be broken."""

    never = "never"
    print = "print"
    """Long names: on paper, and on a screen where a table would be cut."""
    prose = "prose"
    """Sentences: between words."""


@dataclass(frozen=True)
class Column:
    """One column."""

    key: str
    """The rows' field, and the CSV's header; its unit stands in it."""
    header: str
    """For people."""
    show: Callable[[Any], str] = str
    """From a known cell to text for people."""
    right: bool = True
    """Numbers stand on the right."""
    in_csv: bool = True
    in_text: bool = True
    """In Markdown, on the page and on the terminal."""
    get: Callable[[Any], Any] | None = None
    """From a row to its cell, where that is not the field `key`."""
    wrap: Wrap = Wrap.never
    """Where its text may take several lines."""
    href: Callable[[Any], str | None] | None = None
    """From a row to what its cell links to, on the page and in Markdown."""

    def cell(self, row: Any) -> Any:
        """What `row` has in this column; None is unknown."""
        return getattr(row, self.key) if self.get is None else self.get(row)


def of(part: str, field: str) -> Callable[[Any], Any]:
    """From a row to a field of one of its parts; None where the row, or the part, is missing."""
    return lambda row: getattr(getattr(row, part, None), field, None)


@dataclass(frozen=True)
class PageCell:
    """One cell of the HTML page."""

    text: str
    order: str | None
    """By which the column sorts, where the text alone would mislead."""
    href: str | None


@dataclass(frozen=True)
class Table(Generic[Row]):
    """Rows of one type under columns. CSV is for machines: exact numbers, unknown cells blank.

    Text is for people: rounded, with units, and without the columns that no row fills.
    """

    columns: tuple[Column, ...]
    rows: Sequence[Row]

    def select(self, *keys: str) -> Table[Row]:
        """The same rows under fewer columns, in the order of `keys`."""
        by_key = {column.key: column for column in self.columns}
        return Table(tuple(by_key[key] for key in keys), self.rows)

    def keys_to(self, last: str) -> tuple[str, ...]:
        """Keys of the first columns, up to `last`."""
        keys = [column.key for column in self.columns]
        return tuple(keys[: keys.index(last) + 1])

    def only(self, rows: Sequence[Row]) -> Table[Row]:
        """Other rows under the same columns."""
        return Table(self.columns, rows)

    def with_columns(self, *columns: Column) -> Table[Row]:
        """More columns; one whose key is there already takes its place."""
        new = {column.key: column for column in columns}
        kept = tuple(new.pop(column.key, column) for column in self.columns)
        return Table((*kept, *new.values()), self.rows)

    def without(self, *keys: str) -> Table[Row]:
        """Fewer columns."""
        return Table(tuple(c for c in self.columns if c.key not in keys), self.rows)

    def csv(self) -> str:
        """Comma-separated text with a header line."""
        columns = [column for column in self.columns if column.in_csv]
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([column.key for column in columns])
        for row in self.rows:
            writer.writerow([_machine(column.cell(row)) for column in columns])
        return stream.getvalue()

    def markdown(self) -> str:
        """A Markdown table whose source is aligned too."""
        return self._markdown

    @cached_property
    def _markdown(self) -> str:
        columns, cells = self._text()
        cells = [[escaped(_one_line(cell)).replace("|", "\\|") for cell in row] for row in cells]
        for place, column in enumerate(columns):
            if column.href is not None:
                for row, line in zip(self.rows, cells[1:], strict=True):
                    line[place] = _linked(line[place], column.href(row))
        widths = _widths(cells)
        rule = [
            "-" * (width - 1) + ":" if column.right else "-" * width
            for column, width in zip(columns, widths, strict=True)
        ]
        lines = [_padded(row, columns, widths) for row in (cells[0], rule, *cells[1:])]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def plain(self, gap: str = "  ") -> str:
        """Aligned columns for a terminal, one row a line."""
        columns, cells = self._text()
        cells = [[_one_line(cell) for cell in row] for row in cells]
        widths = _widths(cells)
        return "".join(gap.join(_padded(row, columns, widths)).rstrip() + "\n" for row in cells)

    def shown(self) -> list[Column]:
        """Columns for people that some row fills."""
        return self._cells[0]

    def page_rows(self) -> list[list[PageCell]]:
        """Cells [rows, shown columns] of the HTML page."""
        columns, cells, words = self._cells
        return [
            [_page_cell(*one, row) for one in zip(columns, own, said, strict=True)]
            for row, own, said in zip(self.rows, cells, words, strict=True)
        ]

    def _text(self) -> tuple[list[Column], list[list[str]]]:
        columns, _, words = self._cells
        return columns, [[column.header for column in columns], *words]

    @cached_property
    def _cells(self) -> tuple[list[Column], list[list[Any]], list[list[str]]]:
        """Columns for people that some row fills, their cells and their words [rows, columns]: made
        once, as Markdown, page and terminal show the same."""
        columns = [column for column in self.columns if column.in_text]
        by_column = [[column.cell(row) for row in self.rows] for column in columns]
        kept = [
            (column, cells, [_human(column, cell) for cell in cells])
            for column, cells in zip(columns, by_column, strict=True)
            if not cells or any(cell is not None for cell in cells)
        ]
        if not kept or not self.rows:
            return (
                [column for column, _, _ in kept],
                [[] for _ in self.rows],
                [[] for _ in self.rows],
            )
        shown, cells, words = zip(*kept, strict=True)
        return (
            list(shown),
            [list(row) for row in zip(*cells, strict=True)],
            [list(row) for row in zip(*words, strict=True)],
        )


def _machine(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return str(cell)


def _human(column: Column, cell: Any) -> str:
    return "" if cell is None else column.show(cell)


def _page_cell(column: Column, cell: Any, shown: str, row: Any) -> PageCell:
    order = cell[0] if isinstance(cell, tuple) and cell else cell
    number = isinstance(order, int | float) and not isinstance(order, bool)
    href = column.href(row) if column.href is not None and cell is not None else None
    plain = shown.replace(".", "", 1).isdigit()
    return PageCell(shown, f"{order:.6g}" if number and not plain else None, href)


def escaped(text: str) -> str:
    """For Markdown: what opens HTML or a link's address in a name or a reason stays text."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text).replace("](", "]\\(")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _linked(words: str, address: str | None) -> str:
    return words if address is None or not words else f"[{words}]({address})"


def _widths(cells: list[list[str]]) -> list[int]:
    return [max(3, *map(len, column)) for column in zip(*cells, strict=True)]


def _padded(row: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> list[str]:
    return [
        cell.rjust(width) if column.right else cell.ljust(width)
        for cell, column, width in zip(row, columns, widths, strict=True)
    ]
