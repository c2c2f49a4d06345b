"""report.md: the question, the rows that lead, the tables and figures, what failed, what it ran on.

Every sentence is made from the records' numbers; none is a verdict that they do not carry.
"""

from __future__ import annotations

from collections.abc import Sequence

from lorascope.maths.statistics import detectable_difference
from lorascope.records import MergeRecord, Status, Study, TrialKey
from lorascope.reporting import units
from lorascope.reporting.accuracy_table import (
    MISSING,
    AccuracyRow,
    accuracy_table,
    by_validation_score,
    modes,
)
from lorascope.reporting.mode_memory_table import mode_memory_rows, mode_memory_table
from lorascope.reporting.parameter_summary import parameter_summary
from lorascope.reporting.provenance_section import provenance_section
from lorascope.reporting.table import Table
from lorascope.reporting.trial_memory_table import trial_memory_rows, trial_memory_table

LEADING_ROWS = 5
NORMAL_ENOUGH = 5
"""Least n p (1 - p) at which the normal approximation of a share is used."""


def page(study: Study, rows: Sequence[AccuracyRow]) -> str:
    """The whole page, for `rows` of the accuracy table."""
    table = accuracy_table(rows)
    sections = [
        _question(study, rows),
        _leading(table),
        _merge(study.merge),
        _unscored(table),
        _scores(table),
        _memory(study),
        f"## Trainable parameters\n\n{parameter_summary(study)}",
        HOW_TO_READ,
        provenance_section(study),
    ]
    return "\n".join(section for section in sections if section)


HOW_TO_READ = """## How to read this

- A blank cell is unknown or was not measured; it is never zero.
- Rows are ranked by the validation split. The test split is scored once for every row and chooses
  nothing.
- The 95 % interval (Wilson) covers which test items were drawn. It does not cover the training
  seed, nor the choice of this dataset.
- Loss is the mean over completion tokens, in nats; lower is better.
- Stored sizes are exact bytes of tensors, 1 GB = 10^9 bytes. `Peak` is the allocator's on CUDA,
  `growth` that of the process on a CPU: compare each with its own kind only.
- `Bits measured` has the constants and code tables in it. `Bits from shapes` is the same computed
  without a tensor; `Bits, large layers` is what remains where layers are large.
- `Weight error` is sqrt(mean((w - q)^2) / mean(w^2)) against the full-precision base, over layers.
"""


def _question(study: Study, rows: Sequence[AccuracyRow]) -> str:
    keys = [trial.key for trial in study.trials]
    counts = [f"{_count(rows, status)} {status}" for status in _statuses(rows)]
    seeds = sorted({key.seed for key in keys})
    lines = [
        f"# LoRA study: {study.base.model} on {study.data.name}\n",
        f"Which rank, alpha and quantization mode to ship for `{study.base.model}` "
        f"({units.count(study.base.parameters)} parameters) on `{study.data.name}`?\n",
        f"- Modes: {units.listed(modes(study))}",
        f"- Adapters: {units.listed(map(_adapter, keys))}",
        f"- Targets: {units.listed(sorted({key.targets for key in keys}))}",
        f"- Ranks: {units.listed(sorted({key.rank for key in keys}))}",
        f"- Alphas: {units.listed(units.number(a) for a in sorted({key.alpha for key in keys}))}",
        f"- Seeds: {units.listed(seeds)}",
        f"- Trials: {units.listed(counts)}",
    ]
    if len(seeds) == 1:
        lines.append(
            "\nOne seed: how much results vary from seed to seed is unknown here, and is in no "
            "interval below."
        )
    return "\n".join(lines) + "\n"


def _leading(table: Table[AccuracyRow]) -> str:
    ranked = by_validation_score(table.rows)
    if not ranked:
        return "## Best by validation score\n\nNo trial has a validation score.\n"
    columns = (
        "quant", "targets", "rank", "alpha", "rslora", "dora", "seed", "validation_accuracy",
        "validation_loss_nats", "accuracy", "interval", "completion_loss_nats", "trial",
    )  # fmt: skip
    best = table.only(ranked[:LEADING_ROWS]).select(*columns).markdown()
    shown = f"The first {LEADING_ROWS} of {len(ranked)} scored trials.\n\n"
    return (
        "## Best by validation score\n\n"
        + (shown if len(ranked) > LEADING_ROWS else "")
        + f"{best}{_near_the_first(ranked)}"
    )


