"""The matrices of a model that can get an adapter, their shapes, and those that can get none."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd
from transformers.pytorch_utils import Conv1D

from lorascope.adapters.class_head import head_names, head_parameters, in_head
from lorascope.adapters.decoder import decoder_shape, language_model
from lorascope.records import (
    LinearShape,
    ModelEnds,
    ModelParts,
    OwnerShape,
    UnadaptedWeights,
    VectorShape,
)

BARE = "experts, routers and other matrices that are no linear layers"
BESIDE_TEXT = "layers beside the language model, which text does not reach"
TAKEN_FOR_EXPERTS = "linear layers whose names PEFT takes for those of experts"
ROUTERS = "routers, which give choices and no tensor that an adapter could add to"


def model_parts(model: Any) -> ModelParts:
    """What a method can choose among, in model order. Works on the meta device."""
    return ModelParts(
        linear_shapes(model),
        vector_shapes(model),
        decoder_shape(model),
        owner_shapes(model),
        model_ends(model),
        head_parameters(model),
    )


def every_part(model: Any) -> ModelParts:
    """All that PEFT might take for a chosen layer by its name: linear layers that text does not
    reach too, and any module for a norm or a bias."""
    names = [name for name, _ in model.named_modules() if name]
    return ModelParts(all_linear_shapes(model), [VectorShape(name, 0, 0) for name in names])


def linear_shapes(model: Any) -> list[LinearShape]:
    """Every linear layer that an adapter can train, in model order. Works on the meta device.

    Left out are the output head, what lies beside the language model of a model that also sees,
    and what PEFT would take for experts: `unadapted_weights` has them. A head for classes is left
    out too: it is trained in full.
    """
    shapes, heads = all_linear_shapes(model), head_names(model)
    left = {shape.name for part in _left_out(model, shapes).values() for shape in part}
    return [s for s in shapes if s.name not in left and not in_head(s.name, heads)]


def all_linear_shapes(model: Any) -> list[LinearShape]:
    """Every linear layer but the output head, whether text reaches it or not."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    shapes = []
    for name, module in model.named_modules():
        if module is head:
            continue
        if isinstance(module, nn.Linear):
            features = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            features = (module.weight.shape[0], module.weight.shape[1])
        else:
            continue
        shapes.append(LinearShape(name, name.rpartition(".")[2], *features))
    return shapes


def vector_shapes(model: Any) -> list[VectorShape]:
    """Norms and other layers with biases, of the language model alone; no layers that hold others
    beside a bias, which cannot stand in their place."""
    decoder, head = language_model(model), model.get_output_embeddings()
    shapes, heads = [], head_names(model)
    for name, module in model.named_modules():
        beside = decoder and module is not head and not name.startswith(f"{decoder}.")
        if beside or in_head(name, heads) or any(True for _ in module.children()):
            continue
        own = dict(module.named_parameters(recurse=False))
        is_norm = "weight" in own and "norm" in type(module).__name__.lower()
        bias = own["bias"].numel() if "bias" in own and own["bias"].dim() == 1 else 0
        if is_norm or bias:
            shapes.append(VectorShape(name, own["weight"].numel() if is_norm else 0, bias))
    return shapes


def owner_shapes(model: Any) -> list[OwnerShape]:
    """The modules of the language model that have parameters of their own, not those inside
    another such module; head and embedding among them."""
    decoder, head = language_model(model), model.get_output_embeddings()
    shapes: list[OwnerShape] = []
    counted, heads = set[int](), head_names(model)
    for name, module in model.named_modules():
        beside = decoder and module is not head and not f"{name}.".startswith(f"{decoder}.")
        inside = bool(shapes) and name.startswith(f"{shapes[-1].name}.")
        if (
            not name
            or beside
            or inside
            or in_head(name, heads)
            or not any(True for _ in module.parameters(recurse=False))
        ):
            continue
        new = {id(own): own.numel() for own in module.parameters() if id(own) not in counted}
        counted |= new.keys()
        shapes.append(OwnerShape(name, sum(new.values())))
    return shapes


def model_ends(model: Any) -> ModelEnds | None:
    """Embeddings and head; None where they are not torch's own layers."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(embeddings, nn.Embedding) or not isinstance(head, nn.Linear):
        return None
    name = next(name for name, module in model.named_modules() if module is embeddings)
    own = next(name for name, module in model.named_modules() if module is head)
    return ModelEnds(
        LinearShape(
            name, name.rpartition(".")[2], embeddings.num_embeddings, embeddings.embedding_dim
        ),
        LinearShape(own, own.rpartition(".")[2], head.in_features, head.out_features),
    )


def unadapted_weights(model: Any) -> list[UnadaptedWeights]:
    """The matrices that no adapter reaches, by reason; embeddings and the head are not among them.

    The model must not be quantized: packed weights have lost their shapes.
    """
    heads = head_names(model)
    shapes = [s for s in all_linear_shapes(model) if not in_head(s.name, heads)]
    parts: dict[str, dict[str, int]] = {
        what: {shape.name: shape.in_features * shape.out_features for shape in part}
        for what, part in _left_out(model, shapes).items()
    }
    decoder = language_model(model)
    for name, size in _bare_matrices(model).items():
        inside = not decoder or name.startswith(f"{decoder}.")
        parts.setdefault(BARE if inside else BESIDE_TEXT, {})[name] = size
    return [
        UnadaptedWeights(what, _kinds(sizes), sum(sizes.values()))
        for what, sizes in parts.items()
        if sizes
    ]


def _left_out(model: Any, shapes: list[LinearShape]) -> dict[str, list[LinearShape]]:
    """Reason -> linear layers that get no adapter."""
    decoder = language_model(model)
    beside = [s for s in shapes if decoder and not s.name.startswith(f"{decoder}.")]
    inside = [shape for shape in shapes if shape not in beside]
    routers = [s for s in inside if "Router" in type(model.get_submodule(s.name)).__name__]
    inside = [shape for shape in inside if shape not in routers]
    kept = _names_that_peft_keeps(model, [shape.name for shape in inside])
    taken = [shape for shape in inside if shape.name not in kept]
    return {BESIDE_TEXT: beside, ROUTERS: routers, TAKEN_FOR_EXPERTS: taken}


def _names_that_peft_keeps(model: Any, names: list[str]) -> set[str]:
    """PEFT rewrites names such as gate_proj, even full ones, into experts' parameters for some
    mixtures, where their dense and shared layers have these names too (peft 0.21)."""
    import peft
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    config = peft.LoraConfig(target_modules=list(names))
    convert_peft_config_for_transformers(config, model=model, conversions=None)
    return set(config.target_modules or ())


def _bare_matrices(model: Any) -> dict[str, int]:
    """Name -> size of parameters with two dimensions or more that belong to no layer of torch's;
    norms may have a row a head."""
    known = (nn.Linear, Conv1D, nn.Embedding, _ConvNd)
    return {
        f"{name}.{own}": parameter.numel()
        for name, module in model.named_modules()
        if not isinstance(module, known) and "norm" not in type(module).__name__.lower()
        for own, parameter in module.named_parameters(recurse=False)
        if parameter.dim() > 1 and not own.endswith("bias")
    }


def _kinds(names: Iterable[str]) -> list[str]:
    """Names with * for the number of a layer or expert, each once."""
    return list(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names))
