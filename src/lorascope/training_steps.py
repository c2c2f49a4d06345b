"""What happens around each training step of a pack: losses are kept, progress told, time taken."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lorascope.pack_progress import Progress, StepReport
from lorascope.records import LossPoint


class Diverged(Exception):
    """The loss or the adapter became NaN or infinite."""


class PackLog:
    """Each trial's losses and tokens, summed on the device and read now and then."""

    def __init__(self, trials: int, device: torch.device | str) -> None:
        self.points: list[list[LossPoint]] = [[] for _ in range(trials)]
        self.diverged_at: list[int | None] = [None] * trials
        self._sums = torch.zeros(trials, device=device)
        self._tokens = torch.zeros(trials, dtype=torch.int64, device=device)
        self._norms = torch.zeros(trials, device=device)
        self._rates: list[float] = []
        self._logged_step = 0

    @property
    def tokens(self) -> list[int]:
        """That went through the model for each trial, padding apart."""
        counts: list[int] = self._tokens.tolist()
        return counts

    def add_batch(self, losses: Tensor, mask: Tensor) -> None:
        """Add a micro-batch's losses [trials]; mask [trials x samples, tokens]."""
        self._sums += losses
        self._tokens += mask.view(len(losses), -1).sum(1)

    def note_step(self, norms: Tensor, rates: Sequence[float]) -> None:
        """The gradients' norms before clipping, and the learning rates, of the step at hand."""
        self._norms, self._rates = norms, list(rates)

    def close_interval(self, step: int) -> list[float]:
        """Make a point of the steps since the last one: the mean loss of each trial."""
        steps = step - self._logged_step
        losses = [total / steps for total in self._sums.tolist()]
        for index, (loss, norm) in enumerate(zip(losses, self._norms.tolist(), strict=True)):
            if self.diverged_at[index] is not None:
                continue
            if not math.isfinite(loss):
                self.diverged_at[index] = step
                continue
            known = norm if math.isfinite(norm) else None
            self.points[index].append(LossPoint(step, loss, self._rates[index], known))
        self._sums.zero_()
        self._logged_step = step
        return losses

    def state(self) -> dict[str, Any]:
        """All of it as JSON, exactly: a float32 is a Python float, which JSON keeps."""
        return {
            "points": [[asdict(point) for point in points] for points in self.points],
            "diverged_at": self.diverged_at,
            "sums": [value if math.isfinite(value) else None for value in self._sums.tolist()],
            "tokens": self.tokens,
            "logged_step": self._logged_step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """What `state` gave."""
        self.points = [[LossPoint(**point) for point in points] for points in state["points"]]
        self.diverged_at = list(state["diverged_at"])
        sums = [math.nan if value is None else value for value in state["sums"]]
        self._sums.copy_(torch.tensor(sums))
        self._tokens.copy_(torch.tensor(state["tokens"]))
        self._logged_step = int(state["logged_step"])


class TrainingWatch(TrainerCallback):  # type: ignore[misc]
    """Times the steps, tells progress, and ends a training in which every trial diverged, or whose
    progress asks for it."""

    def __init__(self, log: PackLog, log_every_steps: int, progress: Progress) -> None:
        self.first_step = 0
        self.first_tokens = [0] * len(log.points)
        self.seconds = 0.0
        self.stopped = False
        """Whether steps are left that somebody asked not to train now."""
        self._log, self._every = log, log_every_steps
        self._progress = progress
        self._started = 0.0
        self._losses_nats: list[float] = []
        self._tokens = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """After a resume the state says where the former run had got to."""
        self.first_step = state.global_step
        self.first_tokens = self._log.tokens
        self._started = time.perf_counter()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """The last step is logged whatever the interval, and not kept as a checkpoint: resuming
        there would train nothing."""
        step, last = state.global_step, state.global_step >= state.max_steps
        if last or step % self._every == 0:
            self._losses_nats = self._log.close_interval(step)
            self._tokens = sum(self._log.tokens)
            if None not in self._log.diverged_at:
                control.should_training_stop = True
        report = StepReport(step, state.max_steps, self._losses_nats, self._tokens)
        if self._progress(report) and not last and not control.should_training_stop:
            self.stopped = True
            control.should_save = control.should_training_stop = True
        if last:
            control.should_save = False

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.seconds = time.perf_counter() - self._started
