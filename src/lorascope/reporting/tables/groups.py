"""Scores of the leading configurations on each kind of rows."""

from __future__ import annotations

from collections.abc import Callable

from lorascope.comparing.groups import GroupScore
from lorascope.comparing.results import Measure
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
            Column("items", "Items", units.count),
            Column("value", f"{measure.words.capitalize()} {measure.unit}", measure.score),
            Column("score_interval", "95 % interval", _shown(measure), get=_ends),
            Column("difference", f"− reference ({measure.step})", measure.difference,
                   get=difference),
            Column("interval", "95 % interval", measure.difference_interval, get=interval),
            Column("p_holm", "Holm p", units.p_value, get=of("against", "p_holm")),
            Column("verdict", "Verdict", lambda verdict: WORDS[verdict], right=False,
                   get=of("against", "verdict")),
        ),
        findings.groups,
    )  # fmt: skip


def _ends(row: GroupScore) -> tuple[float, float] | str:
    if row.score is not None:
        return row.score.ends
    return f"none: one {'row' if row.items == 1 else 'cluster'}"


def _shown(measure: Measure) -> Callable[[tuple[float, float] | str], str]:
    return lambda ends: ends if isinstance(ends, str) else measure.interval(ends)
