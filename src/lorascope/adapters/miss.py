"""MiSS: what is asked for, counted and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lorascope.adapters.lone import Lone
from lorascope.adapters.targets import peft_targets
from lorascope.config import AdapterConfig
from lorascope.config.bounds import BELOW_ONE, ONE_OR_MORE, bounded
from lorascope.errors import ConfigError, first_names
from lorascope.records import Dial, LinearShape, Method, ModelParts


@dataclass
class MissConfig(AdapterConfig):
    """One matrix a layer, which sums of every rank-th input pass through (Kang and Yin 2024, arXiv
    2409.15371)."""

    kind: ClassVar[str] = "miss"
    rank: int = bounded(64, ONE_OR_MORE, "64 is usual.")
    dropout: float = bounded(0.0, BELOW_ONE, "Try 0.05.")

    def require_layers(self, shapes: Sequence[LinearShape]) -> None:
        """A sum needs an input at least."""
        narrow = [layer.name for layer in shapes if layer.in_features < self.rank]
        if narrow:
            fewest = min(layer.in_features for layer in shapes)
            raise ConfigError(
                "miss.rank", self.rank, f"is more than {first_names(narrow)} has inputs",
                f"Set it to {fewest} or less.",
            )  # fmt: skip


class Miss(Lone):
    """The kind `miss`."""

    config = MissConfig
    method = Method(
        MissConfig.kind, "MiSS", (Dial("rank", "rank", letter="r", is_axis=True, counts=True),)
    )

    def peft(self, config: MissConfig, every: ModelParts, chosen: list[LinearShape]) -> Any:
        """PEFT's own start: a matrix of zeros."""
        from peft import MissConfig as PeftMissConfig

        return PeftMissConfig(
            r=config.rank,
            miss_dropout=config.dropout,
            target_modules=peft_targets(every.linear, chosen),
            task_type="CAUSAL_LM",
        )

    def parameters(self, config: MissConfig, shapes: Sequence[LinearShape]) -> int:
        """rank x out a layer."""
        return config.rank * sum(shape.out_features for shape in shapes)


MISS = Miss()
