"""Full fine-tuning: what is asked for, counted and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lorascope.adapters.lone import Lone
from lorascope.adapters.rate import PLAIN, Rate
from lorascope.adapters.targets import peft_targets
from lorascope.config import AdapterConfig, Targets
from lorascope.config.bounds import ABOVE_ZERO, bounded
from lorascope.records import Method, ModelParts, OwnerShape

if TYPE_CHECKING:
    from torch import nn

UNDECAYED = Rate(decay_times=0.0)


@dataclass
class FullConfig(AdapterConfig):
    """Every parameter of the language model, embeddings and head among them. What a model that also
    sees has beside its language model stays frozen."""

    kind: ClassVar[str] = "full"
    presets: ClassVar[tuple[Targets, ...]] = (Targets.all,)
    replaces: ClassVar[bool] = True
    targets: Targets = Targets.all
    learning_rate_factor: float = bounded(0.1, ABOVE_ZERO, "0.1 is usual.")

    def reads_floats(self) -> str | None:
        """Not for a setting: always."""
        return self.kind


class Full(Lone):
    """The kind `full`."""

    config = FullConfig
    method = Method(FullConfig.kind, "full fine-tuning")

    def peft(self, config: FullConfig, every: ModelParts, chosen: list[OwnerShape]) -> Any:
        """A method that PEFT lacks: ours stands among its own."""
        from lorascope.adapters.full.layer import PeftFullConfig

        return PeftFullConfig(
            target_modules=peft_targets(every.vectors or [], chosen), task_type="CAUSAL_LM"
        )

    def parameters(self, config: FullConfig, shapes: Sequence[OwnerShape]) -> int:
        """Every value once."""
        return sum(shape.parameters for shape in shapes)

    def unrounded(self, config: FullConfig) -> None:
        """What it trains are the weights themselves."""

    def rate(self, config: FullConfig, name: str, parameter: nn.Parameter) -> Rate:
        """As in transformers' Trainer norms and biases do not decay; no other vectors do either."""
        bare = parameter.dim() < 2 or "norm" in name.lower() or "bias" in name
        return UNDECAYED if bare else PLAIN


FULL = Full()
