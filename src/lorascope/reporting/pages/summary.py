"""What the terminal shows at the end of a run: the answer, the scores, where the report lies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lorascope.comparing.cells import MISSING, NOT_NEEDED
from lorascope.comparing.ruling import Findings
from lorascope.records import Study
from lorascope.reporting.leading_rows import leading_first
from lorascope.reporting.pages.answer_text import WIDTH, answer_text, folded, numbers_text
from lorascope.reporting.tables.accuracy import AccuracyRow, accuracy_rows, accuracy_table

REPORT = "report.md"
PAGE = "report.html"
EXPLORE = "explore.html"
MOST_ROWS, MOST_UNSCORED = 16, 5
"""Rows of scores, and of what has none, that are read at one look."""


def terminal_summary(study: Study, findings: Findings, folder: Path) -> str:
    """Plain text; `folder` is where `write_reports` wrote."""
    rows = [row for row in accuracy_rows(study) if row.status != NOT_NEEDED]
    leading = rows if len(rows) <= MOST_ROWS else _leading(rows, findings)
    # What was never trained has no reason that could be read.
    without = sorted((r for r in rows if not r.scored), key=lambda row: row.status == MISSING)
    unscored = [_unscored(row) for row in without]
    left_out = sum(row.scored for row in rows) - sum(row.scored for row in leading)
    return "".join([
        answer_text(findings), numbers_text(findings), "\n",
        _table(leading), *unscored[:MOST_UNSCORED],
        _left_out(left_out, "scored"),
        _left_out(len(unscored) - MOST_UNSCORED, "without a score"),
        f"\nReport: {_relative(folder / PAGE)}\n",
    ])  # fmt: skip


def _leading(rows: Sequence[AccuracyRow], findings: Findings) -> list[AccuracyRow]:
    """Those that matter most, all seeds of a configuration, with the bare bases of their modes, in
    the rows' order."""
    first = {rows[place].cell for place in leading_first(rows, findings)[:MOST_ROWS]}
    modes = {cell.quant for cell in first}
    return [row for row in rows if row.cell in first or (row.cell.base and row.cell.quant in modes)]


def _left_out(count: int, what: str) -> str:
    return f"and {count:,} more {what}, in the report\n" if count > 0 else ""


def _table(rows: list[AccuracyRow]) -> str:
    """Of the accuracy table what fits, and what test items say."""
    table = accuracy_table(rows)
    keys = [
        *table.keys_to("seed"), "accuracy", "interval", "chance", "completion_loss_nats", "status",
    ]  # fmt: skip
    text = table.select(*keys).plain()
    if max(map(len, text.splitlines())) > WIDTH:
        keys.remove("interval")
        text = table.select(*keys).plain()
    return text


def _unscored(row: AccuracyRow) -> str:
    where = f"{row.cell.quant} {row.trial}" if row.cell.base else row.trial
    return folded([f"{where}: {row.status}, {row.reason or 'no reason recorded'}"])


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
