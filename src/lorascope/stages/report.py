"""report: the reports, from records alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorascope.comparing.findings import compare
from lorascope.comparing.ruling import Findings
from lorascope.config import Config
from lorascope.files.kept import keeping
from lorascope.files.layout import Layout
from lorascope.machine.libraries import uncollected
from lorascope.records import Study
from lorascope.reporting.catalogue import write_reports
from lorascope.reporting.metrics import decision_content
from lorascope.reporting.pages.answer_text import answer_text
from lorascope.reporting.pages.summary import PAGE, terminal_summary
from lorascope.stages.commands import JSON
from lorascope.study.adoption import noted_predecessors
from lorascope.study.collect import collect
from lorascope.study.command_result import CommandResult
from lorascope.study.declared import declare_trial
from lorascope.study.intact import reading_once
from lorascope.study.kept_summary import files_stamp, keep_summary

NOT_ANSWERED = 1


def command(
    configs: Sequence[Config],
    layout: Layout,
    flags: Mapping[str, str] | None = None,
    words: Sequence[str] = (),
) -> CommandResult:
    """Write reports/ for the declared grid, and keep what `summary` prints of it. 0, but with
    `--require-answer` 1 where the records name nothing to ship."""
    stamp = files_stamp(layout, words)
    # What is published is of bytes that were read, whatever their files' times.
    with uncollected(), keeping(layout.kept, trusts_times=False):
        study, findings = _found(list(configs), layout)
        paths = write_reports(study, findings, layout.reports)
    folder = layout.reports.relative_to(layout.root)
    keep_summary(layout, stamp, terminal_summary(study, findings, folder))
    written = [path.relative_to(layout.root) for path in paths]
    # DVC's last stage: what a person waited for is the last that lorascope says.
    print(f"wrote {folder / PAGE}, and {len(written) - 1} files beside it")
    print(answer_text(findings), end="")
    decision = findings.decision
    asked = flags or {}
    lacks_answer = "--require-answer" in asked and decision.recommended is None
    content: dict[str, object] = {}
    if JSON.keys() & asked.keys():
        # A thousand candidates take a while to write down.
        content = {"written": [*map(str, written)], "decision": decision_content(decision)}
    return CommandResult(NOT_ANSWERED if lacks_answer else 0, content)


def _found(configs: list[Config], layout: Layout) -> tuple[Study, Findings]:
    with reading_once():
        study = collect(configs, layout)
        if study.missing or study.unneeded:
            # Else an upgrade's first report would lack trials without a word.
            noted_predecessors(declare_trial(config, layout) for config in configs)
    return study, compare(study)
