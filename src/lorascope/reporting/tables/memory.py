"""Where bytes are: of a stored base, of each trial while it ran, and as predicted before.

None is unknown: not predicted, not measured, or the trial failed.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from lorascope.config import QuantConfig, Storage
from lorascope.counting.parameters import matrix_parameters
from lorascope.quantizers.bits import linear_bytes, mean_asymptotic_bits
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.records import FootprintRecord, MemoryPlan, Study
from lorascope.reporting import units
from lorascope.reporting.cell_names import cell_columns
from lorascope.reporting.tables.accuracy import TrialRow, trial_rows
from lorascope.reporting.tables.table import Column, Table, of

PEAKS = {
    "allocated_peak_bytes": "peak",
    "resident_growth_bytes": "growth",
    "reserved_peak_bytes": "reserved",
}
"""Field of PhaseMemory -> what its columns are called."""


def mode_memory_table(study: Study) -> Table[FootprintRecord]:
    """One row a mode. Bits are a parameter's, of the quantized layers, constants with them."""
    return Table(
        (
            Column("quant", "Mode", right=False),
            Column("storage", "Storage", right=False),
            Column("quantized_parameters", "Quantized parameters", units.count),
            Column("quantized_weight_bytes", "Quantized weights", units.size),
            Column("quantization_constant_bytes", "Constants", units.size),
            Column("unquantized_bytes", "Unquantized", units.size),
            Column("total_bytes", "Total", units.size),
            Column("bits_measured", "Bits measured", units.bits,
                   get=lambda row: row.bits_per_quantized_parameter),
            Column("bits_exact", "Bits from shapes", units.bits,
                   get=lambda row: _expected_bits(study, row)[0]),
            Column("bits_asymptotic", "Bits, large layers", units.bits,
                   get=lambda row: _expected_bits(study, row)[1]),
            Column("relative_rmse", "Weight error", units.ratio, get=_weight_error),
        ),
        study.footprints,
    )  # fmt: skip


def _weight_error(footprint: FootprintRecord) -> float | None:
    """Root mean square over layers."""
    errors = [layer.relative_rmse for layer in footprint.layers]
    mean_square = sum(error * error for error in errors) / len(errors) if errors else None
    return None if mean_square is None else mean_square**0.5


def _expected_bits(
    study: Study, footprint: FootprintRecord
) -> tuple[float, float] | tuple[None, None]:
    """Bits from shapes alone, and on matrices so large that code tables and short blocks do not
    count; where the quantized layers are the linear layers that the base names."""
    shapes, storage = study.base.linear_shapes, footprint.storage
    if storage not in list(Storage) or not shapes:
        return None, None
    double, quantizer = footprint.double_quantization, QUANTIZERS[Storage(storage)]
    mode = _mode(footprint)
    unknown = double is None and "double_quantization" in quantizer.settings(mode)
    if unknown or matrix_parameters(shapes) != footprint.quantized_parameters:
        return None, None
    stored = quantizer.bits(mode)
    exact = 8 * linear_bytes(shapes, stored) / footprint.quantized_parameters
    return exact, mean_asymptotic_bits(shapes, stored)


def _mode(footprint: FootprintRecord) -> QuantConfig:
    """The mode as it was stored; older records say less."""
    told: dict[str, Any] = {
        name.removeprefix("quant."): value for name, value in (footprint.settings or {}).items()
    }
    own = {"double_quantization": bool(footprint.double_quantization), **told}
    return QuantConfig(**{**own, "name": footprint.quant, "storage": Storage(footprint.storage)})


