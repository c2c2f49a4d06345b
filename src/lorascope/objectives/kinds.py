"""What a training optimizes: one protocol, and one dict of its kinds.

No torch is imported here: naming an objective must not cost what computing one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lorascope.data.rows import PreparedRow
    from lorascope.objectives.logits import Logits

Sample: TypeAlias = "tuple[Sequence[int] | Tensor, Sequence[int] | Tensor]"
"""Token ids and labels, equally many; a label is -100 where nothing is learnt."""


@dataclass(frozen=True)
class Places:
    """Positions of a batch at which logits are asked for."""

    index: Tensor
    """[places]: row x longest + position of each, rising."""
    counts: list[int]
    """Places of each trial."""


@dataclass(frozen=True)
class TokenBatch:
    """Samples of every trial, trial after trial, padded on the right."""

    input_ids: Tensor
    """[trials x samples, longest]"""
    attention_mask: Tensor
    """[trials x samples, longest]: 1 where a token is, 0 where padding is."""
    labels: Tensor
    """[trials x samples, longest]"""
    weights: Tensor
    """[trials]: what a trial's summed loss is divided by, so that it is a mean."""
    places: Places
    """Where labels are predicted: a position before each."""
    tokens: list[int]
    """Tokens of each trial, padding excluded."""
    padded: bool
    """Whether some sample is shorter than the longest."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(trials x samples, longest)"""
        return tuple(self.input_ids.shape)

    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors of the batch."""
        own = self.input_ids, self.attention_mask, self.labels, self.weights
        return *own, self.places.index

    def to(self, device: torch.device) -> TokenBatch:
        """The batch on `device`. The host does not wait for the copy to a GPU."""
        if device.type == "cpu":
            return self
        ids, mask, labels, weights, index = (
            tensor.pin_memory().to(device, non_blocking=True) for tensor in self.tensors()
        )
        places = Places(index, self.places.counts)
        return TokenBatch(ids, mask, labels, weights, places, self.tokens, self.padded)


class Forward(Protocol):
    """A model's forward pass."""

    def __call__(self, batch: TokenBatch, places: Places, adapters: bool = True) -> Logits:
        """Logits at `places` of the batch, its own or others; without adapters those of the frozen
        base that all trials share."""


class Objective(Protocol):
    """What a training lowers, from prepared rows to each trial's loss.

    Training, validation and the memory plan compute the loss by these methods, and in no other way.
    """

    def samples(
        self, rows: Sequence[PreparedRow], tokenizer: Any, train_on_prompt: bool
    ) -> list[Sample]:
        """What is trained on: a sample a row, in the order of the rows."""

    def validation_samples(self, rows: Sequence[PreparedRow], tokenizer: Any) -> list[Sample]:
        """What is validated on: a sample a row, the longest first; DataError without rows."""

    def collate(
        self, samples: Sequence[Sample], trials: int, pad_token_id: int, longest: int = 0
    ) -> TokenBatch:
        """A batch of samples that stand trial after trial, equally many of each trial.

        Args:
            longest: tokens to pad to where no sample is as long.
        """

    def losses(self, forward: Forward, batch: TokenBatch) -> Tensor:
        """Each trial's summed loss [trials] in FP32, from which gradients are taken."""

    def validation_loss(self, forward: Forward, batch: TokenBatch) -> Tensor:
        """The summed loss of a batch of one trial, in FP64: over a long split the batches' sizes
        and their order change nothing but its last digits."""


def _completion() -> Objective:
    from lorascope.objectives.completion import Completion

    return Completion()


OBJECTIVES: dict[str, Callable[[], Objective]] = {"completion": _completion}
"""Objectives by name. Torch is imported when one is made."""
