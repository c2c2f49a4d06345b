"""summary: where the report is, and its accuracy table, for the end of `make repro`."""

from __future__ import annotations

from collections.abc import Sequence

from lorascope.comparing.findings import compare
from lorascope.config import Config
from lorascope.files.layout import Layout
from lorascope.reporting.pages.summary import terminal_summary
from lorascope.study.collect import collect


def command(configs: Sequence[Config], layout: Layout, *_: object) -> None:
    """Print the summary of the declared grid."""
    # How far predictions lie apart is no part of the answer, and takes longer than all of it.
    study = collect(list(configs), layout, distributions=False)
    reports = layout.reports.relative_to(layout.root)
    print(terminal_summary(study, compare(study), reports))
