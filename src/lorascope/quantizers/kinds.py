"""The ways to store a base's linear layers: one protocol, and one dict from storage to quantizer.

Nothing here imports torch, since reports and counts read `bits`. A quantizer imports its library
inside the methods that compute with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from lorascope.config import GROUPED, SERVED, AdapterConfig, Precision, QuantConfig, Storage
from lorascope.errors import ConfigError
from lorascope.quantizers.bits import StoredBits
from lorascope.quantizers.bitsandbytes.eight_bit import EightBit
from lorascope.quantizers.bitsandbytes.four_bit import FourBit
from lorascope.quantizers.plain import Plain
from lorascope.quantizers.torchao.eight_bit_inputs import EightBitInputs
from lorascope.quantizers.torchao.on_grid import on_grid

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Quantizer(Protocol):
    """A way to store the linear layers of a base, and to compute with what is stored."""

    @property
    def compute(self) -> Precision:
        """The type of products on CUDA; bfloat16 stands for float16 where a device lacks it."""

    @property
    def rounds_inputs(self) -> bool:
        """Whether layers round their inputs in evaluation, as no merged model does."""

    def settings(self, quant: QuantConfig) -> dict[str, object]:
        """The settings that decide stored weights, beside the storage."""

    def bits(self, quant: QuantConfig) -> StoredBits:
        """The bits of weights and their constants, from shapes alone."""

    def require_trainable(self, adapter: AdapterConfig, device_kind: str) -> None:
        """Raise ConfigError where an adapter cannot be trained on such layers."""

    def loading(self, quant: QuantConfig, compute: torch.dtype, kept: Sequence[str] = ()) -> Any:
        """The quantization config with which transformers quantizes on loading, or None. Called
        before anything is loaded: a method that transformers does not know is registered here.

        Args:
            kept: modules that stay as they are, where a base has a head for classes; else the
                library leaves out the head that it knows.
        """

    def prepare(self, model: nn.Module, compute: torch.dtype) -> None:
        """Make a loaded model compute in `compute`, safely and without tables kept twice."""

    def owns(self, layer: nn.Module) -> bool:
        """Whether `layer` is stored in this way."""

    def weight(self, layer: Any) -> Tensor:
        """The exact weight [out, in] that a layer stands for, float32."""

    def backward_weight(self, layer: Any) -> Tensor:
        """The weight [out, in] as the layer's backward pass and PEFT read it, in their type."""

    def constants(self, layer: Any, shared: bool = True) -> Iterator[Tensor]:
        """Scales and nested constants of a layer, and with `shared` the code tables, which all
        layers share."""

    def require_evaluable(self, name: str, layer: Any) -> None:
        """Raise ModelError where an evaluation would change what a layer stores."""

    def arithmetic(self, layer: Any) -> str:
        """Arithmetic of a layer, in words."""

    def backward_dtype(
        self, device_kind: str, compute: torch.dtype, stored: torch.dtype
    ) -> torch.dtype:
        """The type that a backward pass dequantizes a weight to, before it computes in `compute`.

        Args:
            stored: the type of what is not quantized.
        """

    def put_fake_layers(self, model: Any, quant: QuantConfig, compute: torch.dtype) -> None:
        """Such layers on the meta device in place of the linear layers that loading quantizes;
        ModelError where nothing of `model` would be stored so, or in another layer's form."""

    def fill_fake_layers(self, model: nn.Module, quant: QuantConfig, backward: torch.dtype) -> None:
        """Weights and constants without data for these layers; call it under FakeTensorMode.

        Args:
            backward: the type that a backward pass dequantizes a weight to.
        """

    def kernels(self, device_kind: str) -> Mapping[Any, Kernel]:
        """Kernels of the library's operations, by operation."""


@dataclass(frozen=True)
class Kernel:
    """An operation written out, in operations that a memory tracker sees."""

    run: Callable[..., Any]
    exact: bool = False
    """Whether it gives the operation's own result for real tensors, and may replace it."""


PLAIN = Plain(Precision.float32)
"""The quantizer of layers that no other owns."""
_FOUR_BIT = FourBit()
QUANTIZERS: dict[Storage, Quantizer] = {
    Storage.float32: Plain(Precision.float32),
    Storage.bfloat16: Plain(Precision.bfloat16),
    Storage.float16: Plain(Precision.float16),
    Storage.int8: EightBit(),
    Storage.nf4: _FOUR_BIT,
    Storage.fp4: _FOUR_BIT,
    **{storage: on_grid(storage) for storage in GROUPED},
    **{storage: EightBitInputs(storage) for storage in SERVED},
}


def require_readable(adapter: AdapterConfig, quant: QuantConfig) -> None:
    """Raise ConfigError where a mode is for serving only, or where PEFT needs floating-point
    weights to begin an adapter, and the mode stores others."""
    if quant.storage in SERVED:
        QUANTIZERS[quant.storage].require_trainable(adapter, "cpu")
    if quant.is_for_serving:
        raise ConfigError(
            "quant", quant.name,
            "its codes are chosen on rows of train, for a merged model: it is for serving",
            f"Train on quant=fp16 or {quant.storage}, and serve the merged model so: "
            f"serve={quant.name}.",
        )  # fmt: skip
    setting = adapter.reads_floats()
    if not setting or isinstance(QUANTIZERS[quant.storage], Plain):
        return
    if setting == adapter.kind:
        raise ConfigError(
            "adapter", adapter.kind,
            f"it trains the base's own weights, and quant={quant.name} stores codes",
            "Take quant=fp16 or another unquantized mode, or a method that trains beside the base, "
            "such as adapter=lora.",
        )  # fmt: skip
    raise ConfigError(
        f"{adapter.kind}.{setting}", getattr(adapter, setting),
        f"PEFT needs floating-point weights for it, and quant={quant.name} stores codes",
        f"Take quant=fp16 or another unquantized mode, or leave {adapter.kind}.{setting} out.",
    )  # fmt: skip


def quantizer_of(layer: nn.Module) -> Quantizer:
    """The quantizer that owns `layer`; whatever none owns is plain."""
    return next((kind for kind in QUANTIZERS.values() if kind.owns(layer)), PLAIN)


def quantized_layers(model: nn.Module) -> Iterator[tuple[str, Any, Quantizer]]:
    """Name, layer and quantizer of every layer that is not plain, in model order."""
    for name, layer in model.named_modules():
        quantizer = quantizer_of(layer)
        if quantizer is not PLAIN:
            yield name, layer, quantizer


def mode_settings(quant: QuantConfig) -> dict[str, object]:
    """Settings that decide stored weights, by configuration key."""
    own = QUANTIZERS[quant.storage].settings(quant)
    settings = {"storage": quant.storage.value, **own}
    return {f"quant.{key}": value for key, value in settings.items()}


def precision_on(quant: QuantConfig, device_kind: str, has_bfloat16: bool = True) -> Precision:
    """The type that matrix products run in.

    `auto` on CUDA is the storage's own 16-bit type, float16 for INT8 (LLM.int8 casts to it) and
    bfloat16 for 4 bits where the device has it. On a CPU it is float32: float16 products there
    take about 16 times as long.

    Args:
        has_bfloat16: whether a CUDA device has it; one that is not here is taken to.
    """
    if quant.compute is not Precision.auto:
        return quant.compute
    if device_kind == "cpu":
        return Precision.float32
    wanted = QUANTIZERS[quant.storage].compute
    return wanted if has_bfloat16 or wanted is Precision.float32 else Precision.float16
