"""The candidates under the declared rule."""

from __future__ import annotations

from lorascope.comparing.costs import COSTS
from lorascope.comparing.results import Verdict
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
