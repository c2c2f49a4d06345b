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
from lorascope.records import Dial, LinearShape, Method


@dataclass
class MissConfig(AdapterConfig):
    """One matrix a layer, which sums of every rank-th input pass through (Kang and Yin 2024, arXiv
    2409.15371)."""

    kind: ClassVar[str] = "miss"
    rank: int = bounded(64, ONE_OR_MORE, "64 is usual.")
    dropout: float = bounded(0.0, BELOW_ONE, "Try 0.05.")


class Miss(Lone):
    """The kind `miss`."""

    config = MissConfig
    method = Method(
        MissConfig.kind, "MiSS", (Dial("rank", "rank", letter="r", is_axis=True, counts=True),)
    )

    def peft(self, config: MissConfig, every: list[LinearShape], chosen: list[LinearShape]) -> Any:
        """PEFT's own start: a matrix of zeros."""
        from peft import MissConfig as PeftMissConfig

        narrow = [layer.name for layer in chosen if layer.in_features < config.rank]
        if narrow:
            raise ConfigError(
                "miss.rank", config.rank, f"is more than {first_names(narrow)} has inputs",
                f"Set it to {min(layer.in_features for layer in chosen)} or less.",
            )  # fmt: skip
        return PeftMissConfig(
            r=config.rank,
            miss_dropout=config.dropout,
            target_modules=peft_targets(every, chosen),
            task_type="CAUSAL_LM",
        )

    def parameters(self, config: MissConfig, shapes: Sequence[LinearShape]) -> int:
        """rank x out a layer."""
        return config.rank * sum(shape.out_features for shape in shapes)


MISS = Miss()
