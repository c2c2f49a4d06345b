"""Plan of one training: plain values that travel between processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lorascope.config import AdapterConfig, Config, QuantConfig, TrainConfig


@dataclass(frozen=True)
class TrialPlan:
    """Settings of one trial in a pack."""

    settings: AdapterConfig
    train: TrainConfig
    """Learning rates, weight decay, clipping and layer drop may differ inside a pack."""
    seed: int
    adapter: Path
    """Folder to write the adapter to."""

    @classmethod
    def of(cls, config: Config, adapter: Path) -> TrialPlan:
        """The trial that a configuration asks for, with its method's learning rate and decay."""
        train, method = config.train, config.adapter
        own = replace(
            train,
            learning_rate=train.learning_rate * method.learning_rate_factor,
            weight_decay=train.weight_decay if method.decays else 0.0,
        )
        return cls(method, own, config.seed, adapter)


@dataclass(frozen=True)
class PackPlan:
    """Trials that are trained at once, and what they share."""

    base: Path
    base_name: str
    """Written into the adapters instead of a path."""
    data: Path
    checkpoints: Path | None
    """Folder that an interrupted pack resumes from; None keeps no checkpoints."""
    quant: QuantConfig
    attention: str
    evaluate_batch_size: int
    trials: Sequence[TrialPlan]
    train_on_prompt: bool = False
    full_base: Path | None = None
    """The base that `base` was stored from, whose type of numbers decides that of scales where
    train.qat rounds; None takes that of `base`."""

    @property
    def train(self) -> TrainConfig:
        """Training settings that all trials share."""
        return self.trials[0].train
