"""NF4 and FP4 as bitsandbytes stores them: 4-bit codes, and a constant for each block of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorascope.config import AdapterConfig, Precision, QuantConfig
from lorascope.errors import ModelError
from lorascope.quantizers.bits import StoredBits

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from lorascope.quantizers.kinds import Kernel

REPACKS = "support_avx512bf16_for_cpu"
"""The flag of a layer that repacks its weight on a CPU in its first evaluation. The repack happens
in place, and a later backward pass reads the packed bytes as plain NF4: gradients are silently
wrong (bitsandbytes 0.50.2, `Linear4bit.forward`)."""


@dataclass(frozen=True)
class FourBit:
    """Both 4-bit types; a mode's storage says which."""

    compute: Precision = Precision.bfloat16
    rounds_inputs: bool = False

    def settings(self, quant: QuantConfig) -> dict[str, object]:
        return {"double_quantization": quant.double_quantization}

    def bits(self, quant: QuantConfig) -> StoredBits:
        """Code tables have 16 float32 values, nested ones 256 more; nested constants have one
        float32 offset."""
        if quant.double_quantization:
            table_bytes = 4 * (16 + 256)
            return StoredBits(4, table_bytes, block_bytes=1, nested_bytes=4, matrix_bytes=4)
        return StoredBits(4, table_bytes=4 * 16, block_bytes=4)

    def require_trainable(self, adapter: AdapterConfig, device_kind: str) -> None:
        """Every adapter can be trained on such layers."""

    def loading(self, quant: QuantConfig, compute: torch.dtype, kept: Sequence[str] = ()) -> Any:
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=quant.storage.value,
            bnb_4bit_use_double_quant=quant.double_quantization,
            bnb_4bit_compute_dtype=compute,
            llm_int8_skip_modules=list(kept) or None,
        )

    def prepare(self, model: nn.Module, compute: torch.dtype) -> None:
        """Let layers compute in `compute`, on CUDA in backward passes too, whatever their folder
        was quantized with; keep them from repacking; and let all of one device share one copy of
        each code table, which has the same values in each: a nested table takes 1 KiB a layer, more
        than double quantization saves on a small one."""
        tables: dict[tuple[object, ...], Tensor] = {}
        for layer in model.modules():
            if not self.owns(layer):
                continue
            own: Any = layer
            setattr(own, REPACKS, False)
            own.compute_dtype, own.compute_type_is_set = compute, True
            state = own.weight.quant_state
            state.dtype = self.backward_dtype(own.weight.device.type, compute, state.dtype)
            for state in _states(own):
                if state.code is not None:
                    key = (state.code.device, *state.code.tolist())
                    state.code = tables.setdefault(key, state.code)

    def owns(self, layer: nn.Module) -> bool:
        from bitsandbytes.nn import Linear4bit

        return isinstance(layer, Linear4bit)

    def weight(self, layer: Any) -> Tensor:
        import torch

        # In the stored 16 bits the product of code and scale would be rounded once more.
        exact = copy.copy(layer.weight.quant_state)
        exact.dtype = torch.float32
        return _dequantized(layer, exact)

    def backward_weight(self, layer: Any) -> Tensor:
        return _dequantized(layer, layer.weight.quant_state)

    def constants(self, layer: Any, shared: bool = True) -> Iterator[Tensor]:
        for state in _states(layer):
            own = (state.absmax, state.code if shared else None, getattr(state, "offset", None))
            yield from (tensor for tensor in own if tensor is not None)

    def require_evaluable(self, name: str, layer: Any) -> None:
        if layer.weight.device.type == "cpu" and getattr(layer, REPACKS, False):
            raise ModelError(
                f"{name}: evaluating this 4-bit layer on the CPU would repack its weight, and "
                "training or merging afterwards would be silently wrong. Set "
                f"{REPACKS} = False on every module right after loading."
            )

    def arithmetic(self, layer: Any) -> str:
        """As measured with bitsandbytes 0.50.2 (tests/quantizers)."""
        backward = layer.weight.quant_state.dtype
        if backward is layer.compute_dtype:
            return "4-bit weights are dequantized to the compute type"
        return (
            "4-bit weights are dequantized to the compute type in forward passes, and rounded to "
            f"{str(backward).removeprefix('torch.')} in backward passes"
        )

    def backward_dtype(
        self, device_kind: str, compute: torch.dtype, stored: torch.dtype
    ) -> torch.dtype:
        """On CUDA the type that is computed in, as in forward passes. On a CPU bitsandbytes' own
        choice, the stored type, though it rounds once more: FP32 gradients would change with it,
        and with them every trial that was ever trained."""
        return stored if device_kind == "cpu" else compute

    def put_fake_layers(self, model: Any, quant: QuantConfig, compute: torch.dtype) -> None:
        from lorascope.quantizers.bitsandbytes.fake_layers import put_four_bit_layers

        put_four_bit_layers(model, quant, compute)

    def fill_fake_layers(self, model: nn.Module, quant: QuantConfig, backward: torch.dtype) -> None:
        from lorascope.quantizers.bitsandbytes.fake_layers import fill_four_bit_layers

        fill_four_bit_layers(model, quant, backward)

    def kernels(self, device_kind: str) -> Mapping[Any, Kernel]:
        from lorascope.quantizers.bitsandbytes.kernels import FOUR_BIT

        return FOUR_BIT


def _dequantized(layer: Any, state: Any) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit

    weight: Tensor = dequantize_4bit(layer.weight.data, state)
    return weight


def _states(layer: Any) -> Iterator[Any]:
    """The constants of a weight and, where they are quantized too, their own."""
    state = layer.weight.quant_state
    while state is not None:
        yield state
        state = getattr(state, "state2", None)
