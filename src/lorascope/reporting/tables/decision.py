"""The candidates under the declared rule, and the decision for machines."""

from __future__ import annotations

import json
import math
from dataclasses import fields, is_dataclass
from typing import Any

from lorascope.comparing.costs import COSTS
from lorascope.comparing.results import CellKey, Verdict
from lorascope.comparing.ruling import Candidate, Decision
from lorascope.records import DialValue
from lorascope.reporting import units
from lorascope.reporting.tables.cell_columns import cell_columns
from lorascope.reporting.tables.table import Column, Table, Wrap, of

RULE_WORDS = {
    Verdict.no_worse: "within the margin",
    Verdict.worse: "worse by more than the margin",
    Verdict.undecided: "undecided",
}
"""What the rule makes of a candidate: other questions than those of the pair tables."""


def candidate_table(decision: Decision) -> Table[Candidate]:
    """Cheapest first, as the rule judges them on validation items."""
    measure, cost = decision.measure, COSTS[decision.rule.cost]

    return Table(
        (
            *cell_columns(row.cell for row in decision.candidates),
            Column("cost", cost.words.capitalize(), lambda value: units.amount(value, cost.unit)),
            Column("difference", f"Difference {measure.step}", measure.difference,
                   get=of("difference", "value")),
            Column("interval", "95 % interval", measure.difference_interval,
                   get=of("difference", "ends")),
            Column("p_margin_holm", "Holm p, margin", units.p_value),
            Column("outcome", "Under the rule", right=False, wrap=Wrap.prose,
                   get=lambda row: _outcome(decision, row)),
            Column("items_needed", "Items to settle", units.count),
            Column("seeds_needed", "Seeds to settle", units.count),
        ),
        decision.candidates,
    )  # fmt: skip


def _outcome(decision: Decision, row: Candidate) -> str:
    """A few words on what the rule makes of a candidate."""
    words = []
    if row.cell == decision.recommended:
        words.append("recommended")
    if row.cell == decision.reference:
        words.append("reference")
    if any(gain.cell == row.cell and not gain.shown for gain in decision.gains):
        words.append("not shown to beat the bare base")
    if row.verdict is not None:
        words.append(RULE_WORDS[row.verdict])
    if row.ineligible is not None:
        words.append(row.ineligible)
    return ", ".join(words) or _not_judged(decision, row)


def _not_judged(decision: Decision, row: Candidate) -> str:
    costs = {candidate.cell: candidate.cost for candidate in decision.candidates}
    limit = costs[decision.reference] if decision.reference else None
    if row.cost is None:
        return "cost unknown"
    if limit is None:
        return "the reference's cost is unknown"
    return "no cheaper"


def decision_json(decision: Decision) -> str:
    """The rule, its answer and every candidate, with numbers as they are."""
    content = {
        "settled": decision.settled,
        "seeds": decision.seeds,
        "holds_for": _holds_for(decision),
        "rule": _plain(decision.rule),
        "measure": decision.measure,
        "margin": decision.margin,
        "reference": _plain(decision.reference),
        "reference_is_declared": decision.reference_is_declared,
        "none_beats_base": decision.none_beats_base,
        "gains": [_plain(gain) for gain in decision.gains],
        "recommended": _plain(decision.recommended),
        "trial": decision.trial,
        "test": _plain(decision.test),
        "fresh": _plain(decision.fresh),
        "projection": _plain(decision.projection),
        "open": [_plain(row.cell) for row in decision.open],
        "unknown": [_plain(row.cell) for row in decision.unknown],
        "candidates": [_plain(row) for row in decision.candidates],
    }
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def _holds_for(decision: Decision) -> str | None:
    if decision.recommended is None:
        return None
    return "this seed; unknown for others" if decision.one_seed else "seeds like these"


def decision_metrics(decision: Decision) -> dict[str, float | int | str | bool | None]:
    """What `dvc metrics diff` should show of a decision."""
    told, test = _flat(decision.recommended) if decision.recommended else {}, decision.test
    return {
        **{f"recommended_{n}": None if value == "" else value for n, value in told.items()},
        "settled": decision.settled,
        "none_beats_base": decision.none_beats_base,
        "open": len(decision.open),
        "difference": test.difference.value if test else None,
        "difference_low": test.difference.low if test else None,
        "difference_high": test.difference.high if test else None,
    }


def _flat(cell: CellKey) -> dict[str, DialValue | None]:
    """A configuration by the names of table columns."""
    if cell.base:
        return {"quant": cell.quant, "base": True}
    named = {"quant": cell.quant, "method": cell.method, "targets": cell.targets}
    return {**named, **dict(cell.dials), "variant": cell.variant}


def _plain(value: Any) -> Any:
    """Dataclasses as mappings, configurations with their dials beside the other fields."""
    if isinstance(value, CellKey):
        return _flat(value)
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return value


def _finite(value: Any) -> Any:
    """The same without numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
