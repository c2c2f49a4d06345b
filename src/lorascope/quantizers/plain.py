"""Linear layers whose weights are stored as floating-point numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorascope.config import AdapterConfig, Precision, QuantConfig
from lorascope.quantizers.bits import StoredBits

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lorascope.quantizers.kinds import Kernel


@dataclass(frozen=True)
class Plain:
    """A floating-point type, and every layer that no other quantizer owns."""

    compute: Precision
    rounds_inputs: bool = False

    def settings(self, quant: QuantConfig) -> dict[str, object]:
        return {}

    def bits(self, quant: QuantConfig) -> StoredBits:
        return StoredBits(32 if self.compute is Precision.float32 else 16)

    def require_trainable(self, adapter: AdapterConfig, device_kind: str) -> None:
        """Every adapter can be trained on such layers."""

    def loading(self, quant: QuantConfig, compute: torch.dtype, kept: Sequence[str] = ()) -> None:
        """Nothing is quantized on loading."""

    def prepare(self, model: nn.Module, compute: torch.dtype) -> None:
        """A loaded model computes in the type that it was loaded in."""

    def owns(self, layer: nn.Module) -> bool:
        """None: a layer is plain where no other quantizer owns it."""
        return False

    def weight(self, layer: Any) -> Tensor:
        return self.backward_weight(layer).float()

    def backward_weight(self, layer: Any) -> Tensor:
        from transformers.pytorch_utils import Conv1D

        weight: Tensor = layer.weight.detach()
        return weight.T if isinstance(layer, Conv1D) else weight

    def constants(self, layer: Any, shared: bool = True) -> Iterator[Tensor]:
        yield from ()

    def require_evaluable(self, name: str, layer: Any) -> None:
        """An evaluation changes nothing."""

    def arithmetic(self, layer: Any) -> str:
        return "weights are read as they are stored"

    def backward_dtype(
        self, device_kind: str, compute: torch.dtype, stored: torch.dtype
    ) -> torch.dtype:
        return compute

    def put_fake_layers(self, model: Any, quant: QuantConfig, compute: torch.dtype) -> None:
        """The model's own layers stay."""

    def fill_fake_layers(self, model: nn.Module, quant: QuantConfig, backward: torch.dtype) -> None:
        """There is nothing to fill."""

    def kernels(self, device_kind: str) -> Mapping[Any, Kernel]:
        return {}
