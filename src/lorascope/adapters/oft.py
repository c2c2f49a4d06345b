"""OFT: what is asked for, counted and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from lorascope.adapters.lone import Lone
from lorascope.adapters.targets import peft_targets
from lorascope.config import AdapterConfig
from lorascope.config.bounds import ABOVE_ZERO, BELOW_ONE, Bound, bounded
from lorascope.errors import ConfigError
from lorascope.records import Dial, LinearShape, Method, ModelParts

TWO_OR_MORE = Bound(lambda value: value >= 2, "a block of fewer than 2 inputs cannot be turned")


@dataclass
class OftConfig(AdapterConfig):
    """A rotation of each block of a layer's inputs (Qiu et al. 2023, arXiv 2306.07280; as PEFT
    applies it to inputs, Qiu et al. 2025, arXiv 2506.19847)."""

    kind: ClassVar[str] = "oft"
    learning_rate_factor: float = bounded(3.0, ABOVE_ZERO, "3 is usual.")
    block_size: int = bounded(32, TWO_OR_MORE, "32 is usual.")
    """Inputs that are turned together; where it does not divide a layer's inputs, the divisor that
    is nearest."""
    dropout: float = bounded(0.0, BELOW_ONE, "Try 0.05.")
    """Share of the blocks that a step leaves as they are."""
    block_share: bool = False
    """One rotation for all blocks of a layer."""

    def require_layers(self, shapes: Sequence[LinearShape]) -> None:
        """A block is a part of a layer's inputs."""
        widest = max(shape.in_features for shape in shapes)
        if self.block_size > widest:
            raise ConfigError(
                "oft.block_size", self.block_size, "is more than any layer has inputs",
                f"Set it to {widest} or less.",
            )  # fmt: skip


class Oft(Lone):
    """The kind `oft`."""

    config = OftConfig
    method = Method(
        OftConfig.kind,
        "OFT",
        (
            Dial("block_size", "block size", letter="b", is_axis=True, counts=True),
            Dial("block_share", "shared blocks", counts=True),
        ),
    )

    def peft(self, config: OftConfig, every: ModelParts, chosen: list[LinearShape]) -> Any:
        """By block size; PEFT's r, the number of blocks, follows from it."""
        from peft import OFTConfig

        return OFTConfig(
            r=0,
            oft_block_size=config.block_size,
            module_dropout=config.dropout,
            block_share=config.block_share,
            target_modules=peft_targets(every.linear, chosen),
            task_type="CAUSAL_LM",
        )

    def parameters(self, config: OftConfig, shapes: Sequence[LinearShape]) -> int:
        """size (size - 1) / 2 a block, which a skew-symmetric matrix has."""
        return sum(_blocks(config, shape) for shape in shapes)


def _blocks(config: OftConfig, shape: LinearShape) -> int:
    size = _nearest_divisor(shape.in_features, config.block_size)
    blocks = 1 if config.block_share else shape.in_features // size
    return blocks * size * (size - 1) // 2


@cache
def _nearest_divisor(number: int, wanted: int) -> int:
    """Of two that are equally near the smaller one, as PEFT takes it. Layers of a model have few
    widths, and a report counts them at each rank of each method."""
    divisors = (size for size in range(1, number + 1) if number % size == 0)
    return min(divisors, key=lambda size: (abs(size - wanted), size))


OFT = Oft()
