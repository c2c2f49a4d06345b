"""Scores of a model with a head for classes, item by item."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lorascope.data.rows import PreparedRow
from lorascope.objectives.classification import Classification
from lorascope.objectives.evaluation import evaluation_mode, forward_of, samples_at_once
from lorascope.records import ItemResult
from lorascope.scoring.lm_eval_model import OnProgress
from lorascope.scoring.token_meter import TokenMeter

RULE = {
    "encoding": "the tokenizer's own special tokens stand around one or two texts",
    "loss": "negative log-likelihood of the right class; softmax in float32",
    "classes": "correct: the class with the highest logit is the row's",
}
"""The rules of `score_classes` in words."""


def class_log_probabilities(
    model: Any,
    tokenizer: Any,
    rows: Sequence[PreparedRow],
    batch_size: int,
    on_progress: OnProgress | None = None,
    meter: TokenMeter | None = None,
) -> Tensor:
    """Log-probabilities [rows, classes] in FP32 on the CPU, in the order of the rows.

    Batches hold rows of like lengths, so that few positions are padding; padding changes no row's
    result but for rounding.
    """
    objective, forward = Classification(), forward_of(model)
    samples = objective.samples(rows, tokenizer, False)
    device = model.get_input_embeddings().weight.device
    found: dict[int, Tensor] = {}
    with evaluation_mode(model):
        for numbers in _batches([len(own[0]) for own in samples], batch_size):
            batch = objective.collate([samples[n] for n in numbers], 1, 0).to(device)
            with (meter or TokenMeter()).reading(sum(batch.tokens)):
                logits = forward(batch, batch.places).all().float()
                scores = functional.log_softmax(logits, dim=-1).cpu()
            found |= zip(numbers, scores, strict=True)
            if on_progress:
                on_progress(len(found), len(rows), unit="rows")
    return torch.stack([found[number] for number in range(len(rows))])


def _batches(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Numbers of rows that are read together, the longest first."""
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    start = 0
    while start < len(order):
        size = samples_at_once(batch_size, lengths[order[start]])
        yield order[start : start + size]
        start += size


def score_classes(
    model: Any,
    tokenizer: Any,
    rows: Sequence[PreparedRow],
    batch_size: int,
    on_progress: OnProgress | None = None,
    meter: TokenMeter | None = None,
) -> list[ItemResult]:
    """Score every row: right where the class with the highest logit is the row's, and the loss of
    the right class in nats; results stand in the order of `rows`.

    Raises:
        ModelError: an evaluation would change a stored layer.
    """
    scores = class_log_probabilities(model, tokenizer, rows, batch_size, on_progress, meter)
    labels = [(row.choices or []).index(str(row.answer)) for row in rows]
    predicted: list[int] = scores.argmax(-1).tolist()
    return [
        ItemResult(
            item=row.item,
            prompt_sha256=_digest(row.prompt),
            target_sha256=_digest(row.completion),
            correct=label == said,
            loss_nats=-float(own[label]),
            tokens=1,
            cluster=row.cluster,
            group=row.group,
            label=label,
            predicted=said,
        )
        for row, own, label, said in zip(rows, scores, labels, predicted, strict=True)
    ]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
