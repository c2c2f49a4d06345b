"""The shapes of a model from the model itself, which transformers builds on the meta device: no
memory for weights, and seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd
from transformers.pytorch_utils import Conv1D

from lorascope.adapters.layers import BESIDE_TEXT, linear_shapes, unadapted_weights, vector_shapes
from lorascope.bases.empty_model import empty_model, hidden_of, language_part, layers_of
from lorascope.bases.peft_rules import peft_rules
from lorascope.counting.architectures import ModelShape, WeightMatrix
from lorascope.machine.libraries import quiet_libraries
from lorascope.records import LinearShape

TORCHS_OWN = (nn.Linear, Conv1D, nn.Embedding, _ConvNd)


def built_shape(values: Mapping[str, object], own_code: Path | None = None) -> ModelShape:
    """The shapes of the language model that a config.json describes; arguments and errors are those
    of `lorascope.bases.shapes.model_shape`."""
    quiet_libraries()
    empty = empty_model(values, own_code)
    model, text = empty.build(), empty.text
    shapes = linear_shapes(model)
    part, layers = language_part(model), layers_of(text)
    parameters = _parameters(model, part)
    trained = {name: p.numel() for name, p in parameters.items() if p.requires_grad}
    total = sum(parameter.numel() for parameter in parameters.values())
    total += _untied_head(values, model)
    return ModelShape(
        model_type=text.model_type,
        layers=layers,
        hidden=hidden_of(text, model),
        matrices=tuple(_matrix(shape, model.get_submodule(shape.name)) for shape in shapes),
        expert_matrices=tuple(_expert_matrices(model, part)),
        total_parameters=total,
        bias_parameters=sum(size for name, size in trained.items() if name.endswith("bias")),
        unadapted=tuple(part for part in unadapted_weights(model) if part.what != BESIDE_TEXT),
        frozen_parameters=sum(p.numel() for p in parameters.values() if not p.requires_grad),
        has_two_blocks=not text.is_encoder_decoder and _has_two_blocks(part, layers),
        vectors=tuple(vector_shapes(model)),
        # The last: PEFT changes the model.
        peft=peft_rules(empty, model, shapes),
    )


def _parameters(model: Any, part: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter of the language model and its head, each once."""
    found = dict(part.named_parameters())
    head = model.get_output_embeddings()
    if part is not model and head is not None:
        there = {id(parameter) for parameter in found.values()}
        more = head.named_parameters(prefix="head")
        found |= {name: parameter for name, parameter in more if id(parameter) not in there}
    return found


def _untied_head(values: Mapping[str, object], model: Any) -> int:
    """Size of a head that transformers ties where config.json says that it is not: it does so to
    all of T5, and loads the head of Flan-T5 from its file nevertheless."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if values.get("tie_word_embeddings") is not False or head is None:
        return 0
    return int(head.weight.numel()) if head.weight is embedding.weight else 0


def _matrix(shape: LinearShape, module: nn.Module) -> WeightMatrix:
    kind = "conv1d" if isinstance(module, Conv1D) else "linear"
    return WeightMatrix(shape.name, shape.in_features, shape.out_features, kind)  # type: ignore[arg-type]


def _expert_matrices(model: nn.Module, part: nn.Module) -> Iterator[WeightMatrix]:
    """Experts, which are 3-D tensors, and the matrices beside them that choose among them."""
    bare = list(_bare_parameters(model, part))
    experts = {
        name
        for name, _, module, parameter in bare
        if parameter.dim() == 3 and "expert" in f"{name} {type(module).__name__}".lower()
    }
    blocks = {name.rpartition(".")[0] for name in experts}
    for name, own, _, parameter in bare:
        *count, outputs, inputs = parameter.shape
        if count and name in experts:
            yield WeightMatrix(f"{name}.{own}", inputs, outputs, "experts", count[0])
        elif not count and own == "weight" and name.rpartition(".")[0] in blocks:
            yield WeightMatrix(f"{name}.{own}", inputs, outputs, "router")


def _bare_parameters(
    model: nn.Module, part: nn.Module
) -> Iterator[tuple[str, str, nn.Module, nn.Parameter]]:
    """Module's name, own name, module and parameter of what is no layer of torch's; 2-D and 3-D."""
    inside = set(part.modules())
    for name, module in model.named_modules():
        if module in inside and not isinstance(module, TORCHS_OWN):
            for own, parameter in module.named_parameters(recurse=False):
                if parameter.dim() in (2, 3) and not own.endswith("bias"):
                    yield name, own, module, parameter


def _has_two_blocks(part: nn.Module, layers: int) -> bool:
    """Whether two or more of the modules in each layer have matrices: attention and an MLP."""
    stacks = (m for m in part.modules() if isinstance(m, nn.ModuleList) and len(m) == layers)
    return all(
        sum(any(p.dim() > 1 for p in block.parameters()) for block in layer.children()) > 1
        for layer in next(stacks, [nn.Identity()])
    )
