"""Full fine-tuning as a method of PEFT.

A module of the base is called with trained values in place of its own, which stay what they are
and answer when the adapter is off. Trained values are kept in FP32 and computed with in the type
that the module has. Tied parameters are one value: the first module that has it keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lorascope.adapters.peft_extension import OwnConfig, OwnLayer, OwnTuner, register

NAME, PREFIX = "FULL", "full_"


@dataclass
class PeftFullConfig(OwnConfig):
    """Full fine-tuning, as adapter_config.json holds it."""

    ensure_weight_tying: bool = True
    """As PEFT's own methods say it: what the base ties stays tied, after merging too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = NAME


@dataclass(frozen=True)
class Held:
    """Where a trained value is kept."""

    layer: FullLayer
    name: str

    def value(self, adapter_name: str) -> nn.Parameter:
        parameter: nn.Parameter = getattr(self.layer, self.name)[adapter_name]
        return parameter


class FullLayer(OwnLayer):
    """A module of the base with trained values for all parameters in it.

    Args:
        held: trained values of the layers before, by the base's parameter; those of this layer are
            added.
    """

    keeps_types = True

    def __init__(
        self, base_layer: nn.Module, adapter_name: str, config: Any, held: dict[int, Held]
    ) -> None:
        self._held, self._places = held, dict[str, Held]()
        super().__init__(base_layer, adapter_name, config)

    def make(self, adapter_name: str, config: Any) -> None:
        """Copies of the base's values; of a tied one, whose copy another layer has, none."""
        own = []
        for name, parameter in self.base_layer.named_parameters(remove_duplicate=False):
            if not parameter.is_floating_point():
                continue
            if id(parameter) not in self._held:
                held = Held(self, PREFIX + name.replace(".", "__"))
                self._held[id(parameter)] = held
                copied = torch.empty(parameter.shape, dtype=torch.float32, device=parameter.device)
                value = nn.Parameter(copied.copy_(parameter.detach()))
                setattr(self, held.name, nn.ParameterDict({adapter_name: value}))
                own.append(held.name)
            self._places[name] = self._held[id(parameter)]
        self.adapter_layer_names = tuple(own)

    def _move_adapter_to_device_of_base_layer(self, *_: Any, **__: Any) -> None:
        """They are made there, and stay in FP32."""

    def __getattr__(self, name: str) -> Any:
        """What others read of the base's module, with trained values."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer":
                raise
        return self._value(name) if name in self._places else getattr(self.base_layer, name)

    @property
    def weight(self) -> Any:
        """As the module computes with it."""
        return self._read("weight")

    @property
    def bias(self) -> Any:
        """As the module computes with it."""
        return self._read("bias")

    def _read(self, name: str) -> Any:
        return self._value(name) if name in self._places else getattr(self.base_layer, name)

    def _value(self, name: str) -> Tensor:
        own = self.base_layer.get_parameter(name)
        if self.disable_adapters or self.merged:
            return own
        (adapter_name,) = self.active_adapters
        value: Tensor = self._places[name].value(adapter_name)
        if name in self.rounding:
            value = self.rounding[name](value)
        return value.to(own.dtype)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module says with trained values."""
        if self.disable_adapters or self.merged:
            return self.base_layer(*args, **kwargs)
        if self.training and getattr(self.base_layer, "gradient_checkpointing", False):
            # Run again in the backward pass, a layer inside would have the base's values.
            again: Any = self.base_layer._gradient_checkpointing_func
            return again(partial(self._computed, **kwargs), *args)
        return self._computed(*args, **kwargs)

    def _computed(self, *args: Any, **kwargs: Any) -> Any:
        values = {name: self._value(name) for name in self._places}
        with _unchecked(self.base_layer):
            return functional_call(self.base_layer, values, args, kwargs, tie_weights=False)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put the trained values in place of the base's."""
        for adapter_name in adapter_names or self.active_adapters:
            for name, held in self._places.items():
                own = self.base_layer.get_parameter(name)
                own.data = held.value(adapter_name).detach().to(own.dtype)
            self.merged_adapters.append(adapter_name)


class FullModel(OwnTuner):
    """A model with trained values for all of its language model."""

    prefix = PREFIX
    tuner_layer_cls = FullLayer

    def _prepare_model(self, peft_config: Any, model: Any) -> None:
        self._held: dict[int, Held] = {}
        if hasattr(model, "tie_weights"):
            model.tie_weights = partial(_tie_bare, model)

    def _create_and_replace(
        self, config: Any, adapter_name: str, target: nn.Module, target_name: str,
        parent: nn.Module, current_key: str,
    ) -> None:  # fmt: skip
        layer = FullLayer(target, adapter_name, config, self._held)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        """PEFT would hand on a weight, which not every module has."""
        setattr(parent, child_name, new_module)

    def _check_tied_modules(self, model: nn.Module, peft_config: Any) -> None:
        """Tied ones are trained as one, which PEFT would warn of."""

    def _check_merge_allowed(self) -> None:
        """Tied ones are one before and after."""


@contextmanager
def _unchecked(layer: Any) -> Iterator[None]:
    """The layer without gradient checkpointing of its own."""
    own = vars(layer).pop("gradient_checkpointing", None)
    try:
        yield
    finally:
        if own is not None:
            layer.gradient_checkpointing = own


def _tie_bare(model: Any, *args: Any, **kwargs: Any) -> None:
    """transformers' tying, which puts one module's parameter into the other, for a model that is
    bare again: trained values are tied already."""
    if not any(isinstance(module, FullLayer) for module in model.modules()):
        type(model).tie_weights(model, *args, **kwargs)


register(NAME, PeftFullConfig, FullModel)
