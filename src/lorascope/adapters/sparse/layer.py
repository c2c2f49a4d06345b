"""Sparse tuning as a method of PEFT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners._buffer_dict import BufferDict
from peft.tuners.tuners_utils import _get_in_out_features
from peft.utils import resolve_quantization_backend
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.pytorch_utils import Conv1D

from lorascope.adapters.peft_extension import OwnConfig, OwnLayer, OwnTuner, register
from lorascope.adapters.sparse.kind import trained_weights
from lorascope.machine.devices import compute_type

NAME = "SPARSE"


@dataclass
class PeftSparseConfig(OwnConfig):
    """Sparse tuning, as adapter_config.json holds it."""

    share: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = NAME


class SparseLayer(OwnLayer):
    """A linear layer of the base, to some of whose weights something is added.

    The base's layer computes as it is stored, and a product with what is added follows: on a
    quantized base the sum is that of the dequantized weight and the difference.
    """

    adapter_layer_names = ("sparse_values",)
    other_param_names = ("sparse_places",)
    chosen_names = ("sparse_places",)

    def make(self, adapter_name: str, config: Any) -> None:
        """Differences of zero, at places that are still to be chosen."""
        base = self.get_base_layer()
        self.in_features, self.out_features = _get_in_out_features(base)
        count = trained_weights(config.share, self.in_features, self.out_features)
        zeros, places = torch.zeros(count), torch.arange(count, dtype=torch.int32)
        self.sparse_values = nn.ParameterDict({adapter_name: nn.Parameter(zeros)})
        # Rising, in the weight [out, in] flattened, whichever way the base keeps it.
        self.sparse_places = BufferDict({adapter_name: places}, persistent=True)
        self.quantization_backend = resolve_quantization_backend(base)
        self.scores: Tensor | None = None
        """[out, in]: while there are any, each backward pass adds the weight's gradient to them."""
        self.squared = False
        """Whether it adds its square."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[..., in] -> [..., out]"""
        result: Tensor = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters or self.merged:
            return result
        for name in self.active_adapters:
            values, places = self.sparse_values[name], self.sparse_places[name]
            result = AddSparse.apply(result, x, values, places, self)  # type: ignore[no-untyped-call]
        return result

    def base_weight(self) -> Tensor:
        """The dequantized weight [out, in] of the base's layer."""
        base = self.get_base_layer()
        weight: Tensor = self.get_base_weight()
        if hasattr(base, "dequantize"):
            # PEFT itself asks only the layers of libraries that it knows.
            weight = base.dequantize()
        return weight.T if isinstance(base, Conv1D) else weight

    def get_delta_weight(self, adapter: str) -> Tensor:
        """What is added to the weight of the base's layer, in that one's shape."""
        values, places = self.sparse_values[adapter].detach(), self.sparse_places[adapter]
        added = dense(values, places, (self.out_features, self.in_features))
        return added.T if isinstance(self.get_base_layer(), Conv1D) else added

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add what was trained to the base's weight."""
        weight = self.get_base_layer().weight
        if self.quantization_backend is not None:
            raise ValueError("sparse differences do not survive in few bits")
        for name in adapter_names or self.active_adapters:
            weight.data = weight.data + self.get_delta_weight(name).to(weight.dtype)
            self.merged_adapters.append(name)


def dense(values: Tensor, places: Tensor, shape: tuple[int, int]) -> Tensor:
    """A matrix of zeros but for the values [n] at places [n]."""
    matrix = torch.zeros(shape[0] * shape[1], dtype=values.dtype, device=values.device)
    return matrix.index_add_(0, places, values).view(shape)


class AddSparse(torch.autograd.Function):
    """The result of a layer with x D^T added, where D is zero but for some places.

    By hand: autograd would keep every layer's D until the backward pass, and it is made again from
    few values.
    """

    @staticmethod
    def forward(
        ctx: Any, out: Tensor, x: Tensor, values: Tensor, places: Tensor, layer: SparseLayer
    ) -> Tensor:
        """out [..., out] and x [..., in] -> as `out`, in the type in which is computed."""
        compute = compute_type(x)
        rows = x.reshape(-1, x.shape[-1]).to(compute)
        added = dense(values.to(compute), places, (layer.out_features, layer.in_features))
        ctx.save_for_backward(rows, values, places)
        ctx.layer, ctx.shape = layer, x.shape
        flat = out.reshape(-1, out.shape[-1]).to(compute)
        return torch.addmm(flat, rows, added.T).view(out.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the result -> gradients of `out`, `x` and `values`."""
        rows, values, places = ctx.saved_tensors
        layer, of_x = ctx.layer, None
        own = gradient.reshape(-1, gradient.shape[-1]).to(rows.dtype)
        if ctx.needs_input_grad[1]:
            shape = layer.out_features, layer.in_features
            of_x = (own @ dense(values.to(rows.dtype), places, shape)).view(ctx.shape)
        of_weight = own.T @ rows
        if layer.scores is not None:
            _score(layer, of_weight)
        of_values = of_weight.flatten().index_select(0, places).to(values.dtype)
        return gradient, of_x, of_values, None, None


def _score(layer: SparseLayer, of_weight: Tensor) -> None:
    """Add a weight's gradient [out, in] to the layer's scores."""
    assert layer.scores is not None
    if layer.squared:
        of_weight = of_weight.float()
        layer.scores.addcmul_(of_weight, of_weight)
    else:
        layer.scores.add_(of_weight)


class SparseModel(OwnTuner):
    """A model with trained differences to some of its weights."""

    prefix = "sparse_"
    tuner_layer_cls = SparseLayer


register(NAME, PeftSparseConfig, SparseModel)
