"""What is worth its cost: the points of every frontier, and how sure their place on it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorascope.comparing.costs import COSTS
from lorascope.comparing.results import CellKey, FrontierPoint, Measure
from lorascope.comparing.ruling import Findings
from lorascope.config import Cost
from lorascope.reporting import units
from lorascope.reporting.cell_names import cell_columns
from lorascope.reporting.tables.table import Column, Table


def frontier_table(findings: Findings) -> Table[FrontierPoint]:
    """For machines: a row a configuration and cost, cost by cost, cheapest first."""
    points = [point for points in findings.frontiers.values() for point in points]
    return Table(
        (
            Column("cost_name", "Cost"),
            *cell_columns(point.cell for point in points),
            Column("cost", "Amount"),
            Column("score", findings.measure.words),
            Column("on_frontier", "On the frontier"),
            Column("probability", "Probability"),
            Column("complete", "All seeds"),
        ),
        points,
    )


@dataclass(frozen=True)
class FrontierSummary:
    """A configuration and its places for all costs."""

    cell: CellKey
    score: float
    places: Mapping[Cost, FrontierPoint]


def frontier_summary(points: Sequence[FrontierPoint], measure: Measure) -> Table[FrontierSummary]:
    """For people: a row a configuration, two columns a cost."""
    costs = list(dict.fromkeys(point.cost_name for point in points))
    places: dict[CellKey, dict[Cost, FrontierPoint]] = {}
    for point in points:
        places.setdefault(point.cell, {})[point.cost_name] = point
    summaries = [
        FrontierSummary(cell, next(iter(found.values())).score, found)
        for cell, found in places.items()
    ]
    return Table(
        (
            *cell_columns(places),
            Column("score", f"{measure.words.capitalize()} {measure.unit}", measure.score),
            *(column for name in costs for column in _cost_columns(name)),
        ),
        summaries,
    )


def _cost_columns(name: Cost) -> tuple[Column, Column]:
    def amount(row: FrontierSummary) -> float | None:
        return row.places[name].cost if name in row.places else None

    def place(row: FrontierSummary) -> tuple[float, bool, bool] | None:
        found = row.places.get(name)
        if found is None:
            return None
        return found.probability, found.on_frontier, found.complete

    def show(place: tuple[float, bool, bool]) -> str:
        seeds = "" if place[2] else ", seeds missing"
        return f"{units.yes_no(place[1])}, {units.share(place[0])} %{seeds}"

    kind = COSTS[name]
    words = kind.words.capitalize()
    return (
        Column(f"{name}_amount", words, lambda value: units.amount(value, kind.unit), get=amount),
        Column(f"{name}_place", "On its frontier", show, get=place),
    )
