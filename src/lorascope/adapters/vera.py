"""VeRA: what is asked for, counted and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lorascope.adapters.lone import Lone
from lorascope.adapters.targets import peft_targets
from lorascope.config import AdapterConfig
from lorascope.config.bounds import ABOVE_ZERO, BELOW_ONE, SEED, between, bounded
from lorascope.records import Dial, LinearShape, Method, ModelParts

MAX_VERA_RANK = 8192
"""Eight times the highest of its paper."""


@dataclass
class VeraConfig(AdapterConfig):
    """LoRA with random matrices that all layers share and no step changes; a layer trains a factor
    a rank and one an output (Kopiczko et al. 2023, arXiv 2310.11454)."""

    kind: ClassVar[str] = "vera"
    learning_rate_factor: float = bounded(10.0, ABOVE_ZERO, "10 is usual.")
    rank: int = bounded(256, between(1, MAX_VERA_RANK), "256 is usual.")
    dropout: float = bounded(0.0, BELOW_ONE, "Try 0.05.")
    d_initial: float = bounded(0.1, ABOVE_ZERO, "0.1 is usual.")
    """The factors of ranks before the first step; those of outputs are zero."""
    projection_seed: int = bounded(0, SEED)
    """Seed of the random matrices, which the adapter's file holds too: trials that differ in `seed`
    share them."""


class Vera(Lone):
    """The kind `vera`."""

    config = VeraConfig
    method = Method(
        VeraConfig.kind, "VeRA", (Dial("rank", "rank", letter="r", is_axis=True, counts=True),)
    )

    def peft(self, config: VeraConfig, every: ModelParts, chosen: list[LinearShape]) -> Any:
        """PEFT stores the random matrices with the adapter, so that it loads anywhere alike."""
        from peft import VeraConfig as PeftVeraConfig

        return PeftVeraConfig(
            r=config.rank,
            target_modules=peft_targets(every.linear, chosen),
            projection_prng_key=config.projection_seed,
            save_projection=True,
            vera_dropout=config.dropout,
            d_initial=config.d_initial,
            task_type="CAUSAL_LM",
        )

    def parameters(self, config: VeraConfig, shapes: Sequence[LinearShape]) -> int:
        """rank + out a layer."""
        return sum(config.rank + shape.out_features for shape in shapes)


VERA = Vera()
