"""Sparse tuning: what is asked for, counted and named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lorascope.adapters.lone import Lone
from lorascope.adapters.targets import peft_targets
from lorascope.config import AdapterConfig
from lorascope.config.bounds import ABOVE_ZERO, ONE_OR_MORE, UP_TO_ONE, bounded, one_of
from lorascope.errors import ConfigError
from lorascope.records import Dial, LinearShape, Method, ModelParts

if TYPE_CHECKING:
    from peft import PeftModel

    from lorascope.adapters.first_samples import FirstSamples

BY_READING = ("gradient", "fisher")
"""Choices that samples decide."""
CHOICES = (*BY_READING, "magnitude", "random")
MOST_WEIGHTS = 2**31 - 1
"""Places in a layer are integers of 32 bits."""
FLOAT32_BYTES = 4


@dataclass
class SparseConfig(AdapterConfig):
    """A share of each layer's weights, which are chosen before the first step and never again: FISH
    masks (Sung et al. 2021, arXiv 2111.09839), here a layer at a time. What is trained and saved is
    the difference to the base's."""

    kind: ClassVar[str] = "sparse"
    learning_rate_factor: float = bounded(10.0, ABOVE_ZERO, "10 is usual.")
    share: float = bounded(0.01, UP_TO_ONE, "Try 0.01.")
    """Share of a layer's weights that is trained: of each layer the same."""
    choice: str = bounded("fisher", one_of("choice", CHOICES))
    """fisher takes the weights with the highest sums of squared gradients of single samples,
    gradient those with the highest gradient of all samples, magnitude the largest weights."""
    samples: int = bounded(32, ONE_OR_MORE, "32 is usual.")
    """Training samples that fisher and gradient read: the first ones of the trial's own order."""
    passes: int = bounded(1, ONE_OR_MORE, "1 is the fastest.")
    """How often they are read, each time for as many layers less: scores take four bytes a weight
    of the layers that are scored at once."""

    def reads_samples(self) -> int:
        return self.samples if self.choice in BY_READING else 0

    def require_layers(self, shapes: Sequence[LinearShape]) -> None:
        for shape in shapes:
            if shape.in_features * shape.out_features > MOST_WEIGHTS:
                raise ConfigError(
                    "sparse.targets", self.targets.value,
                    f"{shape.name} has more than {MOST_WEIGHTS} weights, too many to number",
                    "Choose other layers with sparse=modules sparse.modules=[...].",
                )  # fmt: skip


def trained_weights(share: float, in_features: int, out_features: int) -> int:
    """How many weights of a layer are trained: at least one."""
    return max(1, round(share * in_features * out_features))


class Sparse(Lone):
    """The kind `sparse`."""

    config = SparseConfig
    method = Method(
        SparseConfig.kind,
        "sparse",
        (
            Dial("share", "share", letter="w", is_axis=True, counts=True),
            Dial("choice", "choice", letter="c"),
        ),
    )

    def peft(self, config: SparseConfig, every: ModelParts, chosen: list[LinearShape]) -> Any:
        """A method that PEFT lacks: ours stands among its own. SHiRA, its nearest, has a multiple
        of in + out weights a layer, which no share says."""
        from lorascope.adapters.sparse.layer import PeftSparseConfig

        return PeftSparseConfig(
            share=config.share,
            target_modules=peft_targets(every.linear, chosen),
            task_type="CAUSAL_LM",
        )

    def parameters(self, config: SparseConfig, shapes: Sequence[LinearShape]) -> int:
        """share x in x out a layer, rounded."""
        return sum(trained_weights(config.share, s.in_features, s.out_features) for s in shapes)

    def begin(
        self, config: SparseConfig, model: PeftModel, seed: int, samples: FirstSamples | None
    ) -> None:
        """Choose the weights."""
        from lorascope.adapters.sparse.choosing import choose

        choose(config, model, seed, samples)

    def reading_bytes(self, config: SparseConfig, shapes: Sequence[LinearShape]) -> int:
        """A score a weight of the layers that are scored at once."""
        sizes = [shape.in_features * shape.out_features for shape in shapes]
        parts = [sum(sizes[start :: config.passes]) for start in range(config.passes)]
        return FLOAT32_BYTES * max(parts)


SPARSE = Sparse()
