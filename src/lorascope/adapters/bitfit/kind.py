"""BitFit: what is asked for, counted and named."""

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
class BitfitConfig(AdapterConfig):
    """Every bias that the base has, of linear layers, norms and head (Ben Zaken et al. 2021, arXiv
    2106.10199). What is trained and saved is the difference to the base's."""

    kind: ClassVar[str] = "bitfit"
    presets: ClassVar[tuple[Targets, ...]] = (Targets.biases,)
    decays: ClassVar[bool] = False
    targets: Targets = Targets.biases
    learning_rate_factor: float = bounded(10.0, ABOVE_ZERO, "10 is usual.")


class Bitfit(Lone):
    """The kind `bitfit`."""

    config = BitfitConfig
    method = Method(BitfitConfig.kind, "BitFit")

    def peft(self, config: BitfitConfig, every: ModelParts, chosen: list[VectorShape]) -> Any:
        """A method that PEFT lacks: ours stands among its own."""
        from lorascope.adapters.bitfit.layer import PeftBitfitConfig

        return PeftBitfitConfig(
            target_modules=peft_targets(every.vectors or [], chosen), task_type="CAUSAL_LM"
        )

    def parameters(self, config: BitfitConfig, shapes: Sequence[VectorShape]) -> int:
        """One an entry of a bias."""
        return sum(shape.bias for shape in shapes)


BITFIT = Bitfit()