def trial_memory_table(study: Study) -> Table[TrialRow]:
    """One row a trial. On CUDA peaks are the allocator's, on a CPU the growth of the process, and
    beside it the bytes of all live tensors. Of trials that were trained at once peaks, load and
    train seconds are theirs together."""
    rows = trial_rows(study)
    return Table(
        (
            *cell_columns((row.cell for row in rows), targets=False),
            _recorded("seed", "Seed", str, "key"),
            Column("at_once", "At once", get=_at_once),
            _recorded("model_bytes", "Model"),
            _recorded("adapter_bytes", "Adapter"),
            _recorded("optimizer_bytes", "Optimizer"),
            *(
                _phase(phase, field, f"{phase.capitalize()} {words}", words != "reserved")
                for field, words in PEAKS.items()
                for phase in ("load", "train", "evaluate")
            ),
            _phase("train", "tracked_peak_bytes", "Train tensors"),
            _phase("evaluate", "tracked_peak_bytes", "Evaluate tensors"),
            _recorded("tokens_per_second", "Tokens/s", units.count),
            _recorded("load_seconds", "Load s", units.seconds),
            _recorded("train_seconds", "Train s", units.seconds),
            _recorded("evaluate_seconds", "Evaluate s", units.seconds),
            _recorded("compute_dtype", "Compute", str, right=False),
            _recorded("attention", "Attention", str, right=False, in_text=False),
            _recorded("device", "Device", str, "provenance", right=False, in_text=False),
            _recorded("status", "Status", str, "", right=False),
            _recorded("reason", "Reason", str, "", right=False),
            _recorded("trial", "Trial", str, "", right=False, in_text=False),
        ),
        rows,
    )  # fmt: skip


def memory_prediction_table(study: Study) -> Table[TrialRow]:
    """One row a trial. Peaks are of live tensors on a CPU, of the allocator on CUDA. Predictions
    are for the batches that were trained, and for all trials that were trained at once; a refused
    trial's are for those batches that it would have had."""
    rows = trial_rows(study)
    return Table(
        (
            *cell_columns((row.cell for row in rows), targets=True),
            _recorded("seed", "Seed", str, "key"),
            _recorded("status", "Status", str, "", right=False),
            Column("at_once", "At once", get=_at_once),
            _planned("device", "Device", str, right=False),
            _planned("micro_batch_size", "Micro-batch", str),
            _planned("tokens", "Tokens", str),
            _planned("base_bytes", "Base"),
            Column("measured_base_bytes", "Base measured", units.size, in_text=False,
                   get=lambda row: row.trial.result and row.trial.result.model_bytes),
            _planned("constant_bytes", "Constants"),
            Column("states_bytes", "Adapter states", units.size, get=_states),
            _planned("activation_bytes", "Activations"),
            _planned("logits_bytes", "Logits"),
            _planned("dequantization_bytes", "Dequantized weight"),
            Column("train_alone_bytes", "Train alone", units.size, get=lambda row:
                   row.trial.plan and row.trial.plan.peak_bytes.get("train")),
            *_peaks("train"),
            *_peaks("evaluate"),
            _peak("load", in_text=False),
            _peak("merge", in_text=False),
            _planned("seconds", "Prediction s", units.seconds, in_text=False),
            _recorded("trial", "Trial", str, "", right=False, in_text=False),
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


def _recorded(
    field: str,
    header: str,
    show: Callable[[Any], str] = units.size,
    part: str = "result",
    **how: Any,
) -> Column:
    """A field of the trial's record, or of a part of it."""
    get = of(part, field) if part else attrgetter(field)
    return Column(field, header, show, get=lambda row: get(row.trial), **how)


def _planned(
    field: str, header: str, show: Callable[[Any], str] = units.size, **how: Any
) -> Column:
    return Column(field, header, show, get=lambda row: getattr(_plan(row), field, None), **how)


def _phase(phase: str, field: str, header: str, in_text: bool = True) -> Column:
    def measured(row: TrialRow) -> int | None:
        memory = row.trial.result.memory.get(phase) if row.trial.result else None
        return getattr(memory, field, None)

    return Column(f"{phase}_{field}", header, units.size, in_text=in_text, get=measured)


def _peaks(phase: str) -> tuple[Column, Column, Column]:
    name = phase.capitalize()
    return (
        _peak(phase),
        Column(f"measured_{phase}_bytes", f"{name} measured", units.size,
               get=lambda row: _measured(row, phase)),
        Column(f"{phase}_error", f"{name} error %", _signed_percent,
               get=lambda row: _error(row, phase)),
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


def _states(row: TrialRow) -> int | None:
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
    predicted, measured = _predicted(row, phase), _measured(row, phase)
    return None if predicted is None or not measured else (predicted - measured) / measured


def _signed_percent(share: float) -> str:
    """Three decimals: -0.731, +0.005; what rounds to zero has no sign."""
    shown = f"{100 * share:+.3f}"
    return "0.000" if shown.strip("+-0.") == "" else shown
