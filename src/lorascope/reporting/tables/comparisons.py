"""Every pair that the study compares: the difference, how sure it is, and what else differs."""

from __future__ import annotations

from lorascope.comparing.results import Comparison, Measure, Verdict
from lorascope.comparing.ruling import Findings
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames, machine_columns
from lorascope.reporting.tables.table import Column, Table, Wrap, of

WORDS = {
    Verdict.better: "better",
    Verdict.worse: "worse",
    Verdict.worse_within: "worse, within margin",
    Verdict.no_worse: "no worse",
    Verdict.undecided: "undecided",
}
"""Verdicts as short as a column wants them."""


def comparison_table(findings: Findings) -> Table[Comparison]:
    """One row a pair. CSV has shares and nats, text points and nats."""
    comparisons, names = findings.comparisons, CellNames.of(findings)
    measure = findings.measure
    several = any(row.difference.seeds > 1 for row in comparisons)
    cells = [cell for row in comparisons for cell in (row.subject, row.reference)]
    return Table(
        (
            Column("pairing", "Compared by", right=False, in_text=False),
            Column("subject", "Subject", names.name, right=False, in_csv=False, wrap=Wrap.print),
            Column("reference", "Against", names.name, right=False, in_csv=False, wrap=Wrap.print),
            *machine_columns("subject", cells),
            *machine_columns("reference", cells),
            Column("measure", "Measure", in_text=False),
            *_estimate_columns(measure, several),
            Column("p_value", "p", units.p_value, in_text=False),
            Column("p_holm", "Holm p", units.p_value),
            Column("p_margin_holm", "Holm p, margin", units.p_value),
            Column("verdict", "Verdict", lambda verdict: WORDS[verdict], right=False),
            Column("subject_only_right", "Gained", units.count),
            Column("reference_only_right", "Lost", units.count),
            Column("judged", "of", units.count),
            Column("divergence_nats", "KL nats", units.nats),
            Column("seed_spread", "Seed spread", right=False, in_csv=False, get=_seed_spread),
            Column("smaller_than_seed_spread", "Inside the seed spread", in_text=False),
            Column("detectable", f"Detectable {measure.step}", measure.width),
            Column("detectable_corrected", "Detectable, corrected", in_text=False),
            Column("confounds", "Also differs", right=False, wrap=Wrap.prose,
                   get=lambda row: "; ".join(row.confounds) or None),
        ),
        comparisons,
    )  # fmt: skip


def _estimate_columns(measure: Measure, several: bool) -> tuple[Column, ...]:
    return (
        Column("difference", f"Difference {measure.step}", measure.difference,
               get=of("difference", "value")),
        Column("interval", "95 % interval", measure.difference_interval, in_csv=False,
               get=of("difference", "ends")),
        Column("low", "Low", in_text=False, get=of("difference", "low")),
        Column("high", "High", in_text=False, get=of("difference", "high")),
        Column("standard_error", "SE", in_text=False, get=of("difference", "standard_error")),
        Column("items", "Items", in_text=False, get=of("difference", "items")),
        Column("clusters", "Clusters", in_text=False, get=of("difference", "clusters")),
        Column("seeds", "Seeds", in_text=several, get=of("difference", "seeds")),
        Column("seed_deviation", "Seed SD", in_text=False, get=of("difference", "seed_deviation")),
    )  # fmt: skip


def _seed_spread(row: Comparison) -> str | None:
    """Whether the difference stands out of what seeds do; None, unknown, with one seed."""
    if row.smaller_than_seed_spread is None:
        return None
    return "inside" if row.smaller_than_seed_spread else "outside"
