"""Every table and figure once, and all files that are made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lorascope.comparing.results import Measure
from lorascope.comparing.ruling import Findings
from lorascope.files.replacing import write_all_atomically
from lorascope.machine.forks import Forked
from lorascope.records import Study
from lorascope.reporting.entries import FigureEntry, TableEntry
from lorascope.reporting.figures.by_look import draw_by_look
from lorascope.reporting.figures.by_memory import draw_by_memory
from lorascope.reporting.figures.by_method import draw_by_method, method_words
from lorascope.reporting.figures.by_rank import draw_by_rank
from lorascope.reporting.figures.losses import draw_losses
from lorascope.reporting.figures.ranges import draw_served_ranges, served_range_words
from lorascope.reporting.metrics import decision_json, losses_csv, metrics_json
from lorascope.reporting.pages import record_sections as of_records
from lorascope.reporting.pages import score_sections as of_scores
from lorascope.reporting.pages.document import Block
from lorascope.reporting.pages.explore import explore_page
from lorascope.reporting.pages.html import html_page
from lorascope.reporting.pages.markdown import markdown_page
from lorascope.reporting.pages.page import document
from lorascope.reporting.pages.summary import EXPLORE, PAGE, REPORT
from lorascope.reporting.settling_text import looks_table
from lorascope.reporting.tables.accuracy import accuracy_rows, accuracy_table
from lorascope.reporting.tables.cells import cell_table
from lorascope.reporting.tables.classes import class_table
from lorascope.reporting.tables.comparisons import comparison_table
from lorascope.reporting.tables.decision import candidate_table
from lorascope.reporting.tables.forgetting import forgetting_table
from lorascope.reporting.tables.frontier import frontier_table
from lorascope.reporting.tables.groups import group_table
from lorascope.reporting.tables.memory import (
    memory_prediction_table,
    mode_memory_table,
    prediction_sentence,
    trial_memory_table,
)
from lorascope.reporting.tables.methods import method_table
from lorascope.reporting.tables.paper_rows import paper_rows_table
from lorascope.reporting.tables.parameters import parameter_rows, parameter_table
from lorascope.reporting.tables.preferences import preference_table
from lorascope.reporting.tables.printed import classroom_table, paper_table
from lorascope.reporting.tables.served import served_table
from lorascope.reporting.tables.token_prices import token_price_table
from lorascope.reporting.tables.ways import ways_table

Made = Mapping[str, Any]
"""Name of an entry -> its table, or its figure as a picture."""


CATALOGUE: tuple[TableEntry | FigureEntry, ...] = (
    FigureEntry(
        "by-rank", "by-rank-section", lambda _, found: draw_by_rank(found),
        "accuracy_by_rank.svg", of_scores.rank_words,
    ),
    TableEntry(
        "candidates", "by-rank-section", lambda _, found: candidate_table(found.decision),
        "Candidates on validation items, cheapest first",
    ),
    FigureEntry(
        "by-look", "by-rank-section", lambda _, found: draw_by_look(found),
        "difference_by_look.svg", of_scores.look_words,
    ),
    TableEntry(
        "looks", "by-rank-section",
        lambda _, found: looks_table(found.decision.settling, found.measure),
        "Looks at the candidates, in the order in which they were taken; the limit decides, not "
        "the interval; one 'again' at as many seeds replaces the former, as other candidates have "
        "shown since how much seeds vary",
    ),
    FigureEntry(
        "by-method", "by-method-section", draw_by_method, "accuracy_by_parameters.svg",
        method_words,
    ),
    TableEntry(
        "methods", "by-method-section", method_table, "Methods, whatever the mode",
        csv="methods.csv",
    ),
    TableEntry(
        "paper", "by-method-section", paper_rows_table,
        "The LoRA paper's table in small: rows of its tables 4 and 15, trained here",
        csv="lora_table.csv",
    ),
    TableEntry(
        "ways", "ways-section", lambda _, found: ways_table(found, found.measure),
        "Ways to serve in one mode, differences on test items", csv="ways.csv",
    ),
    TableEntry(
        "ways-by-loss", "ways-section", lambda _, found: ways_table(found, Measure.loss_nats),
        "The same, differences of loss", csv="ways_by_loss.csv", page=of_scores.loss_ways_blocks,
    ),
    FigureEntry(
        "by-memory", "by-memory-section", lambda _, found: draw_by_memory(found),
        "accuracy_by_memory.svg", of_scores.memory_words,
    ),
    TableEntry(
        "frontier", "by-memory-section", lambda _, found: frontier_table(found),
        "Costs, cheapest first, and the share of resampled item sets on each frontier",
        csv="frontier.csv", page=of_scores.frontier_blocks,
    ),
    TableEntry(
        "adapters", "parameters", lambda study, _: parameter_table(parameter_rows(study)),
        csv="trainable_parameters.csv", markdown="trainable_parameters.md",
        heading="Trainable parameters", page=of_records.parameter_blocks,
    ),
    TableEntry(
        "printed-0", "parameters", lambda *_: paper_table(),
        "The LoRA paper's table for GPT-3 175B (arXiv 2106.09685, tables 4 and 15)",
        markdown="trainable_parameters.md", page=of_records.published_blocks,
    ),
    TableEntry(
        "printed-1", "parameters", lambda *_: classroom_table(),
        "The classroom table: parameters by model size and rank",
        markdown="trainable_parameters.md", page=of_records.published_blocks,
    ),
    TableEntry(
        "stored", "memory", lambda study, _: mode_memory_table(study), "The stored base",
        csv="memory.csv", markdown="memory.md", heading="Stored base by mode",
    ),
    TableEntry(
        "served", "memory", lambda study, _: served_table(study),
        "Merged models as they are stored to be served",
    ),
    FigureEntry(
        "ranges", "memory", draw_served_ranges, "ranges_by_layer.svg", served_range_words,
    ),
    TableEntry(
        "predicted", "memory", lambda study, _: memory_prediction_table(study),
        "Memory predicted and measured", csv="memory_predicted.csv", markdown="memory.md",
        heading="Predicted and measured", above=prediction_sentence,
        page=of_records.prediction_blocks,
    ),
    TableEntry(
        "running", "memory", lambda study, _: trial_memory_table(study), "While running",
        csv="memory_by_trial.csv", markdown="memory.md", heading="Trials while running",
    ),
    TableEntry(
        "token-prices", "memory", lambda _, found: token_price_table(found),
        "Tokens a second while they were scored here, and a price of a million where it is known",
        page=of_records.token_price_blocks,
    ),
    TableEntry(
        "pairs", "pairs", lambda _, found: comparison_table(found), csv="comparisons.csv",
        page=of_scores.pair_blocks,
    ),
    TableEntry(
        "cells", "configurations", lambda _, found: cell_table(found), "Scores and costs",
        csv="cells.csv",
    ),
    TableEntry(
        "preferences", "configurations", preference_table,
        "Test pairs against the bare base of the mode: how far replies moved, and which way",
    ),
    TableEntry(
        "classes", "configurations", lambda study, _: class_table(study),
        "Classes: accuracy, macro F1 and Matthews correlation on test items, trial by trial",
        csv="classes.csv",
    ),
    TableEntry(
        "trials", "configurations", lambda study, _: accuracy_table(accuracy_rows(study)),
        "Trial by trial, intervals over items alone", csv="accuracy.csv", markdown="accuracy.md",
        heading="Accuracy", page=of_records.trial_blocks,
    ),
    TableEntry(
        "forgetting", "configurations", lambda _, found: forgetting_table(found),
        "Forgotten: loss on rows of the base's own domain, before training and after",
        csv="forgetting.csv", page=of_scores.forgetting_blocks,
    ),
    TableEntry(
        "groups", "groups", lambda _, found: group_table(found),
        "Test rows by group, the largest first; differences to the reference on the same rows",
    ),
    FigureEntry("by-step", "losses", draw_losses, "loss_by_step.svg", of_records.loss_words),
    TableEntry(
        "failures", "failed", lambda study, _: of_records.failures_table(study),
        "Without a score",
    ),
)  # fmt: skip
"""In the order in which a section shows them."""

DATA: Mapping[str, Callable[[Study, Findings], str]] = {
    "decision.json": lambda study, found: decision_json(study, found.decision),
    "metrics.json": lambda study, found: metrics_json(study, found.decision),
    "losses.csv": lambda study, _: losses_csv(study),
}
"""File for machines -> its text."""


FILES = frozenset({
    *(file for e in CATALOGUE if isinstance(e, TableEntry) for file in (e.csv, e.markdown) if file),
    *(entry.file for entry in CATALOGUE if isinstance(entry, FigureEntry)),
    *DATA, REPORT, PAGE, EXPLORE,
})  # fmt: skip
"""All that `lorascope report` writes."""


def make_all(study: Study, findings: Findings) -> Made:
    """Every table and figure of a study."""
    return {entry.name: entry.make(study, findings) for entry in CATALOGUE}


def shown_blocks(study: Study, findings: Findings, made: Made) -> dict[str, list[Block]]:
    """Anchor of a section -> its tables and figures."""
    shown: dict[str, list[Block]] = {}
    for entry in CATALOGUE:
        blocks = entry.blocks(study, findings, made[entry.name])
        shown.setdefault(entry.section, []).extend(blocks)
    return shown


def files_of(study: Study, findings: Findings, made: Made) -> dict[str, bytes]:
    """File -> content, of everything but the page."""
    return {**_data_files(study, findings), **_files_of_blocks(study, made)}


def _data_files(study: Study, findings: Findings) -> dict[str, bytes]:
    return {file: write(study, findings).encode() for file, write in DATA.items()}


def _files_of_blocks(study: Study, made: Made) -> dict[str, bytes]:
    figures = {e.file: made[e.name].svg for e in CATALOGUE if isinstance(e, FigureEntry)}
    texts: dict[str, str] = {}
    parts: dict[str, list[str]] = {}
    for entry in CATALOGUE:
        if isinstance(entry, TableEntry) and entry.csv:
            texts[entry.csv] = made[entry.name].csv()
        if isinstance(entry, TableEntry) and entry.markdown:
            parts.setdefault(entry.markdown, []).append(entry.text(study, made[entry.name]))
    texts |= {file: "\n".join(tables) for file, tables in parts.items()}
    return {**{file: text.encode() for file, text in texts.items()}, **figures}


def report_files(study: Study, findings: Findings) -> dict[str, bytes]:
    """File -> content, of every report."""
    figures = [entry for entry in CATALOGUE if isinstance(entry, FigureEntry)]
    drawing = Forked(
        lambda: (
            {figure.name: figure.make(study, findings) for figure in figures},
            _data_files(study, findings),
        )
    )
    tables = {e.name: e.make(study, findings) for e in CATALOGUE if isinstance(e, TableEntry)}
    drawn, data = drawing.result()
    made: Made = {**tables, **drawn}
    page = document(study, findings, shown_blocks(study, findings, made))
    beside = Forked(
        lambda: {
            REPORT: markdown_page(page).encode(),
            EXPLORE: explore_page(study, findings).encode(),
            **_files_of_blocks(study, made),
        }
    )
    html = html_page(page).encode()
    return {**data, **beside.result(), PAGE: html}


def write_reports(study: Study, findings: Findings, folder: Path) -> list[Path]:
    """Write every report into `folder`, or none; files that would not change are left alone.

    The same study gives the same bytes, wherever and whenever.

    Returns:
        All reports, changed or not, in a fixed order.
    """
    files = {folder / name: content for name, content in report_files(study, findings).items()}
    write_all_atomically(
        {
            path: content
            for path, content in files.items()
            if not path.is_file() or path.read_bytes() != content
        }
    )
    return list(files)
