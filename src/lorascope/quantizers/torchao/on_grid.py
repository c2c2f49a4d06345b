"""Weights as whole numbers of 8, 4 or 2 bits, or as 8-bit floats, each group with its scale.

torchao computes scales, zero points and codes (`choose_qparams_affine`, `quantize_affine`). Codes
are packed here, in memory and in files: torchao's own tensors keep a byte a code on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lorascope.config import AdapterConfig, Precision, QuantConfig, Rounding, Storage
from lorascope.errors import ConfigError
from lorascope.quantizers.bits import StoredBits
from lorascope.quantizers.torchao.grid import Grid, grid_of
from lorascope.quantizers.torchao.kind import OwnLayers

if TYPE_CHECKING:
    from torch import Tensor, nn

READ_AS_FLOATS = ("HIRA", "UNILORA")
"""PEFT's types whose layers give other values, or none, on these codes than on the weight that they
stand for, and which it trains on bitsandbytes' (peft 0.21)."""


@dataclass(frozen=True)
class OnGrid(OwnLayers):
    """Codes of one grid; a mode says the groups."""

    grid: Grid
    """Without groups."""
    compute: Precision = Precision.bfloat16
    rounds_inputs: bool = False

    def settings(self, quant: QuantConfig) -> dict[str, object]:
        if quant.rounding is Rounding.nearest:
            return {"group_size": quant.group_size}
        own: dict[str, object] = {
            "group_size": quant.group_size,
            "rounding": quant.rounding.value,
            "calibration_rows": quant.calibration_rows,
        }
        if quant.rounding is Rounding.auto_round:
            own["rounding_steps"] = quant.rounding_steps
        return own

    def bits(self, quant: QuantConfig) -> StoredBits:
        """A scale of 16 bits a group, and a byte for its zero point where it has one."""
        group_bytes = 2 if self.grid.symmetric else 3
        return StoredBits(self.grid.bits, group_bytes=group_bytes, group_size=quant.group_size)

    def require_trainable(self, adapter: AdapterConfig, device_kind: str) -> None:
        """All but methods for which PEFT has layers of its own on bitsandbytes only."""
        peft_type = getattr(adapter, "type", None)
        if peft_type in READ_AS_FLOATS:
            raise ConfigError(
                f"{adapter.kind}.type", peft_type,
                "PEFT reads codes of this storage as if they were weights",
                "Take quant=fp16, nf4 or int8, or another method.",
            )  # fmt: skip

    def owns(self, layer: nn.Module) -> bool:
        grid = getattr(layer, "grid", None)
        return isinstance(grid, Grid) and replace(grid, group_size=None) == self.grid

    def constants(self, layer: Any, shared: bool = True) -> Iterator[Tensor]:
        yield layer.scales
        if layer.zero_points is not None:
            yield layer.zero_points

    def arithmetic(self, layer: Any) -> str:
        codes = "floats" if self.grid.floating else "whole numbers"
        return f"{self.grid.bits}-bit {codes} are decoded to the compute type"


def on_grid(storage: Storage) -> OnGrid:
    """The quantizer of a storage with a scale a group."""
    return OnGrid(grid_of(storage, None))
