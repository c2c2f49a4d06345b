"""summary: where the report is, and its accuracy table, for the end of `make repro`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorascope.comparing.findings import compare
from lorascope.config import Config
from lorascope.files.layout import Layout
from lorascope.reporting.pages.summary import terminal_summary
from lorascope.study.collect import collect


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], overrides: Sequence[str]
) -> None:
    """Print the summary of the declared grid."""
    run(list(configs), layout)


def run(configs: list[Config], layout: Layout) -> None:
    """Print the summary of the declared grid."""
    study = collect(configs, layout)
    reports = layout.reports.relative_to(layout.root)
    print(terminal_summary(study, compare(study), reports))
