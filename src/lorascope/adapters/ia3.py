"""IA3: what is asked for, counted and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from lorascope.adapters.lone import Lone
from lorascope.adapters.targets import ends_mlp, peft_targets
from lorascope.config import AdapterConfig, Targets
from lorascope.records import LinearShape, Method, ModelParts


@dataclass
class Ia3Config(AdapterConfig):
    """A factor on each output of a layer, and on each input of an MLP's last one (Liu et al. 2022,
    arXiv 2205.05638)."""

    kind: ClassVar[str] = "ia3"
    targets: Targets = Targets.k_v_mlp


class Ia3(Lone):
    """The kind `ia3`."""

    config = Ia3Config
    method = Method(Ia3Config.kind, "IA3")

    def peft(self, config: Ia3Config, every: ModelParts, chosen: list[LinearShape]) -> Any:
        """PEFT scales the inputs of its feed-forward modules, which it knows by the ends of their
        names."""
        from peft import IA3Config

        targets = peft_targets(every.linear, chosen)
        inner = [layer for layer in chosen if ends_mlp(layer)]
        kinds = {layer.kind for layer in inner}
        ending = [layer for layer in chosen if layer.name.endswith(tuple(kinds))]
        if not kinds <= set(targets) or ending != inner:
            targets = [layer.name for layer in chosen]
            kinds = {layer.name for layer in inner}
        return IA3Config(
            target_modules=targets, feedforward_modules=sorted(kinds), task_type="CAUSAL_LM"
        )

    def parameters(self, config: Ia3Config, shapes: Sequence[LinearShape]) -> int:
        """One an output; one an input where inputs are scaled."""
        return sum(s.in_features if ends_mlp(s) else s.out_features for s in shapes)


IA3 = Ia3()
