"""What happens around each training step: batches go in and are counted, losses come out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorascope.data.tokenization import IGNORED_LABEL
from lorascope.records import LossPoint


class Diverged(Exception):
    """The loss or the adapter became NaN or infinite."""


Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss in nats)."""


@dataclass
class Batches:
    """Pads samples on the right and counts tokens on their way into the model."""

    pad_token_id: int
    processed_tokens: int = 0
    trained_tokens: int = 0

    def __call__(self, samples: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
        """Samples of (input ids, labels) -> tensors of shape [samples, longest sample]."""
        width = max(len(ids) for ids, _ in samples)
        ids = torch.full((len(samples), width), self.pad_token_id)
        labels = torch.full((len(samples), width), IGNORED_LABEL)
        mask = torch.zeros((len(samples), width), dtype=torch.long)
        for row, (sample_ids, sample_labels) in enumerate(samples):
            ids[row, : len(sample_ids)] = torch.tensor(sample_ids)
            labels[row, : len(sample_ids)] = torch.tensor(sample_labels)
            mask[row, : len(sample_ids)] = 1
        self.processed_tokens += int(mask.sum())
        self.trained_tokens += int((labels[:, 1:] != IGNORED_LABEL).sum())
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class LossWatch(TrainerCallback):  # type: ignore[misc]
    """Keeps the loss history, tells progress, and stops a training that diverged."""

    def __init__(self, progress: Progress | None) -> None:
        self.points: list[LossPoint] = []
        self.diverged_at: int | None = None
        self._progress = progress

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        loss = float(logs["loss"])
        if not math.isfinite(loss):
            self.diverged_at = state.global_step
            control.should_training_stop = True
            return
        norm = logs.get("grad_norm")
        rate = float(logs["learning_rate"])
        self.points.append(
            LossPoint(state.global_step, loss, rate, None if norm is None else float(norm))
        )
        if self._progress:
            self._progress(state.global_step, state.max_steps, loss)
