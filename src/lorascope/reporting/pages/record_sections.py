"""What the page shows of what was run: parameters, memory, trials, losses, the merge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lorascope.comparing.cells import NOT_NEEDED
from lorascope.comparing.ruling import Decision, Findings
from lorascope.config import APART
from lorascope.records import MergeRecord, ServedRecord, Study
from lorascope.reporting import units
from lorascope.reporting.pages.document import (
    Block,
    ByMedium,
    Code,
    Facts,
    Line,
    Link,
    Paragraph,
    Strong,
    TableBlock,
    text,
)
from lorascope.reporting.pages.markdown import table_text
from lorascope.reporting.tables.accuracy import AccuracyRow, accuracy_rows, accuracy_table
from lorascope.reporting.tables.memory import prediction_sentence
from lorascope.reporting.tables.parameters import parameter_summary
from lorascope.reporting.tables.table import Column, Table, Wrap


def published_blocks(study: Study, findings: Findings, block: TableBlock) -> Iterator[Block]:
    """A table of no study, folded on the HTML page; Markdown has a file of its own."""
    yield ByMedium("", (replace(block, fold=f"Beside it: {block.caption}"),))


def parameter_blocks(study: Study, findings: Findings, block: TableBlock) -> Iterator[Block]:
    """Trainable parameters: this model's on the page, all models in the files."""
    own = block.table.only([row for row in block.table.rows if row.model == study.base.model])
    caption = f"Adapters on {study.base.model}, counted from shapes"
    files = Paragraph((
        "Other models beside it: ", Link("trainable_parameters.csv", "trainable_parameters.csv"),
        ".",
    ))  # fmt: skip
    shown = TableBlock(block.key, caption, own, file=block.file)
    yield ByMedium(parameter_summary(study), (shown, files))


def prediction_blocks(study: Study, findings: Findings, block: TableBlock) -> Iterator[Block]:
    """Predicted memory, where something was predicted."""
    if any(row.trial.plan for row in block.table.rows):
        yield from (text(prediction_sentence(study)), block)


def trial_blocks(study: Study, findings: Findings, block: TableBlock) -> Iterator[Block]:
    """Every base and trial as recorded, with its run in the tracking store and its folder."""
    table = with_runs(study, block.table.without("reason"))
    yield ByMedium(
        table_text(replace(block, table=table)),
        (replace(block, table=table.without("items", "standard_error")),),
    )


def with_runs(study: Study, table: Table[AccuracyRow]) -> Table[AccuracyRow]:
    """The same with a link to each trial's folder and the id of its MLflow run."""
    runs = {trial.trial: trial.tracking_run for trial in study.trials}

    def folder(row: AccuracyRow) -> str | None:
        """As seen from reports/; a missing trial has none."""
        known = row.trial in runs
        return f"../experiments/train/{row.cell.quant}/{row.trial}/" if known else None

    return table.with_columns(
        Column("trial", "Trial", right=False, wrap=Wrap.print, href=folder),
        Column("tracking_run", "MLflow run", right=False, wrap=Wrap.print,
               get=lambda row: runs.get(row.trial)),
    )  # fmt: skip


def failures_table(study: Study) -> Table[AccuracyRow]:
    """What has no score, and why."""
    rows = accuracy_rows(study)
    table = accuracy_table(rows).only(
        [row for row in rows if not row.scored and row.status != NOT_NEEDED]
    )
    columns = (*table.keys_to("seed"), "status", "reason", "trial")
    reason = Column("reason", "Reason", right=False, wrap=Wrap.prose)
    return with_runs(study, table.select(*columns).with_columns(reason))


def token_price_blocks(study: Study, findings: Findings, block: TableBlock) -> Iterator[Block]:
    """Tokens a second, and what was timed."""
    if block.table.rows:
        yield block
    if any(row.timed_seconds is not None for row in block.table.rows):
        yield text(
            "Timed is scoring with transformers, in batches of the sizes named. Other work on the "
            "machine slows it, so that speeds compare only where the machine did nothing else; a "
            "server such as vLLM has speeds of its own."
        )


def loss_words(study: Study, findings: Findings) -> tuple[str, str, str] | None:
    """Title, description and caption of the figure of training losses."""
    trials = [t for t in study.trials if t.result and t.result.losses]
    if not trials:
        return None
    ends = [t.result.losses[-1].loss_nats for t in trials if t.result]
    return (
        "Training loss by step, a panel a mode",
        f"{len(trials)} trials; last logged losses from {min(ends):.4g} to {max(ends):.4g} nats.",
        "One line a trial, stronger the higher its rank. Each point is the mean since the point "
        "before.",
    )


