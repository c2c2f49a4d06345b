"""The kinds of adapters, and what each must say of itself.

Whoever names, counts, plans, trains or compares trials asks a trial's kind, and knows no method by
name. A new method is a class here, in `KINDS`, and a folder in conf/. No torch is imported: reports
and counts read kinds too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lorascope.adapters.any_peft import ANY_PEFT
from lorascope.adapters.bitfit.kind import BITFIT
from lorascope.adapters.bottleneck.kind import BOTTLENECK
from lorascope.adapters.full.kind import FULL
from lorascope.adapters.ia3 import IA3
from lorascope.adapters.ln import LN
from lorascope.adapters.lora.kind import LORA
from lorascope.adapters.miss import MISS
from lorascope.adapters.oft import OFT
from lorascope.adapters.prompts.kind import PROMPTS
from lorascope.adapters.rate import Rate
from lorascope.adapters.sparse.kind import SPARSE
from lorascope.adapters.vera import VERA
from lorascope.config import AdapterConfig, TrainConfig
from lorascope.errors import ConfigError
from lorascope.records import Dials, LinearShape, Method, ModelParts

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig, PeftModel
    from torch import nn

    from lorascope.adapters.first_samples import FirstSamples
    from lorascope.adapters.stack import LayeredStack

C = TypeVar("C", bound=AdapterConfig)


class AdapterKind(Protocol[C]):
    """One method. All that follows is exact: PEFT's own count and training are the referee."""

    config: type[C]
    """The schema of its section in a configuration, and of conf/<kind>/*.yaml."""
    method: Method
    """Name, label, dials and scale, as readers see them."""
    packed: tuple[str, ...]
    """Settings in which trials that are trained at once may differ; empty for a kind without a
    stack, whose trials are trained one by one."""

    def peft(self, config: C, every: ModelParts, chosen: list[Any]) -> PeftConfig:
        """PEFT's configuration: every method can at least be trained alone, by PEFT's own layers.

        Args:
            every: all that the model has, beside its language model too.
            chosen: the shapes that `select` gives.
        """

    def parameters(self, config: C, shapes: Sequence[Any]) -> int:
        """Trainable parameters of an adapter on layers of these shapes, which `select` gives."""

    unmergeable: str | None
    """Why no adapter of this kind can be merged into the base; None where they can."""

    def unrounded(self, config: C) -> str | None:
        """Why no training step can compute with what a grid makes of merged weights (train.qat);
        None where it can: layers of its stack then have `merged`, or PEFT's a `rounding`."""

    def reads_weights(self, config: C) -> str | None:
        """The setting for which training reads the base's weights, and not only what its layers
        give; None where it does not."""

    def rate(self, config: C, name: str, parameter: nn.Parameter) -> Rate:
        """How fast a parameter learns that PEFT's own layers train, by its name in the base."""

    def begin(self, config: C, model: PeftModel, seed: int, samples: FirstSamples | None) -> None:
        """Let a new adapter on the base read what it begins with, where PEFT has not drawn that.

        Args:
            samples: as many as `config.reads_samples` says; None where it reads none.
        """

    def reading_bytes(self, config: C, shapes: Sequence[Any]) -> int:
        """What `begin` holds at most beside base, adapter and activations; 0 where it reads
        nothing."""

    def stack(
        self,
        configs: Sequence[C],
        shapes: Sequence[LinearShape],
        device: torch.device | str,
        beside: int = 0,
    ) -> LayeredStack | None:
        """Room for the adapters of trials that are trained at once; None where PEFT's own layers
        train one trial.

        Args:
            beside: further values of each trial, behind its adapter's: those of a head.
        """


_ALL = (LORA, IA3, VERA, OFT, MISS, BOTTLENECK, LN, BITFIT, FULL, SPARSE, *PROMPTS, ANY_PEFT)
KINDS: dict[str, AdapterKind[Any]] = {kind.config.kind: kind for kind in _ALL}
DEFAULT_KIND = LORA.config.kind
"""Kind of a study that does not say `adapter=`."""


def kind_of(config: AdapterConfig) -> AdapterKind[Any]:
    """The kind whose settings `config` holds."""
    return KINDS[config.kind]


def require_roundable(config: AdapterConfig, train: TrainConfig) -> None:
    """Raise ConfigError where train.qat asks for a training that this adapter cannot have."""
    reason = None if train.qat is None else kind_of(config).unrounded(config)
    if train.qat is not None and reason is not None:
        able = [name for name, kind in KINDS.items() if kind.unrounded(kind.config()) is None]
        raise ConfigError(
            "train.qat", train.qat.value, f"{config.kind}: {reason}",
            f"Leave train.qat out, or take adapter={' or '.join(able)} as by default.",
        )  # fmt: skip


def is_packed(config: AdapterConfig) -> bool:
    """Whether several of its trials can be trained at once."""
    return bool(kind_of(config).packed) and not config.trained_ends()


def unmerged(name: str) -> str | None:
    """Why trials of the kind `name` cannot be merged; None where they can be, and for a kind that
    only records know."""
    reason = KINDS[name].unmergeable if name in KINDS else None
    return None if reason is None else f"adapter={name} cannot be merged: {reason}"


def method_of(name: str) -> Method:
    """The method of the kind `name`; a kind that only records know has no more than a name."""
    return KINDS[name].method if name in KINDS else Method(name, name)


def kind_name(settings: Mapping[str, object]) -> str:
    """The kind's name in what a trial's record says of its settings."""
    return next((name for name in KINDS if name in settings), DEFAULT_KIND)


def dials_of(config: AdapterConfig) -> Dials:
    """The values that readers see, by name, in the method's order."""
    return {dial.name: getattr(config, dial.name) for dial in kind_of(config).method.dials}


def scale_of(config: AdapterConfig) -> float | None:
    """Factor of the adapter's output; None for a method without one."""
    scale = kind_of(config).method.scale
    return None if scale is None else scale(dials_of(config))


def rank_of(config: AdapterConfig) -> int:
    """Rank of the adapter; 0 for a kind that has none."""
    rank: int = getattr(config, "rank", 0)
    return rank


def highest_rank_of(config: AdapterConfig) -> int:
    """The highest rank on any layer; 0 for a kind that has none."""
    ranks: dict[str, int] = getattr(config, "rank_pattern", {})
    return max((rank_of(config), *ranks.values()))


def at_rank(config: C, rank: int) -> C:
    """`config` at another rank, where the kind has one."""
    return replace(config, rank=rank) if rank_of(config) else config  # type: ignore[call-arg]
