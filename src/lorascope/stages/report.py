"""report: the reports, from records alone."""

from __future__ import annotations

from lorascope.comparing.findings import compare
from lorascope.config import Config
from lorascope.files.layout import Layout
from lorascope.reporting.write import write_reports
from lorascope.study.collect import collect


def run(configs: list[Config], layout: Layout) -> None:
    """Write reports/ for the declared grid."""
    study = collect(configs, layout)
    for path in write_reports(study, compare(study), layout.reports):
        print(f"wrote {path.relative_to(layout.root)}")