def _without_rounding(merge: MergeRecord) -> tuple[tuple[str, Line], ...]:
    if merge.unrounded_agreement is None or merge.unrounded_logit_difference is None:
        return ()
    agreement = f"{100 * merge.unrounded_agreement:.2f} % equal predictions"
    logits = f"logits within {merge.unrounded_logit_difference:.2g}"
    return (("Without INT8's rounding of activations", (f"{agreement}, {logits}",)),)


def _in_16_bits(merge: MergeRecord) -> tuple[tuple[str, Line], ...]:
    gap = merge.arithmetic_gap
    if gap is None:
        return ()
    facts = (
        f"{100 * gap.prediction_agreement:.2f} % equal predictions, logits within "
        f"{gap.largest_logit_difference:.2g}, loss {gap.adapter_loss_nats:.4f} nats"
    )
    return ((f"Adapter on its base computed in {gap.compute}, as trained", (facts,)),)


def _agreement(study: Study) -> str:
    classes = study.data.scoring == "classes"
    return "Equal predicted classes" if classes else "Equal next-token predictions"


def merge_blocks(study: Study, decision: Decision) -> Iterator[Block]:
    """The merged model and how it was verified, beside what the rule recommends."""
    merge, recommended = study.merge, decision.trial
    if merge is None:
        yield text("No merged model.")
        return
    score = "" if merge.validation_score is None else f", score {merge.validation_score:.4f}"
    verdict: str | Strong = "passed" if merge.passed else Strong("did not pass")
    head: tuple[str, Line] = ("Head", ("untied from the embedding",))
    facts: tuple[tuple[str, Line], ...] = (
        ("Trial", (Code(merge.trial),)),
        ("Merged in", (f"{merge.precision}, {units.size(merge.total_bytes)}",)),
        ("Chosen", (f"{merge.chosen_by}{score}",)),
        ("Verification", (verdict,)),
        ("Items compared", (units.count(merge.items),)),
        (_agreement(study), (f"{100 * merge.prediction_agreement:.2f} %",)),
        ("Largest logit difference", (f"{merge.largest_logit_difference:.2g}",)),
        *_without_rounding(merge),
        *_in_16_bits(merge),
        ("Loss, adapter on its base", (f"{merge.adapter_loss_nats:.4f} nats",)),
        ("Loss, merged", (f"{merge.merged_loss_nats:.4f} nats",)),
        *([head] if merge.untied_head else []),
    )
    if recommended not in (None, merge.trial):
        yield Paragraph((
            Strong("Not the recommended trial"), ", which is ", Code(str(recommended)),
            ". `lorascope merge` with ship=auto, or dvc repro, merges that one.",
        ))  # fmt: skip
    if decision.recommended is not None and decision.recommended.serve != APART:
        form, folder = decision.recommended.serve, f"models/{study.base.model}/served"
        yield Paragraph((
            "The recommendation is served as ", Code(form), f", and was scored so, not in "
            f"{merge.precision}: `lorascope quantize-merged` stores it in {folder}.",
        ))  # fmt: skip
    yield Facts(facts)


def served_blocks(served: ServedRecord | None, decision: Decision) -> Iterator[Block]:
    """The shipped model as it is served, and how it was verified; nothing where it is apart."""
    if served is None:
        return
    cell = decision.recommended
    if cell is not None and (cell.serve, decision.trial) != (served.served.name, served.trial):
        yield Paragraph((
            Strong("Not the recommended form"), ", which is ", Code(str(decision.trial)),
            " served ", Code(cell.serve),
            ". `lorascope quantize-merged` with ship=auto, or dvc repro, goes by that.",
        ))  # fmt: skip
    form = served.served
    bits = form.bits_per_quantized_parameter
    weighs = "" if bits is None else f", {units.bits(bits)} bits a quantized parameter"
    yield Paragraph((Strong("As it is served"), ", merged, stored and loaded again from disk:"))
    yield Facts((
        ("Trial", (Code(served.trial),)),
        ("Stored as", (f"{form.name}, {units.size(form.total_bytes)}{weighs}",)),
        ("Chosen", (served.chosen_by,)),
        ("Verification", ("passed",)),
        ("Files", ("byte for byte those that were scored" if served.as_scored
                   else "not the bytes that were scored",)),
        ("Items scored again", (units.count(served.items),)),
        ("Loss, loaded again", (f"{served.loss_nats:.4f} nats",)),
        ("Loss, by the scores", (f"{served.scored_loss_nats:.4f} nats",)),
    ))  # fmt: skip
