"""The loss on rows of the base's own domain, before training and after."""

from __future__ import annotations

from lorascope.comparing.forgetting import Forgetting
from lorascope.comparing.results import Measure
from lorascope.comparing.ruling import Findings
from lorascope.reporting import units
from lorascope.reporting.cell_names import cell_columns
from lorascope.reporting.tables.table import Column, Table, of


def forgetting_table(findings: Findings) -> Table[Forgetting]:
    """A row a configuration, the one that forgets least first."""
    rows = sorted(findings.forgetting, key=lambda own: (own.difference.value, own.cell))
    loss = Measure.loss_nats
    return Table(
        (
            *cell_columns(row.cell for row in rows),
            Column("before_nats", "Bare base nats", units.nats),
            Column("after_nats", "Trained nats", units.nats),
            Column("difference_nats", "Forgotten nats", loss.difference,
                   get=of("difference", "value")),
            Column("interval", "95 % interval", loss.difference_interval, in_csv=False,
                   get=of("difference", "ends")),
            Column("low", "Low", in_text=False, get=of("difference", "low")),
            Column("high", "High", in_text=False, get=of("difference", "high")),
            Column("items", "Rows", units.count, get=of("difference", "items")),
            Column("seeds", "Seeds", get=of("difference", "seeds")),
        ),
        rows,
    )  # fmt: skip
