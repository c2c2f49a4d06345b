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
from lorascope.data.tokenization import IGNORED_LABEL
from lorascope.objectives.completion import completion_loss, last_completion
from lorascope.objectives.evaluation import evaluation_mode


@dataclass(frozen=True)
class MergeCheck:
    """Differences between the merged model and the adapter on its base, over the same rows."""

    items: int
    largest_logit_difference: float
    prediction_agreement: float
    """Share of completion positions where both predict the same next token."""
    adapter_loss_nats: float
    merged_loss_nats: float

    @property
    def loss_gap_nats(self) -> float:
        return abs(self.adapter_loss_nats - self.merged_loss_nats)


@dataclass(frozen=True)
class CheckedRows:
    """The rows that are compared, and how models read them."""

    rows: Sequence[PreparedRow]
    tokenizer: PreTrainedTokenizerBase
    batch_size: int

    def loss_nats(self, model: Any) -> float:
        """Mean loss of a completion token."""
        summed, tokens = completion_loss(model, self.tokenizer, self.rows, self.batch_size)
        return summed / tokens

    def logits(self, model: Any, row: PreparedRow) -> Tensor:
        """Logits that predict the completion, [positions, vocabulary], float32 on the CPU."""
        ids, labels = last_completion(row, self.tokenizer)
        with evaluation_mode(model):
            logits: Tensor = model(input_ids=torch.tensor([ids], device=model.device)).logits
        predicting = torch.tensor(labels[1:]) != IGNORED_LABEL
        return logits[0, :-1].float().cpu()[predicting]


@dataclass(frozen=True)
class MergedPredictions:
    """What the merged model predicts: its logits row by row, each in a file of `folder`."""

    checked: CheckedRows
    folder: Path
    loss_nats: float

    def check(self, adapted: Any) -> MergeCheck:
        """Compare with the adapter on its base."""
        largest, agreeing, positions = torch.zeros(()), 0, 0
        for number, row in enumerate(self.checked.rows):
            ours = self.checked.logits(adapted, row)
            theirs = load_file(_file(self.folder, number))["logits"]
            # Unlike Python's max, torch's keeps a NaN.
            largest = torch.maximum(largest, (ours - theirs).abs().max())
            agreeing += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
            positions += len(ours)
        return MergeCheck(
            items=len(self.checked.rows),
            largest_logit_difference=float(largest),
            prediction_agreement=agreeing / positions,
            adapter_loss_nats=self.checked.loss_nats(adapted),
            merged_loss_nats=self.loss_nats,
        )


def merged_predictions(merged: Any, checked: CheckedRows, folder: Path) -> MergedPredictions:
    """Let the merged model predict the rows, and keep its logits in `folder`."""
    for number, row in enumerate(checked.rows):
        save_file({"logits": checked.logits(merged, row)}, _file(folder, number))
    return MergedPredictions(checked, folder, checked.loss_nats(merged))


def _file(folder: Path, number: int) -> Path:
    return folder / f"row-{number}.safetensors"


def close_enough(check: MergeCheck, unrounded: MergeCheck | None, limits: MergeConfig) -> bool:
    """Whether the merged model is close enough; one with differences that are not finite is not.

    INT8 inference rounds activations, which no merged model does: the merged weights are held to
    the limits without that rounding, and with it to what it does to next tokens and loss.

    Args:
        unrounded: for INT8, the check against the adapter on the dequantized base.
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
