"""LoRA, rsLoRA and DoRA: what is asked for, counted, named and trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lorascope.adapters.targets import peft_targets
from lorascope.config import AdapterConfig
from lorascope.config.bounds import ABOVE_ZERO, BELOW_ONE, MAX_RANK, between, bounded, one_of
from lorascope.counting.parameters import lora_parameters
from lorascope.records import Dial, Dials, LinearShape, Method, ModelParts

if TYPE_CHECKING:
    import torch

    from lorascope.adapters.lora.stack import LoraStack


KAIMING = "kaiming"
"""PEFT's default, which it calls True: A is drawn as torch draws a linear layer, B is zero."""
INITS = (KAIMING, "gaussian", "orthogonal")
FROM_FLOATS = ("orthogonal",)
"""Initialisations that PEFT (0.21) gives on floating-point weights alone."""


@dataclass
class LoraConfig(AdapterConfig):
    """Two matrices a layer, whose product is added to the layer's weight (Hu et al. 2021)."""

    kind: ClassVar[str] = "lora"
    rank: int = bounded(
        16, between(1, MAX_RANK, "a rank must be a whole number from {} to {}"), "Try 8 or 16."
    )
    alpha: float = bounded(16.0, ABOVE_ZERO, "Start with 16, or with the rank.")
    dropout: float = bounded(0.0, BELOW_ONE, "Try 0.05.")
    rslora: bool = False
    """Scale by alpha/sqrt(rank) instead of alpha/rank."""
    dora: bool = False
    init: str = bounded(KAIMING, one_of("initialisation", INITS))
    """How A and B begin."""

    def saved(self) -> Self:
        """How it began matters to training alone."""
        return replace(self, init=KAIMING)

    def reads_floats(self) -> str | None:
        return "init" if self.init in FROM_FLOATS else None


def _scale(dials: Dials) -> float:
    """What B A is multiplied by: alpha / rank, under rsLoRA alpha / sqrt(rank)
    (Kalajdzievski 2023, arXiv 2312.03732)."""
    rank = float(dials["rank"])
    return float(dials["alpha"]) / (math.sqrt(rank) if dials["rslora"] else rank)


class Lora:
    """The kind `lora`."""

    config = LoraConfig
    method = Method(
        LoraConfig.kind,
        "LoRA",
        (
            Dial("rank", "rank", letter="r", is_axis=True, counts=True),
            Dial("alpha", "alpha", letter="a", times_learning_rate=True),
            Dial("rslora", "rsLoRA"),
            Dial("dora", "DoRA", counts=True),
        ),
        _scale,
    )
    unmergeable: str | None = None
    packed: tuple[str, ...] = ("rank", "alpha", "dropout", "rslora", "init")

    def peft(self, config: LoraConfig, every: ModelParts, chosen: list[LinearShape]) -> Any:
        """PEFT's own files hold whole alphas as integers."""
        from peft import LoraConfig as PeftLoraConfig

        whole = float(config.alpha).is_integer()
        return PeftLoraConfig(
            r=config.rank,
            lora_alpha=int(config.alpha) if whole else config.alpha,
            lora_dropout=config.dropout,
            target_modules=peft_targets(every.linear, chosen),
            use_rslora=config.rslora,
            use_dora=config.dora,
            init_lora_weights=True if config.init == KAIMING else config.init,
            bias="none",
            task_type="CAUSAL_LM",
        )

    def parameters(self, config: LoraConfig, shapes: Sequence[LinearShape]) -> int:
        """rank (in + out) a layer; DoRA one more an output."""
        return lora_parameters(shapes, config.rank, config.dora)

    def reads_weights(self, config: LoraConfig) -> str | None:
        """DoRA takes the norm of the sum of weight and product."""
        return "dora" if config.dora else None

    def stack(
        self,
        configs: Sequence[LoraConfig],
        shapes: Sequence[LinearShape],
        device: torch.device | str,
    ) -> LoraStack:
        """Ranks are padded, so that neighbours share a matrix."""
        from lorascope.adapters.lora.stack import LoraStack

        return LoraStack(configs, shapes, device)


LORA = Lora()
