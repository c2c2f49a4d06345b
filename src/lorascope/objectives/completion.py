"""Completion: the cross-entropy of a row's completion, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from lorascope.data.rows import PreparedRow, Segment
from lorascope.data.tokenization import IGNORED_LABEL, tokenize_row, tokenize_rows
from lorascope.errors import DataError
from lorascope.objectives.evaluation import summed_loss
from lorascope.objectives.kinds import Forward, Sample, TokenBatch


class Completion:
    """Negative log-likelihood of the trained tokens, end-of-text included, in nats a token."""

    def samples(
        self, rows: Sequence[PreparedRow], tokenizer: Any, train_on_prompt: bool
    ) -> list[Sample]:
        """Ids and labels of the rows, trained where their segments are."""
        return list(tokenize_rows(rows, tokenizer, train_on_prompt))

    def validation_samples(self, rows: Sequence[PreparedRow], tokenizer: Any) -> list[Sample]:
        """Ids and labels of the rows' last completions, the longest first.

        Raises:
            DataError: there are no rows.
        """
        if not rows:
            raise DataError("No rows to measure a loss on. Check the split's row limits.")
        return sorted((last_completion(row, tokenizer) for row in rows), key=lambda s: -len(s[0]))

    def collate(self, samples: Sequence[Sample], trials: int, pad_token_id: int) -> TokenBatch:
        """A batch of samples that stand trial after trial; its weights are the labels' counts."""
        ids, labels, mask = pad_samples(samples, pad_token_id)
        return TokenBatch(
            input_ids=ids,
            attention_mask=mask,
            labels=labels,
            # No position precedes the first: its label is never predicted.
            weights=(labels[:, 1:] != IGNORED_LABEL).view(trials, -1).sum(1),
            tokens=mask.view(trials, -1).sum(1).tolist(),
            padded=not bool(mask.all()),
        )

    def losses(self, forward: Forward, batch: TokenBatch) -> Tensor:
        """Each trial's summed loss [trials] in FP32."""
        losses = token_losses(forward(batch), batch.labels).view(len(batch.weights), -1)
        # One sum a trial: a sum over an axis may round in another order for another number of them.
        return torch.stack([own.sum() for own in losses.unbind()])

    def validation_loss(self, forward: Forward, batch: TokenBatch) -> Tensor:
        """The summed loss of a batch of one trial, in FP64."""
        losses = token_losses(forward(batch), batch.labels)
        return losses[:, :-1].flatten().sum(dtype=torch.float64)


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the label behind each position, in FP32; 0 where that is ignored.

    logits [rows, tokens, vocabulary], labels [rows, tokens] -> [rows, tokens]. As transformers
    shifts: a position predicts the label behind it, and the last position predicts nothing.
    """
    shifted = functional.pad(labels, (0, 1), value=IGNORED_LABEL)[:, 1:]
    losses = functional.cross_entropy(
        logits.float().flatten(0, 1),
        shifted.flatten(),
        ignore_index=IGNORED_LABEL,
        reduction="none",
    )
    return losses.view(labels.shape)


def completion_loss(
    model: nn.Module, tokenizer: Any, rows: Sequence[PreparedRow], batch_size: int
) -> tuple[float, int]:
    """Loss of the rows' last completions, end-of-text included: (summed nats, tokens).

    Agrees with `score_rows`, that is with lm-eval's log-likelihoods, but for rounding. Earlier
    trained segments of multi-turn rows are read, not counted. The first token of a row without
    prompt is predicted from the beginning-of-text token, or end-of-text where there is none.

    Raises:
        DataError: no rows.
        ModelError: an evaluation would change what a layer of the base stores.
    """
    objective = Completion()
    samples = objective.validation_samples(rows, tokenizer)
    return summed_loss(objective, model, samples, batch_size)


def last_completion(row: PreparedRow, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Ids and labels of one row, the last completion trained alone."""
    segments = [Segment(row.prompt, False), Segment(row.completion, True)]
    ids, labels = tokenize_row(replace(row, segments=[s for s in segments if s.text]), tokenizer)
    if not row.prompt:
        start = tokenizer.bos_token_id
        start = tokenizer.eos_token_id if start is None else start
        if ids[0] != start:
            ids, labels = [start, *ids], [IGNORED_LABEL, ids[0], *labels[1:]]
    return list(ids), list(labels)


def pad_samples(samples: Sequence[Sample], pad_token_id: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, labels and attention mask, each [samples, longest], padded on the right."""
    ids = [torch.as_tensor(own) for own, _ in samples]
    labels = [torch.as_tensor(own) for _, own in samples]
    padded = pad_sequence(ids, batch_first=True, padding_value=pad_token_id)
    lengths = torch.tensor([len(own) for own in ids])
    mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
    return padded, pad_sequence(labels, batch_first=True, padding_value=IGNORED_LABEL), mask
