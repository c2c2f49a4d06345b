"""The columns that say which configuration a row is about, the same in every table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from lorascope.comparing.results import Cell
from lorascope.reporting import units
from lorascope.reporting.cell_names import varied_fields
from lorascope.reporting.tables.table import Column


def cell_columns(cells: Iterable[Cell]) -> tuple[Column, ...]:
    """For rows with a field `cell`. Text leaves out adapter settings that do not vary."""
    varied = varied_fields(cells)

    def of_adapter(field: str) -> Any:
        return lambda row: None if row.cell.is_base else getattr(row.cell, field)

    return (
        Column("quant", "Mode", right=False, get=lambda row: row.cell.quant),
        Column(
            "targets", "Targets", right=False, in_text="targets" in varied,
            get=of_adapter("targets"),
        ),
        Column("rank", "Rank", get=of_adapter("rank")),
        Column("alpha", "Alpha", units.number, get=of_adapter("alpha")),
        Column(
            "rslora", "rsLoRA", units.yes_no, right=False, in_text="rslora" in varied,
            get=of_adapter("rslora"),
        ),
        Column(
            "dora", "DoRA", units.yes_no, right=False, in_text="dora" in varied,
            get=of_adapter("dora"),
        ),
        Column(
            "variant", "Settings", right=False, in_text="variant" in varied,
            get=of_adapter("variant"),
        ),
    )  # fmt: skip


def machine_columns(role: str) -> tuple[Column, ...]:
    """For CSV alone: every field of the cell that a row has under `role`."""

    def of(field: str) -> Any:
        return lambda row: getattr(getattr(row, role), field)

    return tuple(
        Column(f"{role}_{field}", field, in_text=False, get=of(field))
        for field in (field.name for field in fields(Cell))
    )
