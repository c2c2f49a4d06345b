"""Writes all reports of a study. The same study gives the same bytes, wherever and whenever."""

from __future__ import annotations

from pathlib import Path

from lorascope.comparing.ruling import Findings
from lorascope.files.store import write_all_atomically
from lorascope.records import Study
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.figures.losses import loss_by_step
from lorascope.reporting.metrics import losses_csv, metrics_json
from lorascope.reporting.pages.document import Document, FigureBlock
from lorascope.reporting.pages.html import html_page
from lorascope.reporting.pages.markdown import markdown_page
from lorascope.reporting.pages.page import document
from lorascope.reporting.pages.score_sections import BY_STEP
from lorascope.reporting.pages.summary import REPORT
from lorascope.reporting.tables.accuracy import accuracy_rows, accuracy_table
from lorascope.reporting.tables.cells import cell_table
from lorascope.reporting.tables.comparisons import comparison_table
from lorascope.reporting.tables.decision import decision_json
from lorascope.reporting.tables.frontier import frontier_rows, frontier_table
from lorascope.reporting.tables.mode_memory import mode_memory_rows, mode_memory_table
from lorascope.reporting.tables.parameters import parameter_rows, parameter_table
from lorascope.reporting.tables.predicted_memory import (
    memory_prediction_rows,
    memory_prediction_table,
    prediction_sentence,
)
from lorascope.reporting.tables.printed import printed_tables
from lorascope.reporting.tables.trial_memory import trial_memory_rows, trial_memory_table


def write_reports(study: Study, findings: Findings, folder: Path) -> list[Path]:
    """Write every report into `folder`, or none; files that would not change are left alone.

    Returns:
        All reports, changed or not, in a fixed order.
    """
    files = {folder / name: content for name, content in report_files(study, findings).items()}
    changed = {
        path: content
        for path, content in files.items()
        if not path.is_file() or path.read_bytes() != content
    }
    write_all_atomically(changed)
    return list(files)


def report_files(study: Study, findings: Findings) -> dict[str, bytes]:
    """File name -> content."""
    page = document(study, findings)
    texts = {
        **_record_tables(study),
        **_finding_tables(findings),
        "metrics.json": metrics_json(study, accuracy_rows(study), findings.decision),
        "losses.csv": losses_csv(study),
        REPORT: markdown_page(page),
        "report.html": html_page(page),
    }
    # A figure that the page can do without is written all the same: its reader expects the file.
    figures = {BY_STEP: loss_by_step(study, findings), **_figures(page)}
    return {**{name: text.encode() for name, text in texts.items()}, **figures}


def _record_tables(study: Study) -> dict[str, str]:
    accuracy = accuracy_table(accuracy_rows(study))
    parameters = parameter_table(parameter_rows(study))
    stored = mode_memory_table(mode_memory_rows(study))
    running = trial_memory_table(trial_memory_rows(study))
    predicted = memory_prediction_table(memory_prediction_rows(study))
    printed = "\n".join(f"# {title}\n\n{table.markdown()}" for title, table in printed_tables())
    return {
        "trainable_parameters.csv": parameters.csv(),
        "trainable_parameters.md": f"# Trainable parameters\n\n{parameters.markdown()}\n{printed}",
        "accuracy.csv": accuracy.csv(),
        "accuracy.md": f"# Accuracy\n\n{accuracy.markdown()}",
        "memory.csv": stored.csv(),
        "memory_by_trial.csv": running.csv(),
        "memory_predicted.csv": predicted.csv(),
        "memory.md": f"# Stored base by mode\n\n{stored.markdown()}\n"
        f"# Predicted and measured\n\n{prediction_sentence(study)}\n\n{predicted.markdown()}\n"
        f"# Trials while running\n\n{running.markdown()}",
    }


def _finding_tables(findings: Findings) -> dict[str, str]:
    names, measure = CellNames.of(findings), findings.measure
    rows = frontier_rows(findings.frontiers)
    return {
        "comparisons.csv": comparison_table(findings.comparisons, measure, names).csv(),
        "cells.csv": cell_table(findings).csv(),
        "frontier.csv": frontier_table(rows, measure).csv(),
        "decision.json": decision_json(findings.decision),
    }


def _figures(page: Document) -> dict[str, bytes]:
    """The figures that the page shows, for those who want them alone."""
    blocks = [block for section in page.sections for block in section.blocks]
    return {block.file: block.svg for block in blocks if isinstance(block, FigureBlock)}
