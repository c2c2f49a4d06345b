"""The training samples that some methods read before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn


class FirstSamples(Protocol):
    """The first training samples of a trial, in the order in which it will train on them."""

    def batches(self, at_once: int | None = None) -> Iterator[Any]:
        """As many as `AdapterConfig.reads_samples` says, at most all that there are; in the trial's
        micro-batches, or so many at once."""

    def loss(self, model: PeftModel, batch: Any) -> Tensor:
        """The batch's summed loss [] with gradients, in the precision and with the activation
        checkpoints of the training."""

    def read(self, model: nn.Module, batch: Any) -> None:
        """The forward pass alone, without gradients, as in an evaluation."""
