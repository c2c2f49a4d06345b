"""What a training optimizes: one protocol, and one dict of its kinds.

No torch is imported here: naming an objective must not cost what computing one does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from lorascope.config import PREFERENCES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lorascope.config import TrainConfig
    from lorascope.data.rows import PreparedRow
    from lorascope.machine.ranks import Share
    from lorascope.objectives.logits import Logits

Sample: TypeAlias = "tuple[Sequence[int] | Tensor, ...]"
"""What is learnt from one row. Of a completion: token ids and labels, equally many; a label is -100
where nothing is learnt. An objective may have further parts, which its `collate` reads; none is
longer than the row's longest sequence."""


def longest_tokens(samples: Iterable[Sample]) -> int:
    """Tokens of the longest sequence."""
    return max(len(part) for sample in samples for part in sample)


@dataclass(frozen=True)
class Places:
    """Positions of a batch at which logits are asked for."""

    index: Tensor
    """[places]: row x longest + position of each, rising."""
    counts: list[int]
    """Places of each trial."""


@dataclass(frozen=True)
class TrialRows:
    """A batch with a row for each trial, in which its sequences stand one behind the other.

    Trials with fewer tokens than the one with the most have padding at their end.
    """

    input_ids: Tensor
    """[trials, tokens]"""
    position_ids: Tensor
    """[trials, tokens]: from 0 in each sequence."""
    lengths: list[list[int]]
    """Tokens of each sequence of each trial."""
    starts: Tensor
    """[trials x sequences]: where each begins, counted through all rows."""

    @property
    def tokens(self) -> int:
        """Positions of a row."""
        return self.input_ids.shape[1]

    def places(self, padded: Places, longest: int) -> Places:
        """The places of the padded batch in these rows."""
        index = self.starts[padded.index // longest] + padded.index % longest
        return Places(index, padded.counts)

    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors of the rows."""
        return self.input_ids, self.position_ids, self.starts


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
    reference: Tensor | None = None
    """[trials x samples, longest] in FP32: what the bare base gives each token, as log-probability,
    0 where no label is; None where the objective does not ask for it."""
    token_types: Tensor | None = None
    """[trials x samples, longest]: 1 in the second of two texts, for models that tell them apart;
    None where all are 0."""
    share: Share | None = None
    """Which samples of a micro-batch these are, where other processes compute the rest."""
    lengths: tuple[int, ...] = ()
    """Tokens of each sequence, padding excluded; empty where nobody needs to know."""
    rows: TrialRows | None = None
    """The same without padding, where the model computes that; see `objectives.padding_free`."""

    @property
    def is_idle(self) -> bool:
        """Whether these are another process's samples, computed for company."""
        return self.share is not None and self.share.idle

    @property
    def shape(self) -> tuple[int, ...]:
        """(trials x samples, longest)"""
        return tuple(self.input_ids.shape)

    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors of the batch."""
        own = self.input_ids, self.attention_mask, self.labels, self.weights
        beside = tuple(own for own in (self.reference, self.token_types) if own is not None)
        rows = () if self.rows is None else self.rows.tensors()
        return *own, self.places.index, *beside, *rows

    def to(self, device: torch.device) -> TokenBatch:
        """The batch on `device`. The host does not wait for the copy to a GPU."""
        if device.type == "cpu":
            return self
        names = ("input_ids", "attention_mask", "labels", "weights", "reference", "token_types")
        values = {name: getattr(self, name) for name in names}
        copies = {
            name: value.pin_memory().to(device, non_blocking=True)
            for name, value in {**values, "index": self.places.index}.items()
            if value is not None
        }
        return replace(self, places=Places(copies.pop("index"), self.places.counts), **copies)


@dataclass(frozen=True)
class Losses:
    """What a batch costs each trial."""

    summed: Tensor
    """[trials] in FP32: each trial's summed loss, from which gradients are taken."""
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """Name -> [trials], without gradients: further numbers of the batch, summed as the losses are;
    the log divides them by the same weights."""

    def uncounted(self) -> Losses:
        """Zeros, through which gradients of zero flow."""
        metrics = {name: 0 * values for name, values in self.metrics.items()}
        return Losses(0 * self.summed, metrics)


class Forward(Protocol):
    """A model's forward pass."""

    def __call__(self, batch: TokenBatch, places: Places, adapters: bool = True) -> Logits:
        """Logits at `places` of the batch, its own or others; without adapters those of the frozen
        base that all trials share."""


class Objective(Protocol):
    """What a training lowers, from prepared rows to each trial's loss.

    Training, validation and the memory plan compute the loss by these methods, and in no other way.
    """

    sequences: int
    """Sequences of a sample: rows that it has in a batch."""
    has_reference: bool
    """Whether its loss reads what the bare base gives each token."""

    def samples(
        self, rows: Sequence[PreparedRow], tokenizer: Any, train_on_prompt: bool
    ) -> list[Sample]:
        """What is trained on: a sample a row, in the order of the rows."""

    def validation_samples(self, rows: Sequence[PreparedRow], tokenizer: Any) -> list[Sample]:
        """What is validated on: a sample a row, the longest first; DataError without rows."""

    def with_reference(
        self, samples: Sequence[Sample], model: Any, batch_size: int
    ) -> list[Sample]:
        """The samples with what the bare base `model` gives their tokens, computed once for all
        trials of a pack; as they are where the objective has no reference."""

    def collate(
        self, samples: Sequence[Sample], trials: int, pad_token_id: int, longest: int = 0
    ) -> TokenBatch:
        """A batch of samples that stand trial after trial, equally many of each trial.

        Args:
            longest: tokens to pad to where no sample is as long.
        """

    def losses(self, forward: Forward, batch: TokenBatch) -> Losses:
        """Each trial's summed loss, and what else the log shows."""

    def as_served(self) -> Objective:
        """The objective by which forms of one trained model are held against each other, as they
        are served: without what only training has, such as a reference or a reply that was
        rejected."""

    def validation_loss(self, forward: Forward, batch: TokenBatch) -> Tensor:
        """The summed loss of a batch of one trial, in FP64: over a long split the batches' sizes
        and their order change nothing but its last digits."""


def _completion(trains: Sequence[TrainConfig]) -> Objective:
    from lorascope.objectives.completion import Completion

    return Completion()


def _preference(trains: Sequence[TrainConfig]) -> Objective:
    from lorascope.objectives.preference import Preference

    return Preference(trains)


def _classification(trains: Sequence[TrainConfig]) -> Objective:
    from lorascope.objectives.classification import Classification

    return Classification()


OBJECTIVES: dict[str, Callable[[Sequence[TrainConfig]], Objective]] = {
    "completion": _completion,
    **dict.fromkeys(PREFERENCES, _preference),
    "classification": _classification,
}
"""Objectives by name, made of the settings of each trial. Torch is imported when one is made."""


def objective_of(trains: Sequence[TrainConfig]) -> Objective:
    """What trials that are trained at once lower, each with its own settings."""
    return OBJECTIVES[trains[0].objective](trains)
