"""Where the bytes of a stored base are, mode by mode, against the arithmetic of the format."""

from __future__ import annotations

from lorascope.config import QuantConfig, Storage
from lorascope.counting.parameters import matrix_parameters
from lorascope.quantizers.bits import linear_bytes, mean_asymptotic_bits
from lorascope.quantizers.kinds import QUANTIZERS
from lorascope.records import FootprintRecord, Study
from lorascope.reporting import units
from lorascope.reporting.tables.table import Column, Table


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
    mode = QuantConfig(footprint.quant, Storage(storage), bool(double))
    unknown = double is None and "double_quantization" in quantizer.settings(mode)
    if unknown or matrix_parameters(shapes) != footprint.quantized_parameters:
        return None, None
    stored = quantizer.bits(mode)
    exact = 8 * linear_bytes(shapes, stored) / footprint.quantized_parameters
    return exact, mean_asymptotic_bits(shapes, stored)
