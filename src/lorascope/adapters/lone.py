"""Kinds of adapters that PEFT's own layers train, one trial at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lorascope.adapters.rate import PLAIN, Rate
from lorascope.config import AdapterConfig

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch import nn

    from lorascope.adapters.first_samples import FirstSamples


class Lone:
    """What such kinds say alike: no stack, and no weight of the base is read in training."""

    packed: tuple[str, ...] = ()
    unmergeable: str | None = None

    def unrounded(self, config: Any) -> str | None:
        """PEFT's own layers compute beside the base's."""
        return "its layers compute beside the base's, and no step has their merged weight"

    def reads_weights(self, config: Any) -> str | None:
        """None: what the base's layers give is enough."""
        return None

    def rate(self, config: Any, name: str, parameter: nn.Parameter) -> Rate:
        """The trial's own."""
        return PLAIN

    def begin(self, config: Any, model: PeftModel, seed: int, samples: FirstSamples | None) -> None:
        """Nothing: what PEFT made is what training begins with."""

    def reading_bytes(self, config: Any, shapes: Sequence[Any]) -> int:
        """0: nothing is read before the first step."""
        return 0

    def stack(
        self,
        configs: Sequence[AdapterConfig],
        shapes: Sequence[Any],
        device: torch.device | str,
        beside: int = 0,
    ) -> None:
        """PEFT's own layers."""
