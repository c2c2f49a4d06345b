"""Whether a merged model predicts what the adapter on its base predicts.

The two are never loaded at once. The merged model speaks first, and what it said of each row waits
in a file: the logits of 64 rows take a gigabyte where the vocabulary is large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lorascope.config import MergeConfig
from lorascope.data.rows import PreparedRow
from lorascope.objectives.evaluation import evaluation_mode, forward_of, summed_loss
from lorascope.objectives.kinds import Objective, Sample


@dataclass(frozen=True)
class MergeCheck:
    """Differences between the merged model and the adapter on its base, over the same rows."""

    items: int
    largest_logit_difference: float
    prediction_agreement: float
    """Share of completion positions where both predict the same next token, or of rows that both
    give the same class."""
    adapter_loss_nats: float
    merged_loss_nats: float

    @property
    def loss_gap_nats(self) -> float:
        return abs(self.adapter_loss_nats - self.merged_loss_nats)


class MergedPredictions:
    """What the merged model predicts of some rows: its logits row by row, each in a file."""

    def __init__(
        self,
        merged: Any,
        rows: Sequence[PreparedRow],
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        folder: Path,
        objective: Objective,
    ) -> None:
        self._objective, self._batch_size = objective, batch_size
        self._samples = objective.validation_samples(rows, tokenizer)
        self._files = [folder / f"row-{number}.safetensors" for number in range(len(rows))]
        for sample, file in zip(self._samples, self._files, strict=True):
            save_file({"logits": self._logits(merged, sample)}, file)
        self._loss = self._loss_nats(merged)

    def check(self, adapted: Any) -> MergeCheck:
        """Compare with the adapter on its base."""
        largest, agreeing, positions = torch.zeros(()), 0, 0
        for sample, file in zip(self._samples, self._files, strict=True):
            ours, theirs = self._logits(adapted, sample), load_file(file)["logits"]
            # Unlike Python's max, torch's keeps a NaN.
            largest = torch.maximum(largest, (ours - theirs).abs().max())
            agreeing += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
            positions += len(ours)
        return MergeCheck(
            items=len(self._samples),
            largest_logit_difference=float(largest),
            prediction_agreement=agreeing / positions,
            adapter_loss_nats=self._loss_nats(adapted),
            merged_loss_nats=self._loss,
        )

    def _loss_nats(self, model: Any) -> float:
        """Mean loss, of a completion token or of a row with a class."""
        summed, weight = summed_loss(self._objective, model, self._samples, self._batch_size)
        return summed / weight

    def _logits(self, model: Any, sample: Sample) -> Tensor:
        """Logits that predict the completion [positions, vocabulary], or the class [1, classes], in
        float32 on the CPU."""
        batch = self._objective.collate([sample], 1, 0).to(model.device)
        with evaluation_mode(model):
            return forward_of(model)(batch, batch.places).all().float().cpu()


def close_enough(check: MergeCheck, unrounded: MergeCheck | None, limits: MergeConfig) -> bool:
    """Whether the merged model is close enough; one with differences that are not finite is not.

    INT8 inference rounds activations, which no merged model does: the merged weights are held to
    the limits without that rounding (`unrounded`, against the adapter on the dequantized base), and
    with it to what it does to next tokens and loss.
    """
    exact = unrounded or check
    close = (
        exact.largest_logit_difference <= limits.max_logit_difference
        and exact.prediction_agreement >= limits.min_agreement
        and exact.loss_gap_nats <= limits.max_loss_gap_nats
    )
    rounded_close = (
        check.prediction_agreement >= limits.int8_min_agreement
        and check.loss_gap_nats <= limits.max_loss_gap_nats
    )
    return close and (unrounded is None or rounded_close)