def _near_the_first(ranked: Sequence[AccuracyRow]) -> str:
    """How many rows the first row's interval does not tell apart from it."""
    first, others = ranked[0], ranked[1:]
    if first.accuracy is None or first.interval is None or not first.items or not others:
        return ""
    low, high = first.interval
    near = sum(1 for row in others if row.accuracy is not None and low <= row.accuracy <= high)
    text = (
        f"\n{near} of the other {len(others)} scored trials have a test accuracy inside the first "
        f"row's 95 % interval, {units.percent_range(first.interval)} %."
    )
    if first.items * first.accuracy * (1 - first.accuracy) >= NORMAL_ENOUGH:
        gap = detectable_difference(first.accuracy, first.items)
        text += (
            f" Two independent samples of {units.count(first.items)} items at this accuracy differ "
            f"at the 5 % level from {units.percent(gap)} points on."
        )
    return text + "\n"


def _merge(merge: MergeRecord | None) -> str:
    if merge is None:
        return "## Shipped model\n\nNo merged model.\n"
    verdict = "passed" if merge.passed else "**did not pass**"
    score = "" if merge.validation_score is None else f", score {merge.validation_score:.4f}"
    head = " The head was untied from the embedding." if merge.untied_head else ""
    return (
        "## Shipped model\n\n"
        f"Trial `{merge.trial}` ({merge.quant}), merged in {merge.precision}, "
        f"{units.size(merge.total_bytes)}.{head} "
        f"Chosen: {merge.chosen_by}{score}. Verification {verdict}:\n\n"
        f"- items compared: {units.count(merge.items)}\n"
        f"- equal next-token predictions: {100 * merge.prediction_agreement:.2f} %\n"
        f"- largest logit difference: {merge.largest_logit_difference:.2g}\n"
        f"- completion loss, adapter on its base: {merge.adapter_loss_nats:.4f} nats\n"
        f"- completion loss, merged: {merge.merged_loss_nats:.4f} nats\n"
    )


def _unscored(table: Table[AccuracyRow]) -> str:
    rows = [row for row in table.rows if not row.scored]
    if not rows:
        return "## Failed, missing or not scored\n\nNone: every declared trial has a score.\n"
    columns = ("quant", "targets", "rank", "alpha", "seed", "status", "reason", "trial")
    return f"## Failed, missing or not scored\n\n{table.only(rows).select(*columns).markdown()}"


def _scores(table: Table[AccuracyRow]) -> str:
    scored = [row for row in table.rows if row.scored]
    if not scored:
        return "## Scores\n\nNothing has a score yet.\n"
    kept = [column.key for column in table.columns if column.key not in ("reason", "trial")]
    return (
        "## Scores\n\n"
        "![Score against rank](accuracy_by_rank.svg)\n\n"
        "![Score against memory](accuracy_by_memory.svg)\n\n"
        "Bars are 95 % intervals of the test items, dashed lines and hollow marks the bare base. "
        "Where there are several seeds, lines are means and small ticks the seeds. "
        "Curves stand slightly apart at one rank so that bars can be seen.\n\n"
        f"{table.only(scored).select(*kept).markdown()}\n"
        "With trial names: [accuracy.csv](accuracy.csv). Training losses: "
        "[losses.csv](losses.csv).\n"
    )


def _memory(study: Study) -> str:
    stored = mode_memory_table(mode_memory_rows(study)).markdown()
    trials = trial_memory_table(trial_memory_rows(study)).markdown()
    return f"## Memory and speed\n\nThe stored base:\n\n{stored}\nWhile running:\n\n{trials}"


def _adapter(key: TrialKey) -> str:
    plain = "rsLoRA" if key.rslora else "LoRA"
    return f"{plain} with DoRA" if key.dora else plain


def _statuses(rows: Sequence[AccuracyRow]) -> list[str]:
    known = [status.value for status in Status] + [MISSING]
    return [status for status in known if _count(rows, status)]


def _count(rows: Sequence[AccuracyRow], status: str) -> int:
    return sum(1 for row in rows if row.status == status and not row.is_base)
