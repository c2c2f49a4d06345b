"""The loss of completions in plain torch, and the mode in which models are measured.

Separate from `evaluation` because training children need it and lm-eval costs 2 s of imports.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from lorascope.data.rows import PreparedRow, Segment
from lorascope.data.tokenization import IGNORED_LABEL, tokenize_row
from lorascope.errors import DataError, ModelError

Sample = tuple[list[int], list[int]]
"""Ids and labels."""


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluate without gradients and without traces: every module's training flag comes back.

    Raises:
        ModelError: a 4-bit layer on the CPU would repack its weight in its first forward pass.
    """
    _refuse_repacking(model)
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in flags:
            module.training = training


def _refuse_repacking(model: nn.Module) -> None:
    """bitsandbytes repacks 4-bit weights in eval mode on CPUs with AVX512-BF16; gradients, merging
    and saving are silently wrong afterwards."""
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        on_cpu = isinstance(weight, Tensor) and weight.device.type == "cpu"
        if on_cpu and getattr(module, "support_avx512bf16_for_cpu", False):
            raise ModelError(
                f"{name}: evaluating this 4-bit layer on the CPU would repack its weight, and "
                "training or merging afterwards would be silently wrong. Set "
                "support_avx512bf16_for_cpu = False on every module right after loading."
            )


def completion_loss(
    model: nn.Module, tokenizer: Any, rows: Sequence[PreparedRow], batch_size: int
) -> tuple[float, int]:
    """Loss of the rows' last completions, end-of-text included: (summed nats, tokens).

    Agrees with `score_rows`, that is with lm-eval's log-likelihoods, but for rounding. Earlier
    trained segments of multi-turn rows are read, not counted. The first token of a row without
    prompt is predicted from the beginning-of-text token, or end-of-text where there is none.
    The model's logits are [batch, tokens, vocabulary]; the softmax is taken in FP32.

    Raises:
        DataError: no rows.
        ModelError: a 4-bit layer would repack its weight.
    """
    return loss_of_samples(model, completion_samples(rows, tokenizer), batch_size)


def completion_samples(rows: Sequence[PreparedRow], tokenizer: Any) -> list[Sample]:
    """Ids and labels of the rows' last completions, the longest first.

    Raises:
        DataError: no rows.
    """
    if not rows:
        raise DataError("No rows to measure a loss on. Check the split's row limits.")
    return sorted((last_completion(row, tokenizer) for row in rows), key=lambda s: -len(s[0]))


def loss_of_samples(
    model: nn.Module, samples: Sequence[Sample], batch_size: int
) -> tuple[float, int]:
    """`completion_loss` of what `completion_samples` made: (summed nats, tokens).

    Raises:
        ModelError: a 4-bit layer would repack its weight.
    """
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    with evaluation_mode(model):
        for start in range(0, len(samples), batch_size):
            ids, labels, mask = (
                part.to(device) for part in pad_samples(samples[start : start + batch_size])
            )
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            losses = functional.cross_entropy(
                logits[:, :-1].float().flatten(0, 1),
                labels[:, 1:].flatten(),
                ignore_index=IGNORED_LABEL,
                reduction="none",
            )
            total += float(losses.sum(dtype=torch.float64))
            tokens += int((labels[:, 1:] != IGNORED_LABEL).sum())
    return total, tokens


def last_completion(row: PreparedRow, tokenizer: Any) -> Sample:
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
    samples: Sequence[tuple[list[int] | Tensor, list[int] | Tensor]], pad_token_id: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, labels and attention mask, each [samples, longest], padded on the right."""
    ids = [torch.as_tensor(own) for own, _ in samples]
    labels = [torch.as_tensor(own) for _, own in samples]
    padded = pad_sequence(ids, batch_first=True, padding_value=pad_token_id)
    lengths = torch.tensor([len(own) for own in ids])
    mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
    return padded, pad_sequence(labels, batch_first=True, padding_value=IGNORED_LABEL), mask
