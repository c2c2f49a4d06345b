"""report: the reports, from records alone."""

from __future__ import annotations

from lorascope.config import Config
from lorascope.layout import Layout
from lorascope.reporting.write import write_reports
from lorascope.stages.study import collect


def run(configs: list[Config], layout: Layout) -> None:
    """Write reports/ for the declared grid."""
    for path in write_reports(collect(configs, layout), layout.reports):
        print(f"wrote {path.relative_to(layout.root)}")
