"""report: the reports, from records alone."""

from __future__ import annotations

from collections.abc import Sequence

from lorascope.comparing.findings import compare
from lorascope.config import Config
from lorascope.files.layout import Layout
from lorascope.reporting.catalogue import write_reports
from lorascope.study.adoption import noted_predecessors
from lorascope.study.collect import collect
from lorascope.study.declared import declare_trial


def command(configs: Sequence[Config], layout: Layout, *_: object) -> None:
    """Write reports/ for the declared grid."""
    study = collect(list(configs), layout)
    # Else an upgrade's first report would lack trials without a word.
    noted_predecessors(declare_trial(config, layout) for config in configs)
    for path in write_reports(study, compare(study), layout.reports):
        print(f"wrote {path.relative_to(layout.root)}")
