"""Adapter-H: what is asked for, counted and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lorascope.adapters.lone import Lone
from lorascope.adapters.targets import peft_targets
from lorascope.config import AdapterConfig, Targets
from lorascope.config.bounds import ABOVE_ZERO, ONE_OR_MORE, bounded, one_of
from lorascope.records import Dial, LinearShape, Method, ModelParts

ACTIVATIONS = ("relu", "gelu", "silu")


@dataclass
class BottleneckConfig(AdapterConfig):
    """Two layers with biases and a nonlinearity between them, whose output is added to what they
    stand behind: the last matrix of each attention and of each MLP (Houlsby et al. 2019, arXiv
    1902.00751)."""

    kind: ClassVar[str] = "bottleneck"
    targets: Targets = Targets.sublayer_ends
    learning_rate_factor: float = bounded(3.0, ABOVE_ZERO, "3 is usual.")
    size: int = bounded(64, ONE_OR_MORE, "64 is usual.")
    """Features between the two layers."""
    activation: str = bounded("relu", one_of("activation", ACTIVATIONS))


class Bottleneck(Lone):
    """The kind `bottleneck`."""

    config = BottleneckConfig
    method = Method(
        BottleneckConfig.kind,
        "Adapter-H",
        (Dial("size", "bottleneck", letter="b", is_axis=True, counts=True),),
    )
    unmergeable: str | None = "its nonlinearity cannot be put into the base's matrices"

    def peft(self, config: BottleneckConfig, every: ModelParts, chosen: list[LinearShape]) -> Any:
        """A method that PEFT lacks: ours stands among its own."""
        from lorascope.adapters.bottleneck.layer import PeftBottleneckConfig

        return PeftBottleneckConfig(
            size=config.size,
            activation=config.activation,
            target_modules=peft_targets(every.linear, chosen),
            task_type="CAUSAL_LM",
        )

    def parameters(self, config: BottleneckConfig, shapes: Sequence[LinearShape]) -> int:
        """2 size out + size + out a layer: the LoRA paper's 2 L (2 d b + b + d)."""
        return sum((2 * config.size + 1) * s.out_features + config.size for s in shapes)


BOTTLENECK = Bottleneck()
