"""What happens around each training step: batches go in and are counted, losses come out."""

from __future__ import annotations

import math
import time
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


@dataclass(frozen=True)
class Padding:
    """Makes a batch of samples, padded on the right."""

    pad_token_id: int

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
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class TrainingWatch(TrainerCallback):  # type: ignore[misc]
    """Times the steps, tells progress, and stops a training that diverged."""

    def __init__(self, progress: Progress | None) -> None:
        self.diverged_at: int | None = None
        self.first_step = 0
        self.first_tokens = 0
        self.seconds = 0.0
        self._progress = progress
        self._started = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """After a resume the state says where the former run had got to."""
        self.first_step = state.global_step
        self.first_tokens = int(state.num_input_tokens_seen)
        self._started = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The last step is logged whatever the interval, and not kept as a checkpoint: resuming
        there would train nothing."""
        if state.global_step >= state.max_steps:
            control.should_log = True
            control.should_save = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.seconds = time.perf_counter() - self._started

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
        elif self._progress:
            self._progress(state.global_step, state.max_steps, loss)


def loss_points(state: TrainerState) -> list[LossPoint]:
    """The loss history, that from before a resume included."""
    points = []
    for logs in state.log_history:
        if "loss" in logs:
            norm = logs.get("grad_norm")
            points.append(
                LossPoint(
                    step=int(logs["step"]),
                    loss_nats=float(logs["loss"]),
                    learning_rate=float(logs["learning_rate"]),
                    gradient_norm=None if norm is None else float(norm),
                )
            )
    return points
