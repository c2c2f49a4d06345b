"""The shipped model's tensors: the adapter added to the dequantized base that it was trained on.

Merging into the original 16-bit base is not what was trained; merging in place into 4 bits loses
what was learnt (peft#2105, peft#2321, transformers#31293). A layer at a time is in memory: a 7B
model takes 27 GB in float32.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from lorascope.adapters.attach import keeps_ties, load_adapter
from lorascope.adapters.class_head import wrapped_heads
from lorascope.errors import ModelError, clause
from lorascope.quantizers.kinds import PLAIN, quantized_layers, quantizer_of

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Merge:
    """A merged model whose tensors are made as they are asked for."""

    plain: PreTrainedModel
    """The model without its values."""
    untied: bool
    """Whether the head got a weight of its own that the base shares with its embedding."""
    dtype: torch.dtype
    layers: Iterator[Tensors]
    """The tensors of one layer after the other, under the names of the base's files."""


def merge(base: PreTrainedModel, adapter: Path, dtype: torch.dtype) -> Merge:
    """Merge `adapter` into the dequantized `base`, in float32.

    Args:
        base: the stored base that the adapter was trained on, on the CPU.
        dtype: the type of the result's parameters; buffers keep float32, as a router's bias decides
            by small differences.

    Raises:
        ModelError: a weight or a persistent buffer of the plain model has no value, or no place.
    """
    both = _head_and_embedding(base)
    untied = _is_tied(base) and not keeps_ties(adapter) and _adapts(adapter, both)
    plain = _hollow_model(base, untied)
    names = _saved_names(plain)
    _refuse_strays(base, plain, names)
    parameters = {name for name, _ in plain.named_parameters(remove_duplicate=False)}
    adapted = load_adapter(plain, adapter).get_base_model()
    tuned = {n: m for n, m in adapted.named_modules() if isinstance(m, BaseTunerLayer)}
    heads = {name: adapted.get_submodule(name) for name in wrapped_heads(adapted)}

    def in_files(group: Iterable[str]) -> Tensors:
        values = {
            name: value.to(dtype) if name in parameters and value.is_floating_point() else value
            for name, value in _merged(base, tuned, heads, group)
        }
        renamed: Tensors = revert_weight_conversion(plain, values)
        return renamed

    # Whoever takes a layer is the only one to hold it.
    layers = (in_files(group) for _, group in groupby(names, _layer))
    return Merge(plain, untied, dtype, layers)


def _layer(name: str) -> str:
    """The numbered layer that a tensor belongs to, else its module: what transformers saves under
    other names or in other shapes is made of tensors of one layer."""
    numbered = re.match(r".*?\.\d+\.", name)
    return numbered.group() if numbered else name.rpartition(".")[0]


def _merged(
    base: nn.Module, tuned: dict[str, BaseTunerLayer], heads: dict[str, Any], names: Iterable[str]
) -> Iterator[tuple[str, Tensor]]:
    """The values of some of the model's tensors, those of whole modules, with the adapter added. A
    head for classes is the adapter's own."""

    def owner(name: str) -> str:
        """The module that has the tensor, or that with an adapter which it lies in."""
        *path, _ = name.split(".")
        outer = (".".join(path[:end]) for end in range(1, len(path) + 1))
        return next(
            (module for module in outer if module in tuned or module in heads), ".".join(path)
        )

    for path, group in groupby(names, owner):
        own = [name[len(path) + 1 :] if path else name for name in group]
        whole = (
            heads[path].modules_to_save["default"] if path in heads else base.get_submodule(path)
        )
        values = {part: _exact(*_place(whole, part)) for part in own}
        if path in tuned:
            values = _with_adapter(tuned[path], values)
        yield from ((f"{path}.{part}" if path else part, values[part]) for part in own)


def _with_adapter(layer: Any, values: Tensors) -> Tensors:
    """A layer's values after PEFT's own merging; the layer is hollow again afterwards."""
    target = layer.get_base_layer()
    for part, value in values.items():
        _tensor(target, part).data = value
    try:
        layer.merge(safe_merge=True)
    except (NotImplementedError, ValueError) as error:
        raise ModelError(
            f"PEFT cannot merge {type(layer).__name__} ({error}). Serve it as an adapter on its "
            "base, or ship a trial of another method."
        ) from error
    # A method that trains a copy of the layer puts that into its place.
    target = layer.get_base_layer()
    merged = {part: _tensor(target, part).data for part in values}
    for part in values:
        _tensor(target, part).data = _hollow(merged[part])
    return merged


def _tensor(module: nn.Module, name: str) -> Tensor:
    """A parameter or buffer, by its dotted name in the module."""
    value: Tensor = getattr(*_place(module, name))
    return value


