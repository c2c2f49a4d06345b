"""The sections about what was run: parameters, memory, trials, failures, the merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lorascope.records import MergeRecord, Study
from lorascope.reporting import units
from lorascope.reporting.pages.document import (
    Block,
    ByMedium,
    Code,
    Facts,
    Line,
    Link,
    Paragraph,
    Section,
    Strong,
    TableBlock,
    text,
)
from lorascope.reporting.tables.accuracy import AccuracyRow, accuracy_table
from lorascope.reporting.tables.mode_memory import mode_memory_rows, mode_memory_table
from lorascope.reporting.tables.parameters import (
    parameter_rows,
    parameter_summary,
    parameter_table,
)
from lorascope.reporting.tables.predicted_memory import (
    memory_prediction_rows,
    memory_prediction_table,
    prediction_sentence,
)
from lorascope.reporting.tables.printed import printed_tables
from lorascope.reporting.tables.table import Column, Table, Wrap
from lorascope.reporting.tables.trial_memory import trial_memory_rows, trial_memory_table


def parameters_section(study: Study) -> Section:
    """Trainable parameters: this model's on the page, all models in the files."""
    rows = parameter_rows(study)
    own = [row for row in rows if row.model == study.base.model]
    caption = f"Adapters on {study.base.model}, counted from shapes"
    table = TableBlock("adapters", caption, parameter_table(own))
    files = Paragraph((
        "Other models beside it: ", Link("trainable_parameters.csv", "trainable_parameters.csv"),
        ".",
    ))  # fmt: skip
    printed = [
        TableBlock(f"printed-{place}", title, rows)
        for place, (title, rows) in enumerate(printed_tables())
    ]
    blocks = (ByMedium(parameter_summary(study), (table, files, *printed)),)
    return Section("parameters", "Trainable parameters", blocks)


def memory_section(study: Study) -> Section:
    """Stored bytes by mode, and what trials took while they ran."""
    blocks: list[Block] = [
        TableBlock("stored", "The stored base", mode_memory_table(mode_memory_rows(study))),
    ]
    predicted = memory_prediction_rows(study)
    if any(row.train_bytes is not None for row in predicted):
        blocks.append(text(prediction_sentence(study)))
        table = memory_prediction_table(predicted)
        blocks.append(TableBlock("predicted", "Memory predicted and measured", table))
    running = trial_memory_rows(study)
    if running:
        blocks.append(TableBlock("running", "While running", trial_memory_table(running)))
    return Section("memory", "Memory and speed", tuple(blocks))


def trials_block(study: Study, rows: Sequence[AccuracyRow]) -> Block:
    """Every base and trial as recorded, with its run in the tracking store and its folder."""
    table = with_runs(study, accuracy_table(rows).without("reason", "items", "standard_error"))
    return ByMedium(
        f"Trial by trial, intervals over items alone:\n\n"
        f"{accuracy_table(rows).without('reason').markdown()}",
        (TableBlock("trials", "Trial by trial, intervals over items alone", table),),
    )


def with_runs(study: Study, table: Table[AccuracyRow]) -> Table[AccuracyRow]:
    """The same with a link to each trial's folder and the id of its MLflow run."""
    runs: Mapping[str, str | None] = {trial.trial: trial.tracking_run for trial in study.trials}
    return table.with_columns(
        Column("trial", "Trial", right=False, wrap=Wrap.print, href=_folder(runs)),
        Column(
            "tracking_run",
            "MLflow run",
            right=False,
            wrap=Wrap.print,
            get=lambda row: runs.get(row.trial),
        ),
    )


def _folder(recorded: Mapping[str, object]) -> Any:
    """From a row to its trial's folder, as seen from reports/; a missing trial has none."""

    def folder(row: AccuracyRow) -> str | None:
        known = row.trial in recorded
        return f"../experiments/train/{row.cell.quant}/{row.trial}/" if known else None

    return folder


def failures_section(study: Study, rows: Sequence[AccuracyRow]) -> Section:
    """What has no score, and why."""
    lost = [row for row in rows if not row.scored]
    if not lost:
        blocks: tuple[Block, ...] = (text("None: every declared trial has a score."),)
    else:
        table = accuracy_table(rows).only(lost)
        columns = (*table.keys_to("seed"), "status", "reason", "trial")
        reason = Column("reason", "Reason", right=False, wrap=Wrap.prose)
        table = with_runs(study, table.select(*columns).with_columns(reason))
        blocks = (TableBlock("failures", "Without a score", table),)
    return Section("failed", "Failed, refused, missing or not scored", blocks)


def _without_rounding(merge: MergeRecord) -> tuple[tuple[str, Line], ...]:
    if merge.unrounded_agreement is None or merge.unrounded_logit_difference is None:
        return ()
    agreement = f"{100 * merge.unrounded_agreement:.2f} % equal predictions"
    logits = f"logits within {merge.unrounded_logit_difference:.2g}"
    return (("Without INT8's rounding of activations", (f"{agreement}, {logits}",)),)


def merge_section(merge: MergeRecord | None, recommended: str | None) -> Section:
    """The merged model and how it was verified; `recommended` is the trial that the rule names."""
    if merge is None:
        return Section("merged", "Merged model", (text("No merged model."),))
    score = "" if merge.validation_score is None else f", score {merge.validation_score:.4f}"
    verdict: str | Strong = "passed" if merge.passed else Strong("did not pass")
    head: tuple[str, Line] = ("Head", ("untied from the embedding",))
    facts: tuple[tuple[str, Line], ...] = (
        ("Trial", (Code(merge.trial),)),
        ("Merged in", (f"{merge.precision}, {units.size(merge.total_bytes)}",)),
        ("Chosen", (f"{merge.chosen_by}{score}",)),
        ("Verification", (verdict,)),
        ("Items compared", (units.count(merge.items),)),
        ("Equal next-token predictions", (f"{100 * merge.prediction_agreement:.2f} %",)),
        ("Largest logit difference", (f"{merge.largest_logit_difference:.2g}",)),
        *_without_rounding(merge),
        ("Loss, adapter on its base", (f"{merge.adapter_loss_nats:.4f} nats",)),
        ("Loss, merged", (f"{merge.merged_loss_nats:.4f} nats",)),
        *([head] if merge.untied_head else []),
    )
    if recommended in (None, merge.trial):
        return Section("merged", "Merged model", (Facts(facts),))
    other: Line = (
        Strong("Not the recommended trial"), ", which is ", Code(str(recommended)),
        ". `lorascope merge` with ship=auto, or dvc repro, merges that one.",
    )  # fmt: skip
    return Section("merged", "Merged model", (Paragraph(other), Facts(facts)))
