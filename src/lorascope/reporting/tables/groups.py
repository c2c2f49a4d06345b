"""Scores of the leading configurations on each kind of rows."""

from __future__ import annotations

from lorascope.comparing.groups import GroupScore
from lorascope.comparing.ruling import Findings
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.tables.comparisons import WORDS
from lorascope.reporting.tables.table import Column, Table, of


def group_table(findings: Findings) -> Table[GroupScore]:
    """A row a group and configuration."""
    measure, names = findings.measure, CellNames.of(findings)

    def difference(row: GroupScore) -> float | None:
        return None if row.against is None else row.against.difference.value

    def interval(row: GroupScore) -> tuple[float, float] | None:
        return None if row.against is None else row.against.difference.ends

    return Table(
        (
            Column("group", "Group", right=False),
            Column("cell", "Configuration", names.name, right=False),
            Column("items", "Items", units.count, get=of("score", "items")),
            Column("score", f"{measure.words.capitalize()} {measure.unit}", measure.score,
                   get=of("score", "value")),
            Column("score_interval", "95 % interval", measure.interval, get=of("score", "ends")),
            Column("difference", f"− reference ({measure.step})", measure.difference,
                   get=difference),
            Column("interval", "95 % interval", measure.difference_interval, get=interval),
            Column("p_holm", "Holm p", units.p_value, get=of("against", "p_holm")),
            Column("verdict", "Verdict", lambda verdict: WORDS[verdict], right=False,
                   get=of("against", "verdict")),
        ),
        findings.groups,
    )  # fmt: skip
