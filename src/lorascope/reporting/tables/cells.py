"""Every configuration with its scores over items and seeds, and what it costs."""

from __future__ import annotations

from typing import Any

from lorascope.comparing.results import CellScore, Measure
from lorascope.comparing.ruling import Findings
from lorascope.reporting import units
from lorascope.reporting.measure_text import MeasureText
from lorascope.reporting.tables.cell_columns import cell_columns
from lorascope.reporting.tables.table import Column, Table, Wrap


def cell_table(findings: Findings) -> Table[CellScore]:
    """One row a configuration, the bare bases and those without a score among them."""
    cells, measure = findings.cells, findings.measure
    items = {score.accuracy.items for score in cells if score.accuracy}
    return Table(
        (
            *cell_columns(score.cell for score in cells),
            Column("seeds", "Seeds", in_text=any(len(score.trials) > 1 for score in cells),
                   get=_scored_seeds),
            *_estimate_columns("accuracy", "Accuracy %", MeasureText(Measure.accuracy)),
            Column("chance", "Chance %", units.percent,
                   get=lambda row: findings.chance if row.accuracy else None),
            *_estimate_columns("loss", "Loss nats", MeasureText(Measure.loss_nats)),
            Column("validation", f"Validation {MeasureText(measure).unit}",
                   MeasureText(measure).score, get=_of("validation", "value")),
            Column("items", "Items", units.count, in_text=len(items) > 1, get=_items),
            Column("clusters", "Clusters", in_text=False, get=_of("loss", "clusters")),
            *_cost_columns(),
            Column("state", "Status", right=False, wrap=Wrap.prose, get=_state),
        ),
        cells,
    )  # fmt: skip


def _of(estimate: str, field: str) -> Any:
    """From a row to one number of one of its estimates."""
    return lambda row: getattr(getattr(row, estimate), field, None)


def _estimate_columns(name: str, header: str, texts: MeasureText) -> tuple[Column, ...]:
    def interval(row: CellScore) -> tuple[float, float] | None:
        estimate = getattr(row, name)
        return None if estimate is None else (estimate.low, estimate.high)

    def show(ends: tuple[float, float]) -> str:
        return " to ".join(map(texts.score, ends))

    return (
        Column(name, header, texts.score, get=_of(name, "value")),
        Column(f"{name}_standard_error", "± SE", texts.width, get=_of(name, "standard_error")),
        Column(f"{name}_item_error", "of items", texts.width, get=_of(name, "item_error")),
        Column(f"{name}_interval", "95 % interval", show, in_csv=False, get=interval),
        Column(f"{name}_low", "Low", in_text=False, get=_of(name, "low")),
        Column(f"{name}_high", "High", in_text=False, get=_of(name, "high")),
        Column(f"{name}_seed_deviation", "Seed SD", texts.width, get=_of(name, "seed_deviation")),
    )


def _cost_columns() -> tuple[Column, ...]:
    def of(field: str) -> Any:
        return lambda row: getattr(row.cost, field)

    def peak_kind(row: CellScore) -> str | None:
        if row.cost.training_peak_bytes is None:
            return None
        return "measured" if row.cost.peak_measured else "predicted"

    return (
        Column("serving_bytes", "Serving", units.size, get=of("serving_bytes")),
        Column("training_peak_bytes", "Training peak", units.size, get=of("training_peak_bytes")),
        Column("training_peak_is", "Peak is", right=False, get=peak_kind),
        Column("adapter_bytes", "Adapter", units.size, get=of("adapter_bytes")),
        Column("train_seconds", "Train s", units.seconds, get=of("train_seconds")),
        Column("money", "Money", lambda value: f"{value:.4g}", get=of("money")),
        Column("energy_watt_hours", "Energy Wh", lambda value: f"{value:.4g}",
               get=of("energy_watt_hours")),
    )  # fmt: skip


def _scored_seeds(row: CellScore) -> int | None:
    if row.cell.base:
        return None
    return sum(1 for trial in row.trials if trial.test is not None)


def _items(row: CellScore) -> int | None:
    estimate = row.accuracy or row.loss
    return estimate.items if estimate else None


def _state(row: CellScore) -> str:
    """'base', 'complete', or what came of the seeds that have no score."""
    if row.cell.base:
        return "base" if row.complete else "base, not scored"
    if row.complete:
        return "complete"
    lost = [trial for trial in row.trials if trial.test is None]
    if len(row.trials) == 1:
        return lost[0].status
    return "; ".join(f"seed {trial.seed} {trial.status}" for trial in lost) or "incomplete"
