"""The schema that all kinds of adapters share, and what a kind's settings say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from lorascope.config.bounds import ABOVE_ZERO, bounded
from lorascope.config.choices import LINEAR, Targets


@dataclass
class AdapterConfig:
    """What is trained beside the base: the settings that all kinds of adapters have."""

    kind: ClassVar[str] = ""
    """The kind's name: of its section in a configuration, and of its folder in conf/."""
    presets: ClassVar[tuple[Targets, ...]] = LINEAR
    """The values that `targets` takes."""
    decays: ClassVar[bool] = True
    """Whether train.weight_decay holds for it: as in transformers' Trainer not for norms and
    biases."""
    recomputes: ClassVar[bool] = True
    """Whether it can be trained with train.gradient_checkpointing, which runs layers twice."""
    replaces: ClassVar[bool] = False
    """Whether what is trained stands in place of the base's parameters, not beside them."""
    targets: Targets = Targets.all_linear
    modules: list[str] = field(default_factory=list)
    """Names of modules in the model, e.g. [q_proj, down_proj], for targets=modules."""
    learning_rate_factor: float = bounded(1.0, ABOVE_ZERO, "1 is LoRA's.")
    """What train.learning_rate is multiplied by: it is LoRA's rate, and other methods learn best at
    others."""

    def saved(self) -> Self:
        """The settings of what is saved: an adapter on the base as it is stored."""
        return self

    def trained_ends(self) -> Sequence[str]:
        """Which of "embeddings" and "head" it trains something beside, whatever its targets."""
        return ()

    def subtracts(self) -> bool:
        """Whether it begins as a part of the base's weights, which is taken out of them."""
        return False

    def reads_floats(self) -> str | None:
        """The setting for which PEFT needs the base's weights as floating-point numbers, or the
        kind's name where it always does; None where it does not."""

    def reads_samples(self) -> int:
        """How many training samples it reads before the first step; 0 for none."""
        return 0

    def require_layers(self, shapes: Sequence[Any]) -> None:
        """Raise ConfigError where one of these layers, which `targets` chose, is too small."""
