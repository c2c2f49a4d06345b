"""What each trial took while it ran: bytes by phase, speed, seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from lorascope.comparing.cells import variants
from lorascope.comparing.results import CellKey, cell_of
from lorascope.records import PhaseMemory, Study, TrainingResult, TrialRecord
from lorascope.reporting import units
from lorascope.reporting.tables.accuracy import modes, trial_order
from lorascope.reporting.tables.cell_columns import cell_columns
from lorascope.reporting.tables.table import Column, Table

UNMEASURED = PhaseMemory(None, None, None)


@dataclass(frozen=True)
class TrialMemoryRow:
    """What one trial measured; None is unknown, or not measured on that device."""

    cell: CellKey
    seed: int
    status: str
    model_bytes: int | None = None
    adapter_bytes: int | None = None
    optimizer_bytes: int | None = None
    load_allocated_peak_bytes: int | None = None
    train_allocated_peak_bytes: int | None = None
    evaluate_allocated_peak_bytes: int | None = None
    load_reserved_peak_bytes: int | None = None
    train_reserved_peak_bytes: int | None = None
    evaluate_reserved_peak_bytes: int | None = None
    load_resident_growth_bytes: int | None = None
    train_resident_growth_bytes: int | None = None
    evaluate_resident_growth_bytes: int | None = None
    train_tracked_peak_bytes: int | None = None
    """Of all live tensors; measured on a CPU only."""
    evaluate_tracked_peak_bytes: int | None = None
    at_once: int | None = None
    """Trials that were trained together, this one included: peaks, load and train seconds are
    theirs together."""
    tokens_per_second: float | None = None
    load_seconds: float | None = None
    train_seconds: float | None = None
    evaluate_seconds: float | None = None
    compute_dtype: str | None = None
    attention: str | None = None
    device: str | None = None
    reason: str | None = None
    trial: str | None = None


def trial_memory_rows(study: Study) -> list[TrialMemoryRow]:
    """One row a trial, in the order of the accuracy table."""
    order = modes(study)
    trials = sorted(study.trials, key=lambda t: (order.index(t.key.quant), *trial_order(t)))
    variant = variants(study)
    return [_trial_row(trial, cell_of(trial.key, variant[trial.trial])) for trial in trials]


def trial_memory_table(rows: Sequence[TrialMemoryRow]) -> Table[TrialMemoryRow]:
    """Of what `trial_memory_rows` gives. On CUDA peaks are the allocator's, on a CPU the growth of
    the process, and beside it the bytes of all live tensors.
    """
    kinds = {"allocated_peak": "peak", "resident_growth": "growth", "reserved_peak": "reserved"}
    peaks = [
        Column(
            f"{phase}_{kind}_bytes",
            f"{phase.capitalize()} {words}",
            units.size,
            in_text=kind != "reserved_peak",
        )
        for kind, words in kinds.items()
        for phase in ("load", "train", "evaluate")
    ]
    return Table(
        (
            *cell_columns((row.cell for row in rows), targets=False),
            Column("seed", "Seed"),
            Column("at_once", "At once"),
            Column("model_bytes", "Model", units.size),
            Column("adapter_bytes", "Adapter", units.size),
            Column("optimizer_bytes", "Optimizer", units.size),
            *peaks,
            Column("train_tracked_peak_bytes", "Train tensors", units.size),
            Column("evaluate_tracked_peak_bytes", "Evaluate tensors", units.size),
            Column("tokens_per_second", "Tokens/s", units.count),
            Column("load_seconds", "Load s", units.seconds),
            Column("train_seconds", "Train s", units.seconds),
            Column("evaluate_seconds", "Evaluate s", units.seconds),
            Column("compute_dtype", "Compute", right=False),
            Column("attention", "Attention", right=False, in_text=False),
            Column("device", "Device", right=False, in_text=False),
            Column("status", "Status", right=False),
            Column("reason", "Reason", right=False),
            Column("trial", "Trial", right=False, in_text=False),
        ),
        rows,
    )


def _trial_row(trial: TrialRecord, cell: CellKey) -> TrialMemoryRow:
    row = TrialMemoryRow(
        cell,
        trial.key.seed,
        status=trial.status.value,
        device=trial.provenance.device,
        reason=trial.reason,
        trial=trial.trial,
    )
    return row if trial.result is None else _with_result(row, trial.result)


def _with_result(row: TrialMemoryRow, result: TrainingResult) -> TrialMemoryRow:
    load, train, evaluate = (
        result.memory.get(phase, UNMEASURED) for phase in ("load", "train", "evaluate")
    )
    return replace(
        row,
        at_once=result.trials_at_once,
        model_bytes=result.model_bytes,
        adapter_bytes=result.adapter_bytes,
        optimizer_bytes=result.optimizer_bytes,
        load_allocated_peak_bytes=load.allocated_peak_bytes,
        train_allocated_peak_bytes=train.allocated_peak_bytes,
        evaluate_allocated_peak_bytes=evaluate.allocated_peak_bytes,
        load_reserved_peak_bytes=load.reserved_peak_bytes,
        train_reserved_peak_bytes=train.reserved_peak_bytes,
        evaluate_reserved_peak_bytes=evaluate.reserved_peak_bytes,
        load_resident_growth_bytes=load.resident_growth_bytes,
        train_resident_growth_bytes=train.resident_growth_bytes,
        evaluate_resident_growth_bytes=evaluate.resident_growth_bytes,
        train_tracked_peak_bytes=train.tracked_peak_bytes,
        evaluate_tracked_peak_bytes=evaluate.tracked_peak_bytes,
        tokens_per_second=result.tokens_per_second,
        load_seconds=result.load_seconds,
        train_seconds=result.train_seconds,
        evaluate_seconds=result.evaluate_seconds,
        compute_dtype=result.compute_dtype,
        attention=result.attention,
    )
