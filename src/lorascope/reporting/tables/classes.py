"""Scores of predicted classes beside accuracy: macro F1 and Matthews correlation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lorascope.comparing.results import CellKey, Estimate, Measure
from lorascope.records import ItemResult, Study, item_column
from lorascope.reporting import units
from lorascope.reporting.cell_names import cell_columns
from lorascope.reporting.tables.accuracy import accuracy_rows
from lorascope.reporting.tables.table import Column, Table, of
from lorascope.statistics.classes import class_intervals, confusion, macro_f1, matthews

Interval = tuple[float, float]


@dataclass(frozen=True)
class ClassRow:
    """Scores of one trial or bare base on test items with classes."""

    cell: CellKey
    seed: int | None
    items: int
    accuracy: float | None
    estimate: Estimate | None
    """Accuracy with its interval."""
    macro_f1: float
    macro_f1_interval: Interval
    matthews: float
    matthews_interval: Interval
    trial: str


def class_table(study: Study) -> Table[ClassRow]:
    """Trial by trial, intervals over items or their clusters; no rows where items have no class."""
    rows = list(_rows(study))
    return Table(
        (
            *cell_columns(row.cell for row in rows),
            Column("seed", "Seed"),
            Column("items", "Items", units.count),
            Column("accuracy", "Accuracy %", units.percent),
            Column("accuracy_interval", "95 % interval", Measure.accuracy.interval, in_csv=False,
                   get=of("estimate", "ends")),
            *_columns("macro_f1", "Macro F1 %", units.percent, Measure.accuracy.interval),
            *_columns("matthews", "Matthews", _correlation, _correlations),
            Column("trial", "Trial", right=False),
        ),
        rows,
    )  # fmt: skip


def _columns(
    name: str, header: str, show: Callable[[Any], str], show_both: Callable[[Any], str]
) -> tuple[Column, ...]:
    interval = f"{name}_interval"
    return (
        Column(name, header, show),
        Column(interval, "95 % interval", show_both, in_csv=False),
        Column(f"{name}_low", "Low", in_text=False, get=lambda row: getattr(row, interval)[0]),
        Column(f"{name}_high", "High", in_text=False, get=lambda row: getattr(row, interval)[1]),
    )


def _correlation(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _correlations(ends: Interval) -> str:
    return f"{_correlation(ends[0])} to {_correlation(ends[1])}"


def _rows(study: Study) -> Iterator[ClassRow]:
    for row in accuracy_rows(study):
        items = study.items.get(row.evaluation or "", {}).get("test", [])
        pairs = _pairs(items)
        if not pairs:
            continue
        counts = confusion(pairs)
        intervals = class_intervals(pairs, item_column(items, "cluster"))
        yield ClassRow(
            cell=row.cell,
            seed=row.seed,
            items=len(items),
            accuracy=row.test.accuracy if row.test else None,
            estimate=row.estimate,
            macro_f1=macro_f1(counts),
            macro_f1_interval=intervals["macro_f1"],
            matthews=matthews(counts),
            matthews_interval=intervals["matthews"],
            trial=row.trial,
        )


def _pairs(items: Sequence[ItemResult]) -> list[tuple[int, int]]:
    """(class, prediction) of each item; none where they have no classes."""
    found = zip(item_column(items, "label"), item_column(items, "predicted"), strict=True)
    return [(label, said) for label, said in found if label is not None and said is not None]
