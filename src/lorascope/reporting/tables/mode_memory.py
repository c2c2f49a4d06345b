"""Where the bytes of a stored base are, mode by mode, against the arithmetic of the format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lorascope.config import QuantConfig, Storage
from lorascope.counting.parameters import matrix_parameters
from lorascope.quantizers.bits import linear_bytes, mean_asymptotic_bits
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.records import FootprintRecord, Study
from lorascope.reporting import units
from lorascope.reporting.tables.table import Column, Table


@dataclass(frozen=True)
class ModeMemoryRow:
    """The stored base in one mode."""

    quant: str
    storage: str
    quantized_parameters: int
    quantized_weight_bytes: int
    quantization_constant_bytes: int
    unquantized_bytes: int
    total_bytes: int
    bits_measured: float | None
    """Weights and constants of the quantized layers, code tables with them, a parameter."""
    bits_exact: float | None
    """The same from shapes alone; None where they or the storage are not fully known."""
    bits_asymptotic: float | None
    """On matrices so large that code tables and short blocks do not count."""
    relative_rmse: float | None
    """Root mean square over layers of LayerError.relative_rmse."""


def mode_memory_rows(study: Study) -> list[ModeMemoryRow]:
    """One row a footprint."""
    return [_mode_row(study, footprint) for footprint in study.footprints]


def mode_memory_table(rows: Sequence[ModeMemoryRow]) -> Table[ModeMemoryRow]:
    """Of what `mode_memory_rows` gives."""
    return Table(
        (
            Column("quant", "Mode", right=False),
            Column("storage", "Storage", right=False),
            Column("quantized_parameters", "Quantized parameters", units.count),
            Column("quantized_weight_bytes", "Quantized weights", units.size),
            Column("quantization_constant_bytes", "Constants", units.size),
            Column("unquantized_bytes", "Unquantized", units.size),
            Column("total_bytes", "Total", units.size),
            Column("bits_measured", "Bits measured", units.bits),
            Column("bits_exact", "Bits from shapes", units.bits),
            Column("bits_asymptotic", "Bits, large layers", units.bits),
            Column("relative_rmse", "Weight error", units.ratio),
        ),
        rows,
    )


def _mode_row(study: Study, footprint: FootprintRecord) -> ModeMemoryRow:
    exact, asymptotic = _expected_bits(study, footprint)
    errors = [layer.relative_rmse for layer in footprint.layers]
    mean_square = sum(error * error for error in errors) / len(errors) if errors else None
    return ModeMemoryRow(
        quant=footprint.quant,
        storage=footprint.storage,
        quantized_parameters=footprint.quantized_parameters,
        quantized_weight_bytes=footprint.quantized_weight_bytes,
        quantization_constant_bytes=footprint.quantization_constant_bytes,
        unquantized_bytes=footprint.unquantized_bytes,
        total_bytes=footprint.total_bytes,
        bits_measured=footprint.bits_per_quantized_parameter,
        bits_exact=exact,
        bits_asymptotic=asymptotic,
        relative_rmse=None if mean_square is None else mean_square**0.5,
    )


def _expected_bits(
    study: Study, footprint: FootprintRecord
) -> tuple[float, float] | tuple[None, None]:
    """(exact, asymptotic), where the quantized layers are the linear layers that the base names."""
    shapes, storage = study.base.linear_shapes, footprint.storage
    if storage not in list(Storage) or not shapes:
        return None, None
    double, quantizer = footprint.double_quantization, QUANTIZERS[Storage(storage)]
    mode = QuantConfig(footprint.quant, Storage(storage), bool(double))
    unknown = double is None and "double_quantization" in quantizer.settings(mode)
    if unknown or matrix_parameters(shapes) != footprint.quantized_parameters:
        return None, None
    stored = quantizer.bits(mode)
    exact = 8 * linear_bytes(shapes, stored) / footprint.quantized_parameters
    return exact, mean_asymptotic_bits(shapes, stored)
