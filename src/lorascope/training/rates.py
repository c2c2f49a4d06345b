"""Learning rates inside a trial: by the method's own rule (such as LoRA+), and by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorascope.adapters.decoder import layers_below_top
from lorascope.adapters.rate import PLAIN, Rate
from lorascope.adapters.stack import Stack, VectorPart
from lorascope.config import TrainConfig
from lorascope.errors import ConfigError


@dataclass(frozen=True)
class RatedPart:
    """A stretch of a trial's vector that learns at one rate."""

    start: int
    end: int
    rate: Rate


def rates_of(base: Any, stack: Stack, trains: Sequence[TrainConfig]) -> list[list[RatedPart]]:
    """Stretches of one rate of each trial's vector, in its order; none for a trial that learns at
    one rate throughout.

    With `layer_rate_decay` a layer learns at the rate of the layer above times this factor. The
    last layer has the trial's rate; `layers_below_top` says what stands outside the layers.

    What several layers share stands where the lowest of them does.

    Raises:
        ModelError: rates go by layer, and the base has no list of layers.
        ConfigError: rates go by layer, and all that a trial trains stands in one.
    """
    if all(train.layer_rate_decay == 1 for train in trains):
        return [stretches(parts) for parts in stack.parts]
    below_top = layers_below_top(base)
    for parts, train in zip(stack.parts, trains, strict=True):
        if train.layer_rate_decay != 1 and len({below_top(part.name) for part in parts}) == 1:
            raise ConfigError(
                "train.layer_rate_decay", train.layer_rate_decay,
                "all that is trained here stands in one layer, or in front of all of them, so that "
                "no layer's rate can differ from another's",
                "Leave it at 1, and choose the rate itself with train.learning_rate.",
            )  # fmt: skip
    return [
        stretches(parts, train.layer_rate_decay, below_top)
        for parts, train in zip(stack.parts, trains, strict=True)
    ]


def stretches(
    parts: Sequence[VectorPart], decay: float = 1.0, below_top: Callable[[str], int] = lambda _: 0
) -> list[RatedPart]:
    """Neighbouring parts of one rate as one; nothing where all have the trial's own."""
    found: list[RatedPart] = []
    for part in parts:
        rate = replace(part.rate, times=part.rate.times * decay ** below_top(part.name))
        continues = found and found[-1].rate == rate
        start = found.pop().start if continues else part.start
        found.append(RatedPart(start, part.end, rate))
    return [] if all(part.rate == PLAIN for part in found) else found
