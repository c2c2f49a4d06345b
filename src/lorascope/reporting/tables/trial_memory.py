"""What each trial took while it ran: bytes by phase, speed, seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lorascope.records import Study
from lorascope.reporting import units
from lorascope.reporting.tables.accuracy import TrialRow, trial_rows
from lorascope.reporting.tables.cell_columns import cell_columns
from lorascope.reporting.tables.table import Column, Table

KINDS = {
    "allocated_peak_bytes": "peak",
    "resident_growth_bytes": "growth",
    "reserved_peak_bytes": "reserved",
}
"""Field of PhaseMemory -> what its columns are called."""


def trial_memory_table(study: Study) -> Table[TrialRow]:
    """One row a trial, blank where it failed. On CUDA peaks are the allocator's, on a CPU the
    growth of the process, and beside it the bytes of all live tensors. Of trials that were trained
    at once peaks, load and train seconds are theirs together."""
    rows = trial_rows(study)
    return Table(
        (
            *cell_columns((row.cell for row in rows), targets=False),
            Column("seed", "Seed", get=lambda row: row.trial.key.seed),
            Column("at_once", "At once",
                   get=lambda row: row.trial.result and row.trial.result.trials_at_once),
            _result("model_bytes", "Model", units.size),
            _result("adapter_bytes", "Adapter", units.size),
            _result("optimizer_bytes", "Optimizer", units.size),
            *(
                _phase(phase, field, f"{phase.capitalize()} {words}", words != "reserved")
                for field, words in KINDS.items()
                for phase in ("load", "train", "evaluate")
            ),
            _phase("train", "tracked_peak_bytes", "Train tensors"),
            _phase("evaluate", "tracked_peak_bytes", "Evaluate tensors"),
            _result("tokens_per_second", "Tokens/s", units.count),
            _result("load_seconds", "Load s", units.seconds),
            _result("train_seconds", "Train s", units.seconds),
            _result("evaluate_seconds", "Evaluate s", units.seconds),
            _result("compute_dtype", "Compute", str, right=False),
            _result("attention", "Attention", str, right=False, in_text=False),
            Column("device", "Device", right=False, in_text=False,
                   get=lambda row: row.trial.provenance.device),
            Column("status", "Status", right=False, get=lambda row: row.trial.status),
            Column("reason", "Reason", right=False, get=lambda row: row.trial.reason),
            Column("trial", "Trial", right=False, in_text=False, get=lambda row: row.trial.trial),
        ),
        rows,
    )  # fmt: skip


def _result(
    field: str, header: str, show: Callable[[Any], str], right: bool = True, in_text: bool = True
) -> Column:
    """A number of the training's result."""
    return Column(
        field, header, show, right, in_text=in_text,
        get=lambda row: getattr(row.trial.result, field, None),
    )  # fmt: skip


def _phase(phase: str, field: str, header: str, in_text: bool = True) -> Column:
    """Bytes of one phase."""

    def measured(row: TrialRow) -> int | None:
        memory = row.trial.result.memory.get(phase) if row.trial.result else None
        return getattr(memory, field, None)

    return Column(f"{phase}_{field}", header, units.size, in_text=in_text, get=measured)
