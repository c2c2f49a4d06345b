"""Tokens a second and money a million tokens, beside hosted prices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lorascope.comparing.ruling import Findings
from lorascope.comparing.token_prices import TokenPrice
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.tables.table import Column, Table

NOT_MEASURED = "not measured"
NO_PRICE = "no price"


def token_price_table(findings: Findings) -> Table[TokenPrice]:
    """A row a scored configuration, then the hosted models."""
    names = CellNames.of(findings)
    rows = findings.token_prices
    priced = any(row.read_money is not None or row.written_money is not None for row in rows)
    return Table(
        (
            Column("model", "Model", right=False, get=lambda row: _name(row, names)),
            Column("read", "Read tokens/s", get=_speed("read_per_second")),
            Column("written", "Written tokens/s", get=_speed("written_per_second")),
            *([
                Column("read_money", "Money / million read", get=_money("read")),
                Column("written_money", "Money / million written", get=_money("written")),
            ] if priced else []),
            Column("timed_seconds", "Timed s", units.seconds),
            Column("batch_size", "Batch", get=lambda row: batches(row.batch_sizes)),
            Column("device", "Device", right=False),
        ),
        rows,
    )  # fmt: skip


def _name(row: TokenPrice, names: CellNames) -> str:
    return f"hosted: {row.hosted}" if row.cell is None else names.name(row.cell)


def batches(sizes: tuple[int, ...]) -> str | None:
    """8, or 1 to 8 where seeds were scored with several."""
    if not sizes:
        return None
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


def _speed(key: str) -> Callable[[Any], str | None]:
    def get(row: TokenPrice) -> str | None:
        value: float | None = getattr(row, key)
        if value is None:
            return None if row.cell is None else NOT_MEASURED
        return speed(value)

    return get


def _money(what: str) -> Callable[[Any], str]:
    def get(row: TokenPrice) -> str:
        value: float | None = getattr(row, f"{what}_money")
        if value is not None:
            return money(value)
        return NOT_MEASURED if getattr(row, f"{what}_per_second") is None else NO_PRICE

    return get


def speed(tokens_per_second: float) -> str:
    """1,234, or 8.5 where there are few."""
    digits = 1 if tokens_per_second < 10 else 0
    return f"{tokens_per_second:,.{digits}f}"


def money(value: float) -> str:
    """Three significant digits: 0.0123, 1.5."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
