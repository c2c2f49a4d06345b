"""Classification: the cross-entropy of a text's class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lorascope.data.classes import tokenize_texts
from lorascope.data.rows import PreparedRow
from lorascope.data.tokenization import IGNORED_LABEL
from lorascope.errors import DataError
from lorascope.objectives.completion import cross_entropies, pad_samples, padded_to
from lorascope.objectives.kinds import Forward, Losses, Objective, Places, Sample, TokenBatch


class Classification:
    """Negative log-likelihood of the right class, in nats a sample.

    A sample is the text's ids, its class as the only label, and the types of its tokens where two
    texts are told apart. In a batch the class stands at the sample's first token.
    """

    sequences = 1
    has_reference = False

    def samples(
        self, rows: Sequence[PreparedRow], tokenizer: Any, train_on_prompt: bool
    ) -> list[Sample]:
        """A sample a row."""
        return [text.sample for text in tokenize_texts(rows, tokenizer)]

    def validation_samples(self, rows: Sequence[PreparedRow], tokenizer: Any) -> list[Sample]:
        """A sample a row, the longest first."""
        if not rows:
            raise DataError("No rows to measure a loss on. Check the split's row limits.")
        return sorted(self.samples(rows, tokenizer, False), key=lambda s: -len(s[0]))

    def collate(
        self, samples: Sequence[Sample], trials: int, pad_token_id: int, longest: int = 0
    ) -> TokenBatch:
        """A batch of samples that stand trial after trial; a trial's weight is their number."""
        each = len(samples) // trials
        ids, labels, mask = pad_samples([own[:2] for own in samples], pad_token_id, longest)
        labels = torch.nn.functional.pad(
            labels, (0, ids.shape[1] - labels.shape[1]), value=IGNORED_LABEL
        )
        types = [torch.as_tensor(own[2]) for own in samples if len(own) > 2]
        return TokenBatch(
            input_ids=ids,
            attention_mask=mask,
            labels=labels,
            weights=torch.full((trials,), each),
            places=Places(torch.arange(len(samples)) * ids.shape[1], [each] * trials),
            tokens=mask.view(trials, -1).sum(1).tolist(),
            padded=not bool(mask.all()),
            token_types=padded_to(types, 0, ids.shape[1]) if types else None,
        )

    def with_reference(
        self, samples: Sequence[Sample], model: Any, batch_size: int
    ) -> list[Sample]:
        return list(samples)

    def losses(self, forward: Forward, batch: TokenBatch) -> Losses:
        losses = class_losses(forward, batch).view(len(batch.weights), -1)
        return Losses(torch.stack([own.sum() for own in losses.unbind()]))

    def as_served(self) -> Objective:
        return self

    def validation_loss(self, forward: Forward, batch: TokenBatch) -> Tensor:
        return class_losses(forward, batch).sum(dtype=torch.float64)


def class_losses(forward: Forward, batch: TokenBatch) -> Tensor:
    """Cross-entropy [samples] of each sample's class, in FP32."""
    labels = batch.labels.flatten().index_select(0, batch.places.index)
    return forward(batch, batch.places).each(cross_entropies, labels)
