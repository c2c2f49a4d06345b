"""LN tuning: what is asked for, counted and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lorascope.adapters.lone import Lone
from lorascope.adapters.targets import peft_targets
from lorascope.config import AdapterConfig, Targets
from lorascope.config.bounds import ABOVE_ZERO, bounded
from lorascope.records import Method, ModelParts, VectorShape


@dataclass
class LnConfig(AdapterConfig):
    """The weights, and biases where there are any, of every norm (Zhao et al. 2023, arXiv
    2312.11420)."""

    kind: ClassVar[str] = "ln"
    presets: ClassVar[tuple[Targets, ...]] = (Targets.norms,)
    decays: ClassVar[bool] = False
    targets: Targets = Targets.norms
    learning_rate_factor: float = bounded(10.0, ABOVE_ZERO, "10 is usual.")


class Ln(Lone):
    """The kind `ln`."""

    config = LnConfig
    method = Method(LnConfig.kind, "LN tuning")

    def peft(self, config: LnConfig, every: ModelParts, chosen: list[VectorShape]) -> Any:
        """PEFT trains a copy of each norm."""
        from peft import LNTuningConfig

        return LNTuningConfig(
            target_modules=peft_targets(every.vectors or [], chosen), task_type="CAUSAL_LM"
        )

    def parameters(self, config: LnConfig, shapes: Sequence[VectorShape]) -> int:
        """Every value of a norm."""
        return sum(shape.weight + shape.bias for shape in shapes)


LN = Ln()
