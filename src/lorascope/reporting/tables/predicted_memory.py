"""Memory predicted from the configuration alone, beside what the trial measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lorascope.comparing.cells import variants
from lorascope.comparing.results import CellKey, cell_of
from lorascope.records import MemoryPlan, PhaseMemory, Study, TrainingResult, TrialRecord
from lorascope.reporting import units
from lorascope.reporting.tables.accuracy import modes, trial_order
from lorascope.reporting.tables.cell_columns import cell_columns
from lorascope.reporting.tables.table import Column, Table


@dataclass(frozen=True)
class MemoryPredictionRow:
    """One trial. None is unknown: not predicted, or not measured.

    Peaks are of live tensors on a CPU, of the allocator on CUDA. Predictions are for the batches
    that were trained, and for all trials that were trained at once; a refused trial's are for those
    batches that it would have had.
    """

    cell: CellKey
    seed: int
    status: str
    at_once: int | None = None
    """Trials that were trained together, this one included."""
    device: str | None = None
    micro_batch_size: int | None = None
    tokens: int | None = None
    base_bytes: int | None = None
    measured_base_bytes: int | None = None
    constant_bytes: int | None = None
    states_bytes: int | None = None
    """Adapter, gradients and optimizer state."""
    activation_bytes: int | None = None
    logits_bytes: int | None = None
    dequantization_bytes: int | None = None
    train_alone_bytes: int | None = None
    """Predicted for this trial by itself."""
    train_bytes: int | None = None
    measured_train_bytes: int | None = None
    train_error: float | None = None
    """(predicted - measured) / measured."""
    evaluate_bytes: int | None = None
    measured_evaluate_bytes: int | None = None
    evaluate_error: float | None = None
    load_bytes: int | None = None
    merge_bytes: int | None = None
    seconds: float | None = None
    """That the prediction took."""
    trial: str | None = None


def memory_prediction_rows(study: Study) -> list[MemoryPredictionRow]:
    """One row a trial, in the order of the accuracy table."""
    order = modes(study)
    trials = sorted(study.trials, key=lambda t: (order.index(t.key.quant), *trial_order(t)))
    variant = variants(study)
    return [_row(trial, cell_of(trial.key, variant[trial.trial])) for trial in trials]


def memory_prediction_table(rows: Sequence[MemoryPredictionRow]) -> Table[MemoryPredictionRow]:
    """Of what `memory_prediction_rows` gives."""

    def size(key: str, header: str, in_text: bool = True) -> Column:
        return Column(key, header, units.size, in_text=in_text)

    return Table(
        (
            *cell_columns((row.cell for row in rows), targets=True),
            Column("seed", "Seed"),
            Column("status", "Status", right=False),
            Column("at_once", "At once"),
            Column("device", "Device", right=False),
            Column("micro_batch_size", "Micro-batch"),
            Column("tokens", "Tokens"),
            size("base_bytes", "Base"),
            size("measured_base_bytes", "Base measured", in_text=False),
            size("constant_bytes", "Constants"),
            size("states_bytes", "Adapter states"),
            size("activation_bytes", "Activations"),
            size("logits_bytes", "Logits"),
            size("dequantization_bytes", "Dequantized weight"),
            size("train_alone_bytes", "Train alone"),
            size("train_bytes", "Train predicted"),
            size("measured_train_bytes", "Train measured"),
            Column("train_error", "Train error %", _signed_percent),
            size("evaluate_bytes", "Evaluate predicted"),
            size("measured_evaluate_bytes", "Evaluate measured"),
            Column("evaluate_error", "Evaluate error %", _signed_percent),
            size("load_bytes", "Load predicted", in_text=False),
            size("merge_bytes", "Merge predicted", in_text=False),
            Column("seconds", "Prediction s", units.seconds, in_text=False),
            Column("trial", "Trial", right=False, in_text=False),
        ),
        rows,
    )


def worst_memory_error(rows: Sequence[MemoryPredictionRow]) -> float | None:
    """The largest relative error of any predicted peak, without its sign; None without any."""
    errors = [error for row in rows for error in (row.train_error, row.evaluate_error)]
    return max((abs(error) for error in errors if error is not None), default=None)


def prediction_sentence(study: Study) -> str:
    """How far predictions are off, at worst."""
    rows = memory_prediction_rows(study)
    compared = [row for row in rows if row.train_error is not None]
    worst = worst_memory_error(rows)
    if worst is None:
        return "No trial has both a predicted and a measured peak."
    together = (
        " Trials that were trained at once were measured together; “Train alone” is predicted for "
        "each by itself."
        if any((row.at_once or 1) > 1 for row in rows)
        else ""
    )
    return (
        f"Predicted from configurations alone, with no weights; measured while training and "
        f"scoring {len(compared)} trials. Worst error of a peak: {100 * worst:.3f} %.{together}"
    )


def _signed_percent(share: float) -> str:
    """Three decimals: -0.731, +0.005; what rounds to zero has no sign."""
    shown = f"{100 * share:+.3f}"
    return "0.000" if shown.strip("+-0.") == "" else shown


def _row(trial: TrialRecord, cell: CellKey) -> MemoryPredictionRow:
    row = MemoryPredictionRow(cell, trial.key.seed, trial.status.value, trial=trial.trial)
    if trial.result is not None:
        row = _with_measurement(row, trial.result)
    if trial.plan is None:
        return row
    row = replace(row, train_alone_bytes=trial.plan.peak_bytes.get("train"))
    return _with_plan(row, trial.pack_plan or trial.plan)


def _with_measurement(row: MemoryPredictionRow, result: TrainingResult) -> MemoryPredictionRow:
    train, evaluate = (result.memory.get(phase) for phase in ("train", "evaluate"))
    return replace(
        row,
        at_once=result.trials_at_once,
        measured_base_bytes=result.model_bytes,
        measured_train_bytes=_peak(train),
        measured_evaluate_bytes=_peak(evaluate),
    )


def _peak(memory: PhaseMemory | None) -> int | None:
    """What is comparable with a prediction: all live tensors."""
    if memory is None:
        return None
    tracked, allocated = memory.tracked_peak_bytes, memory.allocated_peak_bytes
    return allocated if tracked is None else tracked


def _with_plan(row: MemoryPredictionRow, plan: MemoryPlan) -> MemoryPredictionRow:
    train, evaluate = plan.peak_bytes.get("train"), plan.peak_bytes.get("evaluate")
    return replace(
        row,
        device=plan.device,
        micro_batch_size=plan.micro_batch_size,
        tokens=plan.tokens,
        base_bytes=plan.base_bytes,
        constant_bytes=plan.constant_bytes,
        states_bytes=plan.adapter_bytes + plan.gradient_bytes + plan.optimizer_bytes,
        activation_bytes=plan.activation_bytes,
        logits_bytes=plan.logits_bytes,
        dequantization_bytes=plan.dequantization_bytes,
        train_bytes=train,
        train_error=_error(train, row.measured_train_bytes),
        evaluate_bytes=evaluate,
        evaluate_error=_error(evaluate, row.measured_evaluate_bytes),
        load_bytes=plan.peak_bytes.get("load"),
        merge_bytes=plan.peak_bytes.get("merge"),
        seconds=plan.seconds,
    )


def _error(predicted: int | None, measured: int | None) -> float | None:
    return None if predicted is None or not measured else (predicted - measured) / measured
