"""What the terminal shows at the end of a run: the answer, the scores, where the report lies."""

from __future__ import annotations

import textwrap
from pathlib import Path

from lorascope.comparing.ruling import Findings
from lorascope.records import Study
from lorascope.reporting.pages.document import Answer, Inline
from lorascope.reporting.pages.recommendation import answer
from lorascope.reporting.tables.accuracy import AccuracyRow, accuracy_rows, accuracy_table

REPORT = "report.md"
PAGE = "report.html"
EXPLORE = "explore.html"
WIDTH = 100
"""Columns of a terminal that lines should fit into."""


def terminal_summary(study: Study, findings: Findings, folder: Path) -> str:
    """Plain text; `folder` is where `write_reports` wrote."""
    rows = accuracy_rows(study)
    unscored = [_unscored(row) for row in rows if not row.scored]
    place = f"\nReport: {_relative(folder / PAGE)}\n"
    return "".join([_answer(answer(findings)), "\n", _table(rows), *unscored, place])


def _answer(found: Answer) -> str:
    lines = [f"{found.headline}: {found.state}."]
    lines += [f"{term}: {''.join(map(_word, line))}" for term, line in found.in_short]
    lines += [f"{fact.label}: {fact.value} ({fact.note})" for fact in found.facts]
    # The page says why; what ships is the last of it.
    notes = found.notes[-1:] if found.in_short else found.notes
    lines += ["".join(_word(part) for part in note) for note in notes]
    return "".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") + "\n" for line in lines)


def _word(part: Inline) -> str:
    return part if isinstance(part, str) else part.text


def _table(rows: list[AccuracyRow]) -> str:
    """The accuracy table without what does not fit."""
    table = accuracy_table(rows)
    keys = [
        *table.keys_to("seed"), "accuracy", "standard_error", "interval", "chance",
        "completion_loss_nats", "validation_accuracy", "validation_loss_nats", "status",
    ]  # fmt: skip
    text = table.select(*keys).plain()
    for key in ("validation_loss_nats", "standard_error", "validation_accuracy", "interval"):
        if max(map(len, text.splitlines())) <= WIDTH:
            break
        keys.remove(key)
        text = table.select(*keys).plain()
    return text


def _unscored(row: AccuracyRow) -> str:
    where = f"{row.cell.quant} {row.trial}" if row.cell.base else row.trial
    line = f"{where}: {row.status}, {row.reason or 'no reason recorded'}"
    return textwrap.fill(line, WIDTH, subsequent_indent="  ") + "\n"


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
