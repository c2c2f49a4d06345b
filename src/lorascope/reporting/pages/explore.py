"""A second page: every configuration and every trial as a line across its settings, scores and
costs, of which a reader chooses ranges; the chosen ones stand in a table below."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lorascope.comparing.costs import share_of_seconds
from lorascope.comparing.ruling import Findings
from lorascope.config import Cost
from lorascope.records import Study
from lorascope.reporting import units
from lorascope.reporting.cell_names import cell_columns
from lorascope.reporting.figures.style import mode_colors
from lorascope.reporting.pages.document import TableBlock
from lorascope.reporting.pages.html import rendered
from lorascope.reporting.pages.record_sections import with_runs
from lorascope.reporting.tables.accuracy import AccuracyRow, accuracy_rows, accuracy_table
from lorascope.reporting.tables.cells import cell_table, cost_columns
from lorascope.reporting.tables.table import Column, Table

SCRIPTS = ("sections.js", "tables.js", "explore.js")
MOST_CHOICES = 16
"""Different numbers of a column up to which each has a box to tick; above, a range is written."""
SHIPS, REFERENCE = "ships", "reference"
"""What the answer makes of a row."""
PER_CENT = ("accuracy", "validation_accuracy")
"""Columns that hold shares and are read as per cent, whatever the measure."""
SCORES = (
    "accuracy", "loss", "completion_loss_nats", "validation", "validation_accuracy",
    "validation_loss_nats",
)  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """One column as an axis."""

    header: str
    values: tuple[float | str | None, ...]
    """A row each, in the unit of the header; None is unknown."""
    choices: tuple[float | str, ...]
    """All values in their order, where they are few or no numbers; else empty."""


@dataclass(frozen=True)
class View:
    """Rows of one kind."""

    key: str
    noun: str
    """configurations."""
    axes: tuple[Axis, ...]
    modes: tuple[int, ...]
    """Of each row, the number of its mode's colour."""
    marked: tuple[str, ...]
    """Of each row, what the answer makes of it; empty of most."""
    block: TableBlock


def explore_page(study: Study, findings: Findings) -> str:
    """The page as HTML; equal studies give equal bytes."""
    decision = findings.decision

    def of_cell(row: Any) -> str:
        chosen = SHIPS if row.cell == decision.recommended else ""
        return chosen or (REFERENCE if row.cell == decision.reference else "")

    def of_trial(row: AccuracyRow) -> str:
        is_reference = row.cell == decision.reference and row.cell != decision.recommended
        ships = row.cell == decision.recommended and row.trial == decision.trial
        return SHIPS if ships else REFERENCE if is_reference else ""

    views = [_view("configurations", _configurations(findings), findings, of_cell)]
    if any(len(score.trials) > 1 for score in findings.cells):
        views.append(_view("trials", _trials(study, findings), findings, of_trial))
    return rendered(
        "explore.html.j2", [score.cell for score in findings.cells], SCRIPTS,
        title=f"Explore: {study.base.model} on {study.data.name}",
        views=[(view, _as_json(view)) for view in views],
        modes=list(mode_colors(findings)),
        validation=f"validation {findings.measure.words}",
    )  # fmt: skip


def _configurations(findings: Findings) -> Table[Any]:
    """Best validated first: the test split chooses nothing, here neither."""
    sign = findings.measure.sign
    table = cell_table(findings).without(
        *(f"{score}_{part}" for score in ("accuracy", "loss")
          for part in ("standard_error", "item_error", "seed_deviation")),
        "chance", "loss_interval", "training_peak_is",
    )  # fmt: skip
    return table.only(
        sorted(
            (row for row in table.rows if not row.cell.base),
            key=lambda row: -sign * row.validation.value if row.validation else math.inf,
        )
    )


