"""The candidates under the declared rule."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from lorascope.comparing.costs import COSTS
from lorascope.comparing.results import CellKey, Verdict
from lorascope.comparing.ruling import Candidate, Decision
from lorascope.reporting import units
from lorascope.reporting.cell_names import cell_columns
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
    unshown = {gain.cell for gain in decision.gains if not gain.shown}
    reference = next((r for r in decision.candidates if r.cell == decision.reference), None)
    limit = reference.cost if reference else None

    def outcome(row: Candidate) -> str:
        return ", ".join(_judged(row, decision, unshown)) or _not_judged(row, limit)

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
                   get=outcome),
            Column("items_needed", "Items to settle", units.count),
            Column("seeds_needed", "Seeds to settle", units.count),
        ),
        decision.candidates,
    )  # fmt: skip


def _judged(row: Candidate, decision: Decision, unshown: Collection[CellKey]) -> Iterator[str]:
    """What the rule says of it. `unshown`: adapters that are not shown to beat the bare base."""
    if row.cell == decision.recommended:
        yield "recommended"
    if row.cell == decision.reference:
        yield "reference"
    if row.cell in unshown:
        yield "not shown to beat the bare base"
    if row.verdict is not None:
        why = f"an interval of {units.confidence([row.held_to])} reaches" if row.held_to else ""
        yield f"{RULE_WORDS[row.verdict]}{f': {why} across the margin' if why else ''}"
    if row.ineligible is not None:
        yield row.ineligible


def _not_judged(row: Candidate, limit: float | None) -> str:
    if row.cost is None:
        return "cost unknown"
    if limit is None:
        return "the reference's cost is unknown"
    return "no cheaper"
