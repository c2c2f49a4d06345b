"""Methods that PEFT lacks, among its own: what is attached, saved and loaded is then one for all.

Whoever has imported a method's module loads its adapters with PEFT's `PeftModel.from_pretrained`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from peft import PeftConfig
from peft.mapping import (
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_PREFIX_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
)
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import Tensor, nn


@dataclass
class OwnConfig(PeftConfig):  # type: ignore[misc]
    """What adapter_config.json holds of any such method."""

    target_modules: list[str] | str | None = None


class OwnLayer(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A layer of the base with what is trained beside it, which `make` puts there."""

    chosen_names: tuple[str, ...] = ()
    """Dictionaries of buffers that are chosen before the first step, and saved."""
    rounding: Mapping[str, Callable[[Tensor], Tensor]]
    """What is made of the base's parameters before they are computed with, by their names in its
    layer: of some kinds only."""

    if TYPE_CHECKING:
        # PEFT's class says nothing of its attributes' types.
        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: Any) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.merged_adapters: list[str] = []
        self.rounding = {}
        self._active_adapter = adapter_name
        self.make(adapter_name, config)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    @abstractmethod
    def make(self, adapter_name: str, config: Any) -> None:
        """Make an adapter that changes nothing yet."""


class OwnTuner(BaseTuner):  # type: ignore[misc]
    """A model with such layers in place of some of its own."""

    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _create_and_replace(
        self, config: Any, adapter_name: str, target: nn.Module, target_name: str,
        parent: nn.Module, current_key: str,
    ) -> None:  # fmt: skip
        layer = self.tuner_layer_cls(target, adapter_name, config)
        self._replace_module(parent, target_name, layer, target)


def register(name: str, config: type[OwnConfig], model: type[OwnTuner]) -> None:
    """Let PEFT know a method by the name in its adapter_config.json.

    PEFT's own `register_peft_method` (0.21) takes no names that its enumeration lacks.
    """
    PEFT_TYPE_TO_CONFIG_MAPPING[name] = config
    PEFT_TYPE_TO_TUNER_MAPPING[name] = model
    PEFT_TYPE_TO_PREFIX_MAPPING[name] = model.prefix
