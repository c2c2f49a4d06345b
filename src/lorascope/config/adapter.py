"""The schema that all kinds of adapters share, and what a kind's settings say of themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

from lorascope.config.choices import Targets


@dataclass
class AdapterConfig:
    """What is trained beside the base: the settings that all kinds of adapters have."""

    kind: ClassVar[str] = ""
    """The kind's name: of its section in a configuration, and of its folder in conf/."""
    targets: Targets = Targets.all_linear
    modules: list[str] = field(default_factory=list)
    """Names of modules in the model, e.g. [q_proj, down_proj], for targets=modules."""

    def saved(self) -> Self:
        """The settings of what is saved: an adapter on the base as it is stored."""
        return self

    def subtracts(self) -> bool:
        """Whether it begins as a part of the base's weights, which is taken out of them."""
        return False

    def reads_floats(self) -> str | None:
        """The setting for which PEFT needs the base's weights as floating-point numbers; None where
        it does not."""

    def require_features(self, fewest: int) -> None:
        """Raise ConfigError where a layer of so few inputs or outputs cannot get the adapter."""
