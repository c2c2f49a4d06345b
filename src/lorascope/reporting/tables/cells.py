"""Every configuration with its scores over items and seeds, and what it costs."""

from __future__ import annotations

from collections.abc import Iterator

from lorascope.comparing.costs import COSTS, CostKind
from lorascope.comparing.results import CellScore, Measure
from lorascope.comparing.ruling import Findings
from lorascope.config import Cost
from lorascope.reporting import units
from lorascope.reporting.cell_names import cell_columns
from lorascope.reporting.tables.table import Column, Table, Wrap, of


def cell_table(findings: Findings) -> Table[CellScore]:
    """One row a configuration, the bare bases and those without a score among them."""
    cells, measure = findings.cells, findings.measure
    items = {score.accuracy.items for score in cells if score.accuracy}
    return Table(
        (
            *cell_columns(score.cell for score in cells),
            Column("seeds", "Seeds", in_text=any(len(score.trials) > 1 for score in cells),
                   get=_scored_seeds),
            *_estimate_columns("accuracy", "Accuracy %", Measure.accuracy),
            Column("chance", "Chance %", units.percent,
                   get=lambda row: findings.chance if row.accuracy else None),
            *_estimate_columns("loss", "Loss nats", Measure.loss_nats),
            Column("validation", f"Validation {measure.unit}", measure.score,
                   get=of("validation", "value")),
            Column("items", "Items", units.count, in_text=len(items) > 1, get=_items),
            Column("clusters", "Clusters", in_text=False, get=of("loss", "clusters")),
            *_cost_columns(),
            Column("state", "Status", right=False, wrap=Wrap.prose, get=_state),
        ),
        cells,
    )  # fmt: skip


def _estimate_columns(name: str, header: str, measure: Measure) -> tuple[Column, ...]:
    return (
        Column(name, header, measure.score, get=of(name, "value")),
        Column(f"{name}_standard_error", "± SE", measure.width, get=of(name, "standard_error")),
        Column(f"{name}_item_error", "of items", measure.width, get=of(name, "item_error")),
        Column(
            f"{name}_interval",
            "95 % interval",
            measure.interval,
            in_csv=False,
            get=of(name, "ends"),
        ),
        Column(f"{name}_low", "Low", in_text=False, get=of(name, "low")),
        Column(f"{name}_high", "High", in_text=False, get=of(name, "high")),
        Column(f"{name}_seed_deviation", "Seed SD", measure.width, get=of(name, "seed_deviation")),
    )


def _cost_columns() -> Iterator[Column]:
    """A column a cost; beside the training peak whether it was measured."""

    def peak_kind(row: CellScore) -> str | None:
        if Cost.training_peak_bytes not in row.costs:
            return None
        return "measured" if row.peak_measured else "predicted"

    for kind, column in cost_columns():
        yield column
        if kind.cost is Cost.training_peak_bytes:
            yield Column("training_peak_is", "Peak is", right=False, get=peak_kind)


def cost_columns() -> list[tuple[CostKind, Column]]:
    """Every cost with its column, of rows that have `costs`."""
    return [(kind, _cost_column(kind)) for kind in COSTS.values()]


def _cost_column(kind: CostKind) -> Column:
    """Bytes have their unit in the cell, others in the header."""
    header = kind.header if kind.unit == "bytes" else f"{kind.header} {kind.unit}".rstrip()
    return Column(
        kind.column or kind.cost.value, header,
        lambda value: units.amount(value, kind.unit).removesuffix(f" {kind.unit}"),
        get=lambda row: row.costs.get(kind.cost),
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
