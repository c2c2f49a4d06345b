"""summary: where the report is, and its accuracy table, for the end of `make repro`."""

from __future__ import annotations

from lorascope.config import Config
from lorascope.layout import Layout
from lorascope.reporting.summary import terminal_summary
from lorascope.stages.study import collect


def run(configs: list[Config], layout: Layout) -> None:
    """Print the summary of the declared grid."""
    print(terminal_summary(collect(configs, layout), layout.reports.relative_to(layout.root)))
