"""What storages with layers of ours have alike."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lorascope.config import QuantConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lorascope.quantizers.kinds import Kernel


class OwnLayers:
    """A quantizer of layers whose weight is a parameter of codes, and whose constants are buffers.
    `owns` says which they are."""

    @abstractmethod
    def owns(self, layer: nn.Module) -> bool:
        """Whether `layer` is stored in this way."""

    def loading(self, quant: QuantConfig, compute: torch.dtype, kept: Sequence[str] = ()) -> Any:
        from lorascope.quantizers.torchao.stored import stored_config

        return stored_config(quant, compute)

    def prepare(self, model: nn.Module, compute: torch.dtype) -> None:
        """Biases compute in `compute`, as all that is not quantized."""
        for layer in model.modules():
            own: Any = layer
            if self.owns(layer) and own.bias is not None:
                own.bias.data = own.bias.data.to(compute)

    def weight(self, layer: Any) -> Tensor:
        return self.backward_weight(layer)

    def backward_weight(self, layer: Any) -> Tensor:
        weight: Tensor = layer.dequantize()
        return weight

    def require_evaluable(self, name: str, layer: Any) -> None:
        """An evaluation changes nothing."""

    def backward_dtype(
        self, device_kind: str, compute: torch.dtype, stored: torch.dtype
    ) -> torch.dtype:
        return compute

    def put_fake_layers(self, model: Any, quant: QuantConfig, compute: torch.dtype) -> None:
        import torch

        from lorascope.quantizers.torchao.stored import put_layers

        put_layers(model, quant, torch.float16)

    def fill_fake_layers(self, model: nn.Module, quant: QuantConfig, backward: torch.dtype) -> None:
        from lorascope.quantizers.torchao.stored import fill_layers

        fill_layers(model)

    def kernels(self, device_kind: str) -> Mapping[Any, Kernel]:
        """Layers compute with torch's own operations, which a trace sees as a CPU runs them. On
        CUDA nothing of it was measured."""
        return {}
