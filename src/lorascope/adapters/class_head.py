"""The head for classes of a base: trained in full beside every adapter, each trial its own.

PEFT keeps a copy of such modules for each adapter (`modules_to_save`), and saves it with the
adapter. In a pack each trial's copy stands in that trial's vector, behind its adapter's values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.func import functional_call

from lorascope.adapters.stack import LayeredStack, PackShape, StackedLayer, VectorPart, Weights

SAVED = "modules_to_save.default"
PEFT_PREFIX = "base_model.model."
"""Before the names of a model's modules in PEFT's."""
"""PEFT's place for its copy, inside what stands for the module."""
DRAWN_HERE = "head_drawn_here"
"""Key in config.json: names of the head's parameters that prepare-base drew. Each trial draws its
own of these; what came with the model, such as BERT's pooler, is what all trials begin with."""


def head_names(model: Any) -> list[str]:
    """Modules between a model's layers and its classes, in model order; none where it has no head
    for classes. A pooler is one of them: most checkpoints lack it."""
    if not type(model).__name__.endswith("ForSequenceClassification"):
        return []
    prefix = str(model.base_model_prefix)
    body = getattr(model, prefix, None)
    inside = [f"{prefix}.{name}" for name, _ in _trained(body) if name == "pooler"]
    return [*inside, *(name for name, child in _trained(model) if child is not body)]


def _trained(module: Any) -> Iterator[tuple[str, nn.Module]]:
    children = [] if module is None else module.named_children()
    return ((name, child) for name, child in children if any(True for _ in child.parameters()))


def in_head(name: str, heads: Sequence[str]) -> bool:
    """Whether a module or parameter lies in one of these modules."""
    return any(f"{name}.".startswith(f"{head}.") for head in heads)


def head_parameters(model: Any) -> int:
    """Number of values in the head for classes; 0 where a model has none."""
    modules = [model.get_submodule(name) for name in head_names(model)]
    # Of an adapted model only its own, not PEFT's copy.
    own = [bare_module(m) if isinstance(m, ModulesToSaveWrapper) else m for m in modules]
    return sum(parameter.numel() for module in own for parameter in module.parameters())


def draw_heads(model: Any) -> None:
    """Let PEFT's copies of a head that was drawn here begin with values of their own, as
    transformers draws them: from torch's generator."""
    drawn = {name.rpartition(".")[0] for name in getattr(model.config, DRAWN_HERE, None) or ()}
    for name in wrapped_heads(model):
        place = name.removeprefix(PEFT_PREFIX)
        for copy in model.get_submodule(name).modules_to_save.values():
            for inside, module in copy.named_modules():
                if f"{place}.{inside}".rstrip(".") not in drawn:
                    continue
                # Or transformers would take them for loaded.
                for parameter in (module, *module.parameters(recurse=False)):
                    vars(parameter).pop("_is_hf_initialized", None)
                model._init_weights(module)


def wrapped_heads(model: nn.Module) -> list[str]:
    """Names of the modules that PEFT has a copy of."""
    return [name for name, own in model.named_modules() if isinstance(own, ModulesToSaveWrapper)]


def bare_module(module: Any) -> nn.Module:
    """The base's own module, of one that stands in its place."""
    own = isinstance(module, ModulesToSaveWrapper)
    bare: nn.Module = module.original_module if own else module.base_layer
    return bare


class PackedHead(nn.Module):
    """A module of the base's head, with each trial's own values in that trial's rows.

    Args:
        values: of each trial, by the parameters' names in the module.
    """

    def __init__(
        self, base_layer: nn.Module, values: Sequence[dict[str, nn.Parameter]], shape: PackShape
    ) -> None:
        super().__init__()
        self.base_layer, self._shape = base_layer, shape
        self._values = values
        # Or nobody who walks through modules would find them.
        self._registered = nn.ModuleList(nn.ParameterList(own.values()) for own in values)

    def forward(self, x: Tensor) -> Tensor:
        """[trials x samples, ...] -> [trials x samples, ...], trial by trial."""
        if not self._shape.adapters:
            bare: Tensor = self.base_layer(x)
            return bare
        parts = x.chunk(self._shape.trials)
        return torch.cat([self._computed(*each) for each in enumerate(parts)])

    def _computed(self, trial: int, part: Tensor) -> Tensor:
        """As the module computes with one trial's values, in the type that it has."""
        values = {
            name: value.to(self.base_layer.get_parameter(name).dtype)
            for name, value in self._values[trial].items()
        }
        result: Tensor = functional_call(self.base_layer, values, (part,))
        return result


class HeadedStack:
    """A stack of adapters, and each trial's own head behind its adapter's values.

    Args:
        stack: has room for the head's values.
    """

    def __init__(self, stack: LayeredStack, model: Any) -> None:
        self._stack = stack
        self._modules = {name: model.get_submodule(name) for name in head_names(model)}
        size = head_parameters(model)
        self.rows, self.constants = stack.rows, stack.constants
        self.parameters = [count + size for count in stack.parameters]
        self.values = [self._views(values[-size:]) for values, _ in stack.memory]
        gradients = [self._views(gradient[-size:]) for _, gradient in stack.memory]
        for own, theirs in zip(self.values, gradients, strict=True):
            for name, parameter in own.items():
                parameter.grad = theirs[name].data
        self.parts = [
            [*parts, *self._parts(len(values) - size)]
            for parts, (values, _) in zip(stack.parts, stack.memory, strict=True)
        ]
        self.memory = stack.memory

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, module in self._modules.items():
            yield from ((f"{name}.{own}", value) for own, value in module.named_parameters())

    def _views(self, values: Tensor) -> dict[str, nn.Parameter]:
        """Views of one trial's head by the base's names."""
        found, start = dict[str, nn.Parameter](), 0
        for name, like in self._named():
            end = start + math.prod(like.shape)
            found[name] = nn.Parameter(values[start:end].view(like.shape))
            start = end
        return found

    def _parts(self, start: int) -> Iterator[VectorPart]:
        for name, like in self._named():
            yield VectorPart(start, start + like.numel(), name)
            start += like.numel()

    def clear_gradients(self) -> None:
        self._stack.clear_gradients()

    def read(self, index: int) -> Weights:
        head = {_in_peft(n, self._modules): v.detach() for n, v in self.values[index].items()}
        return {**self._stack.read(index), **{name: value.clone() for name, value in head.items()}}

    def write(self, index: int, weights: Weights) -> None:
        self._stack.write(index, weights)
        for name, value in self.values[index].items():
            value.data.copy_(weights[_in_peft(name, self._modules)].detach())

    def layer(self, name: str, shape: PackShape) -> StackedLayer:
        return self._stack.layer(name, shape)

    def heads(self, shape: PackShape) -> dict[str, PackedHead]:
        """What stands in place of the head's modules, by their names."""
        return {
            name: PackedHead(module, [_inside(name, own) for own in self.values], shape)
            for name, module in self._modules.items()
        }


def _inside(module: str, values: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    start = f"{module}."
    return {n.removeprefix(start): value for n, value in values.items() if n.startswith(start)}


def _in_peft(name: str, modules: dict[str, Any]) -> str:
    """PEFT's name, inside the base, of a parameter of the head."""
    module = next(own for own in modules if in_head(name, [own]))
    return f"{module}.{SAVED}.{name.removeprefix(f'{module}.')}"