def _trials(study: Study, findings: Findings) -> Table[Any]:
    """The same of single trials; memory is that of their configuration."""
    results = {trial.trial: trial.result for trial in study.trials}
    costs = {score.cell: score.costs for score in findings.cells}

    def seconds(row: AccuracyRow) -> float | None:
        result = results.get(row.trial)
        return None if result is None else share_of_seconds(result)

    rows = [row for row in accuracy_rows(study) if not row.cell.base]
    rows.sort(key=_validated)
    table = with_runs(study, accuracy_table(rows))

    def memory(cost: Cost) -> Callable[[AccuracyRow], float | None]:
        return lambda row: costs[row.cell].get(cost) if row.cell in costs else None

    sizes = [
        Column(column.key, column.header, column.show, get=memory(kind.cost))
        for kind, column in cost_columns()
        if kind.unit == "bytes"
    ]
    settings = [column.key for column in cell_columns(row.cell for row in rows)]
    return table.with_columns(
        *sizes, Column("train_seconds", "Train s", units.seconds, get=seconds)
    ).select(
        *settings, "seed", "accuracy", "interval", "completion_loss_nats", "validation_accuracy",
        "validation_loss_nats", *(column.key for column in sizes), "train_seconds", "status",
        "trial",
    )  # fmt: skip


def _validated(row: AccuracyRow) -> float:
    """Less is better."""
    if row.validation is None:
        return math.inf
    score = row.validation.accuracy
    return row.validation.completion_loss_nats if score is None else -score


def _view(noun: str, table: Table[Any], findings: Findings, marked: Callable[[Any], str]) -> View:
    """`marked`: what the answer makes of a row."""
    axes = [_axis(column, table, findings) for column in table.shown() if _is_axis(column, table)]
    axes = [axis for axis in axes if set(axis.values) - {None}]
    telling = [axis for axis in axes if len(set(axis.values) - {None}) > 1]
    modes = list(mode_colors(findings))
    return View(
        noun, noun,
        tuple(telling if len(telling) > 1 else axes),
        tuple(modes.index(row.cell.quant) for row in table.rows),
        tuple(map(marked, table.rows)),
        TableBlock(
            f"{noun}-table", f"Chosen {noun}, the best validated first",
            table.with_columns(
                Column("answer", "Answer", right=False, get=lambda row: marked(row) or None)
            ),
        ),
    )  # fmt: skip


def _is_axis(column: Column, table: Table[Any]) -> bool:
    settings = {one.key for one in cell_columns(row.cell for row in table.rows)} | {"seed"}
    costs = {one.key for _, one in cost_columns()}
    return column.key in settings | set(SCORES) | costs


def _axis(column: Column, table: Table[Any], findings: Findings) -> Axis:
    cells = [column.cell(row) for row in table.rows]
    scale, unit = _scale(column, cells, findings)
    is_measured = column.key in {*SCORES, *(one.key for _, one in cost_columns())}

    def value(cell: Any) -> float | str | None:
        if cell is None or not _is_number(cell):
            return None if cell is None else column.show(cell)
        # A setting is shown as it is: rank 1024 is not about 1,020.
        return float(f"{scale * cell:.6g}") if is_measured else float(cell)

    values = tuple(map(value, cells))
    numbers = sorted({value for value in values if isinstance(value, float)})
    order = {score.cell: place for place, score in enumerate(findings.cells)}
    placed = zip((order.get(row.cell, len(order)) for row in table.rows), values, strict=True)
    words = dict.fromkeys(v for _, v in sorted(placed, key=lambda p: p[0]) if isinstance(v, str))
    is_range = is_measured or len(numbers) > MOST_CHOICES
    choices: tuple[float | str, ...] = (*numbers, *words) if words or not is_range else ()
    return Axis(f"{column.header} {unit}".strip(), values, choices)


def _scale(column: Column, cells: Sequence[Any], findings: Findings) -> tuple[float, str]:
    """What a cell is multiplied by to be read, and the unit that its header lacks."""
    if column.key in PER_CENT:
        return 100.0, ""
    if column.key == "validation":
        return findings.measure.scale, ""
    if column.key in {one.key for kind, one in cost_columns() if kind.unit == "bytes"}:
        each, unit = units.byte_unit(max((c for c in cells if c is not None), default=1.0))
        return 1 / each, unit
    return 1.0, ""


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _as_json(view: View) -> Markup:
    content = {
        "axes": [
            {"header": axis.header, "values": axis.values, "choices": axis.choices}
            for axis in view.axes
        ],
        "modes": view.modes,
        "marked": {place: what for place, what in enumerate(view.marked) if what},
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))
