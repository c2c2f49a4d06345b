"""What training did to held-out pairs of replies."""

from __future__ import annotations

from lorascope.comparing.preferences import PreferenceScore, preference_scores
from lorascope.comparing.results import Measure
from lorascope.comparing.ruling import Findings
from lorascope.records import Study
from lorascope.reporting import units
from lorascope.reporting.cell_names import cell_columns
from lorascope.reporting.tables.table import Column, Table


def preference_table(study: Study, findings: Findings) -> Table[PreferenceScore]:
    """A row a configuration that was scored on pairs, against the bare base of its mode."""
    rows, nats = preference_scores(study, findings.measure), Measure.loss_nats.difference_interval
    return Table(
        (
            *cell_columns(row.cell for row in rows),
            Column("likelier_share", "Chosen likelier %", units.percent),
            Column("margin_nats", "Margin nats", units.nats),
            Column("margin_interval", "95 % interval", nats),
            Column("chosen_gain_nats", "Chosen nats", units.nats),
            Column("chosen_gain_interval", "95 % interval", nats),
            Column("rejected_gain_nats", "Rejected nats", units.nats),
            Column("kl_nats", "KL nats a token", units.nats),
            Column("is_displaced", "Chosen less likely", right=False,
                   get=lambda row: "yes" if row.is_displaced else None),
        ),
        rows,
    )  # fmt: skip
