"""Kinds of adapters that PEFT's own layers train, one trial at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lorascope.config import AdapterConfig
from lorascope.records import LinearShape

if TYPE_CHECKING:
    import torch


class Lone:
    """What such kinds say alike: no stack, and no weight of the base is read in training."""

    packed: tuple[str, ...] = ()

    def reads_weights(self, config: Any) -> str | None:
        """None: what the base's layers give is enough."""
        return None

    def stack(
        self,
        configs: Sequence[AdapterConfig],
        shapes: Sequence[LinearShape],
        device: torch.device | str,
    ) -> None:
        """PEFT's own layers."""
