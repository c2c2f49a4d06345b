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
from lorascope.objectives.kinds import Forward, Losses, Objective, Places, Sample, TokenBatch


class Completion:
    """Negative log-likelihood of the trained tokens, end-of-text included, in nats a token."""

    sequences = 1
    has_reference = False

    def samples(
        self, rows: Sequence[PreparedRow], tokenizer: Any, train_on_prompt: bool
    ) -> list[Sample]:
        """Ids and labels of the rows, trained where their segments are."""
        return list(tokenize_rows(rows, tokenizer, train_on_prompt))

    def validation_samples(self, rows: Sequence[PreparedRow], tokenizer: Any) -> list[Sample]:
        """Ids and labels of the rows' last completions, the longest first."""
        if not rows:
            raise DataError("No rows to measure a loss on. Check the split's row limits.")
        return sorted((last_completion(row, tokenizer) for row in rows), key=lambda s: -len(s[0]))

    def with_reference(
        self, samples: Sequence[Sample], model: Any, batch_size: int
    ) -> list[Sample]:
        return list(samples)

    def collate(
        self, samples: Sequence[Sample], trials: int, pad_token_id: int, longest: int = 0
    ) -> TokenBatch:
        """A batch of samples that stand trial after trial; its weights are the labels' counts."""
        ids, labels, mask = pad_samples(samples, pad_token_id, longest)
        # As transformers shifts: no position precedes the first label, none follows the last.
        predicts = functional.pad(labels[:, 1:] != IGNORED_LABEL, (0, 1))
        weights = predicts.view(trials, -1).sum(1)
        return TokenBatch(
            input_ids=ids,
            attention_mask=mask,
            labels=labels,
            weights=weights,
            places=Places(predicts.flatten().nonzero().flatten(), weights.tolist()),
            tokens=mask.view(trials, -1).sum(1).tolist(),
            padded=not bool(mask.all()),
            lengths=tuple(mask.sum(1).tolist()),
        )

    def losses(self, forward: Forward, batch: TokenBatch) -> Losses:
        losses = token_losses(forward, batch).view(len(batch.weights), -1)
        # One sum a trial: a sum over an axis may round in another order for another number of them.
        return Losses(torch.stack([own.sum() for own in losses.unbind()]))

    def as_served(self) -> Objective:
        return self

    def validation_loss(self, forward: Forward, batch: TokenBatch) -> Tensor:
        losses = token_losses(forward, batch)
        return losses[:, :-1].flatten().sum(dtype=torch.float64)


def token_losses(forward: Forward, batch: TokenBatch) -> Tensor:
    """Cross-entropy [rows, longest] of the label behind each position, in FP32; 0 where that is
    ignored."""
    index = batch.places.index
    labels = batch.labels.flatten().index_select(0, index + 1)
    losses = forward(batch, batch.places).each(cross_entropies, labels)
    # Summed where they stand, zeros among them: the order of a sum decides its last digit.
    return losses.new_zeros(batch.labels.numel()).index_copy(0, index, losses).view(batch.shape)


def cross_entropies(logits: Tensor, labels: Tensor) -> Tensor:
    """[places, vocabulary], [places] -> [places] in FP32."""
    return functional.cross_entropy(logits.float(), labels, reduction="none")


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


def pad_samples(
    samples: Sequence[Sample], pad_token_id: int = 0, longest: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, labels and attention mask, each [samples, longest], padded on the right."""
    ids = [torch.as_tensor(own) for own, *_ in samples]
    labels = [torch.as_tensor(own) for _, own, *_ in samples]
    padded = padded_to(ids, pad_token_id, longest)
    lengths = torch.tensor([len(own) for own in ids])
    mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
    return padded, padded_to(labels, IGNORED_LABEL, longest), mask


def padded_to(values: Sequence[Tensor], filler: int, longest: int) -> Tensor:
    """[values, tokens of the longest, or `longest` where none is as long]."""
    padded = pad_sequence(list(values), batch_first=True, padding_value=filler)
    missing = longest - padded.shape[1]
    return functional.pad(padded, (0, missing), value=filler) if missing > 0 else padded
