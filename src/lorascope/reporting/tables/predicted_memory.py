"""Memory predicted from the configuration alone, beside what the trial measured.

Peaks are of live tensors on a CPU, of the allocator on CUDA. Predictions are for the batches that
were trained, and for all trials that were trained at once; a refused trial's are for those batches
that it would have had. None is unknown: not predicted, or not measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lorascope.records import MemoryPlan, Study
from lorascope.reporting import units
from lorascope.reporting.tables.accuracy import TrialRow, trial_rows
from lorascope.reporting.tables.cell_columns import cell_columns
from lorascope.reporting.tables.table import Column, Table


def memory_prediction_table(study: Study) -> Table[TrialRow]:
    """One row a trial."""
    rows = trial_rows(study)
    return Table(
        (
            *cell_columns((row.cell for row in rows), targets=True),
            Column("seed", "Seed", get=lambda row: row.trial.key.seed),
            Column("status", "Status", right=False, get=lambda row: row.trial.status),
            Column("at_once", "At once", get=_at_once),
            _planned("device", "Device", str, right=False),
            _planned("micro_batch_size", "Micro-batch", str),
            _planned("tokens", "Tokens", str),
            _planned("base_bytes", "Base", units.size),
            Column("measured_base_bytes", "Base measured", units.size, in_text=False,
                   get=lambda row: row.trial.result and row.trial.result.model_bytes),
            _planned("constant_bytes", "Constants", units.size),
            Column("states_bytes", "Adapter states", units.size, get=_states),
            _planned("activation_bytes", "Activations", units.size),
            _planned("logits_bytes", "Logits", units.size),
            _planned("dequantization_bytes", "Dequantized weight", units.size),
            Column("train_alone_bytes", "Train alone", units.size, get=_alone),
            *_peaks("train"),
            *_peaks("evaluate"),
            _peak("load", in_text=False),
            _peak("merge", in_text=False),
            _planned("seconds", "Prediction s", units.seconds, in_text=False),
            Column("trial", "Trial", right=False, in_text=False, get=lambda row: row.trial.trial),
        ),
        rows,
    )  # fmt: skip


def worst_memory_error(study: Study) -> float | None:
    """The largest relative error of any predicted peak, without its sign; None without any."""
    rows, phases = trial_rows(study), ("train", "evaluate")
    errors = [_error(row, phase) for row in rows for phase in phases]
    return max((abs(error) for error in errors if error is not None), default=None)


def prediction_sentence(study: Study) -> str:
    """How far predictions are off, at worst."""
    rows, worst = trial_rows(study), worst_memory_error(study)
    if worst is None:
        return "No trial has both a predicted and a measured peak."
    together = (
        " Trials that were trained at once were measured together; “Train alone” is predicted for "
        "each by itself."
        if any((_at_once(row) or 1) > 1 for row in rows)
        else ""
    )
    compared = sum(_error(row, "train") is not None for row in rows)
    return (
        f"Predicted from configurations alone, with no weights; measured while training and "
        f"scoring {compared} trials. Worst error of a peak: {100 * worst:.3f} %.{together}"
    )


def _planned(
    field: str, header: str, show: Callable[[Any], str], right: bool = True, in_text: bool = True
) -> Column:
    """A number of the prediction."""
    return Column(
        field, header, show, right, in_text=in_text,
        get=lambda row: getattr(_plan(row), field, None),
    )  # fmt: skip


def _peaks(phase: str) -> tuple[Column, Column, Column]:
    """Predicted, measured, and how far these are apart."""
    return (
        _peak(phase),
        Column(
            f"measured_{phase}_bytes", f"{phase.capitalize()} measured", units.size,
            get=lambda row: _measured(row, phase),
        ),
        Column(
            f"{phase}_error", f"{phase.capitalize()} error %", _signed_percent,
            get=lambda row: _error(row, phase),
        ),
    )  # fmt: skip


def _peak(phase: str, in_text: bool = True) -> Column:
    return Column(
        f"{phase}_bytes", f"{phase.capitalize()} predicted", units.size, in_text=in_text,
        get=lambda row: _predicted(row, phase),
    )  # fmt: skip


def _at_once(row: TrialRow) -> int | None:
    return row.trial.result.trials_at_once if row.trial.result else None


def _plan(row: TrialRow) -> MemoryPlan | None:
    """For all trials that were trained at once."""
    return (row.trial.pack_plan or row.trial.plan) if row.trial.plan else None


def _alone(row: TrialRow) -> int | None:
    return row.trial.plan.peak_bytes.get("train") if row.trial.plan else None


def _states(row: TrialRow) -> int | None:
    """Adapter, gradients and optimizer state."""
    plan = _plan(row)
    return plan.adapter_bytes + plan.gradient_bytes + plan.optimizer_bytes if plan else None


def _predicted(row: TrialRow, phase: str) -> int | None:
    plan = _plan(row)
    return plan.peak_bytes.get(phase) if plan else None


def _measured(row: TrialRow, phase: str) -> int | None:
    """What is comparable with a prediction: all live tensors."""
    memory = row.trial.result.memory.get(phase) if row.trial.result else None
    if memory is None:
        return None
    tracked, allocated = memory.tracked_peak_bytes, memory.allocated_peak_bytes
    return allocated if tracked is None else tracked


def _error(row: TrialRow, phase: str) -> float | None:
    """(predicted - measured) / measured."""
    predicted, measured = _predicted(row, phase), _measured(row, phase)
    return None if predicted is None or not measured else (predicted - measured) / measured


def _signed_percent(share: float) -> str:
    """Three decimals: -0.731, +0.005; what rounds to zero has no sign."""
    shown = f"{100 * share:+.3f}"
    return "0.000" if shown.strip("+-0.") == "" else shown
