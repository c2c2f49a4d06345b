"""The columns that say which configuration a row is about, the same in every table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lorascope.comparing.results import CellKey
from lorascope.records import Dial, dial_text
from lorascope.reporting.cell_names import dials_of, varied_fields
from lorascope.reporting.tables.table import Column


def cell_columns(
    cells: Iterable[CellKey], *, targets: bool | None = None, role: str = "cell"
) -> tuple[Column, ...]:
    """All in CSV; in text the mode, numbers, and what varies.

    Args:
        targets: whether text has them; None where they vary.
        role: the rows' field that holds their configuration.
    """
    cells = list(cells)
    varied = varied_fields(cells)

    def named(field: str, header: str, in_text: bool) -> Column:
        def get(row: Any) -> Any:
            return getattr(getattr(row, role), field) or None

        return Column(field, header, right=False, in_text=in_text, get=get)

    def of_dial(dial: Dial) -> Column:
        values = {cell.dial(dial.name) for cell in cells} - {None}
        number = not any(isinstance(value, bool | str) for value in values)
        return Column(
            dial.name, dial.header, dial_text, right=number,
            in_text=number or dial.name in varied,
            get=lambda row: getattr(row, role).dial(dial.name),
        )  # fmt: skip

    return (
        named("quant", "Mode", True),
        named("method", "Method", "method" in varied),
        named("targets", "Targets", "targets" in varied if targets is None else targets),
        *map(of_dial, dials_of(cells)),
        named("variant", "Settings", "variant" in varied),
    )


def machine_columns(role: str, cells: Iterable[CellKey]) -> tuple[Column, ...]:
    """The same for CSV alone, of the configuration that rows have under `role`."""
    columns = cell_columns(cells, role=role)
    return tuple(replace(one, key=f"{role}_{one.key}", in_text=False) for one in columns)