def _place(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module inside `module` that has a tensor, and the tensor's own name."""
    path, _, own = name.rpartition(".")
    return module.get_submodule(path), own


def _exact(module: nn.Module, part: str) -> Tensor:
    """A parameter or buffer that a stored layer stands for, floating ones in float32."""
    quantizer = quantizer_of(module)
    if part == "weight" and quantizer is not PLAIN:
        return quantizer.weight(module)
    value: Tensor = getattr(module, part).detach()
    return value.float() if value.is_floating_point() else value


def _hollow_model(base: PreTrainedModel, untied: bool) -> PreTrainedModel:
    """The plain model that `base` stands for, its shapes and names without memory for values.

    Parameters are a single zero in the shape of each, on the CPU: onto the meta device PEFT would
    move the adapter too, and lose it.
    """
    config = copy.deepcopy(base.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    if untied:
        config.get_text_config().tie_word_embeddings = False
        config.tie_word_embeddings = False
    config.dtype = torch.float32
    with torch.device("meta"):
        plain: Any = type(base)(config)
    plain.to(torch.float32)
    hollow: dict[nn.Parameter, nn.Parameter] = {}
    for module in plain.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter not in hollow:
                hollow[parameter] = nn.Parameter(_hollow(parameter), requires_grad=False)
            # What is tied stays one parameter.
            setattr(module, name, hollow[parameter])
    plain._weight_conversions = _name_conversions(base)
    return plain.eval()


def _hollow(like: Tensor) -> Tensor:
    return torch.zeros((), dtype=like.dtype).expand(like.shape)


def _saved_names(plain: Any) -> list[str]:
    """Names of what a file of the model holds, in the model's order; of tied ones only the first.
    What a model computes for itself (rotary frequencies) is left out."""
    tied = plain.all_tied_weights_keys if _is_tied(plain) else {}
    left_out = {*tied, *(plain._keys_to_ignore_on_save or ())}
    return [name for name in plain.state_dict() if name not in left_out]


def _refuse_strays(base: PreTrainedModel, plain: PreTrainedModel, names: list[str]) -> None:
    """Refuse a base that holds other values than the plain model has places for."""
    stored, places = _value_names(base), set(plain.state_dict())
    strays = {
        "missing_keys": sorted(set(names) - stored),
        "unexpected_keys": sorted(stored - places),
    }
    found = {key: listed for key, listed in strays.items() if listed}
    if found:
        raise ModelError(
            f"{type(base).__name__} cannot be rebuilt without its quantization: {clause(found)}. "
            "Ship a trial of a mode that is stored in floating point, such as fp16."
        )


def _value_names(model: PreTrainedModel) -> set[str]:
    """Names of every parameter and persistent buffer, constants of quantized layers excluded."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    names |= {name for name, _ in model.named_buffers()} & model.state_dict().keys()
    for name, layer, quantizer in quantized_layers(model):
        constants = {id(tensor) for tensor in quantizer.constants(layer)}
        own = layer.named_buffers(recurse=False)
        names -= {f"{name}.{part}" for part, tensor in own if id(tensor) in constants}
    return names


def _name_conversions(model: Any) -> Any:
    """The renamings and fusions that transformers 5 made when it read `model`, which saving undoes.

    Without them a model made from tensors in memory is saved under the names that only transformers
    5 has for them: fused experts, `mlp` for `block_sparse_moe`. What a quantizer unpacks is left
    out: the plain model has none of it. None is transformers' word for "look it up".
    """
    conversions = getattr(model, "_weight_conversions", None)
    quantizer = getattr(model, "hf_quantizer", None)
    if conversions is None or quantizer is None:
        return conversions
    packed = quantizer.get_weight_conversions()
    unpacking = {type(step) for conversion in packed for step in conversion.operations}
    return [
        conversion
        for conversion in conversions
        if not unpacking & {type(step) for step in getattr(conversion, "operations", ())}
    ]


def _is_tied(model: PreTrainedModel) -> bool:
    return bool(model.config.get_text_config().tie_word_embeddings)


def _head_and_embedding(model: PreTrainedModel) -> set[str]:
    """Names of both modules, which a tied model has one tensor for: merging into it for one of them
    would change the other one too."""
    both = (model.get_output_embeddings(), model.get_input_embeddings())
    return {name for name, module in model.named_modules() if module in both}


def _adapts(adapter: Path, names: set[str]) -> bool:
    """Whether the adapter has weights of one of these modules, whatever its method calls them."""
    from safetensors import safe_open

    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as weights:
        keys = list(weights.keys())
    starts = tuple(f"base_model.model.{name}." for name in names)
    return any(key.startswith(starts) for key in keys)
