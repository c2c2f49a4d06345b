"""What a model's linear weights become when they are stored on a grid, as training computes it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lorascope.config import QuantConfig, TrainConfig
from lorascope.errors import ConfigError
from lorascope.quantizers.kinds import PLAIN, quantizer_of
from lorascope.quantizers.loading import unquantized_dtype
from lorascope.quantizers.torchao.codes import rounded
from lorascope.quantizers.torchao.grid import Grid, grid_of


@dataclass(frozen=True)
class Rounding:
    """A grid, and the type of its scales."""

    grid: Grid
    scale_dtype: torch.dtype

    def __call__(self, weight: Tensor) -> Tensor:
        """The weight [out, in] that is read back where `weight`, in float32, has been stored."""
        return rounded(weight, self.grid, self.scale_dtype)


def rounding_of(train: TrainConfig, base_dtype: torch.dtype) -> Rounding | None:
    """What train.qat asks for; None where it is not set.

    Args:
        base_dtype: the type of the full-precision base, which scales follow: `unquantized_dtype`.
    """
    if train.qat is None:
        return None
    quant = QuantConfig(train.qat.value, train.qat, group_size=train.qat_group_size)
    grid = grid_of(quant.storage, quant.group_size)
    return Rounding(grid, unquantized_dtype(quant, base_dtype))


def is_rounded(layer: nn.Module) -> bool:
    """Whether a layer of a base, the head apart, is put on a grid when its model is stored so:
    torch's own Linear, or what another mode has made of one."""
    return type(layer) is nn.Linear or quantizer_of(layer) is not PLAIN


def rounded_layers(base: Any) -> Iterator[tuple[str, nn.Module]]:
    """Names and layers of all that `is_rounded`, the head apart, in model order; those that an
    adapter has in it too."""
    head = base.get_output_embeddings()
    head = getattr(head, "base_layer", head)
    for name, layer in base.named_modules():
        if layer is not head and is_rounded(layer):
            yield name, layer


def require_grid(base: nn.Module, train: TrainConfig) -> None:
    """Raise ConfigError where a base has layers that no grid takes."""
    if train.qat is not None and any(isinstance(layer, Conv1D) for layer in base.modules()):
        raise ConfigError(
            "train.qat", train.qat.value,
            "layers of this model are Conv1D, whose transposed weights are stored on no grid",
            "Leave train.qat out: the merged model is served in 16 bits.",
        )  # fmt: skip


@torch.no_grad()
def round_frozen(base: Any, trained: Collection[str], rounding: Rounding) -> None:
    """Let layers without an adapter be what they are when the merged model is served: their weights
    are rounded once, and stay plain numbers.

    Args:
        trained: names of the layers that something is trained of or beside, or that hold such ones.
    """
    compute = base.get_input_embeddings().weight.dtype
    inside = tuple(f"{name}." for name in trained)
    for name, layer in list(rounded_layers(base)):
        if f"{name}.".startswith(inside):
            continue
        own: Any = layer
        weight = rounding(quantizer_of(own).weight(own)).to(compute)
        plain = nn.Linear(own.in_features, own.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(weight, requires_grad=False)
        plain.register_parameter("bias", own.bias)
        base.set_submodule(name, plain.train(own.training))
